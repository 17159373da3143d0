"""Chooses the next tokens of all rows at once, each as `generate()` would choose it alone."""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..errors import InputError

GREEDY_BELOW = 1e-4  # below this temperature the most likely token is taken: dividing by it would overflow
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class SamplingParams:
    """How the answers to a request are written. The defaults draw from the student's own distribution.

    Logits are changed in the order of `generate()`: bias, repetition penalty, frequency and presence penalties, temperature,
    top-k, top-p, min-p.

    Args:
        max_new_tokens: The maximum length of an answer; 0 only reads the prompt.
        temperature: The sampling temperature; below 1e-4 the most likely token is taken.
        top_k: Draw from this many of the most likely tokens; from all when 0.
        top_p: Draw from the most likely tokens that together have this probability.
        min_p: Leave out tokens below this share of the most likely token's probability.
        repetition_penalty: Divides the positive logits, and multiplies the negative ones, of tokens in the prompt or the answer.
        frequency_penalty: Subtracted from a token's logit for each time it occurs in the answer.
        presence_penalty: Subtracted from the logit of every token that occurs in the answer.
        logit_bias: Added to the logits of these token ids.
        seed: The seed of the draws; a fresh one when `None`. Answer i of `n` is drawn with `seed + i`.
        stop: The answer ends before the first of these strings.
        logprobs: Return the log-probability of every token, and of this many of the most likely ones, under the student's
            unchanged logits; `None` returns none.
        n: Number of answers to one prompt, which is read once.

    Raises:
        InputError: for a value that cannot work.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    n: int = 1

    def __post_init__(self):
        bounds = {
            "max_new_tokens": (0, 2**31, int),
            "temperature": (0, math.inf, float),
            "top_k": (0, 2**31, int),
            "top_p": (0, 1, float),
            "min_p": (0, 1, float),
            "repetition_penalty": (0, math.inf, float),
            "frequency_penalty": (-100, 100, float),
            "presence_penalty": (-100, 100, float),
            "seed": (-(2**63), MAX_SEED, int),
            "logprobs": (0, 2**31, int),
            "n": (1, 2**31, int),
        }
        for name, (low, high, kind) in bounds.items():
            value = getattr(self, name)
            if value is None and name in ("seed", "logprobs"):
                continue
            if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
                raise InputError(f"{name}={value!r} must be a {'whole ' if kind is int else ''}number")
            if not (low <= value <= high and value < math.inf):
                above = "" if high in (math.inf, 2**31) else f" and at most {high}"
                raise InputError(f"{name}={value} must be at least {low}{above}")
        for name in ("top_p", "repetition_penalty"):
            if getattr(self, name) == 0:
                raise InputError(f"{name}=0 must be above 0")
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            raise InputError(f"stop={list(self.stop)!r} must be non-empty strings")
        for token, bias in self.logit_bias.items():
            if not isinstance(token, int) or isinstance(bias, bool) or not isinstance(bias, int | float):
                raise InputError(f"logit_bias={self.logit_bias!r} must map token ids to numbers")
            if not -math.inf < bias < math.inf:
                raise InputError(f"logit_bias={self.logit_bias!r} must contain only finite numbers")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken."""
        return self.temperature < GREEDY_BELOW

    @property
    def penalizes(self) -> bool:
        """Whether the logits depend on earlier tokens."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0


class Draws:
    """What one row's choices depend on: its settings, its random numbers, and the tokens that penalties look back at.

    Args:
        params: the settings.
        prompt_ids: the prompt, for the repetition penalty.
        vocab_size: V.
        index: which of the `n` answers this is.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Sequence[int], vocab_size: int, index: int = 0):
        self.params = params
        self.generator = None
        if not params.is_greedy:
            seed = secrets.randbits(62) if params.seed is None else params.seed + index
            self.generator = torch.Generator().manual_seed(seed if seed <= MAX_SEED else seed - 2**64)
        self.counts = self.seen = None
        if params.penalizes:
            self.counts = torch.zeros(vocab_size)
            self.seen = torch.zeros(vocab_size, dtype=torch.bool)
            self.seen[torch.as_tensor(prompt_ids, dtype=torch.long)] = True

    def penalize(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits `(V,)` with penalties for earlier tokens."""
        penalty = self.params.repetition_penalty
        if penalty != 1:
            penalized = torch.where(logits < 0, logits * penalty, logits / penalty)
            logits = torch.where(self.seen, penalized, logits)
        logits = logits - self.params.frequency_penalty * self.counts
        return logits - self.params.presence_penalty * (self.counts > 0)

    def note(self, token: int) -> None:
        """Records a token of the answer."""
        if self.counts is not None:
            self.counts[token] += 1
            self.seen[token] = True


class Sampler:
    """Chooses the next tokens of several rows at once. Build a new one when the rows change.

    Args:
        rows: the rows, in the order of the logits.
        vocab_size: V.
    """

    def __init__(self, rows: list[Draws], vocab_size: int):
        self.rows = rows
        params = [row.params for row in rows]
        self.penalized = [number for number, row in enumerate(params) if row.penalizes]
        self.bias = None
        if any(row.logit_bias for row in params):
            self.bias = torch.zeros(len(rows), vocab_size)
            for number, row in enumerate(params):
                for token, bias in row.logit_bias.items():
                    self.bias[number, token] = bias
        self.drawn = [number for number, row in enumerate(params) if not row.is_greedy]
        drawn = [params[number] for number in self.drawn]
        self.noise = torch.empty(len(drawn), vocab_size)
        self.temperature = _column([row.temperature for row in drawn], 1.0)
        self.top_k = _column([row.top_k or vocab_size for row in drawn], vocab_size)
        self.top_k = None if self.top_k is None else self.top_k.long().clamp(max=vocab_size)
        self.cut_p = _column([1 - row.top_p for row in drawn], 0.0)
        self.min_p = _column([row.min_p for row in drawn], 0.0)

    def __call__(self, logits: torch.Tensor) -> list[int]:
        """The next token of each row, from finite float32 logits `(n, V)`, which are not changed."""
        if self.bias is not None:
            logits = logits + self.bias
        if self.penalized:
            logits = logits.clone() if self.bias is None else logits
            for number in self.penalized:
                logits[number] = self.rows[number].penalize(logits[number])
        if not self.drawn:
            tokens = logits.argmax(dim=-1).tolist()
        elif len(self.drawn) == len(self.rows):
            tokens = self._draw(logits)
        else:
            tokens = logits.argmax(dim=-1).tolist()
            for number, token in zip(self.drawn, self._draw(logits[self.drawn]), strict=True):
                tokens[number] = token
        for number in self.penalized:
            self.rows[number].note(tokens[number])
        return tokens

    def _draw(self, scores: torch.Tensor) -> list[int]:
        if self.temperature is not None:
            scores = scores / self.temperature
        if self.top_k is not None:
            least = scores.sort(dim=-1, descending=True).values.gather(1, self.top_k - 1)
            scores = scores.masked_fill(scores < least, -math.inf)
        if self.cut_p is not None:
            ordered, places = scores.sort(dim=-1)
            out = ordered.softmax(dim=-1).cumsum(dim=-1) <= self.cut_p
            out[:, -1] = False
            out &= self.cut_p > 0  # not for rows with top_p = 1, where a cumulative sum may be exactly 0
            scores = scores.masked_fill(out.scatter(1, places, out), -math.inf)
        if self.min_p is not None:
            shares = scores.softmax(dim=-1)
            largest = shares.max(dim=-1, keepdim=True)
            out = shares < self.min_p * largest.values
            scores = scores.masked_fill(out.scatter(1, largest.indices, False), -math.inf)
        shares = scores.softmax(dim=-1)
        for noise, number in zip(self.noise, self.drawn, strict=True):  # like torch.multinomial's one sample per row
            noise.exponential_(generator=self.rows[number].generator)
        return (shares / self.noise).argmax(dim=-1).tolist()


def _column(values: list[float], neutral: float) -> torch.Tensor | None:
    """The values as `(n, 1)`, or `None` if none of them changes anything."""
    return None if all(value == neutral for value in values) else torch.tensor(values, dtype=torch.float32)[:, None]


def token_logprobs(logits: torch.Tensor, tokens: Sequence[int], num_top: int) -> list["TokenLogprob"]:
    """Log-probabilities of the tokens under the logits `(n, V)`, and of the `num_top` most likely ones."""
    logprobs = logits.log_softmax(dim=-1)
    chosen = logprobs[torch.arange(len(tokens)), torch.as_tensor(tokens)].tolist()
    top = logprobs.topk(min(num_top, logprobs.shape[-1]), dim=-1)
    tops = [
        dict(zip(ids, values, strict=True))
        for ids, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    return [
        TokenLogprob(token, value, likeliest) for token, value, likeliest in zip(tokens, chosen, tops, strict=True)
    ]


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its log-probability, and those of the most likely tokens by id."""

    token: int
    logprob: float
    top: dict[int, float]
