"""The command `smt-hf`: prints its overview and its version without importing torch.

This module is outside the package because importing `smt_hf` loads the models, which takes seconds.
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
    "tokenize": "encode a corpus before training, on one or more machines",
    "lm": "train a language model to build a teacher on",
    "bptt": "train a student alone by back-propagation through time (BPTT)",
    "finetune": "fine-tune a student by back-propagation through time",
    "evaluate": "measure loss, bits per byte, loss by position and drift",
    "compare": "compare SMT, DMT and BPTT on a synthetic task or a dataset",
    "estimate": "estimate memory, FLOPs, time and cost before you train",
    "serve": "answer OpenAI-style requests over HTTP",
    "export": "export a student to ONNX Runtime or to a web page",
    "push": "share a trained model on the Hub",
}
COMMANDS = {**FIRST, **MORE}


def overview() -> str:
    """The text that `smt-hf` prints when called without a command."""
    first, more = ("".join(f"  {name:10}{what}\n" for name, what in part.items()) for part in (FIRST, MORE))
    return f"""usage: smt-hf COMMAND [MODEL] [--config FILE.yaml] [--FIELD VALUE ...]

Recurrent language models, trained in parallel over time.

start here:
{first}
more commands:
{more}
smt-hf COMMAND --help   explains a command and lists its options
smt-hf --version        prints the version
--import MODULE         imports MODULE first, such as one with your own cell
--debug                 shows the traceback of an error"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0 on success; 1 if a training stopped because its loss was not finite; 2 for any other error, reported
        in one line on standard error; 128 plus the signal's number if a signal ended the command.
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
