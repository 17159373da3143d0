"""Memories by the tokens that they have read."""

import numpy as np
import torch

from smt_hf.inference.prefixes import OVERHEAD, PrefixCache, is_milestone

MEMORY = torch.zeros(2, 4)
SIZE = MEMORY.numel() * 4 + OVERHEAD


def ids(*tokens):
    return np.array(tokens)


def test_the_longest_prefix_is_found():
    cache = PrefixCache()
    for length in (1, 3, 5):
        cache.keep(np.arange(length), MEMORY + length)
    for tokens, length in ((ids(0, 1, 2, 3, 9), 3), (np.arange(9), 5), (np.arange(5), 5), (ids(0, 2), 1)):
        found = cache.find(tokens)
        assert found.length == length and (found.memory == length).all()
    assert cache.find(ids(1, 2, 3)) is None and cache.find(ids()) is None


def test_equal_hashes_are_not_taken_for_equal_tokens():
    cache = PrefixCache()
    cache.keep(ids(5, 6), MEMORY)
    cache._hashes = lambda tokens: np.zeros(len(tokens), dtype=np.uint64)
    cache.keep(ids(1, 2), MEMORY)
    assert cache.find(ids(1, 2)) is not None and cache.find(ids(2, 1)) is None


def test_the_least_recently_used_goes_first_and_bytes_are_bounded():
    cache = PrefixCache(max_bytes=3 * SIZE)
    for token in range(3):
        cache.keep(ids(token), MEMORY)
    cache.find(ids(0))
    cache.keep(ids(3), MEMORY)
    assert [cache.find(ids(token)) is not None for token in range(4)] == [True, False, True, True]
    for token in range(500):
        cache.keep(ids(token, token), MEMORY)
        assert cache.num_bytes <= cache.max_bytes
    assert len(cache) == 3 and cache.lengths == {2: 3}


def test_a_copy_is_kept():
    cache, memory = PrefixCache(), torch.ones(2, 4)
    cache.keep(ids(1), memory)
    memory.zero_()
    assert (cache.find(ids(1)).memory == 1).all()


def test_ten_thousand_conversations_sleep_in_100_megabytes():
    cache = PrefixCache(max_bytes=100 << 20)
    memory = torch.zeros(4, 128)  # the demo's student
    for number in range(10_000):
        cache.keep(ids(number, number + 1), memory)
    assert len(cache) == 10_000


def test_milestones():
    assert [n for n in range(1, 600) if is_milestone(n)] == [64, 128, 256, 512]
