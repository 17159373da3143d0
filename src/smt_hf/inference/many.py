"""Continues many prompts at once, without a server."""

from collections.abc import Sequence

from tqdm import tqdm

from ..utils.text import readable
from .engine import Engine
from .requests import Answer, Request
from .sampling import SamplingParams


def write_many(
    student,
    tokenizer,
    prompts: Sequence[str],
    params: SamplingParams | None = None,
    memory=None,
    max_rows: int = 64,
    progress: bool = False,
) -> list[list[Answer]]:
    """Continues many prompts together, each as it would be continued alone.

    Args:
        student: an [`SmtRnnForCausalLM`] in evaluation mode.
        tokenizer: its fast tokenizer.
        prompts: the texts; an empty one continues from the memory as it is.
        params: the sampling settings; every prompt's draws begin with `seed`, whatever its place.
        memory: an [`SmtMemory`] of one row to continue from.
        max_rows: answers that are written at once.
        progress: show a progress bar.

    Returns:
        The `params.n` answers to each prompt, in order.

    Raises:
        InputError: for prompts or settings that cannot work.
        ValueError: for another student's memory.
    """
    params = params or SamplingParams()
    start = None if memory is None else memory.to_cache(student).memory[0]
    texts = [readable(prompt) for prompt in prompts]
    ids = [tokenizer(text, add_special_tokens=False).input_ids if text else [] for text in texts]
    engine = Engine.of(student, tokenizer, max_rows=max(max_rows, params.n), piece_seconds=1.0)
    with tqdm(total=len(ids) * params.n, unit="text", disable=not progress) as bar:

        def count(ticket, piece):
            bar.update(piece.finish_reason is not None)

        tickets = [engine.submit(Request(prompt, params, memory=start), count, stream=False) for prompt in ids]
        engine.run()
    return [ticket.wait() for ticket in tickets]
