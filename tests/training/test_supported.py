"""No option is accepted and then ignored: every field of the arguments is honoured, or refused before any work."""

from dataclasses import fields

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from smt_hf import SmtRnnForSequenceClassification
from smt_hf.errors import InputError
from smt_hf.training import (
    BpttTrainer,
    BpttTrainingArguments,
    DmtTrainer,
    DmtTrainingArguments,
    LmTrainer,
    LmTrainingArguments,
    SmtTrainer,
    SmtTrainingArguments,
)
from smt_hf.training.resume import ASKED, DEALT, NEUTRAL
from smt_hf.training.supported import CARRIED, CLOCK, MUON, SHARDING, UNSUPPORTED, check_supported
from smt_hf.utils.bounds import BOUNDS

from .conftest import COMMON, model_for_bytes

KINDS = (SmtTrainingArguments, DmtTrainingArguments, BpttTrainingArguments)
# What the library itself does with a field, whatever the trainer.
BY_THE_LIBRARY = set(
    "output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs "
    "warmup_steps optim optim_args optim_target_modules weight_decay adam_beta1 adam_beta2 adam_epsilon "
    "gradient_accumulation_steps max_grad_norm bf16 fp16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing "
    "activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs torch_compile torch_compile_backend "
    "torch_compile_mode use_cache neftune_noise_alpha torch_empty_cache_steps auto_find_batch_size logging_strategy logging_steps "
    "logging_first_step log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level log_level_replica "
    "disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id eval_strategy eval_steps "
    "eval_delay per_device_eval_batch_size prediction_loss_only eval_on_start save_only_model save_strategy save_steps "
    "save_on_each_node save_total_limit enable_jit_checkpoint push_to_hub hub_token hub_private_repo hub_model_id hub_strategy "
    "hub_always_push hub_revision load_best_model_at_end metric_for_best_model greater_is_better full_determinism seed data_seed "
    "use_cpu accelerator_config dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
    "dataloader_prefetch_factor dataloader_multiprocessing_context train_sampling_strategy length_column_name "
    "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout debug "
    "skip_memory_metrics local_rank".split()
)
# For scripts that read them; `Trainer` never does, and the commands refuse them.
FOR_SCRIPTS = {"do_train", "do_eval", "do_predict", "resume_from_checkpoint"}

REFUSED = {
    "label_smoothing_factor": 0.1,
    "average_tokens_across_devices": False,
    "use_liger_kernel": True,
    "liger_kernel_config": {"rope": True},
    "eval_accumulation_steps": 2,
    "eval_do_concat_batches": False,
    "eval_use_gather_object": True,
    "include_for_metrics": ["inputs"],
    "batch_eval_metrics": True,
    "restore_callback_states_from_checkpoint": True,
    "ignore_data_skip": True,
    "dataloader_in_order": False,
    "remove_unused_columns": True,
    "label_names": ["labels"],
    "fsdp": "full_shard",
    "fsdp_config": {"min_num_params": 1},
    "deepspeed": "x.json",
    "parallelism_config": object(),
}


def test_every_field_of_the_library_is_known():
    """A field that a new version of transformers brings has to be looked at, and put into one of these sets."""
    names = {field.name for field in fields(TrainingArguments)}
    assert names <= BY_THE_LIBRARY | FOR_SCRIPTS | {*UNSUPPORTED, *SHARDING}
    assert not BY_THE_LIBRARY & {*UNSUPPORTED, *SHARDING}
    assert {*UNSUPPORTED, *SHARDING} == set(REFUSED)


def test_every_number_has_bounds():
    numbers = {
        field.name
        for kind in KINDS
        for field in fields(kind)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert numbers - set(UNSUPPORTED) - {"local_rank"} <= set(BOUNDS)


def test_every_field_is_compared_on_resuming_or_known_to_change_nothing():
    for kind in KINDS:
        names = {field.name for field in fields(kind)}
        own = names - {field.name for field in fields(TrainingArguments)}
        assert own & NEUTRAL <= set(
            "accept_changes checkpoint_steps collapse_rank collapse_variance drift_steps eval_rollout_batches "
            "eval_rollout_steps".split()
        )
        assert {*ASKED, *DEALT} - {"processes"} <= names


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured(tmp_path, kind, name):
    with pytest.raises(InputError, match=f"{name}=.* is not supported: "):
        check_supported(kind(str(tmp_path), use_cpu=True, **{name: REFUSED[name]}))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"muon": True, "optim": "adafactor"}, "optim='adafactor' is not supported with muon"),
        ({"muon": True, "optim_args": "x=1"}, "optim_args"),
        ({"muon": True, "optim_target_modules": "all"}, "optim_target_modules"),
        ({"max_train_seconds": 5, "num_train_epochs": 2.0}, "num_train_epochs=2.0 is not supported with max_train"),
        (
            {"max_train_seconds": 5, "lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"},
            "cannot follow the clock",
        ),
        ({"max_train_seconds": 5, "lr_scheduler_type": "greedy", "eval_strategy": "steps"}, "cannot follow the clock"),
        ({"max_train_seconds": 5, "warmup_steps": 10}, "not known how many steps .* fraction of the training below 1"),
        ({"max_train_seconds": float("inf")}, "max_train_seconds=inf must be a finite number, above 0"),
        ({"max_steps": 5, "warmup_steps": 5}, "as long as the training of max_steps=5"),
        ({"max_steps": 5, "warmup_steps": 1e30}, "as long as the training"),
        ({"lr_scheduler_kwargs": {"nonsense": 1}}, "has no option 'nonsense': it takes none"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"x": 1}}, "choose among num_cycles"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "does not work: .*num_decay_steps"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "does not work"),
        ({"lr_scheduler_kwargs": "x"}, "is not a JSON object of names and values"),
        ({"lr_scheduler_kwargs": [1]}, "must be a mapping or text|must be"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be a finite number, at least 0"),
        ({"learning_rate": "fast"}, "learning_rate='fast' must be a number"),
        ({"per_device_train_batch_size": 1.5}, "per_device_train_batch_size=1.5 must be a whole number"),
        ({"max_steps": 0}, "max_steps=0 must be -1 or at least 1"),
        ({"num_train_epochs": -1}, "num_train_epochs=-1.0 must be above 0"),
        ({"seed": 2**32}, "seed=4294967296 must be from 0 to"),
        ({"adam_beta2": 1.0}, "adam_beta2=1.0 must be at least 0 and below 1"),
        ({"output_dir": ""}, "output_dir"),
    ],
)
def test_values_that_cannot_work(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        check_supported(SmtTrainingArguments(**{"output_dir": str(tmp_path), "use_cpu": True, **options}))


@pytest.mark.parametrize("name", [*CARRIED, "accelerator_config"])
def test_what_a_carried_memory_cannot_have(tmp_path, name):
    values = {"train_sampling_strategy": "sequential", "accelerator_config": {"split_batches": True}}
    options = {"use_cpu": True, "bptt_horizon": 4, name: values[name]}
    check_supported(BpttTrainingArguments(str(tmp_path), **options))
    with pytest.raises(InputError, match=f"{name}.* is not supported with carried memory"):
        check_supported(BpttTrainingArguments(str(tmp_path), carry_memory=True, **options))


def test_the_reasons_name_fields():
    names = {field.name for kind in KINDS for field in fields(kind)}
    assert {*UNSUPPORTED, *SHARDING, *MUON, *CLOCK, *CARRIED} <= names


@pytest.mark.parametrize(
    "given", ["model_init", "compute_loss_func", "compute_metrics", "preprocess_logits_for_metrics"]
)
def test_callables_that_nothing_would_call(tmp_path, given):
    joint = model_for_bytes()
    trainers = (
        lambda **options: SmtTrainer(
            joint, SmtTrainingArguments(str(tmp_path), **COMMON, num_transitions=8), **options
        ),
        lambda **options: DmtTrainer(
            joint.export_student(),
            DmtTrainingArguments(str(tmp_path), rollout_length=8, **COMMON),
            joint.teacher,
            **options,
        ),
        lambda **options: BpttTrainer(
            joint.export_student(), BpttTrainingArguments(str(tmp_path), **COMMON), **options
        ),
    )
    for make in trainers:
        trainer = make()
        trainer.args.label_smoothing_factor = 0.5
        with pytest.raises(InputError, match="label_smoothing_factor=0.5 is not supported"):
            type(trainer)(
                trainer.model, trainer.args, **({"teacher": joint.teacher} if hasattr(trainer, "teacher") else {})
            )
        with pytest.raises(InputError, match=f"{given} is not supported"):
            make(**{given: lambda *_: None})


def test_optimizers_beside_muon(tmp_path):
    student = model_for_bytes().export_student()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    arguments = BpttTrainingArguments(str(tmp_path), muon=True, **COMMON)
    for options in ({"optimizers": (optimizer, None)}, {"optimizer_cls_and_kwargs": (torch.optim.SGD, {})}):
        with pytest.raises(InputError, match="muon chooses the optimizers"):
            BpttTrainer(student, arguments, **options)


def test_an_optimizer_and_a_schedule_of_the_caller_are_used(make_bptt, cache):
    student = model_for_bytes().export_student()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.125)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=10)
    trainer = make_bptt(student, optimizers=(optimizer, schedule), max_steps=2)
    trainer.train()
    assert trainer.lr_scheduler is schedule and trainer.state.log_history[0]["learning_rate"] == 0.0625
    with pytest.raises(InputError, match="max_train_seconds has its own schedule"):
        make_bptt(student, optimizers=(optimizer, schedule), max_train_seconds=5, max_steps=2)


def test_models_and_teachers_are_required():
    for trainer in (SmtTrainer, DmtTrainer, BpttTrainer):
        with pytest.raises(TypeError, match="model"):
            trainer(args=None)


TRAINERS = {
    "smt": (SmtTrainer, SmtTrainingArguments, "joint"),
    "dmt": (DmtTrainer, DmtTrainingArguments, "student"),
    "bptt": (BpttTrainer, BpttTrainingArguments, "student"),
    "lm": (LmTrainer, LmTrainingArguments, "lm"),
}


@pytest.fixture(scope="module")
def models():
    joint = model_for_bytes()
    student = joint.export_student()
    return {
        "joint": joint,
        "student": student,
        "teacher": joint.teacher,
        "base": student.model,
        "classifier": SmtRnnForSequenceClassification(student.config),
        "lm": GPT2LMHeadModel(GPT2Config(vocab_size=258, n_layer=1, n_head=2, n_embd=16)),
        "none": None,
        "folder": "runs/smt",
        "module": torch.nn.Linear(2, 2),
    }


@pytest.mark.parametrize("method", TRAINERS)
def test_arguments_of_another_trainer_are_refused(tmp_path, models, method):
    trainer, own, kind = TRAINERS[method]
    further = {"teacher": models["teacher"]} if method == "dmt" else {}
    others = [arguments for _, arguments, _ in TRAINERS.values() if arguments is not own]
    for wrong in [*(other(str(tmp_path), use_cpu=True) for other in [*others, TrainingArguments]), None, {}, own]:
        with pytest.raises(InputError, match=f"args is .*: pass {own.__name__}"):
            trainer(models[kind], wrong, **further)


@pytest.mark.parametrize("method", TRAINERS)
def test_models_of_another_kind_are_refused(tmp_path, models, method):
    trainer, arguments, kind = TRAINERS[method]
    arguments = arguments(str(tmp_path), use_cpu=True)
    further = {"teacher": models["teacher"]} if method == "dmt" else {}
    fitting = {kind, "student"} if method == "lm" else {kind}  # a student is a language model too
    for name in set(models) - fitting:
        with pytest.raises(InputError, match="^model is .*: pass an? "):
            trainer(models[name], arguments, **further)


@pytest.mark.parametrize("method, name, kind", [("dmt", "teacher", "teacher"), ("bptt", "backbone", "lm")])
def test_what_is_learned_from_has_to_be_of_its_kind(tmp_path, models, method, name, kind):
    trainer, arguments, own = TRAINERS[method]
    arguments = arguments(str(tmp_path), use_cpu=True, **({"kd_weight": 1.0} if name == "backbone" else {}))
    fitting = {kind, "student", "none"} if name == "backbone" else {kind}
    for other in set(models) - fitting:
        with pytest.raises(InputError, match=f"^{name} is .*: pass an? "):
            trainer(models[own], arguments, **{name: models[other]})


def test_wrapped_models_are_of_their_kind(tmp_path, models):
    arguments = BpttTrainingArguments(str(tmp_path), use_cpu=True)
    BpttTrainer(torch.compile(models["student"], backend="eager"), arguments)
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
    BpttTrainer(peft.get_peft_model(model_for_bytes().export_student(), adapter), arguments)


@pytest.mark.parametrize("by", ["argument", "launch"])
def test_half_precision_on_a_cpu_is_refused(tmp_path, models, monkeypatch, by):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16" if by == "launch" else "no")
    arguments = BpttTrainingArguments(str(tmp_path), use_cpu=True, fp16=by == "argument")
    with pytest.raises(InputError, match="fp16 is not supported on a CPU"):
        BpttTrainer(models["student"], arguments)


def test_predictions_are_refused(make_bptt):
    with pytest.raises(InputError, match="use evaluate"):
        make_bptt().predict([])
