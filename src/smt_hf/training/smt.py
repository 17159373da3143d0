"""SMT: teacher and student together, all time steps in parallel."""

import torch
from transformers.integrations.neftune import activate_neftune, deactivate_neftune

from ..errors import InputError
from ..losses import IGNORED, next_targets, smt_losses, smt_targets, uniformity
from ..models.modeling_smt import encoded_positions
from .sampling import add_pinned, sample_decoded, sample_segments, step_generator
from .taught_trainer import TaughtTrainer
from .trainer import target_columns


class SmtTrainer(TaughtTrainer):
    """Trains an [`SmtForPreTraining`] with `L_smt` (Kumar & Isola) and the readout and stream losses.

    Data items are dictionaries of `input_ids` `(T,)` and, as needed, `labels` (ids at their own positions), `shift_labels`
    (targets that are aligned already), `attention_mask` and `document_ids`, all `(T,)`; see [`smt_hf.losses.next_targets`].

    Args:
        model: the [`SmtForPreTraining`].
        args: [`SmtTrainingArguments`].
        **kwargs: those of `transformers.Trainer`.

    Raises:
        InputError: if the arguments ask for what the model cannot do, or the training never comes to a label.
        FloatingPointError: when a loss is no finite number, before it reaches the weights.
    """

    def __init__(self, model, args, **kwargs):
        bidirectional = model.config.teacher_config.encoder_attention == "bidirectional"
        if bidirectional and args.stream_weight:
            raise InputError(
                f"stream_weight={args.stream_weight} needs a causal encoder: set stream_weight to 0 or "
                "encoder_attention to 'causal'"
            )
        super().__init__(model=model, args=args, **kwargs)

    def train(self, *args, **kwargs):
        """As [`Trainer.train`]; NEFTune's noise, which the library adds to the teacher's tokens, goes to the student's too."""
        if self.neftune_noise_alpha is None:
            return super().train(*args, **kwargs)
        hook = activate_neftune(self.student(), self.segment_noise(self.args.segment_length))
        try:
            return super().train(*args, **kwargs)
        finally:
            deactivate_neftune(self.student(), hook)

    def student(self):
        return self.accelerator.unwrap_model(self.model).student

    def teacher_model(self):
        return self.accelerator.unwrap_model(self.model).teacher

    def draw_plan(self, inputs, generator):
        args, (_, length), device = self.args, inputs["input_ids"].shape, inputs["input_ids"].device
        if length < args.segment_length:
            raise InputError(
                f"windows of {length} tokens are shorter than segment_length={args.segment_length}: lower it"
            )
        if self.state.global_step == 0 and {"labels", "shift_labels"} & set(inputs):
            reached = args.context_length + args.horizon
            if not (next_targets(**target_columns(inputs))[:, : reached + 1] != IGNORED).any():
                raise InputError(
                    f"no label of the first batch stands in the first context_length + horizon = {reached} columns: raise "
                    "one of them"
                )
        num_segments = max(args.num_transitions // args.segment_length - len(args.pinned_columns), 1)
        context_length = min(args.context_length, length)
        if args.full_context:
            starts = torch.tensor([context_length - args.segment_length])
        else:
            starts = sample_segments(context_length, args.segment_length, num_segments, generator)
            starts = add_pinned(starts, args.pinned_columns, args.segment_length, context_length)
        positions = encoded_positions(starts, args.segment_length, with_empty=False)
        return {
            "segment_starts": starts.to(device),
            "decoded_ids": sample_decoded(positions, args.num_decoded, generator).to(device),
            "segment_length": args.segment_length,
            "horizon": args.horizon,
        }

    def _targets(self, inputs, plan):
        model = self.accelerator.unwrap_model(self.model)
        columns = target_columns(inputs)
        masks = {name: columns[name] for name in ("attention_mask", "document_ids") if name in columns}
        positions = model.positions_for(inputs["input_ids"], plan["segment_starts"], plan["segment_length"], **masks)
        targets = smt_targets(**columns, **plan, positions=positions)
        if not self.args.student_weight:
            del targets["student"]
        if model.stream_head is None:
            del targets["stream"]
        return targets

    def count_items(self, inputs, plan):
        return {name: (target != IGNORED).sum() for name, target in self._targets(inputs, plan).items()}

    def num_transitions(self, inputs, plan):
        return len(inputs["input_ids"]) * len(plan["segment_starts"]) * plan["segment_length"]

    def loss_terms(self, model, inputs, plan):
        output = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs.get("attention_mask"),
            document_ids=inputs.get("document_ids"),
            detach_teacher=self.args.detach_teacher,
            read_student=self.args.student_weight > 0,
            **plan,
        )
        states = output.memory[:, output.positions >= 0]
        uniform = uniformity(states, generator=step_generator(*self._draw))
        return smt_losses(output, self._targets(inputs, plan)), {"uniformity": uniform}, states

    # The student's initial memory is the teacher's empty context, which moves in training: rollouts begin from it as it is now.

    def further_logs(self):
        self.accelerator.unwrap_model(self.model).set_initial_memory()
        return super().further_logs()

    def evaluation_loop(self, *args, **kwargs):
        self.accelerator.unwrap_model(self.model).set_initial_memory()
        return super().evaluation_loop(*args, **kwargs)

    def _save(self, output_dir=None, state_dict=None):
        self.accelerator.unwrap_model(self.model).set_initial_memory()
        if state_dict is not None:
            with torch.no_grad():
                state_dict["student.model.initial_memory"] = self.student().model.initial_memory.detach().clone()
        super()._save(output_dir, state_dict)
