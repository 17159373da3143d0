"""The Transformer teacher: an encoder from context to memory and a decoder from memory to future."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .backbone_smt import make_backbone, read_backbone
from .configuration_smt_teacher import SmtTeacherConfig
from .documents_smt import check_columns, check_names, columns_on, last_columns, separate_padding
from .layers_smt import SmtTransformer, init_residual_outputs, normalize_memory, read_memory
from .pretrained_smt import SmtPreTrainedModel


@dataclass
class SmtTeacherOutput(ModelOutput):
    """What the encoder returns.

    memory: `(B, N, K, D)`, the memory state after each requested position.
    last_hidden_state: `(B, T, D)`, the causal token stream; `None` for a bidirectional encoder.
    backbone_logits: `(B, T, V)`, the backbone's logits for the next token, if requested.
    backbone_start_logits: `(B, V)`, the same for the first token of a document, if the backbone has a bos token.
    """

    memory: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    backbone_logits: torch.FloatTensor | None = None
    backbone_start_logits: torch.FloatTensor | None = None


class SmtTeacherModel(SmtPreTrainedModel):
    """Encoder `E(x_{<=t}) = m_t` and decoder `D(m_t, x_{t+1..}) -> logits of the future` (Kumar & Isola)."""

    config: SmtTeacherConfig
    base_model_prefix = "teacher"
    _further_elsewhere = ("student.", "stream_head.")

    def __init__(self, config: SmtTeacherConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.backbone = self.backbone_projection = None
        if config.backbone_config is not None:
            self.backbone = make_backbone(config.backbone_config)
            width = config.backbone_config.get_text_config().hidden_size
            self.backbone_projection = nn.Linear(width, config.hidden_size, bias=False)
        self.memory_registers = nn.Parameter(torch.empty(config.num_memory_tokens, config.hidden_size))
        self.encoder = SmtTransformer(config, config.num_encoder_layers)
        self.decoder = SmtTransformer(config, config.num_decoder_layers)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, SmtTeacherModel):
            init_residual_outputs(module, self.config)
            init.normal_(module.memory_registers, std=self.config.initializer_range)

    def train(self, mode: bool = True):
        """As in torch, but a frozen backbone stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.backbone is not None and not any(p.requires_grad for p in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def encode(
        self,
        input_ids: torch.LongTensor,
        positions: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        documents: torch.LongTensor | None = None,
    ) -> torch.Tensor:
        """Encodes many prefixes of a sequence into memory states.

        Args:
            input_ids: `(B, T)`.
            positions: `(N,)` or `(B, N)`, column indices t for the states after `x_{<=t}`. -1 is the empty context, and so is a
                column of padding. Positions on the CPU avoid waiting for a GPU.
            attention_mask: `(B, T)`, 0 for padding, which no state sees.
            documents: `(B, T)`, -1 for padding; a state sees only the tokens of its own document.

        Returns:
            `(B, N, K, D)`.

        Raises:
            ValueError: if positions are not integers of these shapes, or one is outside -1..T-1.
        """
        return self(input_ids, positions, attention_mask, documents, return_dict=True).memory

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        positions: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        documents: torch.LongTensor | None = None,
        output_backbone_logits: bool = False,
        **kwargs,
    ) -> SmtTeacherOutput:
        """Encodes the contexts; see [`encode`] for the arguments. Without `positions`, only those after the last real token of each row.

        With `output_backbone_logits`, the backbone's own predictions are returned too.
        """
        check_names(kwargs)
        batch_size, length = input_ids.shape
        check_columns((batch_size, length), documents=documents)
        documents = separate_padding(input_ids, attention_mask, documents)
        if positions is None:
            positions = torch.tensor([length - 1]) if documents is None else last_columns(documents)
        positions = torch.as_tensor(positions)
        if positions.is_floating_point() or positions.shape[:-1] not in {(), (batch_size,)} or positions.dim() == 0:
            raise ValueError(
                f"positions are {str(positions.dtype).removeprefix('torch.')} of shape {tuple(positions.shape)}: pass integers (N,) "
                f"or ({batch_size}, N)"
            )
        if not torch.compiler.is_compiling() and positions.numel():
            low, high = positions.min().item(), positions.max().item()
            if low < -1 or high >= length:
                raise ValueError(f"positions range from {low} to {high}: they must lie in -1..{length - 1}")
        if self.config.encoder_attention == "bidirectional":
            return SmtTeacherOutput(memory=self._encode_each(input_ids, positions, documents))
        if self.backbone is None:
            if output_backbone_logits:
                raise ValueError("output_backbone_logits: this teacher has no backbone, leave it out")
            return self._encode_dense(input_ids, self.embed_tokens(input_ids), None, positions, documents)
        hidden, start, logits, start_logits = read_backbone(
            self.backbone, input_ids, documents, output_backbone_logits
        )
        stream = self.backbone_projection(hidden)
        start = torch.zeros_like(stream[:, 0]) if start is None else self.backbone_projection(start)
        output = self._encode_dense(input_ids, stream, start, positions, documents)
        output.backbone_logits, output.backbone_start_logits = logits, start_logits
        return output

    def _encode_dense(self, input_ids, tokens, start, given_positions, documents) -> SmtTeacherOutput:
        """Encodes in one pass: a causal token stream, and K registers per position that see its prefix and each other.

        `tokens` `(B, T, D)` are the embedded ids or the projected hidden states of a backbone. The latter are also added to the
        last register of their position, and `start` `(B, D)` to that of the empty context. If every row is one document
        (`documents` is `None`) and all rows have the same positions (`given_positions` `(N,)`), they share one mask.
        """
        (batch_size, length), num_positions = input_ids.shape, given_positions.shape[-1]
        positions = columns_on(input_ids.device, given_positions).expand(batch_size, -1)
        num_registers = self.config.num_memory_tokens
        registers = self.memory_registers.repeat(num_positions, 1).expand(batch_size, -1, -1)
        if start is not None and self.config.carry_hidden_state:
            at = torch.cat([start[:, None], tokens], dim=1)
            at = at.gather(1, (positions + 1)[..., None].expand(-1, -1, at.shape[-1]))
            at = nn.functional.rms_norm(at, at.shape[-1:], eps=self.config.rms_norm_eps)
            at = nn.functional.pad(at[:, :, None], (0, 0, num_registers - 1, 0))
            registers = registers + at.flatten(1, 2)
        inputs = torch.cat([tokens, registers], dim=1)
        offsets = torch.arange(num_registers, device=input_ids.device)
        stream = torch.arange(length, device=input_ids.device).expand(batch_size, -1)
        position_ids = torch.cat([stream, (positions[..., None] + 1 + offsets).flatten(1)], dim=1)

        # Every column has the last token that it may see, its document, and its group (-1 for the stream).
        last_seen = torch.cat([stream, positions.repeat_interleave(num_registers, dim=1)], dim=1)
        rows = inputs if documents is not None or given_positions.dim() > 1 else inputs[:1]
        documents = torch.zeros_like(input_ids) if documents is None else documents
        own_document = documents.gather(1, last_seen.clamp(min=0))
        groups = torch.arange(num_positions, device=input_ids.device).repeat_interleave(num_registers)
        groups = nn.functional.pad(groups, (length, 0), value=-1)

        def sees(batch_idx, head_idx, q_idx, kv_idx):
            is_token = groups[kv_idx] < 0
            prefix = is_token & (kv_idx <= last_seen[batch_idx, q_idx])
            document = own_document[batch_idx, kv_idx]
            prefix = prefix & (document == own_document[batch_idx, q_idx]) & (document >= 0)
            same_group = (groups[kv_idx] == groups[q_idx]) & ~is_token
            return prefix | same_group | (q_idx == kv_idx)

        mask = create_bidirectional_mask(self.config, rows, None, and_mask_function=sees)
        if isinstance(mask, torch.Tensor) and not torch.compiler.is_compiling():  # a flex mask knows its blocks
            mask = register_blocks(mask, length, given_positions.expand(batch_size, -1), num_registers)
        hidden_states = self.encoder(inputs, position_ids, mask)
        memory = hidden_states[:, length:].unflatten(1, (num_positions, num_registers))
        return SmtTeacherOutput(normalize_memory(memory, self.config), hidden_states[:, :length])

    def _encode_each(self, input_ids, positions, documents) -> torch.Tensor:
        """The paper's encoder: encodes the context of every position separately, with bidirectional attention."""
        documents = torch.zeros_like(input_ids) if documents is None else documents
        (batch_size, length), num_positions = input_ids.shape, positions.shape[-1]
        positions = columns_on(input_ids.device, positions).expand(batch_size, -1)
        num_registers = self.config.num_memory_tokens
        flat = positions.reshape(-1, 1)
        rows = torch.arange(batch_size, device=input_ids.device).repeat_interleave(num_positions)
        stream = torch.arange(length, device=input_ids.device)
        own_document = documents[rows].gather(1, flat.clamp(min=0))
        visible = (stream <= flat) & (documents[rows] == own_document) & (documents[rows] >= 0)
        visible = nn.functional.pad(visible, (0, num_registers), value=True)

        registers = self.memory_registers.expand(len(rows), -1, -1)
        inputs = torch.cat([self.embed_tokens(input_ids)[rows], registers], dim=1)
        offsets = torch.arange(num_registers, device=input_ids.device)
        position_ids = torch.cat([stream.expand(len(rows), -1), flat + 1 + offsets], dim=1)
        mask = create_bidirectional_mask(self.config, inputs, visible.long())
        memory = self.encoder(inputs, position_ids, mask)[:, length:]
        return normalize_memory(memory, self.config).unflatten(0, (batch_size, num_positions))

    def decode(self, memory: torch.Tensor, future_ids: torch.LongTensor) -> torch.Tensor:
        """Logits of the future, with teacher forcing: step j sees the memory and `future_ids[:, :j]`.

        Args:
            memory: `(M, K, D)`.
            future_ids: `(M, T_f)`, the tokens that follow the context of each memory.

        Returns:
            `(M, T_f, V)`; the first logits depend on the memory alone.
        """
        num_registers, hidden_states = memory.shape[1], memory
        if future_ids.shape[1] > 1:  # NEFTune cannot make noise for zero tokens
            hidden_states = torch.cat([memory, self.embed_tokens(future_ids[:, :-1])], dim=1)
        position_ids = torch.arange(hidden_states.shape[1], device=memory.device)

        def prefix_lm(batch_idx, head_idx, q_idx, kv_idx):
            return (kv_idx <= q_idx) | (kv_idx < num_registers)

        mask = create_bidirectional_mask(self.config, hidden_states, None, and_mask_function=prefix_lm)
        hidden_states = self.decoder(hidden_states, position_ids, mask)
        return self.lm_head(hidden_states[:, num_registers - 1 :])

    def readout(self, memory: torch.Tensor) -> torch.Tensor:
        """Logits of the next token from the memory alone: `(..., K, D)` -> `(..., V)`."""
        return self.lm_head(read_memory(self.decoder, memory))


def register_blocks(mask: torch.Tensor, length: int, positions: torch.Tensor, num_registers: int) -> list[tuple]:
    """Cuts the dense mask into blocks without the columns that none of their rows see.

    The stream sees the stream; the registers of a few neighbouring positions see the stream up to the last of these
    positions, and themselves. Without this, the cost of attention is quadratic in all tokens and registers together.

    Args:
        mask: `(B, 1, L, L)` with L = `length` + N K.
        length: number of tokens in the stream.
        positions: `(B, N)`.
        num_registers: K.

    Returns:
        Blocks `(rows, columns, mask)` for [`SmtTransformer`].
    """
    stream = slice(0, length)
    blocks = [(stream, stream, mask[:, :, stream, stream])]
    last_seen = positions.amax(dim=0).tolist()
    group_size = max(1, (256 if mask.is_cuda else 64) // num_registers)  # a GPU prefers few large blocks
    for first in range(0, len(last_seen), group_size):
        last = min(first + group_size, len(last_seen))
        rows = slice(length + first * num_registers, length + last * num_registers)
        seen = max(last_seen[first:last]) + 1
        columns = torch.cat([torch.arange(seen), torch.arange(rows.start, rows.stop)])
        columns = columns_on(mask.device, columns)
        blocks.append((rows, columns, mask[:, :, rows, columns]))
    return blocks


__all__ = ["SmtTeacherModel"]
