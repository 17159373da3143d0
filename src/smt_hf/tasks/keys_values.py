"""Keys-Values: learn pairs, answer queries. Tests associative recall."""

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .base import Task, check_integer

BLANK = 0


@dataclass(frozen=True, kw_only=True)
class KeysValues(Task):
    """Pairs of a key and a value, then blanks for as long as they must be kept, and at the end one or more of the keys again.

    Ids: 0 the blank, then num_values ids for values and num_keys ids for keys. With fewer keys the other ids keep their meaning,
    so a model may begin with few. Keys and values are key_length tokens each. All keys in the pairs differ; values may repeat. A
    query is followed by key_length - 1 blanks; from its last token on, key_length columns have labels, the value of the queried
    key. Values are uniform, so chance is 1 / num_values. The paper asks for one key per row; more queries give more labels per
    row to learn from (Arora et al., Zoology, arXiv 2312.04927).

    Args:
        length: T, at least `2 * key_length * (num_pairs + num_queries) - num_queries`; any more is waiting time.
        num_pairs: the difficulty: pairs to keep, 1 or more.
        num_keys: ids of keys; `num_keys ** key_length` must be at least num_pairs, so that all keys can differ.
        num_values: ids of values, 2 or more.
        key_length: tokens per key and per value, 1 or more.
        num_queries: keys asked for at the end, 1 or more, each any of the pairs' keys: one may be asked for twice.
    """

    num_pairs: int = 8
    num_keys: int = 16
    num_values: int = 16
    key_length: int = 1
    num_queries: int = 1

    def validate(self):
        for name in ("num_pairs", "num_keys", "key_length", "num_queries"):
            check_integer(name, getattr(self, name), 1)
        check_integer("num_values", self.num_values, 2)
        if self.key_length * math.log2(self.num_keys) >= 63:
            raise InputError(
                f"key_length is {self.key_length} with num_keys {self.num_keys}: lower one of them, there are 2 ** 63 keys or more"
            )
        different = self.num_keys**self.key_length
        check_integer(
            "num_pairs", self.num_pairs, 1, different, "there are no more different keys: raise num_keys or key_length"
        )
        shortest = 2 * self.key_length * self.num_pairs + self.num_queries * self.query_length
        check_integer("length", self.length, shortest, why="the pairs, the queries and answers; or lower num_pairs")

    @property
    def query_length(self) -> int:
        """Columns of a query and its answer, which begins with the query's last token."""
        return 2 * self.key_length - 1

    @property
    def vocab_size(self) -> int:
        return 1 + self.num_keys + self.num_values

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    def draw(self, rng, num_rows):
        pairs, tokens = self.num_pairs, self.key_length
        places = self.num_keys ** np.arange(tokens)[::-1]
        numbers = distinct(rng, self.num_keys**tokens, (num_rows, pairs))
        keys = 1 + self.num_values + numbers[..., None] // places % self.num_keys
        values = 1 + rng.integers(self.num_values, size=(num_rows, pairs, tokens))
        rows, asked = np.arange(num_rows), rng.integers(pairs, size=(self.num_queries, num_rows))
        input_ids, labels = np.full((num_rows, self.length), BLANK), self.unlabelled(num_rows)
        input_ids[:, : 2 * pairs * tokens] = np.concatenate([keys, values], axis=2).reshape(num_rows, -1)
        first = self.length - self.num_queries * self.query_length
        for start, pair in zip(range(first, self.length, self.query_length), asked, strict=True):
            answer = start + tokens - 1
            input_ids[:, start : start + tokens] = keys[rows, pair]
            labels[:, answer : answer + tokens] = values[rows, pair]
        return input_ids, labels


def distinct(rng: np.random.Generator, num_values: int, shape: tuple[int, int]) -> np.ndarray:
    """Rows `(N, n)` of n different numbers below num_values, with every ordered choice equally likely.

    Bentley & Floyd, A sample of brilliance, 1987, for all rows at once. The n-th number depends on those before it, so there is
    one step for each. `num_values` may be any number, since nothing of its size is allocated.
    """
    num_rows, count = shape
    chosen = np.empty(shape, dtype=np.int64)
    for i in range(count):
        last = num_values - count + i
        number = rng.integers(last + 1, size=num_rows)
        taken = (chosen[:, :i] == number[:, None]).any(axis=1)
        chosen[:, i] = np.where(taken, last, number)
    order = rng.random(shape).argsort(axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)
