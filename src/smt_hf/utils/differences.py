"""Where two nested values of JSON differ."""


def differences(old, new, name: str = "") -> dict[str, tuple]:
    """The parts in which two values of JSON differ.

    Args:
        old, new: values of JSON; mappings are compared entry by entry, an absent one counting as `None`, and lists of one
            length item by item.
        name: of the values, for the names of their parts.

    Returns:
        By dotted name what stands in `old` and in `new`; in the order of `new`.
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
