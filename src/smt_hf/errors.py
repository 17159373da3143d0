"""The error that bad input raises."""


class InputError(ValueError):
    """Input that cannot work: one line that names the offending value and the mend.

    The command line prints it without a traceback and exits with code 2.
    """
