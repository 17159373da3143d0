"""The errors that end a command, and one-line messages for errors of other libraries."""

import errno
import os
import re
import signal

from huggingface_hub.errors import StrictDataclassError


class InputError(ValueError):
    """Input that cannot work; the one-line message names the offending value, the reason and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(BaseException):
    """Raised when a signal ends a command.

    Args:
        number: the number of the signal.
        message: what was saved, and how to continue.
    """

    def __init__(self, number: int = signal.SIGINT, message: str = "interrupted"):
        super().__init__(message)
        self.exit_code = 128 + number


REMEDIES = {
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EFBIG: "raise the limit on the size of files, or choose another place",
    errno.EACCES: "choose a place that you have access to, or change its permissions",
    errno.EPERM: "choose a place that you have access to, or change its permissions",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "there is a file where a folder should be: choose another path",
    errno.EEXIST: "there is a file where a folder should be: choose another path",
    errno.EISDIR: "there is a folder where a file should be: choose another path",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}

IN_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")  # torch's prefix for a data worker's errors

# The extras that install optional packages.
EXTRAS = {
    "PIL": "'smt-hf[pixels]'",
    "fastapi": "'smt-hf[serve]'",
    "gradio": "'smt-hf[app]'",
    "matplotlib": "'smt-hf[plot]'",
    "onnx": "'smt-hf[onnx]'",
    "onnxruntime": "'smt-hf[onnx]'",
    "onnxscript": "'smt-hf[onnx]'",
    "peft": "'smt-hf[peft]'",
    "prometheus_client": "'smt-hf[serve]'",
    "sklearn": "'smt-hf[pixels]'",
    "trl": "'smt-hf[trl]'",
    "uvicorn": "'smt-hf[serve]'",
}


def one_line(error: BaseException) -> str:
    """The message of an error in one line, without what strict configurations and data workers wrap around it."""
    text = str(error)
    if IN_A_WORKER.match(text):  # the text is the worker's traceback, which ends in the message
        text = text.rpartition(f"{type(error).__name__}: ")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(error, StrictDataclassError) and len(lines) > 1:
        lines = lines[1:]
    return " ".join(lines).removeprefix("ValueError: ").removeprefix("TypeError: ")


def explain(error: BaseException) -> str:
    """Describes any error in one line for the command line, with a remedy if one is known.

    For system errors it names the file, and for unexpected errors the type, so that they can be reported.
    """
    if isinstance(error, InputError):
        return one_line(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{str(error.filename)!r}: " if error.filename is not None else ""
        remedy = REMEDIES.get(error.errno)
        return f"{where}{error.strerror}" + (f": {remedy}" if remedy else "")
    text = one_line(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        return f"there is not enough memory ({text or 'allocation failed'}): lower the sizes or the batch size"
    for number in (errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EROFS):
        if os.strerror(number) in text:  # from libraries that write files themselves
            return f"{text}: {REMEDIES[number]}"
    if "file write failed" in text or "unexpected pos" in text:  # torch.save
        return f"a file could not be written completely ({text}): {REMEDIES[errno.ENOSPC]}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name!r} is missing: pip install {EXTRAS.get(error.name, error.name)}"
    if isinstance(error, ValueError | RuntimeError | ImportError | OSError) and text:  # the library's own message
        return text
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)"
