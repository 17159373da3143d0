"""Handles text that is not valid Unicode."""


def readable(text: str) -> str:
    """Replaces every half of a surrogate pair, which UTF-8 cannot encode, by U+FFFD.

    Command lines produce such halves for bytes that are not UTF-8, JavaScript for half of an emoji.
    """
    return "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)
