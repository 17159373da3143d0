"""Options of `transformers` that these trainers do not support: refused by name, never silently ignored."""

import inspect
from dataclasses import MISSING, fields

import torch
from accelerate.utils import extract_model_from_parallel, parse_flag_from_env
from torch.distributed.fsdp import CPUOffloadPolicy
from transformers import PreTrainedModel, SchedulerType
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, get_scheduler

from ..errors import InputError, one_line

_PREDICTIONS = "an evaluation gathers losses, not predictions"

# Fields of TrainingArguments of which only the default is supported, and why.
UNSUPPORTED = {
    "label_smoothing_factor": "the losses are exact cross-entropies, so that students can be compared",
    "average_tokens_across_devices": "losses are always averaged over the items of all processes",
    "use_liger_kernel": "Liger has no kernels for these models",
    "liger_kernel_config": "Liger has no kernels for these models",
    "eval_accumulation_steps": _PREDICTIONS,
    "eval_do_concat_batches": _PREDICTIONS,
    "eval_use_gather_object": _PREDICTIONS,
    "include_for_metrics": _PREDICTIONS,
    "batch_eval_metrics": _PREDICTIONS,
    "restore_callback_states_from_checkpoint": "what a resumed run needs from its callbacks is restored without it",
    "ignore_data_skip": "a resumed run continues in its data where it stopped",
    "dataloader_in_order": "the order of the batches would depend on their timing",
    "remove_unused_columns": "the losses read columns that the models' forward does not name",
    "label_names": "the targets are read from the columns labels or shift_labels",
}
_LAUNCH = "FSDP2 is configured with accelerate launch, see configs/accelerate/fsdp2.yaml"
_PROCESSES = "these trainers run in one process, under DistributedDataParallel or under FSDP2"
# The same for fields that the library acts on as soon as it sees them.
SHARDING = {"fsdp": _LAUNCH, "fsdp_config": _LAUNCH, "deepspeed": _PROCESSES, "parallelism_config": _PROCESSES}
# With carried memory, row r of a step continues row r of the previous step.
CARRIED = {
    "train_sampling_strategy": "the text is read in order",
}
# Muon trains the hidden matrices and AdamW the rest.
MUON = {
    "optim": "muon chooses the optimizers",
    "optim_args": "muon chooses the optimizers",
    "optim_target_modules": "muon takes every hidden matrix",
}
CLOCK = {
    "num_train_epochs": "the clock ends the training: leave out one of the two",
}
# Arguments of `Trainer` itself.
UNSUPPORTED_CALLABLES = {
    "model_init": "pass the model itself",
    "compute_loss_func": "a loss here is the weighted sum of the method's terms",
    "compute_metrics": _PREDICTIONS,
    "preprocess_logits_for_metrics": _PREDICTIONS,
}


def check_sharding(args) -> None:
    """Checks arguments and launch before the library acts on them; raises as [`check_supported`] does."""
    refuse(args, SHARDING, "")
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        raise InputError(f"accelerate is configured for DeepSpeed, which is not supported: {_PROCESSES}")


# The models that trainers train or learn from: the name of the required class, `None` for any causal language model.
JOINT, STUDENT, TEACHER, LANGUAGE_MODEL = "SmtForPreTraining", "SmtRnnForCausalLM", "SmtTeacherModel", None


def check_partners(args, arguments: type, **models: tuple) -> None:
    """Checks that a trainer was given arguments of its own class and models of the right kinds.

    Args:
        args: the trainer's arguments.
        arguments: the class that they must have.
        **models: by name, a model and its required kind.

    Raises:
        InputError: for the first mismatch, naming what was given instead.
    """
    if not isinstance(args, arguments):
        raise InputError(f"args is {_given(args)}: pass {arguments.__name__}(...)")
    for name, (model, kind) in models.items():
        if not _is(model, kind):
            wanted = "a causal language model, as AutoModelForCausalLM loads it" if kind is None else f"an {kind}"
            raise InputError(f"{name} is {_given(model)}: pass {wanted}")


def _is(model, kind: str | None) -> bool:
    """Whether a model is of a kind, however it is wrapped; its class may come from the code saved with its weights."""
    if not isinstance(model, torch.nn.Module):
        return False
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    if hasattr(model, "get_base_model"):  # with an adapter
        model = model.get_base_model()
    if kind is None:
        return isinstance(model, PreTrainedModel) and model.can_generate() and not model.config.is_encoder_decoder
    return kind in (base.__name__ for base in type(model).__mro__)


def _given(value) -> str:
    if value is None:
        return "None"
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def check_launch(accelerator, args, recurrent: bool) -> None:
    """Checks how accelerate is configured to run the training.

    Args:
        accelerator: the trainer's accelerator.
        args: the trainer's arguments.
        recurrent: whether the model is called in a loop over time.

    Raises:
        InputError: naming the first unsupported setting, and why.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if getattr(accelerator, "parallelism_config", None) is not None:
        raise InputError(f"accelerate is configured with parallelism_config, which is not supported: {_PROCESSES}")
    if plugin is None:
        if parse_flag_from_env("ACCELERATE_USE_FSDP"):
            raise InputError(
                "accelerate is configured for FSDP, which it uses only for several processes with accelerators: leave it out"
            )
        if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
            raise InputError(
                "fp16 is not supported on a CPU, where accelerate would compute in float32: leave it out, or use bf16"
            )
        return
    wanted = {  # names as in accelerate's configuration file, and whether the values are supported
        "fsdp_version: 2": (plugin.fsdp_version == 2, "these trainers support FSDP2 only"),
        "fsdp_state_dict_type: FULL_STATE_DICT": (
            "FULL_STATE_DICT" in str(plugin.state_dict_type),
            "a checkpoint holds whole tensors, from which any number of processes can resume",
        ),
        "fsdp_cpu_ram_efficient_loading: false": (
            not plugin.cpu_ram_efficient_loading,
            "a teacher would have weights in the first process only",
        ),
        "fsdp_auto_wrap_policy: NO_WRAP": (
            not recurrent or plugin.auto_wrap_policy is None,
            "single layers would be gathered again at every step of the recurrence",
        ),
        "fsdp_activation_checkpointing: false": (
            not plugin.activation_checkpointing,
            "use gradient_checkpointing or checkpoint_steps",
        ),
        "fsdp_offload_params: false": (
            not isinstance(plugin.cpu_offload, CPUOffloadPolicy),
            "the weights stay on the device that computes with them",
        ),
        "mixed_precision: bf16 or no": (
            accelerator.mixed_precision in ("bf16", "no"),
            "loss scaling for float16 is untested",
        ),
        "no fsdp_ignored_modules": (plugin.ignored_modules is None, "all weights are sharded"),
    }
    for setting, (honoured, reason) in wanted.items():
        if not honoured:
            raise InputError(f"FSDP2 needs {setting} in accelerate's configuration: {reason}")
    for name in ("torch_compile", "auto_find_batch_size", "bf16_full_eval", "fp16_full_eval"):
        if getattr(args, name):
            raise InputError(f"{name}=True is not supported under FSDP2: leave it out")


def check_supported(args) -> None:
    """Checks the arguments of a trainer.

    Raises:
        InputError: naming the first that is not supported, alone or together with another, and why.
    """
    refuse(args, UNSUPPORTED, "")
    if args.muon:
        refuse(args, MUON, " with muon")
    if args.max_train_seconds is not None:
        refuse(args, CLOCK, " with max_train_seconds")
    if getattr(args, "carry_memory", False):
        refuse(args, CARRIED, " with carried memory")
        for name in ("split_batches", "dispatch_batches"):
            if getattr(args.accelerator_config, name):
                raise InputError(
                    f"accelerator_config: {name} is not supported with carried memory: rows would be distributed in another order"
                )
    check_schedule(args)


def refuse(args, reasons: dict[str, str], where: str) -> None:
    """Refuses fields that differ from their defaults; fields that the installed version of the library lacks are skipped."""
    defaults = {
        field.name: field.default_factory() if field.default is MISSING else field.default
        for field in fields(args)
        if field.default is not MISSING or field.default_factory is not MISSING
    }
    for name, reason in reasons.items():
        if name in defaults and getattr(args, name) != defaults[name]:
            value = getattr(args, name)
            value = getattr(value, "value", value)
            raise InputError(f"{name}={value!r} is not supported{where}: {reason}")


def check_callables(given: dict, muon: bool) -> None:
    """Checks the arguments that a trainer's constructor passes on to `Trainer`; raises as [`check_supported`] does."""
    reasons = dict(UNSUPPORTED_CALLABLES)
    if muon:
        reasons["optimizer_cls_and_kwargs"] = "muon chooses the optimizers: leave out one of the two"
        if given.get("optimizers", (None, None))[0] is not None:
            raise InputError("optimizers: muon chooses the optimizers: leave out one of the two")
    for name, reason in reasons.items():
        if given.get(name) is not None:
            raise InputError(f"{name} is not supported: {reason}")


def check_schedule(args) -> None:
    """Checks the learning rate schedule by creating it for an optimizer of a single number.

    Raises:
        InputError: for a schedule that is unknown, was given an unknown option, lacks one that it needs, or cannot follow a
            clock; for a warm-up as long as the training.
    """
    schedule, options = SchedulerType(args.lr_scheduler_type), args.lr_scheduler_kwargs or {}
    if not isinstance(options, dict):
        raise InputError(f"lr_scheduler_kwargs={options!r} must be a mapping of names to values")
    takes = [
        name for name in inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[schedule]).parameters if name != "optimizer"
    ]
    known = set(takes) - {"num_warmup_steps", "num_training_steps", "last_epoch"}
    if schedule in (SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP):
        known = set()
    for name in options:
        if name not in known:
            choice = f"choose among {', '.join(sorted(known))}" if known else "it takes none"
            raise InputError(f"lr_scheduler_kwargs: the schedule {schedule.value!r} has no option {name!r}: {choice}")
    timed = args.max_train_seconds is not None
    if timed and args.warmup_steps >= 1:
        raise InputError(
            f"warmup_steps={args.warmup_steps:g} is not supported with max_train_seconds, since it is not known how many "
            "steps the training will have: pass a fraction of the training below 1"
        )
    if not timed and args.max_steps > 0 and args.warmup_steps >= args.max_steps:
        raise InputError(
            f"warmup_steps={args.warmup_steps:g} is as long as the training of max_steps={args.max_steps}: lower it, or pass a "
            "fraction below 1"
        )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    try:
        made = get_scheduler(schedule, optimizer, 1, 100, schedule_options(options, 100))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"lr_scheduler_type={schedule.value!r} with lr_scheduler_kwargs={options} does not work: {one_line(error)}"
        ) from error
    if timed and not hasattr(made, "lr_lambdas"):
        raise InputError(
            f"lr_scheduler_type={schedule.value!r} cannot follow the clock of max_train_seconds: choose another, such as 'cosine'"
        )


def schedule_options(options: dict, num_steps: int) -> dict:
    """The options of a schedule; those named `..._steps` and below 1 are converted from fractions of the training."""
    return {
        name: int(value * num_steps) if name.endswith("_steps") and 0 < value < 1 else value
        for name, value in options.items()
    }
