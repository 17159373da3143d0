"""Text that is not valid Unicode."""


def readable(text: str) -> str:
    """A text with U+FFFD for every half of a surrogate pair, which UTF-8 has no bytes for.

    Command lines produce such halves for bytes that are not UTF-8, JavaScript for half of an emoji.
    """
    return "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)
