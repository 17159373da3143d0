"""A seeded generator of small children's stories, for demos and tests on machines without a network.

The stories are in the spirit of TinyStories: a few hundred simple words, correct grammar, a beginning and an end.
Every story names its hero, an object with its color and a place early on, and needs them again at the end, so that
the memory of a language model can be judged. The words and plots are in `stories.yaml`.
"""

import functools
import math
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from .templates import Draws, Template, compile_template

__all__ = ["STORY_SEPARATOR", "Story", "generate_stories", "generate_story", "tell_story", "write_stories"]

STORY_SEPARATOR = "<|endoftext|>"
"""The line that follows each story in a file of stories, as in the TinyStories text files."""


class Story(NamedTuple):
    """A story with the facts that it mentions early and needs again at the end.

    Attributes:
        text: The story, with a newline between paragraphs and none at the end.
        plot: The name of the plot, such as `"lost_toy"`.
        hero: The name of the hero, such as `"Lily"`.
        thing: The object with its color, such as `"red ball"`.
        place: The place with its article, such as `"the park"`.
    """

    text: str
    plot: str
    hero: str
    thing: str
    place: str


class Plot(NamedTuple):
    """A plot: the nouns of the things that it may be about, and its paragraphs."""

    name: str
    nouns: list[str]
    paragraphs: list[Template]


@functools.cache
def load_words() -> dict:
    """The words of `stories.yaml`, each list of words as a list, without its templates."""
    data = yaml.safe_load((Path(__file__).parent / "stories.yaml").read_text(encoding="utf-8"))
    data["things"] = {name: words.split() for name, words in data["things"].items()}
    return {name: value.split() if isinstance(value, str) else value for name, value in data.items()}


@functools.cache
def load_plots() -> list[Plot]:
    """The plots of `stories.yaml`, ready to be told."""
    words, phrases = load_words(), {}
    for name, text in words["phrases"].items():
        phrases[name] = compile_template(text, phrases)
    return [
        Plot(name, words["things"][plot["thing"]], [compile_template(p, phrases) for p in plot["story"].split("\n\n")])
        for name, plot in words["plots"].items()
    ]


def tell_story(rng: random.Random) -> Story:
    """Generate one story together with its facts, for example to measure how often a model recalls them.

    Args:
        rng: The source of randomness. Only its `random()` method is called, a varying number of times.

    Returns:
        The story and its plot, hero, object and place.
    """
    draws = Draws(rng.random)
    names = draws.names
    _draw_cast(draws)
    plot = draws.pick(load_plots())
    names["color"], noun = draws.pick(load_words()["colors"]), draws.pick(plot.nouns)
    for step, follower in enumerate(plot.nouns, start=-plot.nouns.index(noun)):
        names[f"noun+{step % len(plot.nouns)}"] = follower
    names.update(noun=noun, thing=f"{names['color']} {noun}")
    paragraphs = [" ".join(paragraph(draws).split()) for paragraph in plot.paragraphs]
    text = draws.pick(("\n", "\n", "\n", " ")).join(paragraphs)
    text = re.sub(r"\b([Aa])\(n\) (?=([aeiou])?)", lambda article: article[1] + ("n " if article[2] else " "), text)
    return Story(text, plot.name, names["hero"], names["thing"], names["place"])


def _draw_cast(draws: Draws) -> None:
    """Draws who is in a story, and where it is."""
    words, names = load_words(), draws.names
    hero, kind = _draw_child(draws)
    friend, _ = _draw_child(draws)
    while friend == hero:
        friend, _ = _draw_child(draws)
    pronouns = ("she", "her", "her") if kind == "girl" else ("he", "him", "his")
    if draws.random() < 0.2:
        kind = draws.pick(words["hero_animals"])
    names.update(hero=hero, friend=friend, kind=kind, **dict(zip(("he", "him", "his"), pronouns, strict=True)))
    names.update(adult=draws.pick(words["adults"]), animal=draws.pick(words["animals"]))
    at, *spots = draws.pick(words["places"])
    first = int(len(spots) * draws.random())
    names.update(at=at, place=at.split(maxsplit=1)[1], spot=spots[first], other_spot=spots[first - 1])


def _draw_child(draws: Draws) -> tuple[str, str]:
    kind = "girl" if draws.random() < 0.5 else "boy"
    return draws.pick(load_words()[f"{kind}s"]), kind


def generate_story(rng: random.Random) -> str:
    """Generate the text of one story.

    Args:
        rng: The source of randomness. Only its `random()` method is called, a varying number of times.

    Returns:
        An ASCII text of 60 to 160 words in one to four paragraphs, with a newline between paragraphs.
    """
    return tell_story(rng).text


def generate_stories(num_stories: int, seed: int = 0) -> Iterator[str]:
    """Generate stories that are the same for a seed on every platform and Python version.

    Args:
        num_stories: How many stories to generate. The first stories do not depend on it.
        seed: The seed, zero or more.

    Returns:
        An iterator over the texts of the stories.

    Raises:
        ValueError: If `num_stories` is less than 1 or `seed` is negative.
    """
    if num_stories < 1:
        raise ValueError(f"num_stories is {num_stories}, but at least one story must be asked for: pass 1 or more.")
    rng = _seeded(seed)
    return (generate_story(rng) for _ in range(num_stories))


def write_stories(
    path: str | os.PathLike[str], *, num_stories: int | None = None, num_bytes: int | None = None, seed: int = 0
) -> int:
    """Write stories to a UTF-8 text file, each followed by a line that holds `STORY_SEPARATOR`.

    Args:
        path: The file to write; an existing file is replaced.
        num_stories: How many stories to write. Give either this or `num_bytes`.
        num_bytes: Write whole stories until the file has at least this many bytes.
        seed: The seed, zero or more; the stories are those of `generate_stories` with this seed.

    Returns:
        The number of stories written.

    Raises:
        ValueError: If not exactly one of `num_stories` and `num_bytes` is given, if the one given is less than 1,
            or if `seed` is negative.
    """
    if (num_stories is None) == (num_bytes is None):
        raise ValueError(
            f"num_stories is {num_stories} and num_bytes is {num_bytes}, but exactly one of them says how much to "
            "write: pass one and leave the other out."
        )
    for name, value in (("num_stories", num_stories), ("num_bytes", num_bytes)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, but at least one story must be written: pass 1 or more.")
    rng = _seeded(seed)
    stories_written = bytes_written = 0
    with open(path, "wb") as file:
        while stories_written < (num_stories or math.inf) and bytes_written < (num_bytes or math.inf):
            bytes_written += file.write(f"{generate_story(rng)}\n{STORY_SEPARATOR}\n".encode())
            stories_written += 1
    return stories_written


def _seeded(seed: int) -> random.Random:
    if seed < 0:
        raise ValueError(f"seed is {seed}, but Python's random drops the sign of a seed: pass zero or more.")
    return random.Random(seed)
