"""Tests for the built-in story generator."""

import hashlib
import random
import re

import pytest

from smt_hf.demo.stories import (
    STORY_SEPARATOR,
    Story,
    generate_stories,
    generate_story,
    load_plots,
    load_words,
    tell_story,
    write_stories,
)

FIRST_3000_OF_SEED_0 = "4bf19c69118b2bb7e6da78efdadf15dc83f7f730033513ef49a0848ab15d5c41"
GIRLS, BOYS, ADULTS, COLORS = (load_words()[name] for name in ("girls", "boys", "adults", "colors"))


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    rng = random.Random(1)
    return [tell_story(rng) for _ in range(5000)]


def last_third(text: str) -> str:
    words = text.split()
    return " ".join(words[-(len(words) // 3) :])


def test_same_seed_gives_the_same_stories_everywhere():
    text = "\n\n".join(generate_stories(3000, seed=0))
    assert hashlib.sha256(text.encode("ascii")).hexdigest() == FIRST_3000_OF_SEED_0


def test_first_stories_do_not_depend_on_how_many_are_asked_for():
    assert list(generate_stories(5, seed=3)) == list(generate_stories(50, seed=3))[:5]


def test_generate_story_continues_the_stream_of_its_rng():
    rng = random.Random(3)
    assert [generate_story(rng) for _ in range(5)] == list(generate_stories(5, seed=3))


def test_different_seeds_differ():
    assert set(generate_stories(100, seed=0)).isdisjoint(generate_stories(100, seed=1))


def test_only_the_random_method_of_the_rng_is_used():
    class OnlyRandom:
        random = random.Random(5).random

    assert generate_story(OnlyRandom()) == generate_story(random.Random(5))


def test_every_plot_is_reached_in_200_stories():
    rng = random.Random(0)
    assert {tell_story(rng).plot for _ in range(200)} == {plot.name for plot in load_plots()}


def test_lengths_and_paragraphs(stories):
    for story in stories:
        paragraphs = story.text.split("\n")
        assert 60 <= len(story.text.split()) <= 160, story
        assert 1 <= len(paragraphs) <= 4, story
        assert all(paragraphs), story


def test_exact_duplicates_are_rare(stories):
    assert len({story.text for story in stories}) >= 0.999 * len(stories)


def test_vocabulary_is_small(stories):
    words = {word for story in stories for word in re.findall(r"[a-z]+", story.text.lower())}
    assert 300 <= len(words) <= 900


@pytest.mark.parametrize(
    "mistake",
    [
        r"[{}<>\[\]_|+]|None",
        r"  |^\s|\s$| \n|\n ",
        r" [.,!?]|[,.!?]{2}",
        r"\b[Aa] [aeiou]",
        r"\b[Aa]n [^aeiou]",
        r"\b(?!choo\b)(\w+) \1\b",
        r'(^|\n|[.!?] )"?[a-z]',
        r'\." [a-z]',
        r'[!?]" (?!(asked|called|cried|he|laughed|said|she|they|thought|whispered)\b)[a-z]',
        r'[!?]" (he|she|they) (?!(asked|said|thought|whispered)\b)',
        r'[^.!?"]$|[^.!?]"$|[^.!?"]\n|[^.!?]"\n',
        r'[^.!?,]" [a-z]',
    ],
)
def test_no_mistakes_of_form(stories, mistake):
    for story in stories:
        assert re.search(mistake, story.text) is None, story


def test_text_is_ascii_with_balanced_quotes_in_each_paragraph(stories):
    for story in stories:
        assert story.text.isascii()
        for paragraph in story.text.split("\n"):
            assert paragraph.count('"') % 2 == 0, story
            outside = paragraph.split('"')[::2]
            assert all(part.startswith(" ") for part in outside[1:] if part), story
            assert all(part.endswith(" ") for part in outside[:-1] if part), story


def test_facts_are_told_early_and_needed_at_the_end(stories):
    for fact in ("hero", "thing", "place"):
        early = [getattr(story, fact) in " ".join(story.text.split()[:60]) for story in stories]
        late = [getattr(story, fact) in last_third(story.text) for story in stories]
        assert sum(early) >= 0.99 * len(stories), fact
        assert sum(late) >= 0.99 * len(stories), fact


def test_the_object_never_changes_its_color(stories):
    for story in stories:
        color, noun = story.thing.split()
        assert set(re.findall(rf"\b({'|'.join(COLORS)}) {noun}\b", story.text)) == {color}, story


def test_pronouns_fit_the_names(stories):
    genders = dict.fromkeys(GIRLS, "she") | dict.fromkeys(BOYS, "he")
    genders |= dict(zip(ADULTS, ("she", "he", "she", "he"), strict=True))
    pronouns = {"she": r"\b(he|him|his|himself)\b", "he": r"\b(she|her|hers|herself)\b"}
    checked = 0
    for story in stories:
        people = {genders[word] for word in re.findall(r"[A-Z][a-z]+", story.text) if word in genders}
        if len(people) == 1 and story.plot != "scared_animal":  # the mother of the animal is a "her"
            checked += 1
            assert not re.search(pronouns[people.pop()], story.text, re.IGNORECASE), story
    assert checked > 500


def test_cast_has_two_children_and_at_most_one_adult(stories):
    for story in stories:
        words = set(re.findall(r"[A-Z][a-z]+", story.text))
        assert len(words & {*GIRLS, *BOYS}) in (1, 2), story
        assert len(words & {*ADULTS}) <= 1, story


@pytest.mark.parametrize("seed", [0, 7])
def test_written_stories_split_back(tmp_path, seed):
    path = tmp_path / "stories.txt"
    assert write_stories(path, num_stories=30, seed=seed) == 30
    text = path.read_bytes().decode("utf-8")
    assert text.split(f"\n{STORY_SEPARATOR}\n") == [*generate_stories(30, seed=seed), ""]


def test_num_bytes_writes_whole_stories_until_there_are_enough(tmp_path):
    path = tmp_path / "stories.txt"
    count = write_stories(path, num_bytes=20_000)
    last = list(generate_stories(count))[-1]
    size = path.stat().st_size
    assert 20_000 <= size < 20_000 + len(last) + len(STORY_SEPARATOR) + 2
    assert path.read_bytes().endswith(f"{last}\n{STORY_SEPARATOR}\n".encode())


def test_half_a_megabyte_is_no_trouble():
    assert sum(map(len, generate_stories(1000))) > 500_000


def test_bad_arguments_are_named_when_called(tmp_path):
    with pytest.raises(ValueError, match="num_stories is 0.*pass 1 or more"):
        generate_stories(0)
    with pytest.raises(ValueError, match="seed is -1.*zero or more"):
        generate_stories(1, seed=-1)
    path = tmp_path / "stories.txt"
    with pytest.raises(ValueError, match="exactly one"):
        write_stories(path)
    with pytest.raises(ValueError, match="exactly one"):
        write_stories(path, num_stories=1, num_bytes=1)
    with pytest.raises(ValueError, match="num_bytes is 0"):
        write_stories(path, num_bytes=0)
    with pytest.raises(ValueError, match="num_stories is -2"):
        write_stories(path, num_stories=-2)
    with pytest.raises(ValueError, match="seed is -1"):
        write_stories(path, num_stories=1, seed=-1)
    assert not path.exists()
