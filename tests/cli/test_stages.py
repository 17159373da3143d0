"""The commands one after another, as a user runs them."""

import json
import os
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
import yaml
from safetensors.torch import save_file

from smt_hf.checkpoints import load_joint, load_student
from smt_hf.cli import bptt, finetune
from smt_hf.cli.main import main
from smt_hf.cli.options import ModelOptions
from smt_hf.data import byte_tokenizer
from smt_hf.hub import read_stages
from smt_hf.utils.packaged import packaged_folder

LOAD = """
import sys, torch, smt_hf
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer("Once upon a time", return_tensors="pt")
print(model.generate(**inputs, max_new_tokens=8, do_sample=False).shape[1])
"""


def test_a_run_leaves_a_model_a_tokenizer_and_metrics(smt_run, dmt_run):
    for folder, metric in ((smt_run, "eval_decoding"), (dmt_run, "eval_cold_start_loss")):
        assert {"config.json", "model.safetensors", "tokenizer.json", "metrics.json"} <= {
            file.name for file in folder.iterdir()
        }
        assert metric in json.loads((folder / "metrics.json").read_text())
    assert load_student(str(dmt_run)).generation_config.eos_token_id == 256


def test_dmt_starts_from_the_students_weights(smt_run, dmt_run):
    before, after = load_joint(str(smt_run)).export_student(), load_student(str(dmt_run))
    assert before.initial_memory.equal(after.initial_memory)
    assert not before.lm_head.weight.equal(after.lm_head.weight)
    assert (before.lm_head.weight - after.lm_head.weight).abs().max() < 0.1


def test_the_saved_student_loads_in_a_new_process(dmt_run):
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(dmt_run)], capture_output=True, text=True, check=True, timeout=300
    )
    assert result.stdout.split()[-1] == str(len("Once upon a time") + 8)


REMOTE = """
import sys
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
folder, notes = sys.argv[1:]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
base = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(config).__name__ == "SmtRnnConfig" and type(base).__name__ == "SmtRnnModel"
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer("Once upon a time", return_tensors="pt")
assert base(**inputs).last_hidden_state.equal(model.model(**inputs).last_hidden_state)
model.read(**inputs).save_pretrained(notes)
model.save_pretrained(notes)
print(model.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist())
assert "smt_hf" not in sys.modules and type(model).__module__.startswith("transformers_modules")
"""


def test_the_saved_student_carries_its_code(dmt_run, tmp_path, tokenizer):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", REMOTE, str(dmt_run), str(tmp_path / "notes")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    student = load_student(str(dmt_run))
    generated = student.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert json.loads(result.stdout.splitlines()[-1]) == generated[0].tolist()
    again = load_student(str(tmp_path / "notes"))  # saved by the remote code, with a memory
    continued = again.generate(memory=str(tmp_path / "notes"), max_new_tokens=8, do_sample=False)
    assert continued[0].tolist() == generated[0, -8:].tolist()


def test_finetune_evaluate_generate(recipes, dmt_run, smt_run, stories, tmp_path, capsys):
    tuned = tmp_path / "tuned"
    argv = [str(dmt_run), "--config", str(recipes["finetune"]), "--output_dir", str(tuned)]
    assert main(["finetune", *argv]) == 0
    assert load_student(str(tuned)).config.use_cache
    assert [stage["command"] for stage in read_stages(str(tuned))] == ["smt", "dmt", "finetune"]

    valid = str(stories / "valid.txt")
    measure = ["--teacher", str(smt_run), "--dataset", valid, "--cache_dir", str(stories / "cache")]
    measure += ["--context_length", "16", "--rollout_steps", "24", "--num_windows", "6", "--batch_size", "4"]
    capsys.readouterr()
    assert main(["evaluate", str(tuned), *measure, "--output_dir", str(tmp_path / "report")]) == 0
    table = capsys.readouterr().out
    assert "student, cold start" in table and "drift after 1 steps" in table
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert len(report["student_warm"]["by_position"]) == len(report["drift"]) == 24
    assert (tmp_path / "report" / "evaluation.png").stat().st_size > 1000
    assert main(["evaluate", str(tuned), *measure, "--json", "true"]) == 0
    printed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert printed["student_cold"] == report["student_cold"]

    assert main(["generate", str(tuned), "Tom had", "--max_new_tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("Tom had")


def test_bptt_from_new_weights_and_on_from_a_student(recipes, smt_run, tmp_path):
    """The new student is the one of the SMT recipe's sizes."""
    new, on = tmp_path / "new", tmp_path / "on"
    argv = ["bptt", "--config", str(recipes["bptt"]), "--output_dir"]
    assert main([*argv, str(new)]) == 0
    student = load_student(str(new))
    expected = load_joint(str(smt_run)).export_student().config.to_diff_dict()
    assert expected.items() <= student.config.to_diff_dict().items()
    assert student.config.use_cache and student.generation_config.eos_token_id == 256
    assert {"eval_loss", "eval_cold_start_loss"} <= set(json.loads((new / "metrics.json").read_text()))
    assert "### BPTT" in (new / "README.md").read_text()

    assert main([*argv, str(on), "--model", str(new), "--carry_memory", "true", "--learning_rate", "1e-9"]) == 0
    torch.testing.assert_close(load_student(str(on)).state_dict(), student.state_dict(), rtol=0, atol=1e-6)
    stages = read_stages(str(on))
    assert [stage["command"] for stage in stages] == ["bptt", "bptt"]
    assert stages[0] == read_stages(str(new))[0] and stages[1]["recipe"]["carry_memory"]


@pytest.mark.parametrize("recipe", ["bptt", "finetune"])
@pytest.mark.parametrize("folder", ["tinystories", "tinystories_cpu"])
def test_recipes_of_bptt(folder, recipe, monkeypatch, smt_run, tmp_path):
    """They parse, and their students are those of the SMT recipes."""
    parsed = []
    monkeypatch.setattr(bptt if recipe == "bptt" else finetune, "train", lambda *given: parsed.extend(given))
    file = str(packaged_folder("configs") / folder / f"{recipe}.yaml")
    argv = [recipe, "--config", file, "--output_dir", str(tmp_path), "--bf16", "false", "--use_cpu", "true"]
    assert main([*argv, *([str(smt_run)] if recipe == "finetune" else [])]) == 0
    assert parsed[0] == recipe and not list(tmp_path.iterdir())
    if recipe == "bptt":
        smt = yaml.safe_load((packaged_folder("configs") / folder / "smt.yaml").read_text())
        sizes = {name: smt[name] for name in smt if name in {field.name for field in fields(ModelOptions)}}
        config = ModelOptions(**sizes).config(byte_tokenizer()).student_config
        assert parsed[1].student_config(byte_tokenizer()).to_diff_dict() == config.to_diff_dict()


def test_a_run_resumes_from_its_last_checkpoint(recipes, tmp_path):
    folder = tmp_path / "run"
    argv = ["smt", "--config", str(recipes["smt"]), "--output_dir", str(folder)]
    saving = ["--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "1"]
    assert main([*argv, *saving]) == 0
    assert [file.name for file in folder.glob("checkpoint-*")] == ["checkpoint-4"]
    (folder / "checkpoint-5").mkdir()  # killed while it wrote this one
    (folder / "checkpoint-5" / "trainer_state.json").write_text("")
    assert main([*argv, *saving, "--max_steps", "6", "--resume", "true"]) == 0
    state = json.loads((folder / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2, 3, 4, 5, 6]


def test_demo_recipes_are_found():
    assert {file.name for file in (packaged_folder("configs") / "demo").iterdir()} == {"smt.yaml", "dmt.yaml"}


def test_generate_from_a_kept_memory(dmt_run, smt_run, tmp_path, capsys):
    def write(*words):
        capsys.readouterr()
        code = main(["generate", "--model", str(dmt_run), "--max_new_tokens", "8", "--temperature", "0", *words])
        return code, capsys.readouterr()

    (tmp_path / "chapter.txt").write_text("Tom had a dog. ")
    whole = write("--prompt", "Tom had a dog. The dog")[1].out
    kept = str(tmp_path / "kept")
    first = write("--text_file", str(tmp_path / "chapter.txt"), "--save_memory", kept, "--prompt", "The dog")[1].out
    again = write("--memory", kept, "--prompt", "The dog")[1].out
    assert first == again and whole == "Tom had a dog. " + again
    on = write("--memory", kept, "--text_file", str(tmp_path / "chapter.txt"), "--prompt", "")
    assert on[0] == 0
    code, printed = write("--memory", kept, "--model", str(smt_run))
    assert code == 2 and "belongs to the student" in printed.err
    assert write("--memory", str(tmp_path / "none"))[0] == 2
    assert write("--prompt", "")[0] == 2
    assert write("--save_memory", kept)[0] == 2


DAMAGED = {
    "NaN": lambda memory: {"states": memory.states * float("nan")},
    "infinity": lambda memory: {"states": memory.states + float("inf")},
    "no row": lambda memory: {"states": memory.states[:0], "num_tokens": memory.num_tokens[:0]},
    "two rows": lambda memory: {"states": memory.states.repeat(2, 1, 1), "num_tokens": memory.num_tokens.repeat(2)},
    "negative": lambda memory: {"num_tokens": memory.num_tokens - 100},
    "fractions": lambda memory: {"num_tokens": memory.num_tokens.float()},
    "other width": lambda memory: {"states": memory.states[..., :-1].contiguous()},
    "earlier version": lambda memory: {"fingerprint": "0123456789abcdef"},
    "no fingerprint": lambda memory: {"fingerprint": None},
}


@pytest.mark.parametrize("name", [*DAMAGED, "garbage", "a folder"])
def test_memories_that_generate_refuses(dmt_run, tmp_path, capsys, name):
    memory = load_student(str(dmt_run)).read(torch.tensor([[1, 2, 3]]))
    path = tmp_path / "memory.safetensors"
    if name == "garbage":
        path.write_bytes(b"garbage")
    elif name == "a folder":
        path.mkdir()
    else:
        values = {"states": memory.states, "num_tokens": memory.num_tokens, "fingerprint": memory.fingerprint}
        values |= DAMAGED[name](memory)
        owner = values.pop("fingerprint")
        save_file(values, path, {"fingerprint": owner} if owner else {})
    for prompt in ("The dog", ""):
        argv = [
            "generate",
            "--model",
            str(dmt_run),
            "--memory",
            str(tmp_path),
            "--max_new_tokens",
            "2",
            "--prompt",
            prompt,
        ]
        capsys.readouterr()
        assert main(argv) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("smt-hf generate: error: ")]
        assert len(errors) == 1 and "memor" in errors[0]
