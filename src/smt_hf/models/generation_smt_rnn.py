"""`generate()` for a recurrent memory, and reading text without generating."""

import math
import os
import warnings

import torch
from torch import nn
from transformers.generation import (
    EosTokenCriteria,
    GenerationMixin,
    GenerationMode,
    MaxLengthCriteria,
    StoppingCriteriaList,
)
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput
from transformers.utils import logging

from .cache_smt_rnn import CACHE_NAME, SmtRnnCache, check_cache
from .documents_smt import check_attention_mask, packed_documents
from .lean_smt_rnn import LeanStep, is_lean
from .memory_smt_rnn import SmtMemory

logger = logging.get_logger(__name__)

# What `generate()` passes on when no options are given.
_USUAL = {"attention_mask", "finished_rows", "logits_to_keep", "position_ids", "use_cache", CACHE_NAME}


class SmtRnnGenerationMixin(GenerationMixin):
    """`generate()` from a saved memory, with caches of any batch size, and with padding that never changes a memory."""

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, *args, memory: SmtMemory | str | None = None, **kwargs):
        """As [`~transformers.GenerationMixin.generate`], and can continue from text that was read before.

        Args:
            inputs: `(B, T)` token ids. Optional with `memory`: generation then continues directly from it and returns only
                the new tokens, and options that look back, such as `repetition_penalty`, see only these.
            memory: an [`SmtMemory`] to start from, or where one was saved (folder or Hub id). It is not modified, and every
                token of `inputs` is new to it. A single row serves any number of prompts.
            cache (`SmtRnnCache`): the cache of an earlier call, updated in place. `inputs` is the full sequence with at least
                one new token, or only the new tokens: fewer than the cache has read, or with an `attention_mask` that covers
                all tokens, old and new. Named `past_key_values` up to transformers 5.23.
            attention_mask: `(B, T)`, 0 for padding. Without it every token is read, even if it equals the pad token; after a
                `cache`, the padding at the end of a row of the earlier call is skipped.

        Beam search returns no cache, because the final memories belong to the last beams, not to the returned sequences.
        Use [`read`] on these instead.

        Raises:
            ValueError: for a memory of another student; for `memory` and `cache` together; for a batch size that does not match
                the memory's; for inputs that the cache has already read; for an empty prompt without a memory; for ids outside
                the vocabulary; for a mask of another shape; for several documents in a row; for an option that needs a prompt
                when there is none.
            TypeError: if `cache` is a cache of keys and values, or `memory` is not a memory.
            NotImplementedError: for continuous batching (`cache_implementation="paged"`).
        """
        cache = kwargs.pop("cache", None)
        cache = kwargs.pop("past_key_values", None) if cache is None else cache
        if cache is not None:
            check_cache(cache)
        if kwargs.get("cache_implementation") == "paged":
            self.generate_batch()
        _check_unread(kwargs)
        if memory is not None:
            if cache is not None:
                raise ValueError("memory and cache are two places to start from: pass only one of them")
            cache = _load(memory).to_cache(self)
        name = "inputs_embeds" if inputs is None and kwargs.get("inputs_embeds") is not None else "input_ids"
        prompt = kwargs.get(name) if inputs is None else inputs
        if memory is not None and (prompt is None or prompt.shape[1] == 0):
            inputs, kwargs = None, _without_prompt(cache, prompt, **kwargs)
        elif prompt is not None:
            _check_prompt(prompt, cache, kwargs.get("attention_mask"))
            if name == "input_ids":
                _check_ids(prompt, self.config.vocab_size)
            if memory is None and cache is not None:
                kwargs["attention_mask"] = _mask_of_all_tokens(cache, prompt, kwargs.get("attention_mask"))
        if cache is not None:
            kwargs[CACHE_NAME] = cache
        output = super().generate(inputs, *args, **kwargs)
        if isinstance(output, GenerateBeamDecoderOnlyOutput):
            output[CACHE_NAME] = None  # its rows belong to the last beams, not to the sequences
        return output

    @torch.no_grad()
    def read(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        memory: SmtMemory | str | None = None,
        teacher=None,
    ) -> SmtMemory:
        """Reads a text and returns the student's memory of it.

        Args:
            input_ids: `(B, T)`.
            attention_mask: `(B, T)`, 0 for padding, which may be anywhere.
            memory: an [`SmtMemory`] to continue from, or where one was saved; a single row serves the whole batch.
            teacher: the student's [`SmtTeacherModel`], which reads all tokens in one pass. Its state is the target that the
                student was trained to reach, so the two differ by the student's drift. Reliable up to the teacher's training
                context; the student alone has no such limit.

        Raises:
            ValueError: for a memory of another student; for `memory` and `teacher` together; for a teacher whose memory has
                another shape; for a mask of another shape.
        """
        _check_prompt(input_ids, None, attention_mask)
        _check_ids(input_ids, self.config.vocab_size)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if teacher is not None:
            if memory is not None:
                raise ValueError("a teacher reads from the beginning: leave out memory or teacher")
            sizes = [(model.config.num_memory_tokens, model.config.hidden_size) for model in (teacher, self)]
            if sizes[0] != sizes[1]:
                raise ValueError(
                    f"the teacher's memory has shape {sizes[0]}, but the student's has {sizes[1]}: pass its own teacher"
                )
            states = teacher(input_ids, attention_mask=mask, return_dict=True).memory[:, 0].to(self.dtype)
            return SmtMemory.from_cache(self, SmtRnnCache(states, num_tokens=mask.sum(dim=1)))
        cache = SmtRnnCache()
        if memory is not None:
            cache = _fit_batch(_load(memory).to_cache(self), len(input_ids))
        self(input_ids, mask, cache=cache, logits_to_keep=1)  # not self.model: the hooks of sharded weights start here
        return SmtMemory.from_cache(self, cache)

    def generate_batch(self, *args, **kwargs):
        """Not supported: continuous batching allocates pages of keys and values, which a recurrent student does not have.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "continuous batching (generate_batch, cache_implementation='paged') manages pages of keys and values, but this "
            "student has a memory of fixed size: call generate() with a left-padded batch and its attention_mask"
        )

    init_continuous_batching = continuous_batching_context_manager = generate_batch

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _validate_generation_mode(self, generation_mode, generation_config, generation_mode_kwargs):
        if generation_mode == GenerationMode.ASSISTED_GENERATION:
            given = {**generation_config.to_dict(), **generation_mode_kwargs}
            names = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")
            raise ValueError(
                "assisted generation is not supported with stateful models, since a recurrent memory cannot undo a wrong "
                f"guess: leave out {', '.join(name for name in names if given.get(name) not in (None, False))}"
            )
        super()._validate_generation_mode(generation_mode, generation_config, generation_mode_kwargs)

    def _prepare_attention_mask_for_generation(self, inputs_tensor, generation_config, model_kwargs):
        """Masks nothing: a token that equals the pad token may be an ordinary token."""
        input_ids = model_kwargs.get("input_ids")
        inputs = inputs_tensor if input_ids is None or input_ids.shape[1] == 0 else input_ids
        pad, ends = generation_config._pad_token_tensor, generation_config._eos_token_tensor
        if pad is not None and inputs.dtype in (torch.int, torch.long) and (ends is None or pad not in ends):
            if (inputs == pad.to(inputs.device)).any():
                logger.warning_once(
                    f"The inputs contain the pad token {pad.item()}, but no attention_mask was passed: it is read like any other "
                    "token. Pass the tokenizer's attention_mask if it is padding."
                )
        return torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, generation_mode, batch_size, *args):
        if model_kwargs.get(CACHE_NAME) is not None:
            generation_config.use_cache = True  # only the cache knows what was read before
            if generation_config.cache_implementation is not None:
                logger.warning_once(
                    f"cache_implementation={generation_config.cache_implementation!r} is ignored: a memory is kept as it is"
                )
                generation_config.cache_implementation = None
        super()._prepare_cache_for_generation(generation_config, model_kwargs, generation_mode, batch_size, *args)
        cache = model_kwargs.get(CACHE_NAME)
        if generation_config.use_cache is not False:
            rows = batch_size * max(generation_config.num_beams, generation_config.num_return_sequences)
            cache = SmtRnnCache() if cache is None else _fit_batch(cache, rows, batch_size)
            model_kwargs[CACHE_NAME] = cache
        if generation_config.num_beams == 1:  # a running beam has not ended
            model_kwargs["finished_rows"] = generation_config._finished_rows = FinishedRows(cache)

    def _get_stopping_criteria(self, generation_config, *args, **kwargs):
        criteria = super()._get_stopping_criteria(generation_config, *args, **kwargs)
        finished_rows = getattr(generation_config, "_finished_rows", None)
        if finished_rows is None:
            return criteria
        finished_rows.extend(criteria)
        return finished_rows

    def _get_logits_processor(self, generation_config, *args, encoder_input_ids=None, **kwargs):
        with warnings.catch_warnings():
            if encoder_input_ids is not None and encoder_input_ids.shape[1] == 0:
                _check_options_without_prompt(generation_config, kwargs.get("negative_prompt_ids"))
                warnings.filterwarnings("ignore", ".*with `inputs_embeds` and without `input_ids`")  # there are none
            return super()._get_logits_processor(
                generation_config, *args, encoder_input_ids=encoder_input_ids, **kwargs
            )

    def prepare_inputs_for_generation(self, input_ids, inputs_embeds=None, finished_rows=None, **kwargs):
        model_inputs = super().prepare_inputs_for_generation(input_ids, inputs_embeds=inputs_embeds, **kwargs)
        if finished_rows is not None and finished_rows.padding is not None:
            if len(input_ids) > 1:
                model_inputs["attention_mask"] = finished_rows.mask(input_ids, kwargs.get("attention_mask"))
            if finished_rows.wait_for_others():  # the first of these steps read the last token, or none may read it
                model_inputs.pop(CACHE_NAME, None)
                model_inputs["use_cache"] = False
        return model_inputs

    def _sample(
        self,
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        synced_gpus=False,
        streamer=None,
        **model_kwargs,
    ):
        """As in the library, but with [`LeanStep`]s instead of forward passes if nothing looks inside the model."""
        looks_inside = generation_config.output_attentions or generation_config.output_hidden_states
        rows = stopping_criteria if isinstance(stopping_criteria, FinishedRows) else None
        if synced_gpus or looks_inside or rows is None or rows.cache is None or not is_lean(self):
            return super()._sample(
                input_ids,
                logits_processor,
                stopping_criteria,
                generation_config,
                synced_gpus,
                streamer,
                **model_kwargs,
            )
        returned = generation_config.return_dict_in_generate
        scores = () if returned and generation_config.output_scores else None
        raw_logits = () if returned and generation_config.output_logits else None
        ends = any(hasattr(criterion, "eos_token_id") for criterion in rows)
        pad, step, cache = generation_config._pad_token_tensor, LeanStep(self), rows.cache
        if _is_plain_prompt(input_ids, generation_config, model_kwargs) and cache.get_seq_length() == 0:
            memory = (
                self.model.start_memory(len(input_ids))
                if cache.memory is None
                else cache.memory.to(self.lm_head.weight)
            )
            for tokens in input_ids.unbind(dim=1):
                memory = step.update(memory, tokens)
            cache.write(memory, input_ids.shape[1], input_ids.shape[1])
            logits = step.readout(memory)
        else:
            logits = self._prefill(input_ids, generation_config, model_kwargs).logits[:, -1]
        is_alone = len(input_ids) == 1  # one row is never padded
        memory, num_tokens, num_new = cache.memory, cache.num_tokens, 0
        while True:
            logits = logits.to(copy=True, dtype=torch.float32, device=input_ids.device)
            chosen = logits
            for process in logits_processor:  # not the list itself, which inspects every signature at every token
                chosen = process(input_ids, chosen)
            scores = scores if scores is None else (*scores, chosen)
            raw_logits = raw_logits if raw_logits is None else (*raw_logits, logits)
            if generation_config.do_sample:
                tokens = _draw(chosen.softmax(dim=-1))
            else:
                tokens = chosen.argmax(dim=-1)
            if ends and not is_alone and rows.ended is not None:
                tokens = torch.where(rows.ended, pad.to(tokens.device), tokens)
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
            rows(input_ids, scores)
            if streamer is not None:
                streamer.put(tokens.cpu())
            if rows.ended.all():
                break
            moved = step.update(memory, tokens)
            memory = moved if is_alone else torch.where(rows.padding[:, None, None], memory, moved)
            num_tokens, num_new = num_tokens + (1 if is_alone else ~rows.padding), num_new + 1
            logits = step.readout(memory)
        padding = rows.padding
        cache.write(memory, num_new, num_tokens - cache.num_tokens)
        cache.ends_in_padding = padding
        if streamer is not None:
            streamer.end()
        if not returned:
            return input_ids
        return GenerateDecoderOnlyOutput(sequences=input_ids, scores=scores, logits=raw_logits, **{CACHE_NAME: cache})

    def heal_tokens(self, input_ids, tokenizer=None):
        """As in the library, but row by row, so that no padding ends up inside a row."""
        if input_ids.shape[1] == 0:
            raise ValueError("token_healing rewrites the end of a prompt, but a memory alone has none: leave it out")
        rows = [super(SmtRnnGenerationMixin, self).heal_tokens(row[None], tokenizer)[0] for row in input_ids]
        return nn.utils.rnn.pad_sequence(rows, True, float(tokenizer.pad_token_id or 0), padding_side="left")


class FinishedRows(StoppingCriteriaList):
    """The stopping criteria of a run without beams, and their results so far.

    Everything after the end of a row is padding and changes no memory; a pad token before the end is an ordinary token.

    Args:
        cache: the cache of the run, or `None` if every step rereads the whole sequence.
    """

    def __init__(self, cache: SmtRnnCache | None = None):
        super().__init__()
        self.cache = cache
        self.ended: torch.Tensor = None  # bool (B,): rows that have ended
        self.padding = None  # bool (B,): rows that had ended before the last token
        self.history = []  # the same for every generated token, if there is no cache
        self._limits: tuple[float, set[int]] | None = None  # the maximum length, and the tokens that end a sequence
        self._no_and_yes: torch.Tensor = None

    def __call__(self, input_ids: torch.LongTensor, scores, **kwargs) -> torch.BoolTensor:
        is_usual = all(type(criterion) in (MaxLengthCriteria, EosTokenCriteria) for criterion in self)
        if len(input_ids) == 1 and is_usual:
            ends = self._of_one_row(input_ids)
        else:
            ends = super().__call__(input_ids, scores, **kwargs)
        self.padding = torch.zeros_like(ends) if self.ended is None else self.ended
        self.ended = self.padding | ends
        if self.cache is None:
            self.history.append(self.padding)
        else:
            self.cache.ends_in_padding = self.padding
        return ends

    def _of_one_row(self, input_ids: torch.LongTensor) -> torch.BoolTensor:
        """The result of the usual criteria for a single row, without the dozen operations needed for several."""
        if self._limits is None:
            lengths = [criterion.max_length for criterion in self if isinstance(criterion, MaxLengthCriteria)]
            ids = [criterion.eos_token_id for criterion in self if isinstance(criterion, EosTokenCriteria)]
            self._limits = min(lengths, default=math.inf), {token for some in ids for token in some.tolist()}
            self._no_and_yes = torch.tensor([[False], [True]], device=input_ids.device)
        longest, end_ids = self._limits
        ends = input_ids.shape[1] >= longest or bool(end_ids) and input_ids[0, -1].item() in end_ids
        return self._no_and_yes[int(ends)]

    def mask(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Bool mask of the tokens read next: the last one `(B, 1)` with a cache, else all `(B, T)`."""
        if self.cache is not None:
            return ~self.padding[:, None]
        written = ~torch.stack(self.history, dim=1)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return torch.cat([mask[:, : -written.shape[1]].bool(), written], dim=1)

    def wait_for_others(self) -> bool:
        """Whether all rows have ended and steps continue only because other processes need them."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        return distributed and bool(self.ended.all())


def _is_plain_prompt(input_ids: torch.LongTensor, generation_config, model_kwargs: dict) -> bool:
    """Whether a prompt can simply be read token by token."""
    mask = model_kwargs.get("attention_mask")
    return (
        input_ids.shape[1] > 0
        and model_kwargs.get("inputs_embeds") is None
        and generation_config.prefill_chunk_size is None
        and (mask is None or mask.shape == input_ids.shape and bool(mask.all()))
        and set(model_kwargs) <= _USUAL
    )


def _draw(shares: torch.Tensor) -> torch.LongTensor:
    """Draws exactly the same tokens as `torch.multinomial(shares, 1)[:, 0]`, in a third of the time for one row.

    Raises:
        RuntimeError: if `shares` are not finite.
    """
    best, tokens = (shares / torch.empty_like(shares).exponential_()).max(dim=-1)
    if not best.sum().isfinite():
        raise RuntimeError("the probabilities of the next token are not finite: the student's logits are not")
    return tokens


def _load(memory: SmtMemory | str | os.PathLike) -> SmtMemory:
    if isinstance(memory, str | os.PathLike):
        return SmtMemory.from_pretrained(memory)
    if not hasattr(memory, "to_cache"):
        remedy = "pass it as cache" if isinstance(memory, SmtRnnCache) else "make one with student.read(...)"
        raise TypeError(
            f"memory is a {type(memory).__name__}, neither an SmtMemory nor the place where one was saved: {remedy}"
        )
    return memory


def _check_unread(arguments: dict) -> None:
    """Refuses arguments of the forward pass that have no meaning in generation."""
    if arguments.get("output_memory"):
        raise ValueError(
            "generate() does not return output_memory: leave it out, and read the sequences with student.read(...)"
        )
    positions, packed = arguments.get("position_ids"), arguments.get("documents")
    if positions is not None and packed is None:
        positions = torch.atleast_2d(positions)
        packed = packed_documents(positions, tuple(positions.shape), arguments.get("attention_mask"))
    if packed is not None:
        raise ValueError(
            "documents and positions that restart belong to packed rows: pass generate() one row per document"
        )


def _check_ids(input_ids: torch.Tensor, vocab_size: int) -> None:
    low, high = (bound.item() for bound in torch.aminmax(input_ids))
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"token id {low if low < 0 else high} is outside the student's vocabulary of {vocab_size} ids: use its own tokenizer"
        )


def _check_prompt(prompt: torch.Tensor, cache: SmtRnnCache | None, attention_mask: torch.Tensor | None) -> None:
    if prompt.ndim < 2:
        raise ValueError(f"the prompt has shape {tuple(prompt.shape)}: pass (batch, tokens)")
    if prompt.shape[1] == 0:
        raise ValueError("the prompt is empty: pass at least one token, or a memory to continue from")
    if attention_mask is not None:
        earlier = 0 if cache is None else cache.get_seq_length()
        check_attention_mask(attention_mask, prompt.shape[0], prompt.shape[1], earlier)


def _without_prompt(cache: SmtRnnCache, prompt: torch.Tensor | None, attention_mask=None, **kwargs) -> dict:
    """Options with which `generate()` continues from the cache: as many rows as the empty prompt has, or the cache without one."""
    if attention_mask is not None and attention_mask.shape[-1] > 0:
        raise ValueError(
            "attention_mask belongs to a prompt, but a memory alone has none: leave it out, or pass the prompt"
        )
    kwargs.pop("input_ids", None)
    rows = cache.batch_size if prompt is None else len(prompt)
    return {**kwargs, "inputs_embeds": cache.memory.new_zeros(rows, 0, cache.memory.shape[-1])}


def _check_options_without_prompt(config, negative_prompt_ids: torch.Tensor | None) -> None:
    """Refuses options that have no meaning without the tokens of a prompt."""
    looks_back = "looks at the tokens of the prompt: leave it out"
    refused = {
        "guidance_scale": (
            config.guidance_scale not in (None, 1) and negative_prompt_ids is None,
            "compares with only the last token of the prompt: pass negative_prompt_ids too",
        ),
        "encoder_repetition_penalty": (config.encoder_repetition_penalty not in (None, 1), looks_back),
        "encoder_no_repeat_ngram_size": (config.encoder_no_repeat_ngram_size not in (None, 0), looks_back),
        "forced_bos_token_id": (
            config.forced_bos_token_id is not None,
            "forces what follows the first token of a prompt: leave it out",
        ),
    }
    for name, (given, reason) in refused.items():
        if given:
            raise ValueError(
                f"{name}={getattr(config, name)} {reason}, or pass a prompt; a memory alone has no tokens"
            )


def _mask_of_all_tokens(cache: SmtRnnCache, inputs: torch.Tensor, attention_mask: torch.Tensor | None):
    """The mask `(B, earlier + new)` from which the library sees which inputs are new; unchanged if the given mask suffices.

    Raises:
        ValueError: if no input is new.
    """
    past, length = cache.get_seq_length(), inputs.shape[1]
    if past == 0:
        return attention_mask
    if length == past and (attention_mask is None or attention_mask.shape[1] == length):
        raise ValueError(
            f"the cache has read {past} tokens, and the inputs are {length}: pass the full sequence with at least one new "
            "token, or new tokens with an attention_mask as long as all tokens together"
        )
    if attention_mask is not None:
        if length > past or attention_mask.shape[1] > length:
            return attention_mask
        return torch.cat([attention_mask.new_ones(len(inputs), past), attention_mask], dim=1)
    new = torch.ones(len(inputs), length - past if length > past else length, dtype=torch.long, device=inputs.device)
    if (
        cache.ends_in_padding is not None
    ):  # the last token of the earlier call is the first that the cache has not read
        padding = cache.ends_in_padding.to(new.device)
        new[:, 0] = ~padding[:: max(1, len(padding) // len(new))].expand(
            len(new)
        )  # the cache may have a row for each beam
    return torch.cat([new.new_ones(len(new), past), new], dim=1)


def _fit_batch(cache: SmtRnnCache, rows: int, batch_size: int | None = None) -> SmtRnnCache:
    """The cache itself if it has `rows` rows or is empty, else a copy with each row (or the only one) repeated.

    Raises:
        ValueError: if its rows do not match the batch.
    """
    if cache.memory is None or cache.batch_size == rows:
        return cache
    if cache.batch_size not in (1, batch_size):
        raise ValueError(
            f"the memory has {cache.batch_size} rows, but the inputs have {batch_size or rows}: pass as many, or one"
        )
    repeated = SmtRnnCache(cache.memory, cache.get_seq_length(), cache.num_tokens)
    repeated.batch_repeat_interleave(rows // cache.batch_size)
    return repeated


__all__ = ["FinishedRows", "SmtRnnGenerationMixin"]
