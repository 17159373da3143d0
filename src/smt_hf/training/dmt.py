"""DMT: the student corrected on the states that it reaches by itself (DAgger), the teacher frozen."""

import torch

from ..checkpoints import check_pair
from ..errors import InputError
from ..losses import IGNORED, cross_entropy, dynamics, next_targets
from ..models.cache_smt_rnn import SmtRnnCache
from ..models.documents_smt import document_starts, separate_padding
from ..rollout import teacher_states
from .resume import weights_identity
from .rollouts import sequential_states, sweep_states
from .taught_trainer import TaughtTrainer
from .trainer import target_columns


class DmtTrainer(TaughtTrainer):
    """Trains an [`SmtRnnForCausalLM`] against a frozen [`SmtTeacherModel`] (Kumar & Isola).

    Data items are those of [`SmtTrainer`]. Every step encodes the windows with the teacher, brings the student to its own states along a rollout, runs it from
    them with a gradient, pulls where it gets towards the teacher's states, and trains the readout there.

    Args:
        model: the student.
        args: [`DmtTrainingArguments`].
        teacher: the [`SmtTeacherModel`]; it is neither trained nor saved.
        **kwargs: those of `transformers.Trainer`.

    Raises:
        InputError: if teacher and student do not fit.
        FloatingPointError: when a loss is no finite number, before it reaches the weights.
    """

    def __init__(self, model, args, teacher, **kwargs):
        check_pair(teacher, model)
        model.model.initial_memory.requires_grad_(False)  # a state of the teacher's
        super().__init__(model=model, args=args, **kwargs)
        if self.neftune_noise_alpha is not None:
            self.neftune_noise_alpha = self.segment_noise(args.segment_length)
        teacher.requires_grad_(False)
        teacher.eval()
        self.teacher = self.accelerator.prepare_model(teacher, evaluation_mode=True)

    def student(self):
        return self.accelerator.unwrap_model(self.model)

    def teacher_model(self):
        return self.teacher

    def further_settings(self):
        return {"teacher": weights_identity(self.accelerator.unwrap_model(self.teacher))}

    def draw_plan(self, inputs, generator):
        args, (_, length), device = self.args, inputs["input_ids"].shape, inputs["input_ids"].device
        if length < args.segment_length:
            raise InputError(
                f"windows of {length} tokens are shorter than segment_length={args.segment_length}: lower it"
            )
        num_sweeps = args.num_sweeps[int(torch.randint(len(args.num_sweeps), (1,), generator=generator))]
        context_length = min(args.context_length, length)
        num_segments = min(args.rollout_length, context_length) // args.segment_length
        latest = context_length - num_segments * args.segment_length
        first = int(torch.randint(latest + 1, (1,), generator=generator))
        if torch.rand(1, generator=generator).item() < args.cold_start_probability:
            first = 0
        columns = torch.arange(num_segments * args.segment_length, device=device).view(num_segments, -1)
        return {"num_sweeps": num_sweeps, "columns": columns + first}

    def _targets(self, inputs, columns):
        targets = next_targets(**target_columns(inputs))[:, columns + 1]
        mask = inputs.get("attention_mask")
        ends = columns[:, -1]
        valid = torch.ones_like(inputs["input_ids"][:, ends]) if mask is None else mask[:, ends]
        return targets, valid.bool()

    def num_transitions(self, inputs, plan):
        return len(inputs["input_ids"]) * plan["columns"].numel()

    def count_items(self, inputs, plan):
        targets, valid = self._targets(inputs, plan["columns"])
        return {"dynamics": valid.sum(), "readout": (targets != IGNORED).sum()}

    def loss_terms(self, model, inputs, plan):
        columns = plan["columns"]
        input_ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        documents = separate_padding(input_ids, mask, inputs.get("document_ids"))

        starts = columns[:, 0]
        positions = torch.cat([starts.new_tensor([-1]), starts - 1, columns[-1:, -1]])
        encoded = teacher_states(self.teacher, input_ids, positions, mask, documents, chunk_size=len(positions))
        begins = document_starts(input_ids, documents)[:, starts]
        before = torch.where(begins[..., None, None], encoded[:, :1], encoded[:, 1:-1])
        tokens = input_ids[:, columns]
        token_documents = None if documents is None else documents[:, columns]

        rollout = (self.accelerator.unwrap_model(model), before, tokens, token_documents, begins)
        if self.args.rollout == "sequential":
            states = sequential_states(*rollout)
        else:
            states = sweep_states(*rollout, plan["num_sweeps"])
        segments = states.shape[:2]
        output = model(
            input_ids=tokens.flatten(0, 1),
            cache=SmtRnnCache(states.flatten(0, 1)),
            document_ids=None if token_documents is None else token_documents.flatten(0, 1),
            output_memory=True,
            detach_readout=self.args.detach_readout,
        )
        memory, logits = output.memory[:, -1].unflatten(0, segments), output.logits.unflatten(0, segments)
        targets, valid = self._targets(inputs, columns)
        terms = {
            "dynamics": dynamics(memory, encoded[:, 2:], valid),
            "readout": cross_entropy(logits, targets),
        }
        return terms, {}, memory
