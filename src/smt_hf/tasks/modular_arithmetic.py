"""Modular Arithmetic: work out an unknown function from examples. Tests learning in context."""

from dataclasses import dataclass

import numpy as np

from .base import Task, check_integer


@dataclass(frozen=True, kw_only=True)
class ModularArithmetic(Task):
    """Every row has its own map `y = (slope * x + offset) mod modulus`; its columns are x, y, x, y, ...

    The label of every x is the y that follows, so the columns before it are the examples to learn the map from. Ids:
    0..modulus - 1, for x and y alike. x is uniform; slope and offset are uniform below num_coefficients. y has no label. The first
    answers cannot be known, so no solver is always right.

    Args:
        length: T, at least `2 * num_examples + 1`; a longer row gives the last answers more examples.
        modulus: m, 2 or more.
        num_coefficients: the difficulty: the number of slopes and of offsets, 2 to modulus.
        num_examples: pairs at the beginning that are only shown: their x has no label.
    """

    modulus: int = 16
    num_coefficients: int = 4
    num_examples: int = 0

    def validate(self):
        check_integer("modulus", self.modulus, 2)
        check_integer("num_coefficients", self.num_coefficients, 2, self.modulus, "the modulus is the maximum")
        check_integer("num_examples", self.num_examples, 0)
        check_integer("length", self.length, 2 * self.num_examples + 1, why="the examples and a question")

    @property
    def vocab_size(self) -> int:
        return self.modulus

    @property
    def chance(self) -> float:
        """The accuracy of the constant answer 0, the most likely y.

        With slope w, `w * x` is uniform over the multiples of `g = gcd(w, modulus)`, so the probability that y is r is
        proportional to the number of offsets equal to r mod g; no remainder has more of them than 0.
        """
        step = np.gcd(np.arange(self.num_coefficients), self.modulus)
        offsets = -(-self.num_coefficients // step)
        return float((step * offsets).mean() / (self.modulus * self.num_coefficients))

    def draw(self, rng, num_rows):
        slope, offset = rng.integers(self.num_coefficients, size=(2, num_rows, 1))
        x = rng.integers(self.modulus, size=(num_rows, (self.length + 1) // 2))
        y = (slope * x + offset) % self.modulus
        input_ids, labels = np.empty((num_rows, self.length), dtype=np.int64), self.unlabelled(num_rows)
        input_ids[:, ::2], input_ids[:, 1::2] = x, y[:, : self.length // 2]
        labels[:, 2 * self.num_examples :: 2] = y[:, self.num_examples :]
        return input_ids, labels
