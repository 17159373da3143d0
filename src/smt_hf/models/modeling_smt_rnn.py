"""The recurrent student: a fixed-size memory, an updater and a readout."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.generic import can_return_tuple

from .cache_smt_rnn import CACHE_NAME, SmtRnnCache, check_cache
from .cells_smt_rnn import cell_class, init_cells
from .configuration_smt_rnn import SmtRnnConfig
from .documents_smt import (
    check_attention_mask,
    check_columns,
    check_names,
    cuts_between,
    document_starts,
    own_labels,
    packed_documents,
)
from .generation_smt_rnn import SmtRnnGenerationMixin
from .layers_smt import SmtTransformer, init_residual_outputs, normalize_memory, read_memory
from .pretrained_smt import SmtPreTrainedModel

# The stock Trainer shifts the labels of models in this table when it smooths them.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[SmtRnnConfig.model_type] = "SmtRnnForCausalLM"

_RECOMPUTE = partial(checkpoint, use_reentrant=False)
# Where a saved folder keeps the other classes that can start from its weights.
_AUTO_MAP = {
    "AutoModel": "modeling_smt_rnn.SmtRnnModel",
    "AutoModelForSequenceClassification": "modeling_smt_rnn.SmtRnnForSequenceClassification",
}


@dataclass
class SmtRnnModelOutput(BaseModelOutputWithPast):
    """`BaseModelOutputWithPast` plus, with `output_memory=True`, the memory `(B, T, K, D)` after every kept token."""

    memory: torch.FloatTensor | None = None


@dataclass
class SmtRnnCausalLMOutput(CausalLMOutputWithPast):
    """`CausalLMOutputWithPast` plus, with `output_memory=True`, the memory `(B, T, K, D)` after every kept token."""

    memory: torch.FloatTensor | None = None


class SmtRnnPreTrainedModel(SmtPreTrainedModel):
    """Base class for initialising, loading and saving students."""

    config: SmtRnnConfig
    base_model_prefix = "model"
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _supports_flash_attn = True
    _is_stateful = True  # a recurrent memory cannot be rolled back: assisted generation is refused

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, SmtRnnModel):
            init_residual_outputs(module, self.config)
            init_cells(module, self.config)
            init.normal_(module.initial_memory)

    def save_pretrained(self, save_directory, **kwargs):
        """As [`~transformers.PreTrainedModel.save_pretrained`], but the saved configuration also names the other classes."""
        if self._auto_class is not None:
            self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), **_AUTO_MAP}
        super().save_pretrained(save_directory, **kwargs)

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=_RECOMPUTE, **kwargs):
        """Recomputes whole segments of time instead of layers, see `checkpoint_steps` of [`SmtRnnModel.forward`]."""
        for module in self.modules():
            if isinstance(module, SmtRnnModel):
                module.gradient_checkpointing = enable
                module._gradient_checkpointing_func = gradient_checkpointing_func


class SmtRnnModel(SmtRnnPreTrainedModel):
    """The student without its output head: token embedding, updater, initial memory and readout layers."""

    _further_elsewhere = ("lm_head.weight", "score.weight")

    def __init__(self, config: SmtRnnConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.initial_memory = nn.Parameter(torch.empty(config.num_memory_tokens, config.hidden_size))
        self.cell = cell_class(config.cell_type)(config)
        self.decoder = SmtTransformer(config, config.num_readout_layers)
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func = _RECOMPUTE
        self.post_init()

    def start_memory(self, batch_size: int) -> torch.Tensor:
        """The memory before any token, `(B, K, D)`: the normalised learned initial memory."""
        return normalize_memory(self.initial_memory, self.config).expand(batch_size, -1, -1)

    def update(self, memory: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """One step of the recurrence, `f(m_t, x_{t+1}) = m_{t+1}`.

        Args:
            memory: `(B, K, D)`.
            input_ids: `(B,)` token ids.

        Returns:
            The next memory `(B, K, D)`.
        """
        return self.cell(memory, self.embed_tokens(input_ids))

    def readout_features(self, memory: torch.Tensor) -> torch.Tensor:
        """The features of a memory for the output head: `(..., K, D)` -> `(..., D)`."""
        return read_memory(self.decoder, memory)

    def unroll(
        self,
        inputs_embeds,
        memory,
        begins=None,
        moves=None,
        cuts=None,
        keep=0,
        initial_memory=None,
        checkpoint_steps=None,
    ):
        """Runs the recurrence over a sequence.

        Args:
            inputs_embeds: `(B, T, D)`.
            memory: `(B, K, D)`, the state before the first token.
            begins: bool `(B, T)`, tokens before which the memory is reset to the initial one; ignored in the first column, which
                starts from `memory`.
            moves: bool `(B, T)`, `False` at padding, where the memory does not change.
            cuts: bool `(B, T)`, or a list of T values for all rows: tokens before which the memory is detached.
            keep: number of last steps to return, 0 for all; or a 1-D tensor of step indices, in any order.
            initial_memory: `(B, K, D)`, the start of every new document; the learned initial memory when `None`.
            checkpoint_steps: C; the backward pass recomputes C steps at a time from the memory before them.

        Returns:
            The memories after the kept tokens `(B, T', K, D)`, and the last memory `(B, K, D)`.
        """
        length = inputs_embeds.shape[1]
        kept = torch.arange(length)[keep.cpu()].tolist() if isinstance(keep, torch.Tensor) else range(length)[-keep:]
        if begins is not None and initial_memory is None:
            initial_memory = self.start_memory(len(inputs_embeds))
        wanted = set(kept)

        def run(memory, inputs_embeds, initial_memory, first):
            states = []
            for t, token in enumerate(
                inputs_embeds.unbind(dim=1), first
            ):  # so that its gradient is stacked once, at the end
                if isinstance(cuts, torch.Tensor):
                    memory = torch.where(cuts[:, t, None, None], memory.detach(), memory)
                elif cuts is not None and cuts[t]:
                    memory = memory.detach()
                if begins is not None and t > 0:
                    memory = torch.where(begins[:, t, None, None], initial_memory, memory)
                moved = self.cell(memory, token)
                memory = moved if moves is None else torch.where(moves[:, t, None, None], moved, memory)
                if t in wanted:
                    states.append(memory)
            return *states, memory

        if checkpoint_steps is None:
            *states, memory = run(memory, inputs_embeds, initial_memory, 0)
        else:
            states = []
            for piece, embeds in enumerate(inputs_embeds.split(checkpoint_steps, dim=1)):
                first = piece * checkpoint_steps
                arguments = (memory, embeds, initial_memory, first)
                *more, memory = self._gradient_checkpointing_func(run, *arguments)
                states += more
        by_step = dict(zip(sorted(wanted), states, strict=True))
        return torch.stack([by_step[t] for t in kept], dim=1), memory

    def unroll_side_by_side(self, inputs_embeds, begins, checkpoint_steps=None):
        """Same as [`unroll`] for whole rows from the initial memory, in as many steps as the longest document has tokens.

        All documents of all rows take their first step together, then their second, and so on until they end. A flattening
        collator makes one row of a batch, which would take one step for every token of the batch.
        """
        starts = begins.flatten().nonzero()[:, 0]
        lengths = torch.diff(starts, append=starts.new_tensor([begins.numel()]))
        lengths, order = lengths.sort(descending=True)
        starts, tokens = starts[order], inputs_embeds.flatten(0, 1)
        num_running = (lengths > torch.arange(int(lengths[0]), device=lengths.device)[:, None]).sum(dim=1).tolist()
        places = [starts[:running] + t for t, running in enumerate(num_running)]

        def run(memory, tokens, first, last):
            states = []
            for place in places[first:last]:
                memory = self.cell(memory[: len(place)], tokens[place])
                states.append(memory)
            return tuple(states)

        memory = self.start_memory(len(starts))
        if checkpoint_steps is None:
            states = run(memory, tokens, 0, len(places))
        else:
            states = []
            for first in range(0, len(places), checkpoint_steps):
                states += self._gradient_checkpointing_func(run, memory, tokens, first, first + checkpoint_steps)
                memory = states[-1]
        states = torch.cat(states)[torch.cat(places).argsort()].unflatten(0, begins.shape)
        return states, states[:, -1]

    def _features(self, states: torch.Tensor, checkpoint_steps: int | None) -> torch.Tensor:
        """[`readout_features`] of `(B, T, K, D)`, recomputed in the backward pass if the recurrence is."""
        if checkpoint_steps is None:
            return self.readout_features(states)
        pieces = states.split(checkpoint_steps, dim=1)
        return torch.cat([self._gradient_checkpointing_func(self.readout_features, piece) for piece in pieces], dim=1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cache: SmtRnnCache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        documents: torch.LongTensor | None = None,
        output_memory: bool = False,
        steps_to_keep: int | torch.Tensor = 0,
        detach_readout: bool = False,
        bptt_horizon: int | None = None,
        checkpoint_steps: int | None = None,
        output_hidden_states: bool | None = None,
        past_key_values: SmtRnnCache | None = None,
        position_ids: torch.LongTensor | None = None,
        **kwargs,
    ) -> SmtRnnModelOutput:
        r"""Reads tokens one after another.

        Args:
            input_ids: `(B, T)`. Give either `input_ids` or `inputs_embeds` `(B, T, D)`.
            attention_mask: `(B, T)` or `(B, earlier + T)`, 0 for padding, which may be anywhere and does not change the memory.
            cache: an [`SmtRnnCache`] to continue from, updated in place. With it, the sequence may be empty; the features are
                then those of its current memory, `(B, 1, D)`.
            use_cache: return the cache (created if none was given).
            documents: `(B, T)`; the memory is reset wherever the id changes within a row. -1 is padding, like 0 in
                `attention_mask`.
            output_memory: also return the memory after every kept token.
            steps_to_keep: number of last steps (0: all) or a 1-D tensor of step indices to return features for.
            output_hidden_states: also return the token embeddings and the features, both of every token.
            detach_readout: detach the features from the memory in the autograd graph.
            bptt_horizon: H for truncated back-propagation through time: the memory is detached after every H tokens of a
                document, without padding, so that the gradient goes back at most H steps; over the whole sequence when `None`.
            checkpoint_steps: C; the backward pass recomputes the sequence in segments of C steps instead of storing the
                activations of every step. The square root of the length with `gradient_checkpointing_enable()`.
            past_key_values: the name of `cache` up to transformers 5.23.
            position_ids: `(B, T)` or `(1, T)`, used only for packed rows: without `documents` or a cache, every position 0
                after the first token begins a document. A recurrence needs no positions.

        Returns:
            `last_hidden_state` `(B, T', D)`, the readout features after every kept token.

        Raises:
            ValueError: if both or neither of `input_ids` and `inputs_embeds` are given, or both `cache` and `past_key_values`;
                if the sequence is empty; if `attention_mask`, `documents` or the cache's memory has another shape; or if a
                number of steps is below 1.
            TypeError: if `cache` is a cache of keys and values.
        """
        check_names({**kwargs, "position_ids": position_ids})
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        batch_size, length = inputs_embeds.shape[:2]
        if cache is not None and past_key_values is not None:
            raise ValueError("cache and past_key_values are two names for one argument: pass only one of them")
        cache = past_key_values if cache is None else cache
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if use_cache and cache is None:
            cache = SmtRnnCache()

        memory = None if cache is None else check_cache(cache).memory
        continues = memory is not None
        if continues:
            check_fits(memory, batch_size, self.config)
        if memory is None and length == 0:
            raise ValueError("the sequence is empty: pass at least one token")
        check_columns((batch_size, length), documents=documents)
        check_steps(bptt_horizon=bptt_horizon, checkpoint_steps=checkpoint_steps)
        if attention_mask is not None:
            earlier = 0 if cache is None else cache.get_seq_length()
            attention_mask = check_attention_mask(attention_mask, batch_size, length, earlier)
        memory = self.start_memory(batch_size) if memory is None else memory.to(inputs_embeds)
        if checkpoint_steps is None and self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            checkpoint_steps = math.ceil(math.sqrt(length))
        packed = None
        if documents is None and not continues:
            packed = documents = packed_documents(position_ids, (batch_size, length), attention_mask)
        if attention_mask is None and documents is not None and packed is None and use_cache is not False:
            attention_mask = documents >= 0  # the last memory is the one after the last token
        begins = None
        if documents is not None:
            documents = documents if attention_mask is None else documents.masked_fill(~attention_mask, -1)
            begins = document_starts(documents)
        # The library's hidden states cover every token, whichever logits are kept.
        steps_to_unroll = 0 if output_hidden_states else steps_to_keep
        whole = isinstance(steps_to_unroll, int) and steps_to_unroll == 0
        if length == 0:
            states = memory[:, None]
        elif packed is not None and whole and attention_mask is None and bptt_horizon is None:
            states, memory = self.unroll_side_by_side(inputs_embeds, begins, checkpoint_steps)
        else:
            states, memory = self.unroll(
                inputs_embeds,
                memory,
                begins=begins,
                moves=attention_mask,
                cuts=None if bptt_horizon is None else cuts_between(bptt_horizon, length, attention_mask, documents),
                keep=steps_to_unroll,
                checkpoint_steps=checkpoint_steps,
            )
        if cache is not None:
            cache.write(memory, length, length if attention_mask is None else attention_mask.sum(dim=1))
        features = self._features(states.detach() if detach_readout else states, checkpoint_steps)
        hidden_states = None
        if output_hidden_states:
            hidden_states = (inputs_embeds, features)
            kept = slice(-steps_to_keep, None) if isinstance(steps_to_keep, int) else steps_to_keep
            states, features = states[:, kept], features[:, kept]
        return SmtRnnModelOutput(
            last_hidden_state=features,
            **{CACHE_NAME: cache},
            hidden_states=hidden_states,
            memory=states if output_memory else None,
        )


def check_steps(**steps: int | None) -> None:
    """Checks the given numbers of steps.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in steps.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1, or None for the whole sequence")


def check_fits(memory: torch.Tensor, batch_size: int, config: SmtRnnConfig) -> None:
    """Checks that the memory of a cache fits the student and has one row per input.

    Raises:
        ValueError: naming both shapes.
    """
    wanted = (batch_size, config.num_memory_tokens, config.hidden_size)
    if tuple(memory.shape) != wanted:
        raise ValueError(
            f"the cache's memory has shape {tuple(memory.shape)}, but for these inputs the student needs {wanted}"
        )


class SmtRnnForCausalLM(SmtRnnPreTrainedModel, SmtRnnGenerationMixin):
    """The student as a causal language model, trained by SMT and DMT and used with `generate()`."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # if config.tie_word_embeddings

    def __init__(self, config: SmtRnnConfig):
        super().__init__(config)
        self.model = SmtRnnModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @property
    def initial_memory(self) -> torch.Tensor:
        """The state before any token, m_empty: `(K, D)`."""
        return self.model.start_memory(1)[0]

    def update(self, memory: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """One step of the recurrence: `(B, K, D)` and `(B,)` token ids -> `(B, K, D)`."""
        return self.model.update(memory, input_ids)

    def readout(self, memory: torch.Tensor) -> torch.Tensor:
        """Logits of the next token from the memory alone: `(..., K, D)` -> `(..., V)`."""
        return self.lm_head(self.model.readout_features(memory))

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cache: SmtRnnCache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        documents: torch.LongTensor | None = None,
        output_memory: bool = False,
        logits_to_keep: int | torch.Tensor = 0,
        detach_readout: bool = False,
        bptt_horizon: int | None = None,
        checkpoint_steps: int | None = None,
        output_hidden_states: bool | None = None,
        past_key_values: SmtRnnCache | None = None,
        position_ids: torch.LongTensor | None = None,
        **kwargs,
    ) -> SmtRnnCausalLMOutput:
        r"""Reads tokens and predicts the next ones; with `labels` its backward pass is back-propagation through time.

        Args:
            labels: `(B, T)` token ids, usually the same as `input_ids` (they are shifted here); -100 is ignored. The first label
                of a document (see `documents`) and labels of padding are ignored too, so the loss of a row does not depend on
                where it is padded.
            shift_labels: `(B, T)` targets that are already aligned, instead of `labels`: target t is predicted from the memory
                after token t; -100 is ignored. Not in the signature, because the stock `Trainer` would treat it as required.
            logits_to_keep: number of last positions (0: all) or a 1-D tensor of positions to compute logits for.

        The other arguments are those of [`SmtRnnModel.forward`].

        Returns:
            `logits` `(B, T', V)`: at position t the logits of token t + 1, read from the memory after token t.

        Raises:
            ValueError: if `labels` and `logits_to_keep` are given together, or as [`SmtRnnModel.forward`] does.
        """
        check_names({**kwargs, "position_ids": position_ids})
        shift_labels = kwargs.get("shift_labels")
        has_labels = labels is not None or shift_labels is not None
        earlier = cache if past_key_values is None else past_key_values
        continues = earlier is not None and check_cache(earlier).memory is not None
        if has_labels and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise ValueError("labels need the logits of every position: leave logits_to_keep at 0")
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            cache=cache,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            documents=documents,
            output_memory=output_memory,
            steps_to_keep=logits_to_keep,
            detach_readout=detach_readout,
            bptt_horizon=bptt_horizon,
            checkpoint_steps=checkpoint_steps,
            output_hidden_states=output_hidden_states,
            position_ids=position_ids,
            return_dict=True,
        )
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if has_labels:
            check_columns(logits.shape[:2], labels=labels, shift_labels=shift_labels)
            if shift_labels is None:
                labels = own_labels(labels, attention_mask, documents, position_ids, continues)
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return SmtRnnCausalLMOutput(
            loss=loss,
            logits=logits,
            **{CACHE_NAME: outputs[CACHE_NAME] if CACHE_NAME in outputs else None},
            hidden_states=outputs.hidden_states,
            memory=outputs.memory,
        )


class SmtRnnForSequenceClassification(SmtRnnPreTrainedModel):
    """The student as a classifier of whole texts: a linear `score` of its memory after the last real token.

    The score reads the readout features of that memory, like the output head of [`SmtRnnForCausalLM`]. It is newly initialised
    when loaded from a language model. `num_labels` and `problem_type` of the configuration work as in the library.
    """

    accepts_loss_kwargs = False  # the loss is a mean over the rows of one batch
    _absent_elsewhere = ("score.weight",)
    _further_elsewhere = ("lm_head.weight",)

    def __init__(self, config: SmtRnnConfig):
        super().__init__(config)
        if config.num_labels < 1:
            raise ValueError(f"num_labels={config.num_labels} must be at least 1")
        self.num_labels = config.num_labels
        self.model = SmtRnnModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cache: SmtRnnCache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        past_key_values: SmtRnnCache | None = None,
        **kwargs,
    ) -> SequenceClassifierOutputWithPast:
        r"""Reads tokens and scores the labels.

        Args:
            attention_mask: `(B, T)`, 0 for padding, which may be anywhere. Without it, every token is read, even `pad_token_id`.
            labels: `(B,)` class ids; `(B,)` or `(B, num_labels)` values for regression; `(B, num_labels)` zeros and ones for
                multi-label classification.

        The other arguments are those of [`SmtRnnModel.forward`], except `steps_to_keep`.

        Returns:
            `logits` `(B, num_labels)`.

        Raises:
            ValueError: as [`SmtRnnModel.forward`] does.
        """
        if input_ids is not None and cache is None and past_key_values is None:
            self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            cache=cache,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **{
                **kwargs,
                "steps_to_keep": 1,
                "return_dict": True,
            },  # padding does not change the memory after the last token
        )
        logits = self.score(outputs.last_hidden_state[:, -1])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            **{CACHE_NAME: outputs[CACHE_NAME] if CACHE_NAME in outputs else None},
            hidden_states=outputs.hidden_states,
        )


__all__ = ["SmtRnnForCausalLM", "SmtRnnForSequenceClassification", "SmtRnnModel", "SmtRnnPreTrainedModel"]
