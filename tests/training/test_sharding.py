"""Weights that two processes share out (FSDP2): the trainings of two that copy them, and of one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from smt_hf import SmtForPreTraining
from smt_hf.data import TokenWindows
from smt_hf.errors import InputError
from smt_hf.training.supported import check_launch

from . import several_trainers
from .several_trainers import CASES

PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
RESUMED = ["shares/smt@shares", "shares/dmt_carried@one", "shares/bptt_carried@copies", "shares/lm@one"]
RESUMED_BY_ONE = ["one/smt@shares", "one/dmt_carried@shares", "one/bptt_carried@shares"]


@pytest.fixture(scope="module")
def runs(stories, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for case in set(CASES) - {"bptt_bf16"}:
        several_trainers.run(f"one/{case}", stories, folder)
    names = [f"{processes}/{case}" for processes in ("copies", "shares") for case in CASES] + RESUMED
    command = [sys.executable, *PROCESSES, several_trainers.__file__, str(stories), str(folder), *names]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{root}"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "returned a view tensor" not in run.stderr
    for name in RESUMED_BY_ONE:
        several_trainers.run(name, stories, folder)
    return folder


def weights(folder):
    return load_file(folder / "model.safetensors")


def logs(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    # the others are of the rows of one process
    names = ("loss", "dynamics", "readout", "grad_norm", "eval_loss", "eval_cold_start_loss", "learning_rate")
    return [[entry[name] for entry in history if name in entry] for name in names]


def equal(ours, theirs, weight_error, loss_error=1e-6):
    assert weights(ours).keys() == weights(theirs).keys()
    for name, weight in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], weight, rtol=0, atol=weight_error)
    for mine, other in zip(logs(ours), logs(theirs), strict=True):
        assert mine == pytest.approx(other, rel=loss_error)
    assert (ours / "config.json").read_text() == (theirs / "config.json").read_text()


@pytest.mark.parametrize("case", CASES)
def test_sharing_out_changes_no_training(runs, case):
    """In float64, but for bfloat16 and the losses, which are float32: as in two processes that copy, and as in one."""
    if case == "bptt_bf16":  # a batch that is split otherwise is rounded otherwise
        equal(runs / "shares" / case, runs / "copies" / case, 1e-5, 1e-5)
    else:
        equal(runs / "shares" / case, runs / "copies" / case, 1e-10)
        equal(runs / "shares" / case, runs / "one" / case, 5e-6)


@pytest.mark.parametrize("name", RESUMED + RESUMED_BY_ONE)
def test_a_checkpoint_goes_on_in_any_number_of_processes(runs, name):
    case = name.partition("/")[2].partition("@")[0]
    equal(runs / name, runs / "shares" / case, 5e-6)


def test_what_is_saved_is_whole(runs):
    model = SmtForPreTraining.from_pretrained(runs / "shares" / "smt")
    assert model.student.lm_head.weight is model.teacher.lm_head.weight
    torch.testing.assert_close(model.student.model.initial_memory, model.empty_memory())
    checkpoint = runs / "shares" / "smt" / "checkpoint-2"
    assert {file.name for file in checkpoint.iterdir()} == {
        file.name for file in (runs / "copies" / "smt" / "checkpoint-2").iterdir()
    }


CONFIGURED = {
    "fsdp_version": 2,
    "state_dict_type": "FULL_STATE_DICT",
    "cpu_ram_efficient_loading": False,
    "auto_wrap_policy": "NO_WRAP",
    "activation_checkpointing": False,
    "cpu_offload": False,
    "ignored_modules": None,
}


def launched(fsdp=None, parallelism_config=None, mixed_precision="bf16"):
    plugin = None if fsdp is None else FullyShardedDataParallelPlugin(**{**CONFIGURED, **fsdp})
    return SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        parallelism_config=parallelism_config,
        mixed_precision=mixed_precision,
    )


HONOURED = dict.fromkeys(("torch_compile", "auto_find_batch_size", "bf16_full_eval", "fp16_full_eval"), False)


@pytest.mark.parametrize(
    "accelerator, options, message",
    [
        ({"fsdp": {"fsdp_version": 1}}, {}, "FSDP2 needs fsdp_version: 2 in .*: these trainers support FSDP2 only"),
        ({"fsdp": {"state_dict_type": "SHARDED_STATE_DICT"}}, {}, "fsdp_state_dict_type: FULL_STATE_DICT"),
        ({"fsdp": {"cpu_ram_efficient_loading": True}}, {}, "fsdp_cpu_ram_efficient_loading: false"),
        ({"fsdp": {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}}, {}, "fsdp_auto_wrap_policy: NO_WRAP"),
        ({"fsdp": {"activation_checkpointing": True}}, {}, "fsdp_activation_checkpointing: false"),
        ({"fsdp": {"cpu_offload": True}}, {}, "fsdp_offload_params: false"),
        ({"fsdp": {"ignored_modules": "lm_head"}}, {}, "no fsdp_ignored_modules"),
        ({"fsdp": {}, "mixed_precision": "fp16"}, {}, "mixed_precision: bf16 or no"),
        ({"fsdp": {}}, {"bf16_full_eval": True}, "bf16_full_eval=True is not supported under FSDP2"),
        ({"fsdp": {}}, {"torch_compile": True}, "torch_compile=True is not supported under FSDP2"),
        ({"fsdp": {}}, {"auto_find_batch_size": True}, "auto_find_batch_size=True"),
        ({"parallelism_config": object()}, {}, "parallelism_config"),
    ],
)
def test_what_cannot_be_honoured(accelerator, options, message):
    arguments = SimpleNamespace(**{**HONOURED, **options})
    with pytest.raises(InputError, match=message):
        check_launch(launched(**accelerator), arguments, recurrent=True)


def test_what_is_honoured():
    arguments = SimpleNamespace(**HONOURED)
    check_launch(launched(fsdp={}), arguments, recurrent=True)
    check_launch(launched(fsdp={"auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}), arguments, recurrent=False)


def test_processes_without_accelerators_are_refused(make_bptt, monkeypatch):
    """Accelerate itself would copy the weights, in silence."""
    monkeypatch.setattr(AcceleratorState, "__init__", several_trainers.prepare_state)
    for name, value in several_trainers.LAUNCHED.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        InputError, match="configured for FSDP, which it uses only for several processes with accelerators"
    ):
        make_bptt()


def test_deepspeed_is_refused(make_bptt, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(InputError, match="DeepSpeed, which is not supported: these trainers run in one process"):
        make_bptt()


def test_an_evaluation_needs_a_model_that_is_shared_out(make_bptt, cache, monkeypatch):
    monkeypatch.setattr(AcceleratorState, "__init__", several_trainers.prepare_on_cpus)
    for name, value in several_trainers.LAUNCHED.items():
        monkeypatch.setenv(name, value)
    trainer = make_bptt(eval_dataset=TokenWindows(cache, 25))
    try:
        with pytest.raises(InputError, match=r"evaluate\(\) before train\(\) is not supported under FSDP2"):
            trainer.evaluate()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
