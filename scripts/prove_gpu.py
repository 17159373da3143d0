"""Runs Supervised Memory Training on a GPU: checks against the CPU, speeds at the paper's size, a race on real text.

    python scripts/prove_gpu.py --output out                                     # on a GPU, in ten minutes
    python scripts/prove_gpu.py --output out --sections race --train T --valid V # token caches of real text
    python scripts/prove_gpu.py --output out --device cpu                        # the same, small, on a CPU

Writes `gpu.json` and `gpu.md` after every section. Sections are ordered by importance; those that no longer fit into `--minutes` are
left out and named. The arms of the race share the time that is left when it begins; the sections before it leave some.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
import traceback
from pathlib import Path

BEGIN = time.perf_counter()

import torch  # noqa: E402 - imports count
import transformers  # noqa: E402
from gpu_checks import CHECKS, count_waits  # noqa: E402
from gpu_page import page  # noqa: E402
from gpu_steps import (  # noqa: E402
    compile_cell,
    matrix_flops,
    peak_flops,
    time_attention,
    time_generation,
    time_graphed_step,
    time_methods,
    window_flops,
)
from training_setup import SIZES, corpus, methods  # noqa: E402

SECTIONS = (
    "environment",
    "checks",
    "steps",
    "generation",
    "waits",
    "graphs",
    "compiled",
    "race",
    "attention",
    "flops",
)
FOR_THE_RACE = 150.0  # seconds that the sections before the race leave for it, if it is to run
ARM_START = 20.0  # seconds that an arm of the race needs besides its training


class Proof:
    """The sections, each of which fills a part of the results."""

    def __init__(self, options):
        self.options, self.sizes, self.device = options, SIZES[options.sizes], options.device
        self.results = json.loads(Path(options.add_to).read_text()) if options.add_to else {"sections": {}}
        self.folder = Path(options.output)
        self.folder.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        """Seconds left in the budget."""
        return 60 * self.options.minutes - (time.perf_counter() - BEGIN)

    def left_before_the_race(self) -> float:
        """Seconds left for the sections before the race."""
        return self.left() - (FOR_THE_RACE if "race" in self.options.sections else 0.0)

    def save(self, name: str, found) -> None:
        """Writes the results so far, as JSON and as a page."""
        self.results[name] = found
        (self.folder / "gpu.json").write_text(json.dumps(self.results, indent=1), encoding="utf-8")
        try:
            (self.folder / "gpu.md").write_text(page(self.results), encoding="utf-8")
        except Exception:  # the numbers matter more than their page
            traceback.print_exc()

    def run(self) -> bool:
        """Runs all sections. Returns `False` if one failed."""
        for name in self.options.sections:
            begin, error = time.perf_counter(), None
            if self.left() < 15:
                self.results["sections"][name] = {"skipped": "no time left"}
                print(f"== {name}: skipped, no time left", flush=True)
                self.save(name, None)
                continue
            print(f"== {name} ({self.left():.0f} s left)", flush=True)
            try:
                self.save(name, getattr(self, name)())
            except Exception:
                error = traceback.format_exc()
                print(error, flush=True)
            self.results["sections"][name] = {"seconds": round(time.perf_counter() - begin, 1), "error": error}
            self.save(name, self.results.get(name))
            print(json.dumps(self.results.get(name))[:3000], flush=True)
        failed = any(not check["passed"] for check in self.results.get("checks", {}).values())
        return not failed and not any(section.get("error") for section in self.results["sections"].values())

    def environment(self) -> dict:
        cuda = self.device == "cuda"
        name = (
            torch.cuda.get_device_name()
            if cuda
            else f"a CPU ({platform.machine()}), threads: {torch.get_num_threads()}"
        )
        return {
            "device": name,
            "sizes": self.options.sizes,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "gpus": torch.cuda.device_count() if cuda else 0,
            "peak_flops": peak_flops(name) if cuda else None,
            "matrix_flops": matrix_flops(self.device, 8192 if cuda else 512),
            "import_seconds": round(time.perf_counter() - BEGIN, 1),
        }

    def checks(self) -> dict:
        found = {}
        for name, check in CHECKS.items():
            try:
                found[name] = {"passed": True, "found": check(self.device)}
            except Exception:
                found[name] = {"passed": False, "error": traceback.format_exc()[-3000:]}
                print(name, found[name]["error"], flush=True)
            self.save("checks", found)
        return found

    def steps(self) -> dict:
        return time_methods(
            self.sizes,
            corpus(self.options.train),
            self.device,
            self.options.seconds,
            lambda found: self.save("steps", found),
            self.left,
        )

    def attention(self) -> dict:
        if self.device == "cpu":
            return {"skipped": "the kernels that are compared are a GPU's"}
        return time_attention(
            self.sizes,
            corpus(self.options.train),
            self.device,
            self.options.seconds,
            lambda found: self.save("attention", found),
            self.left,
        )

    def compiled(self) -> dict:
        return time_methods(
            self.sizes,
            corpus(self.options.train),
            self.device,
            self.options.seconds,
            lambda found: self.save("compiled", found),
            self.left_before_the_race,
            prepare=compile_cell,
            only=("carried", "sequential", "BPTT over", "SMT"),
        )

    def graphs(self) -> dict:
        if self.device == "cpu":
            return {"skipped": "CUDA graphs need a GPU"}
        found = {}
        chosen = {name: fields for name, (kind, fields) in methods(self.sizes).items() if kind == "bptt"}
        for name, fields in chosen.items():
            if "carried" in name:
                name, fields = name.replace(", carried", ""), {**fields, "context_length": fields["bptt_horizon"]}
            for compiled in (False, True):
                label = f"{name}, {'compiled' if compiled else 'eager kernels'}"
                if self.left_before_the_race() < 40:
                    found[label] = {"skipped": "no time left"}
                    continue
                try:
                    found[label] = time_graphed_step(fields, self.sizes, corpus(self.options.train), compiled, 12)
                except Exception as error:
                    found[label] = {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
                self.save("graphs", found)
        return found

    def flops(self) -> dict:
        """FLOPs of one window, method by method. They are the same on every machine, so no GPU is needed for them."""
        found, cache = {}, corpus(self.options.train)
        for name, (kind, fields) in methods(self.sizes).items():
            found[name] = window_flops(kind, fields, self.sizes, cache)
            self.save("flops", found)
        return found

    def generation(self) -> dict:
        return time_generation(self.sizes, self.device, 64 if self.device == "cuda" else 16)

    def waits(self) -> dict:
        return count_waits(self.device)

    def race(self) -> dict:
        found = {}
        for place, arm in enumerate(self.options.arms):
            share = self.left() / (len(self.options.arms) - place) - ARM_START
            seconds = round(min(share, self.options.race_seconds), 1)
            if seconds < 5:
                found[arm] = {"skipped": "no time left"}
                continue
            file = self.folder / f"race_{arm}.json"
            command = [sys.executable, str(Path(__file__).with_name("gpu_race.py"))]
            command += ["--arm", arm, "--seconds", seconds, "--output", file]
            command += ["--device", self.device, "--sizes", self.options.sizes]
            command += ["--num_windows", 256 if self.device == "cuda" else 8]
            for name in ("train", "valid"):
                if getattr(self.options, name):
                    command += [f"--{name}", getattr(self.options, name)]
            command += ["--compile"] if self.options.compile else []
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            found[arm] = json.loads(file.read_text()) if file.is_file() else {"error": done.stderr[-3000:]}
            file.unlink(missing_ok=True)
            print(done.stdout[-1500:], flush=True)
            self.save("race", found)
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--sizes", choices=list(SIZES), help="by default, paper on a GPU and small on a CPU")
    parser.add_argument("--minutes", type=float, default=9.5, help="total time; what does not fit is left out")
    parser.add_argument("--seconds", type=float, default=10.0, help="maximum seconds of timed steps for every method")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--arms", nargs="+", default=["smt", "bptt_truncated", "bptt"], help="arms of the race")
    parser.add_argument(
        "--race_seconds", type=float, default=60.0, help="seconds of training for every arm, if there is time"
    )
    parser.add_argument("--compile", action="store_true", help="compile the recurrence in the race")
    parser.add_argument("--train", help="token cache to train on; the demo's stories by default")
    parser.add_argument(
        "--valid", help="token cache of held-out text, for the race; others of the demo's stories by default"
    )
    parser.add_argument("--add_to", help="a gpu.json with other sections, such as FLOPs counted elsewhere")
    parser.add_argument("--output", required=True, help="folder for gpu.json and gpu.md")
    options = parser.parse_args()
    options.sizes = options.sizes or ("small" if options.device == "cpu" else "paper")
    proof = Proof(options)
    fine = proof.run()
    print((proof.folder / "gpu.md").read_text(encoding="utf-8"))
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
