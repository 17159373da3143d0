"""Teacher and student in one model, as SMT trains them."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .backbone_smt import take_over
from .configuration_smt import SmtConfig
from .documents_smt import check_names, columns_on, document_starts, separate_padding
from .modeling_smt_rnn import SmtRnnForCausalLM
from .modeling_smt_teacher import SmtTeacherModel
from .pretrained_smt import SmtPreTrainedModel


@dataclass
class SmtForPreTrainingOutput(ModelOutput):
    """The inputs of the SMT losses, for S segments of J tokens, P encoded positions and M decoded positions.

    positions: `(P,)`, the encoded positions in ascending order; -1 is the empty context.
    memory: `(B, P, K, D)`, the teacher's states after these positions.
    predicted_memory: `(B, S, K, D)`, the student's states after the segments; `None` if the student did not run.
    target_memory: `(B, S, K, D)`, the teacher's states that the predicted ones should match.
    student_logits: `(B, S, J, V)`, the next token read from the student's state after every token of the segments.
    decoding_logits: `(B, M, T_f, V)`, the futures decoded from the decoded positions.
    readout_logits: `(B, P, V)`, the next token read from every teacher state alone.
    stream_logits: `(B, T, V)`, the next token from the encoder's token stream, or from the teacher's backbone; `None` for a
        bidirectional encoder.
    backbone_logits: `(B, S, J, V)`, the backbone's logits at the places of `student_logits`, if requested.
    """

    positions: torch.LongTensor | None = None
    memory: torch.FloatTensor | None = None
    predicted_memory: torch.FloatTensor | None = None
    target_memory: torch.FloatTensor | None = None
    student_logits: torch.FloatTensor | None = None
    decoding_logits: torch.FloatTensor | None = None
    readout_logits: torch.FloatTensor | None = None
    stream_logits: torch.FloatTensor | None = None
    backbone_logits: torch.FloatTensor | None = None


def encoded_positions(segment_starts: torch.Tensor, segment_length: int, with_empty: bool) -> torch.Tensor:
    """The sorted positions `(P,)` to encode for segments `(S,)`: before and after each, and -1 if `with_empty`."""
    positions = torch.cat([segment_starts - 1, segment_starts + segment_length - 1])
    return torch.unique(torch.cat([positions.new_tensor([-1]), positions]) if with_empty else positions)


class SmtForPreTraining(SmtPreTrainedModel):
    """Teacher and student in one checkpoint; the student's readout is tied to the teacher's decoder and head."""

    config: SmtConfig
    base_model_prefix = ""
    _tied_weights_keys = {"student.model.decoder": "teacher.decoder", "student.lm_head": "teacher.lm_head"}

    def __init__(self, config: SmtConfig):
        super().__init__(config)
        self.teacher = SmtTeacherModel._from_config(config.teacher_config)
        self.student = SmtRnnForCausalLM._from_config(config.student_config)
        teacher_config = config.teacher_config
        # reads the next token from the causal stream: an aid in training, not part of teacher or student
        self.stream_head = (
            nn.Linear(teacher_config.hidden_size, teacher_config.vocab_size, bias=False)
            if teacher_config.encoder_attention == "causal" and teacher_config.backbone_config is None
            else None
        )
        self.post_init()

    def tie_weights(self, *args, **kwargs):
        """As in the library, but ties whole modules: FSDP2 refuses a weight that two separately wrapped modules share.

        While a checkpoint is loaded, the modules stay separate, because the library compares what it holds for each.
        """
        super().tie_weights(*args, **kwargs)
        wanted = self.get_expanded_tied_weights_keys(all_submodels=True)
        if self.device.type != "meta" and self.all_tied_weights_keys.keys() == wanted.keys():
            self.student.model.decoder = self.teacher.decoder
            self.student.lm_head = self.teacher.lm_head

    @torch.no_grad()
    def start_from_backbone(self, backbone: PreTrainedModel, seed: int = 0) -> None:
        """Initialises teacher and student from a causal language model, see [`take_over`].

        Args:
            backbone: a model of the class and sizes of the teacher's `backbone_config`.
            seed: seed for the directions of the projection.

        Raises:
            ValueError: if the teacher has no backbone, or a different one.
        """
        if self.teacher.backbone is None:
            raise ValueError("the teacher has no backbone: give its configuration a backbone_config")
        take_over(self.teacher, backbone, torch.Generator().manual_seed(seed))
        self.student.model.embed_tokens.weight.copy_(self.teacher.embed_tokens.weight)

    def get_input_embeddings(self) -> nn.Embedding:
        """The teacher's token embedding, since the teacher reads the text; the student has its own."""
        return self.teacher.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding):
        self.teacher.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        """The teacher's head, which the student shares."""
        return self.teacher.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Linear):
        self.teacher.set_output_embeddings(new_embeddings)
        self.student.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(
        self, new_num_tokens=None, pad_to_multiple_of=None, mean_resizing=True
    ) -> nn.Embedding:
        """As [`~transformers.PreTrainedModel.resize_token_embeddings`], for teacher, student and stream head."""
        embeddings = self.teacher.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        vocab_size = embeddings.num_embeddings
        self.student.set_output_embeddings(self.teacher.get_output_embeddings())
        self.student.resize_token_embeddings(vocab_size, mean_resizing=mean_resizing)
        if self.stream_head is not None:
            trained = self.stream_head.weight.requires_grad
            self.stream_head = self._get_resized_lm_head(self.stream_head, vocab_size, mean_resizing=mean_resizing)
            self.stream_head.requires_grad_(trained)
        return embeddings

    def positions_for(self, segment_starts, segment_length: int, begins: torch.Tensor | None) -> torch.Tensor:
        """The positions `(P,)` that a step encodes, including the empty context if it may be needed.

        The empty context costs almost nothing in a dense encoding, but a whole pass with the paper's encoder, which leaves it
        out unless a document begins inside a segment.

        Args:
            segment_starts: `(S,)`.
            segment_length: J.
            begins: bool `(B, T)`, the first tokens of documents; `None` if that is only the first column.
        """
        with_empty = self.config.teacher_config.encoder_attention == "causal"
        if not with_empty and begins is not None:
            columns = segment_starts[:, None] + torch.arange(segment_length, device=segment_starts.device)
            with_empty = bool(begins[:, columns_on(begins.device, columns)].any())
        return encoded_positions(segment_starts, segment_length, with_empty)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        segment_starts: torch.LongTensor,
        decoded_positions: torch.LongTensor,
        horizon: int,
        segment_length: int = 1,
        positions: torch.LongTensor | None = None,
        context_length: int | None = None,
        attention_mask: torch.Tensor | None = None,
        documents: torch.LongTensor | None = None,
        detach_teacher: bool = False,
        read_student: bool = False,
        read_stream: bool = True,
        read_backbone: bool = False,
        run_student: bool = True,
        **kwargs,
    ) -> SmtForPreTrainingOutput:
        r"""Encodes the window once and computes all requested transitions, futures and readouts from it.

        Columns and positions may be on the CPU, whatever the device of the tokens; then nothing waits for a GPU.

        Args:
            input_ids: `(B, T)`.
            segment_starts: `(S,)`, columns s; the student runs from the teacher's state before `x_s` over the tokens
                s..s+J-1 and should end in the teacher's state after them. J = 1 is a transition as in the paper. The
                state before the first token of a document is that of the empty context.
            decoded_positions: `(M,)`, positions t in -1..T-1 whose futures are decoded; each must be an encoded position.
            horizon: number of future tokens T_f that the decoder predicts; logits past the window are 0.
            segment_length: J, the number of steps that the gradient goes back, however long the window is.
            positions: `(P,)`, the encoded positions in ascending order: before and after every segment, and -1 if a document
                begins in one. Chosen by [`positions_for`] when `None`.
            context_length: number of tokens that the teacher reads, up to the last encoded position. Read from `positions` when
                `None`, which breaks a compiled graph.
            attention_mask: `(B, T)`, 0 for padding.
            documents: `(B, T)`, -1 for padding; nothing crosses from one document into the next.
            detach_teacher: stop the gradient of the predicted and target memories at the teacher.
            read_student: also read the next token from the student's own states.
            read_stream: also read the next token from the encoder's stream.
            read_backbone: also return the backbone's predictions after every token of the segments.
            run_student: `False` skips everything of the student, to train the teacher alone.

        Returns:
            An [`SmtForPreTrainingOutput`], from which `smt_hf.training.smt` computes the losses.
        """
        check_names(kwargs)
        batch_size, device = len(input_ids), input_ids.device
        documents = separate_padding(input_ids, attention_mask, documents)
        begins = None if documents is None else document_starts(documents)
        if positions is None:
            positions = self.positions_for(segment_starts, segment_length, begins)
        context_length = int(positions[-1]) + 1 if context_length is None else context_length
        context = slice(0, context_length)  # later tokens are futures only
        teacher_output = self.teacher(
            input_ids[:, context],
            positions,
            documents=None if documents is None else documents[:, context],
            output_backbone_logits=read_backbone or (read_stream and self.teacher.backbone is not None),
            return_dict=True,
        )
        memory = teacher_output.memory
        decoded = columns_on(device, torch.searchsorted(positions, decoded_positions))
        output = SmtForPreTrainingOutput(
            positions=positions,
            memory=memory,
            decoding_logits=self._decode_futures(memory[:, decoded], input_ids, decoded_positions, horizon),
            readout_logits=self.teacher.readout(memory),
        )
        if read_stream and self.teacher.backbone is not None:
            output.stream_logits = teacher_output.backbone_logits
        elif read_stream and self.stream_head is not None:
            output.stream_logits = self.stream_head(teacher_output.last_hidden_state)
        if not run_student:
            return output
        linked = memory.detach() if detach_teacher else memory

        starts = columns_on(device, segment_starts)
        columns = starts[:, None] + torch.arange(segment_length, device=device)
        before, after = (
            columns_on(device, torch.searchsorted(positions, wanted))
            for wanted in (segment_starts - 1, segment_starts + segment_length - 1)
        )
        before = before.expand(batch_size, -1)
        initial = None
        if begins is not None:
            before = before.masked_fill(begins[:, starts], 0)  # group 0 is the empty context
            initial = linked[:, :1].expand(-1, len(segment_starts), -1, -1).flatten(0, 1)
            begins = begins[:, columns].flatten(0, 1)
        rows = torch.arange(batch_size, device=device)[:, None]
        states, last = self.student.model.unroll(
            self.student.model.embed_tokens(input_ids[:, columns].flatten(0, 1)),
            linked[rows, before].flatten(0, 1),
            begins=begins,
            keep=0 if read_student else 1,
            initial_memory=initial,
        )

        segments = (batch_size, len(segment_starts))
        output.predicted_memory = last.unflatten(0, segments)
        output.target_memory = linked[:, after]
        if read_student:
            output.student_logits = self.student.readout(states).unflatten(0, segments)
        if read_backbone:
            output.backbone_logits = teacher_output.backbone_logits[:, columns]
        return output

    def _decode_futures(self, memory, input_ids, positions, horizon) -> torch.Tensor:
        """Logits `(B, M, T_f, V)` of the futures of memories `(B, M, K, D)`; futures of the same length are decoded together.

        In a compiled graph, where shapes must not depend on values, all futures are decoded in full and the part past the window
        is dropped.
        """
        steps = (input_ids.shape[1] - positions).clamp(max=horizon)  # the states inside the window
        if torch.compiler.is_compiling():
            decoded = self._decode_together(memory, input_ids, positions, horizon)
            beyond = torch.arange(horizon, device=positions.device) >= steps[:, None]
            return decoded.masked_fill(columns_on(input_ids.device, beyond)[..., None], 0)
        logits = [None] * len(positions)
        for num_steps in steps.unique().tolist():
            chosen = (steps == num_steps).nonzero()[:, 0]
            memories = memory[:, columns_on(input_ids.device, chosen)]
            decoded = self._decode_together(memories, input_ids, positions[chosen], num_steps)
            decoded = nn.functional.pad(decoded, (0, 0, 0, horizon - num_steps))
            for place, part in zip(chosen.tolist(), decoded.unbind(dim=1), strict=True):
                logits[place] = part
        return torch.stack(logits, dim=1)

    def _decode_together(self, memory, input_ids, positions, num_steps: int) -> torch.Tensor:
        """Logits `(B, M, num_steps, V)` of futures of the same length."""
        columns = positions[:, None] + torch.arange(1, num_steps + 1, device=positions.device)
        columns = columns.clamp(max=input_ids.shape[1] - 1)  # the last token is not an input
        future_ids = input_ids[:, columns_on(input_ids.device, columns)]
        return self.teacher.decode(memory.flatten(0, 1), future_ids.flatten(0, 1)).unflatten(0, memory.shape[:2])

    @torch.no_grad()
    def empty_memory(self) -> torch.Tensor:
        """The teacher's state of the empty context, `(K, D)`."""
        token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        return self.teacher.encode(token, torch.tensor([-1]))[0, 0]

    @torch.no_grad()
    def set_initial_memory(self) -> None:
        """Copies the teacher's state of the empty context into the student's initial memory."""
        self.student.model.initial_memory.copy_(self.empty_memory())

    def export_student(self) -> SmtRnnForCausalLM:
        """An untied copy of the student alone, with its initial memory set from the teacher's empty context."""
        self.set_initial_memory()
        student = SmtRnnForCausalLM._from_config(self.config.student_config, dtype=self.dtype)
        student.load_state_dict(self.student.state_dict())
        return student.to(self.device).train(self.training)


__all__ = ["SmtForPreTraining"]
