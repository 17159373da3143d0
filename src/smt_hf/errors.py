"""The error that bad input raises, and the words of others' errors in one line."""

from huggingface_hub.errors import StrictDataclassError


class InputError(ValueError):
    """Input that cannot work: one line that names the offending value and the mend.

    The command line prints it without a traceback and exits with code 2.
    """


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks and without the wrapping of strict configurations."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, StrictDataclassError) and len(lines) > 1:
        lines = lines[1:]
    return " ".join(lines).removeprefix("ValueError: ").removeprefix("TypeError: ")
