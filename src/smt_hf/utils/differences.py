"""Finds where two nested JSON values differ."""


def differences(old, new, name: str = "") -> dict[str, tuple]:
    """The parts in which two JSON values differ.

    Args:
        old, new: JSON values. Mappings are compared entry by entry, where a missing one counts as `None`; lists of the same
            length are compared item by item.
        name: name of the values, as a prefix for the names of their parts.

    Returns:
        The values in `old` and in `new`, by dotted name, in the order of `new`.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = {key: (old.get(key), new.get(key)) for key in [*new, *old]}
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = dict(enumerate(zip(old, new, strict=True)))
    else:
        return {} if old == new else {name: (old, new)}
    found = {}
    for key, pair in pairs.items():
        found |= differences(*pair, f"{name}.{key}".lstrip("."))
    return found
