"""A trainer that resumes only from a complete checkpoint and with the same settings."""

import json
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from ..checkpoints import weight_files
from ..errors import InputError
from ..models.pretrained_smt import first_of, missing_weights
from .resume import STATE, check_settings, checkpoint_to_resume, settings_of, write_manifest
from .sharding import is_sharded, load_whole_weights, share_of_state, under_its_own_class, whole_optimizer_state

logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """A `Trainer` whose checkpoints record their files and the settings that they were trained with.

    A subclass has a `clock` (see [`TrainClock`]).
    """

    _settings = None  # settings of the run, for its checkpoints
    changes = ()  # settings that were changed when the run was resumed

    def further_settings(self) -> dict:
        """Further settings for resumed runs to compare, besides the arguments, the model's sizes and the data."""
        return {}

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As [`Trainer.train`], but resumes only from a complete checkpoint and with the same settings.

        Raises:
            InputError: if the checkpoint is damaged or incomplete, or for other settings, naming each.
        """
        self._settings = settings_of(self)
        if not resume_from_checkpoint:
            return super().train(None, *args, **kwargs)
        folder, manifest = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        saved, accepted = manifest["settings"], self.args.accept_changes
        changed = check_settings(folder, saved, self._settings, accepted)
        step = json.loads((folder / STATE).read_text(encoding="utf-8"))["global_step"]
        self.changes = manifest["changes"]
        if changed:
            self.changes = [*self.changes, {"step": step, "settings": changed}]
            listed = ", ".join(f"{name}={new!r} (before: {old!r})" for name, (old, new) in changed.items())
            logger.warning("resumed from step %d with %s", step, listed)
        self.load_further_state(folder, step)
        self._rate_change = self._settings["learning_rate"] / (saved["learning_rate"] or 1.0)
        return super().train(str(folder), *args, **kwargs)

    def _run_epoch(self, **kwargs):
        finished = self.state.global_step >= self.state.max_steps or self.clock.progress() >= 1.0
        if finished:  # resumed at its end: the library would train one more step
            self.control.should_training_stop = True
            return
        super()._run_epoch(**kwargs)

    # Under FSDP, the library uses another form of checkpoints; here there is only one form.

    def _save(self, output_dir=None, state_dict=None):
        if not is_sharded(self.model):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            tied = self.model.all_tied_weights_keys  # their values were gathered separately
            weights = {name: value for name, value in state_dict.items() if name not in tied}
            with under_its_own_class(self.model):
                super()._save(output_dir, weights)

    def _save_optimizer_and_scheduler(self, output_dir):
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_optimizer_state(self.optimizer, keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        model = self.model if model is None else model
        if not is_sharded(model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        weights = {}
        for file in weight_files(Path(resume_from_checkpoint)):
            weights |= load_file(file)
        self._issue_warnings_after_load(load_whole_weights(model, weights))

    def _load_best_model(self):
        if not self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint):
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            optimizer, scheduler = (
                torch.load(Path(checkpoint) / name, map_location="cpu", weights_only=True)
                for name in (OPTIMIZER_NAME, SCHEDULER_NAME)
            )
            self.optimizer.load_state_dict(share_of_state(self.optimizer.optimizer, optimizer))
            self.lr_scheduler.load_state_dict(scheduler)
        if checkpoint is not None and self._rate_change != 1.0:
            self._scale_learning_rate(self._rate_change)

    def _scale_learning_rate(self, factor: float) -> None:
        """Makes a restored schedule continue at `factor` times its learning rates."""
        for group in self.optimizer.param_groups:
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] = group[name] * factor
        for name in ("base_lrs", "_last_lr"):
            if hasattr(self.lr_scheduler, name):
                setattr(self.lr_scheduler, name, [rate * factor for rate in getattr(self.lr_scheduler, name)])

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        self.save_further_state(output_dir)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_manifest(output_dir, self._settings, self.changes)

    def save_further_state(self, output_dir: str) -> None:
        """Writes whatever else a resumed run needs to a checkpoint; called on every process."""

    def load_further_state(self, folder: Path, step: int) -> None:
        """Reads it back before the training continues after optimiser step `step`; called on every process."""

    def _issue_warnings_after_load(self, load_result):
        """Raises an error where the library warns, unless a tied weight was found under another name."""
        faults = {
            "lacks": missing_weights(self.model, load_result.missing_keys),
            "also contains": load_result.unexpected_keys,
        }
        for fault, names in faults.items():
            if names:
                raise InputError(f"the checkpoint {fault} {first_of(names)}: pass one that this model wrote")
