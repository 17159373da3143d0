"""Parity and Modular Counter: running sums. They test whether a model can track a state that every token changes."""

from dataclasses import dataclass

import numpy as np

from .base import Task, check_integer


@dataclass(frozen=True, kw_only=True)
class Parity(Task):
    """Bits; the label of each is the parity of all bits so far. Ids: 0 and 1. Every column has a label. Chance is 1 / 2.

    Args:
        length: T, 1 or more; also the difficulty. [`ModularCounter`] is harder at the same length.
    """

    def validate(self):
        check_integer("length", self.length, 1)

    @property
    def vocab_size(self) -> int:
        return 2

    @property
    def chance(self) -> float:
        return 1 / 2

    def draw(self, rng, num_rows):
        input_ids = rng.integers(2, size=(num_rows, self.length))
        return input_ids, input_ids.cumsum(axis=1) % 2


@dataclass(frozen=True, kw_only=True)
class ModularCounter(Task):
    """Every token adds an amount to one of several counters; the label is the new value of that counter.

    Ids: `counter * modulus + amount` adds 0 <= amount < modulus to the counter; labels are values below the modulus.
    All counters start at 0. Every column has a label. Amounts are uniform, hence so are the values, and chance is
    1 / modulus. One counter with modulus 2 is [`Parity`].

    Args:
        length: T, 1 or more.
        num_counters: the difficulty: the number of values to keep, 1 or more.
        modulus: m, 2 or more.
    """

    num_counters: int = 2
    modulus: int = 5

    def validate(self):
        check_integer("length", self.length, 1)
        check_integer("num_counters", self.num_counters, 1)
        check_integer("modulus", self.modulus, 2)

    @property
    def vocab_size(self) -> int:
        return self.num_counters * self.modulus

    @property
    def chance(self) -> float:
        return 1 / self.modulus

    def draw(self, rng, num_rows):
        input_ids = rng.integers(self.vocab_size, size=(num_rows, self.length))
        counter, amount = np.divmod(input_ids, self.modulus)
        labels = np.empty_like(input_ids)
        for c in range(self.num_counters):
            chosen = counter == c
            labels[chosen] = ((amount * chosen).cumsum(axis=1) % self.modulus)[chosen]
        return input_ids, labels
