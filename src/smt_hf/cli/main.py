"""Running one command of `smt-hf`."""

import contextlib
import importlib
import os
import signal
import sys
import threading

from ..errors import Interrupted, explain
from ..utils.folder_lock import release_folders
from ..utils.imports import load_module

TRAINER_DEBUG = ("underflow_overflow", "tpu_metrics_debug")  # values of the Trainer's own --debug


def main(argv: list[str]) -> int:
    """Runs one command, and handles every way in which it can end. See [`smt_hf_command.main`] for the exit codes.

    Args:
        argv: the name of an existing command, and its arguments.
    """
    command, *argv = argv
    debug, argv = wants_debug(argv)
    keep_text(sys.stdout, sys.stderr)
    before = handle_sigterm()
    try:
        with contextlib.suppress(SystemExit):  # --help
            argv = import_modules(argv)
            importlib.import_module(f".{command}", __package__).main(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads what is left to write
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
    """Whether --debug was given, and the words without it; the Trainer's own --debug, which takes a value, stays."""
    following = [*argv[1:], ""]
    places = [
        place
        for place, word in enumerate(argv)
        if word == "--debug" and not any(following[place].startswith(value) for value in TRAINER_DEBUG)
    ]
    return bool(places), [word for place, word in enumerate(argv) if place not in places]


def import_modules(argv: list[str]) -> list[str]:
    """Imports the module of each `--import MODULE`, such as one with the user's own cell, and returns the other words.

    Raises:
        InputError: if a module cannot be imported.
    """
    others, words = [], iter(argv)
    for word in words:
        if word == "--import":
            load_module(next(words, ""))
        else:
            others.append(word)
    return others


def keep_text(*streams) -> None:
    """Makes streams that are not UTF-8 escape the characters that they cannot write, instead of failing."""
    for stream in streams:
        if hasattr(stream, "reconfigure") and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


def handle_sigterm():
    """Makes SIGTERM end a command as Ctrl-C does; returns the previous handler, or `None` outside the main thread."""

    parent = os.getpid()

    def end(number, frame):
        if os.getpid() != parent:  # a worker that was forked with this handler
            os._exit(128 + number)
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, end)
