"""The command `smt-hf`."""

import importlib
import sys

from ..errors import InputError

COMMANDS = {
    "demo": "train on built-in stories, correct the student, and read what it writes: minutes on a laptop",
    "smt": "train teacher and student together (SMT)",
    "dmt": "correct the student on its own states (DMT)",
    "bptt": "train a student alone by back-propagation through time (BPTT)",
    "finetune": "fine-tune a student by back-propagation through time",
    "compare": "SMT, DMT and BPTT side by side on a synthetic task",
    "evaluate": "measure student and teacher: loss, bits per byte, loss by position, drift",
    "generate": "continue a text",
    "push": "share a trained folder on the Hub",
    "serve": "answer OpenAI-style requests over HTTP",
    "app": "write with a student in the browser and watch its memory",
}
USAGE = "usage: smt-hf COMMAND [--config FILE.yaml] [--FIELD VALUE ...]\n\ncommands:\n" + "".join(
    f"  {name:10}{what}\n" for name, what in COMMANDS.items()
)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; bad input is one line on standard error and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE + "\n`smt-hf COMMAND --help` tells more.")
        return 0 if argv else 2
    if argv[0] == "--version":
        from .. import __version__

        print(__version__)
        return 0
    if argv[0] not in COMMANDS:
        print(f"smt-hf: error: unknown command {argv[0]!r}: choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return run(argv[0], argv[1:])


def run(command: str, argv: list[str]) -> int:
    """Runs the module of a command."""
    module = importlib.import_module(f".{command}", __package__)
    try:
        module.main(argv)
    except InputError as error:
        print(f"smt-hf {command}: error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"smt-hf {command}: stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
