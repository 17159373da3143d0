"""A comparison's corpus of text or images: all of it, or a share."""

import zlib
from functools import cached_property

import torch

from ..data import ImageRows, TokenCache, check_window_length, evenly_spaced_images, evenly_spaced_windows
from ..data.build import training_rows
from ..errors import InputError
from ..evaluation import evaluate_models
from ..evaluation.images import evaluate_images
from ..models import SmtImageProcessor
from ..training import DmtTrainingArguments
from ..training.bptt import streams
from ..training.dmt import row_windows
from .backbones import language_model_losses
from .corpus_share import share_of
from .stages import Stage
from .trace import logarithmic_shares

TAUGHT_ROWS = 32  # windows or images that the teacher, which encodes its states slowly, is measured on
BATCH_ROWS = 64


class CorpusSubject:
    """The text or images of a comparison's `dataset`. Its variants are the shares of it that runs train on.

    Losses are in nats per byte of text or per pixel, on held-out windows or images that the student reads from its initial
    memory, on its own states, as in `smt-hf evaluate`.

    Args:
        comparison: the recipe.
    """

    variant_name = "data_share"
    decided: dict[str, str] = {}
    trace_shares = staticmethod(logarithmic_shares)

    def __init__(self, comparison):
        self.comparison = comparison

    @property
    def variants(self) -> list[float]:
        """The shares of the corpus."""
        return self.comparison.data_shares

    def check(self, stages: list[Stage]) -> None:
        """Checks what can be known before anything is read.

        Raises:
            InputError: for a field that a corpus does not have, or if there are no held-out data.
        """
        comparison = self.comparison
        if comparison.eval_dataset is None and comparison.eval_split is None:
            raise InputError(
                "eval_dataset is missing: pass held-out text or images, or eval_split, a split of the dataset"
            )
        for stage in stages:
            if stage.length is not None or stage.task_options:
                raise InputError(
                    f"{stage}: length and task_options are for synthetic tasks: set context_length instead"
                )

    def open(self) -> None:
        """Reads the data, and checks that there are enough for every stage.

        Raises:
            InputError: if the data cannot be read or are too few, or if no model can be made for them.
        """
        comparison = self.comparison
        if self.is_image:
            ImageRows(self.held_out)
        else:
            lengths = {name: getattr(comparison, name) for name in ("context_length", "rollout_steps")}
            check_window_length(self.held_out, sum(lengths.values()), "the held-out data", **lengths)
        for share in self.variants:
            for cell in comparison.cells:
                for stage in comparison.stages_of(cell):
                    comparison.model_config(cell, share, stage)
                    arguments = comparison.arguments(stage, share, comparison.seeds[0], "unused")
                    try:
                        self._check_rows(self.data(stage, share, 0, arguments)["train_dataset"], arguments)
                    except InputError as error:
                        raise InputError(f"{stage}, data_share {share:g}: {error}") from error

    def _check_rows(self, rows, arguments) -> None:
        batch_size = arguments.per_device_train_batch_size
        if getattr(arguments, "carry_memory", False):
            carried_through = row_windows if isinstance(arguments, DmtTrainingArguments) else streams
            carried_through(rows, arguments, batch_size)
        elif len(rows) < batch_size:
            raise InputError(
                f"{len(rows)} windows or images are fewer than per_device_train_batch_size={batch_size}: lower it"
            )

    @cached_property
    def processing(self):
        """The tokenizer, or the image processor."""
        return self.comparison.new_processing(self.comparison.images)

    @property
    def is_image(self) -> bool:
        """Whether documents are images."""
        return isinstance(self.processing, SmtImageProcessor)

    @cached_property
    def held_out(self) -> TokenCache:
        """The data that students are measured on."""
        cache = self.comparison.eval_tokens(self.processing)
        if cache is None:
            raise InputError(
                f"dataset={self.comparison.dataset!r} is one file, which has no splits: pass eval_dataset too"
            )
        return cache

    @cached_property
    def whole(self) -> TokenCache:
        """The corpus."""
        return self.comparison.tokens(self.processing)

    def training_data(self, share: float) -> TokenCache:
        """This share of the corpus."""
        return share_of(self.whole, share, self.comparison.cache_dir)

    def token_ids(self, share: float) -> dict:
        """Fields of a model's configuration: the number of ids, and the special ones."""
        special = {name: getattr(self.processing, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        return {"vocab_size": len(self.processing), **special}

    def lengths(self, stage: Stage, share: float, chosen: dict) -> dict:
        """Arguments of a stage that follow from the data: none, since a recipe says how long its windows are."""
        return {}

    def limits(self, stage: Stage, share: float, chosen: dict) -> dict:
        """Arguments that must be lowered for some data: none, since a recipe says how long its windows are."""
        return {}

    def fixed(self, stage: Stage, seed: int) -> dict:
        """Further arguments of a stage: its own order of the data, and whole batches only, so that tokens are counted correctly."""
        return {"data_seed": order_seed(seed, stage), "dataloader_drop_last": True}

    def folder(self, stage: Stage, share: float) -> str:
        """The folder of a stage's runs with this share."""
        return f"data-{share:g}"

    def settings(self, stage: Stage, share: float) -> dict:
        """What a stage depends on besides models and arguments; data are identified by their digests, not their location."""
        comparison = self.comparison
        return {
            "corpus": {"train": self.training_data(share).digest, "held_out": self.held_out.digest},
            "unit": "pixel" if self.is_image else "byte",
            "data_share": share,
            "cpu_seconds": comparison.cpu_seconds[self.variants.index(share)],
            "eval_rows": comparison.eval_rows,
            "num_eval_windows": comparison.num_eval_windows,
            "context_length": comparison.context_length,
            "rollout_steps": comparison.rollout_steps,
        }

    def stage_settings(self, stage: Stage, share: float) -> dict:
        """The part of [`settings`] that each stage of a chain has for itself."""
        return {}

    def data(self, stage: Stage, share: float, seed: int, arguments) -> dict:
        """The trainer's arguments for a stage's data."""
        rows = training_rows(self.training_data(share), self.processing, arguments)
        return {"train_dataset": rows, "processing_class": self.processing}

    def untrained(self, stage: Stage, student) -> dict:
        """The measurements before the first step: none."""
        return {}

    def measure(self, student, stage: Stage, share: float) -> dict:
        """Measures a student or a language model during its training: `loss` and its `standard_error`."""
        if stage.trainer == "lm":
            return self._language_model(student, self.comparison.eval_rows)
        return self._cold_start(student, self.comparison.num_eval_windows)

    def measured(self, student, teacher, stage: Stage, share: float) -> dict:
        """Measures a trained student, and its teacher after a stage that has trained both."""
        result = {"student": self._cold_start(student, self.comparison.eval_rows)}
        result |= {"corpus_tokens": self.training_data(share).num_tokens}
        if stage.trainer == "smt":
            report = self._report(student, TAUGHT_ROWS, teacher)
            result |= {"teacher": self._loss(report["teacher"], report), "drift": report["drift"]}
        return result

    def _cold_start(self, student, num_rows: int) -> dict:
        report = self._report(student, num_rows)
        return self._loss(report["student" if self.is_image else "student_cold"], report)

    def _language_model(self, model, num_rows: int) -> dict:
        """The loss of a language model on the windows or images that students are measured on."""
        comparison, losses = self.comparison, []
        if self.is_image:
            ids = evenly_spaced_images(ImageRows(self.held_out), num_rows)
            num_rows, documents, size = len(ids), None, 1.0
        else:
            length = comparison.context_length + comparison.rollout_steps
            windows = evenly_spaced_windows(self.held_out, length, num_rows)
            ids, documents = (windows[name][:, comparison.context_length :] for name in ("input_ids", "documents"))
            size = self.held_out.num_bytes / self.held_out.num_tokens
        for first in range(0, num_rows, BATCH_ROWS):
            batch = slice(first, first + BATCH_ROWS)
            losses.append(language_model_losses(model, ids[batch], None if documents is None else documents[batch]))
        means = torch.cat(losses)[:, -self.processing.num_pixels if self.is_image else 0 :].mean(dim=1) / size
        error = (means.std() / len(means) ** 0.5).item() if len(means) > 1 else None
        return {"loss": means.mean().item(), "standard_error": error, "rows": num_rows}

    def _report(self, student, num_rows: int, teacher=None) -> dict:
        """The evaluation on `num_rows` windows or images, including the teacher if there is one."""
        comparison = self.comparison
        if self.is_image:
            rows = ImageRows(self.held_out)
            return evaluate_images(student, self.processing, rows, teacher, num_rows, BATCH_ROWS)
        lengths = comparison.context_length, comparison.rollout_steps
        return evaluate_models(student, self.held_out, teacher, *lengths, num_rows, BATCH_ROWS)

    def _loss(self, scores: dict, report: dict) -> dict:
        """The loss of one part of a report, in nats per byte or pixel."""
        if self.is_image:
            found, rows = {"loss": scores["nats_per_pixel"], "error": scores["standard_error"]}, report["num_images"]
        else:
            size, error = report["bytes_per_token"], scores["standard_error"]
            found, rows = {"loss": scores["nats_per_token"] / size}, report["num_windows"]
            found["error"] = None if error is None else error / size
        return {"loss": found["loss"], "standard_error": found["error"], "rows": rows}

    def words(self, result: dict) -> str:
        """A result in a few words."""
        loss = result.get("student", result["trace"][-1])["loss"]
        return f"{loss:.4f} nats per {'pixel' if self.is_image else 'byte'}"


def order_seed(seed: int, stage: Stage) -> int:
    """The seed of the order in which a stage reads the corpus; every stage of a run has a different one."""
    return zlib.crc32(f"{seed} {stage.name}".encode())
