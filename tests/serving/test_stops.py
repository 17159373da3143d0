"""Stop strings in a text that arrives in pieces."""

import asyncio

import pytest

from smt_hf.serving.stops import StopQueue, cut, open_end


def read(pieces, stops):
    """What a client sees of the pieces, read one after another and as many as there are."""

    async def patient(queue):
        seen = []
        while (piece := await queue.get()) is not None:
            seen.append(piece)
        return seen

    async def greedy(queue):
        seen = []
        while True:
            try:
                seen.append(queue.get_nowait())
            except asyncio.QueueEmpty:
                assert seen.pop() is None
                return seen

    results = []
    for reader in (patient, greedy):
        queue = asyncio.Queue()
        for piece in [*pieces, None]:
            queue.put_nowait(piece)
        results.append(asyncio.run(reader(StopQueue(queue, stops))))
    assert results[0] == results[1]
    return results[0]


def test_cut_and_open_end():
    assert cut("a b c", ["c", "b"]) == "a "
    assert cut("a b c", []) == cut("a b c", ["d"]) == "a b c"
    assert open_end("the EN", ["END"]) == 2
    assert open_end("aab", ["aabaa", "bc"]) == 3
    assert open_end("abc", []) == open_end("", ["a"]) == 0


@pytest.mark.parametrize("stops", [["END"], ["EN", "ENDING"], ["dE"], ["x"], []])
def test_every_way_to_split_a_text_shows_the_same(stops):
    text = "the END of EEN END"
    for size in range(1, len(text) + 1):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        seen = read(pieces, stops)
        assert "".join(seen) == cut(text, stops) and "" not in seen


def test_what_was_held_comes_at_the_end():
    assert read(["the E", "N"], ["END"]) == ["the ", "EN"]


def test_an_error_passes():
    error = ValueError("no text")
    assert read(["a E", error], ["END"]) == ["a ", error, "E"]
