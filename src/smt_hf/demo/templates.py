"""The templates of the built-in stories, compiled to functions; `stories.yaml` explains how they are written."""

import re
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Draws", "Template", "compile_template"]


class Draws:
    """What a template reads and draws from.

    Args:
        random: a function that draws from [0, 1), like `random.Random.random`. Nothing else is called, because only this draws
            the same numbers in every Python version.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.random = random
        self.names: dict[str, str] = {}

    def pick(self, options: Sequence[Any]) -> Any:
        """One of the options, all equally likely."""
        return options[int(len(options) * self.random())]


Template = Callable[[Draws], str]

_BREAK_AT_A_MARK = re.compile(r"(?<=[\[|])\s*\n\s*|\s*\n\s*(?=[\]|}])")
_SLOT = re.compile(r"([\w+]+)(?:( = |:\s+)(.*))?", re.DOTALL)
_CASE = re.compile(r"([\w, ]+) = (.*)", re.DOTALL)


def compile_template(text: str, phrases: dict[str, Template]) -> Template:
    """Compiles a template, so that it is not parsed again for every story.

    Args:
        text: the template.
        phrases: the templates that it may name, looked up when it is told.

    Returns:
        A function that tells the template in the order of the text. Every alternative is told before one of them is picked.

    Raises:
        ValueError: if a bracket or brace is not closed.
    """
    tokens = [token for token in re.split(r"([\[\]{}|])", _BREAK_AT_A_MARK.sub("", text)) if token]
    return _sequence(tokens[::-1], phrases, end="")


def _sequence(tokens: list[str], phrases: dict[str, Template], end: str) -> Template:
    """Reads up to a token in `end`, which is left in place. The tokens are in reverse order, with the next one last."""
    parts: list[str | Template] = []
    while tokens and tokens[-1] not in (*end,):
        token = tokens.pop()
        if token == "[":
            parts.append(_choice(_alternatives(tokens, phrases, "]")))
        elif token == "{":
            parts.append(_slot(tokens, phrases))
        else:
            parts.append(token)
    if end and not tokens:
        raise ValueError(f"a template ends before its {end[-1]!r}: close it")
    return lambda draws: "".join([part if isinstance(part, str) else part(draws) for part in parts])


def _alternatives(tokens: list[str], phrases: dict[str, Template], end: str) -> list[Template]:
    options = []
    while True:
        options.append(_sequence(tokens, phrases, "|" + end))
        if tokens.pop() == end:
            return options


def _choice(options: list[Template]) -> Template:
    return lambda draws: draws.pick([option(draws) for option in options])


def _slot(tokens: list[str], phrases: dict[str, Template]) -> Template:
    name, sign, rest = _SLOT.fullmatch(tokens.pop()).groups()
    if sign is None:
        tokens.pop()
        return _value(name, phrases)
    if rest:
        tokens.append(rest)
    if sign != " = ":
        return _switch(name, tokens, phrases)
    value = _sequence(tokens, phrases, "}")
    tokens.pop()

    def assign(draws: Draws) -> str:
        draws.names[name] = value(draws)
        return ""

    return assign


def _value(name: str, phrases: dict[str, Template]) -> Template:
    if name[0].isupper():
        return lambda draws: draws.names[name.lower()].capitalize()
    if name in phrases:
        return lambda draws: phrases[name](draws)
    return lambda draws: draws.names[name]


def _switch(name: str, tokens: list[str], phrases: dict[str, Template]) -> Template:
    cases: dict[str, Template] = {}
    otherwise: Template | None = None
    while True:
        case = _CASE.fullmatch(tokens[-1])
        if case:
            tokens[-1] = case[2]
        told = _sequence(tokens, phrases, "|}")
        if case:
            cases.update(dict.fromkeys(case[1].split(", "), told))
        else:
            otherwise = told
        if tokens.pop() == "}":
            return lambda draws: cases.get(draws.names[name], otherwise)(draws)
