"""The command `smt-hf`: what it can do and which version it is, said without importing torch.

It stands beside the package since importing `smt_hf` loads the models, which takes seconds.
"""

import difflib
import sys
from importlib.metadata import version

FIRST = {
    "demo": "train a small model on built-in stories and read what it writes",
    "smt": "train teacher and student together (SMT)",
    "dmt": "correct the student on its own states (DMT)",
    "generate": "continue a text with a trained student",
    "app": "write with a student in the browser and watch its memory",
}
MORE = {
    "tokenize": "encode a corpus beforehand, on several machines too",
    "lm": "train the language model that a teacher can be built on",
    "bptt": "train a student alone by back-propagation through time (BPTT)",
    "finetune": "fine-tune a student by back-propagation through time",
    "evaluate": "measure loss, bits per byte, loss by position, drift",
    "compare": "SMT, DMT and BPTT side by side on a synthetic task",
    "estimate": "memory, FLOPs, time and cost of a training beforehand",
    "serve": "answer OpenAI-style requests over HTTP",
    "export": "write a student for ONNX Runtime or as a web page",
    "push": "share a trained model on the Hub",
}
COMMANDS = {**FIRST, **MORE}


def overview() -> str:
    """What `smt-hf` alone prints."""
    first, more = ("".join(f"  {name:10}{what}\n" for name, what in part.items()) for part in (FIRST, MORE))
    return f"""usage: smt-hf COMMAND [MODEL] [--config FILE.yaml] [--FIELD VALUE ...]

Recurrent language models, trained in parallel over time.

start here:
{first}
more commands:
{more}
smt-hf COMMAND --help   explains a command and lists its options
smt-hf --version        prints the version
--import MODULE         first imports a module, such as one with your cell
--debug                 shows where an error arose"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0; 1 for a training whose loss became no number; 2 for everything else that went wrong, told in one line
        on standard error; 128 and the signal's number when one ended the command.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(version("smt-hf"))
        return 0
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(COMMANDS)}"
        print(f"smt-hf: error: unknown command {argv[0]!r}: {hint}", file=sys.stderr)
        return 2
    from smt_hf.cli.main import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(main())
