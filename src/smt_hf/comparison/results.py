"""Reads and selects the results in a comparison's folder, with the budgets spent on them."""

from pathlib import Path

from ..errors import InputError
from .result_file import RESULT, load_result

BUDGETS = {
    "tokens": "tokens",
    "flops": "FLOPs",
    "sequential_flops": "sequential FLOPs",
    "cpu_seconds": "CPU seconds",
    "wall_seconds": "wall seconds",
}


def read_results(output_dir: str) -> list[dict]:
    """All results in a comparison's folder, with the budgets spent on the way.

    Steps of curricula are left out, as are results without that of an earlier stage, whose spending is unknown.

    Raises:
        InputError: if there is no result, one is damaged, or they belong to several tasks.
    """
    files = sorted(Path(output_dir).glob(f"*/*/seed-*/*/{RESULT}"))
    results = [load_result(file) for file in files]
    for result in results:
        settings = result["settings"]
        result |= {name: settings[name] for name in ("cell", "length", "data_share", "seed") if name in settings}
        result["stages"] = [stage["name"] for stage in settings["stages"]]
        labels = [stage["label"] for stage in settings["stages"]]
        result["shown"] = labels[-1] is not None
        result["method"] = " → ".join(label for label in labels if label is not None)
        result["after"] = " → ".join(label for label in labels[:-1] if label is not None)
        if result["shown"] and "length" in result:
            result["accuracy"] = result["student"][str(result["length"])]["accuracy"]
    subjects = sorted({subject_of(result["settings"]) for result in results})
    if len(subjects) > 1:
        raise InputError(
            f"{output_dir!r} contains results of several tasks, {', '.join(subjects)}: give each a folder of its own"
        )
    by_run = {(*run_of(result), result["stages"][-1]): result for result in results}
    whole = []
    for result in results:
        if not result["shown"]:
            continue
        cell, variant, seed = run_of(result)  # no length: a stage shared by the runs of every length
        chain = [
            by_run.get((cell, variant, seed, name)) or by_run.get((cell, None, seed, name))
            for name in result["stages"]
        ]
        if None not in chain:
            backbone = [
                stage["trace"][-1] for stage in chain if stage["settings"]["stages"][-1].get("trainer") == "lm"
            ]
            spent = {name: sum(end[name] for end in backbone) for name in BUDGETS} if backbone else {}
            whole.append({**result, "path": whole_path(chain), "backbone": spent})
    if not whole:
        raise InputError(f"{output_dir!r} contains no results: train first, or fix output_dir")
    return whole


def subject_of(settings: dict) -> str:
    """Describes what a result's student was measured on."""
    if "task" in settings:
        return f"{settings['task']} {settings['task_options']}"
    return f"held-out {settings['unit']}s {settings['corpus']['held_out']}"


def run_of(result: dict) -> tuple:
    """What all stages of one run have in common."""
    return result["cell"], result.get("length", result.get("data_share")), result["seed"]


def whole_path(chain: list[dict]) -> list[dict]:
    """The measurements of a chain of stages, each with everything spent up to it.

    Steps of a curriculum count as spent, but their measurements are left out, since they are on other rows.
    """
    spent, path = dict.fromkeys(("steps", *BUDGETS), 0), []
    for result in chain:
        points = [{**point, **{name: spent[name] + point[name] for name in spent}} for point in result["trace"]]
        spent = {name: points[-1][name] for name in spent}
        path += points if result["shown"] else []
    return path


def methods(results: list[dict]) -> list[tuple[str, str]]:
    """Cells and methods: SMT and the methods that continue from it first, shorter chains before longer ones."""
    found = {(result["cell"], result["method"]) for result in results}
    return sorted(found, key=lambda pair: (pair[0], "SMT" not in pair[1], pair[1].count("→"), pair[1]))


def chosen(results: list[dict], **values) -> list[dict]:
    """The results with these values, such as those of one method at one length: one per seed."""
    return [result for result in results if values.items() <= result.items()]
