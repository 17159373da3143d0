"""Pieces of text: together the text of all tokens, never half a character, nothing of a stop string."""

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from smt_hf.inference.text import TextStream

TEXT = "naïve 😀 café — 漢字 end"


def pieces(tokenizer, ids, size, **options):
    stream = TextStream(tokenizer, **options)
    parts = [stream.push(ids[start : start + size]) for start in range(0, len(ids), size)]
    return [*parts, stream.finish()], stream


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_characters_come_whole(tokenizer, size):
    ids = list(TEXT.encode())
    parts, _ = pieces(tokenizer, ids, size)
    assert "".join(parts) == TEXT and not any("\ufffd" in part for part in parts)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize(
    "data", [b"a\xffb", b"\xe2\x82", b"\xff" * 300, b"\xf0\x9f\x98x\xc3", b"ab\x80\x80\x80\x80\x80cd"]
)
def test_bytes_that_are_no_text(tokenizer, data, size):
    parts, _ = pieces(tokenizer, list(data), size)
    assert "".join(parts) == data.decode(errors="replace")


def test_a_character_that_the_prompt_began(tokenizer):
    emoji = list("😀".encode())
    parts, _ = pieces(tokenizer, emoji[2:] + [33], 1, context=[97, *emoji[:2]])
    assert "".join(parts) == "😀!"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_stop_strings_across_pieces(tokenizer, size):
    ids = list(b"one, two. three. four")
    for stops, expected in (
        (["three"], "one, two. "),
        (["ree.", ". f", "wo"], "one, t"),
        (["never"], "one, two. three. four"),
    ):
        parts, stream = pieces(tokenizer, ids, size, stops=stops)
        assert "".join(parts) == expected and stream.stopped == (expected != "one, two. three. four")


def test_a_space_between_prompt_and_answer():
    vocab = {"▁Hello": 0, "▁world": 1, "s": 2, "<unk>": 3}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert "".join(pieces(tokenizer, [1, 2, 1], 1, context=[0])[0]) == " worlds world"
    assert "".join(pieces(tokenizer, [1, 2, 1] * 50, 1)[0]) == tokenizer.decode([1, 2, 1] * 50)


def test_special_tokens_have_no_text(tokenizer):
    assert "".join(pieces(tokenizer, [65, 256, 66], 1)[0]) == "AB"
