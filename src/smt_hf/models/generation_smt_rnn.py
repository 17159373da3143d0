"""What `generate()` needs to know of a recurrent memory, and reading without generating."""

import os

import torch
from transformers.generation import GenerationMixin

from .cache_smt_rnn import CACHE_NAME, SmtRnnCache, check_cache
from .memory_smt_rnn import SmtMemory


class SmtRnnGenerationMixin(GenerationMixin):
    """`generate()` with a memory to start from, caches of any batch size, and padding that never moves a memory."""

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, *args, memory: SmtMemory | str | None = None, **kwargs):
        """[`~transformers.GenerationMixin.generate`], which may go on from what was read before.

        Args:
            inputs: `(B, T)` token ids; may be left out with `memory`, which then is continued as it stands, and only the new
                tokens are returned.
            memory: an [`SmtMemory`] to start from, or where one was saved (folder or Hub id); it is left as it is, and every
                token of `inputs` is new to it. One row serves any number of prompts.
            cache (`SmtRnnCache`): the cache of an earlier call, moved on in place. `inputs` is the full sequence with at least
                one new token, or the new tokens only: fewer than the cache has read, or with an `attention_mask` as long as
                all tokens together. Named `past_key_values` up to transformers 5.23.

        Raises:
            ValueError: for a memory of another student; for `memory` and `cache` together; for a batch size that does not fit
                the memory's; for inputs that the cache has read already.
            TypeError: if `cache` is a cache of keys and values.
        """
        cache = kwargs.pop("cache", None)
        cache = kwargs.pop("past_key_values", None) if cache is None else cache
        if cache is not None:
            check_cache(cache)
        name = "inputs_embeds" if inputs is None and kwargs.get("inputs_embeds") is not None else "input_ids"
        given = kwargs.get(name) if inputs is None else inputs
        if memory is not None:
            if cache is not None:
                raise ValueError("memory and cache are two places to start from: give one of them")
            cache = _load(memory).to_cache(self)
            if given is None:  # one step of padding, which moves no memory
                kwargs["inputs_embeds"] = cache.memory.new_zeros(cache.batch_size, 1, cache.memory.shape[-1])
                kwargs["attention_mask"] = torch.zeros(cache.batch_size, 1, dtype=torch.long, device=self.device)
        elif cache is not None and given is not None:
            kwargs["attention_mask"] = _mask_of_all_tokens(cache, given, kwargs.get("attention_mask"))
        if cache is not None:
            kwargs[CACHE_NAME] = cache
        return super().generate(inputs, *args, **kwargs)

    @torch.no_grad()
    def read(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        memory: SmtMemory | str | None = None,
        teacher=None,
    ) -> SmtMemory:
        """Reads a text and returns what the student remembers of it.

        Args:
            input_ids: `(B, T)`.
            attention_mask: `(B, T)`, 0 for padding anywhere.
            memory: an [`SmtMemory`] to read on from, or where one was saved; a single row serves the whole batch.
            teacher: the student's [`SmtTeacherModel`], which reads all tokens in one pass. Its state is the one that the student
                was trained to reach, so the two differ by the student's drift. Good up to the teacher's training context; the
                student alone has no such limit.

        Raises:
            ValueError: for a memory of another student; for `memory` and `teacher` together; for a teacher whose memory has
                another shape.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if teacher is not None:
            if memory is not None:
                raise ValueError("a teacher reads from the beginning: leave out memory or teacher")
            sizes = [(model.config.num_memory_tokens, model.config.hidden_size) for model in (teacher, self)]
            if sizes[0] != sizes[1]:
                raise ValueError(f"the teacher's memory is {sizes[0]}, the student's {sizes[1]}: give its own teacher")
            last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=1, keepdim=True)
            last = last.masked_fill(mask.sum(dim=1, keepdim=True) == 0, -1)
            states = teacher.encode(input_ids, last, attention_mask)[:, 0].to(self.dtype)
            return SmtMemory.from_cache(self, SmtRnnCache(states, num_tokens=mask.sum(dim=1)))
        cache = SmtRnnCache()
        if memory is not None:
            cache = _fit_batch(_load(memory).to_cache(self), len(input_ids))
        self.model(input_ids, mask, cache=cache, steps_to_keep=1)
        return SmtMemory.from_cache(self, cache)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, generation_mode, batch_size, *args):
        super()._prepare_cache_for_generation(generation_config, model_kwargs, generation_mode, batch_size, *args)
        if generation_config.use_cache is False:
            return
        rows = batch_size * max(generation_config.num_beams, generation_config.num_return_sequences)
        cache = model_kwargs.get(CACHE_NAME)
        model_kwargs[CACHE_NAME] = SmtRnnCache() if cache is None else _fit_batch(cache, rows, batch_size)
        pad, eos = generation_config._pad_token_tensor, generation_config._eos_token_tensor
        if pad is not None and eos is not None:
            model_kwargs["generated_padding"] = GeneratedPadding(pad, eos)

    def prepare_inputs_for_generation(
        self, input_ids, inputs_embeds=None, is_first_iteration=False, generated_padding=None, **kwargs
    ):
        model_inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if generated_padding is not None:
            if is_first_iteration:
                generated_padding.prompt_length = input_ids.shape[1]
            else:
                model_inputs["attention_mask"] = generated_padding.mask(input_ids)
        return model_inputs


def _load(memory: SmtMemory | str | os.PathLike) -> SmtMemory:
    return SmtMemory.from_pretrained(memory) if isinstance(memory, str | os.PathLike) else memory


class GeneratedPadding:
    """Tells padding that `generate()` appends to finished rows from tokens: padding must not move the memory.

    Where the pad token is an end token too, padding is what follows a generated end token; else every generated pad token is.

    Args:
        pad_token_id: `()`.
        eos_token_ids: `(E,)`.
    """

    def __init__(self, pad_token_id: torch.Tensor, eos_token_ids: torch.Tensor):
        self.pad_token_id = pad_token_id
        self.eos_token_ids = eos_token_ids
        self.pad_ends = bool(torch.isin(pad_token_id, eos_token_ids))
        self.prompt_length = 0

    def mask(self, input_ids: torch.LongTensor) -> torch.Tensor:
        """Bool `(B, 1)`: whether the last token of `(B, T)` sequences is to be read."""
        padding = input_ids[:, -1:] == self.pad_token_id
        if self.pad_ends:
            if input_ids.shape[1] < self.prompt_length + 2:
                return torch.ones_like(padding)
            padding = padding & torch.isin(input_ids[:, -2:-1], self.eos_token_ids)
        return ~padding


def _mask_of_all_tokens(cache: SmtRnnCache, inputs: torch.Tensor, attention_mask: torch.Tensor | None):
    """The mask `(B, earlier + new)` that makes the library see which of the inputs are new; as given where it does already."""
    past, length = cache.get_seq_length(), inputs.shape[1]
    if past == 0 or length > past or (attention_mask is not None and attention_mask.shape[1] > length):
        return attention_mask
    if length == past:
        raise ValueError(
            f"the cache has read {past} tokens and the inputs are {length}: give the full sequence with at least one new "
            "token, or new tokens with an attention_mask as long as all tokens together"
        )
    new = inputs.new_ones(inputs.shape[:2], dtype=torch.long) if attention_mask is None else attention_mask
    return torch.cat([new.new_ones(len(new), past), new], dim=1)


def _fit_batch(cache: SmtRnnCache, rows: int, batch_size: int | None = None) -> SmtRnnCache:
    """The cache itself if it has as many rows or is empty, else a copy with each row (or its only one) repeated.

    Raises:
        ValueError: if its rows cannot be dealt out.
    """
    if cache.memory is None or cache.batch_size == rows:
        return cache
    if cache.batch_size not in (1, batch_size):
        raise ValueError(
            f"the memory has {cache.batch_size} rows, the inputs {batch_size or rows}: give as many, or one"
        )
    repeated = SmtRnnCache(cache.memory, cache.get_seq_length(), cache.num_tokens)
    repeated.batch_repeat_interleave(rows // cache.batch_size)
    return repeated


__all__ = ["GeneratedPadding", "SmtRnnGenerationMixin"]
