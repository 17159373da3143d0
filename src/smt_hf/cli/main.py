"""The command `smt-hf`."""

import contextlib
import importlib
import os
import signal
import sys
import threading

from ..errors import Interrupted, explain
from ..utils.folder_lock import release_folders
from ..utils.typed import did_you_mean

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
TRAINER_DEBUG = ("underflow_overflow", "tpu_metrics_debug")  # values of the Trainer's own --debug


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0; 1 for a training whose loss became no number; 2 for everything else that went wrong, told in one line
        on standard error; 128 and the signal's number when one ended the command.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE + "\n`smt-hf COMMAND --help` tells more; with --debug, errors show where they arose.")
        return 0 if argv else 2
    if argv[0] == "--version":
        from .._version import __version__

        print(__version__)
        return 0
    if argv[0] not in COMMANDS:
        hint = did_you_mean(argv[0], COMMANDS) or f"choose one of {', '.join(COMMANDS)}"
        print(f"smt-hf: error: unknown command {argv[0]!r}: {hint}", file=sys.stderr)
        return 2
    return run(argv[0], argv[1:])


def run(command: str, argv: list[str]) -> int:
    """Runs the module of a command; every way out of it leads through here. See [`main`] for the exit codes."""
    debug, argv = wants_debug(argv)
    keep_text(sys.stdout, sys.stderr)
    before = handle_sigterm()
    try:
        with contextlib.suppress(SystemExit):  # --help
            importlib.import_module(f".{command}", __package__).main(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write has no reader
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, Interrupted) as end:
        end = end if isinstance(end, Interrupted) else Interrupted()
        print(f"smt-hf {command}: {end}", file=sys.stderr)
        return end.exit_code
    except Exception as error:
        if debug:
            raise
        stopped = isinstance(error, FloatingPointError)
        said = str(error) if stopped else explain(error)
        print(f"smt-hf {command}: {'stopped' if stopped else 'error'}: {said}", file=sys.stderr)
        return 1 if stopped else 2
    finally:
        release_folders()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return 0


def wants_debug(argv: list[str]) -> tuple[bool, list[str]]:
    """Whether --debug is among the words, and the words without it; the Trainer has a --debug with a value of its own."""
    following = [*argv[1:], ""]
    places = [
        place
        for place, word in enumerate(argv)
        if word == "--debug" and not any(following[place].startswith(value) for value in TRAINER_DEBUG)
    ]
    return bool(places), [word for place, word in enumerate(argv) if place not in places]


def keep_text(*streams) -> None:
    """Lets streams that are not UTF-8 write every character, as an escape where need be, instead of failing at one."""
    for stream in streams:
        if hasattr(stream, "reconfigure") and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


def handle_sigterm():
    """Lets SIGTERM end a command as Ctrl-C does; returns the handler before, `None` outside the main thread."""

    parent = os.getpid()

    def end(number, frame):
        if os.getpid() != parent:  # a worker that was forked with this handler
            os._exit(128 + number)
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, end)


if __name__ == "__main__":
    sys.exit(main())
