"""The templates of stories on small examples."""

import random

import pytest

from smt_hf.demo.templates import Draws, compile_template


def tell(text, draws=(0.0,) * 9, phrases=(), **names):
    """The template told with the given draws, and how many it took."""
    left = list(draws)
    context = Draws(lambda: left.pop(0))
    context.names.update(names)
    compiled = {}
    compiled.update((name, compile_template(phrase, compiled)) for name, phrase in dict(phrases).items())
    return compile_template(text, compiled)(context), len(draws) - len(left)


def test_every_alternative_is_told_before_one_is_picked():
    assert tell("[a|b[c|d]|[e|f]g]!", draws=(0.9, 0.0, 0.4)) == ("bd!", 3)
    assert tell("[a|b]", draws=(0.4999,)) == ("a", 1)
    assert tell("[so |]sorry", draws=(0.5,)) == ("sorry", 1)


def test_names_phrases_and_assignments():
    assert tell("{He} saw {friend}.", he="she", friend="Ben") == ("She saw Ben.", 0)
    phrases = {"mood": "[glad|sad]", "moods": "{mood} and {mood}"}
    assert tell("{moods}", (0.0, 0.9), phrases) == ("glad and sad", 2)
    assert tell("{x = {mood}}{x}, {x}: {X}", (0.9,), phrases) == ("sad, sad: Sad", 1)


def test_only_the_case_of_the_value_is_told():
    text = "{noun: dish, tray = on [a|b]|in}"
    assert tell(text, noun="tray") == ("on a", 1)
    assert tell(text, noun="box") == ("in", 0)


def test_line_breaks_beside_a_mark_fall_away():
    assert tell('"[\n  yes|\n  no\n]," she said.') == ('"yes," she said.', 1)
    assert tell("one\ntwo") == ("one\ntwo", 0)


def test_an_open_bracket_is_named():
    with pytest.raises(ValueError, match="before its ']'"):
        compile_template("[a|b", {})


def test_draws_are_those_of_the_random_method():
    draws, same = Draws(random.Random(3).random), random.Random(3).random
    assert [draws.pick("abcde") for _ in range(20)] == ["abcde"[int(5 * same())] for _ in range(20)]
