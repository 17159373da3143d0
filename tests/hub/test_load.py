"""Models on the Hub: uploaded in every way, then loaded by their ids in new processes with empty caches."""

import hashlib
import json
from pathlib import Path

import pytest

from smt_hf.checkpoints import load_student
from smt_hf.cli.main import main
from smt_hf.data import byte_tokenizer
from tests.hub.conftest import byte_models, write_student

CARD = "---\nlibrary_name: transformers\n---\n# A student"
PROMPT = "Once upon a time"

# By the command once more, then as any model of transformers is uploaded from Python.
PUSH = """
import sys
from smt_hf.cli.main import main
from smt_hf.data import byte_tokenizer
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForPreTraining
again, student, teacher, joint = sys.argv[1:]
assert main(["push", again, "user/model", "--commit_message", "second"]) == 0
AutoModelForCausalLM.from_pretrained(student).push_to_hub("user/direct", commit_message="the model")
byte_tokenizer().push_to_hub("user/direct", commit_message="the tokenizer")
AutoModel.from_pretrained(teacher).push_to_hub("user/direct-teacher", private=True)
AutoModelForPreTraining.from_pretrained(joint).push_to_hub("direct-joint", max_shard_size="20KB", tags=["smt"])
"""

# Loads `id=class` or `id@revision=class`; prints of each where its class is from, its weights, and what it writes.
LOAD = """
import hashlib, json, sys
import transformers
how, prompt, *words = sys.argv[1:]
if how == "package":
    import smt_hf
report = {}
for name, kind in (word.split("=") for word in words):
    repo_id, _, revision = name.partition("@")
    where = {"revision": revision or None, "trust_remote_code": how == "remote"}
    model = getattr(transformers, kind).from_pretrained(repo_id, **where)
    weights = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        weights.update(key.encode() + value.numpy().tobytes())
    report[name] = {"module": type(model).__module__.split(".")[0], "weights": weights.hexdigest()}
    if kind == "AutoModelForCausalLM":
        tokenizer = transformers.AutoTokenizer.from_pretrained(repo_id, **where)
        inputs = tokenizer(prompt, return_tensors="pt")
        report[name]["tokens"] = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist()
assert (how == "package") == ("smt_hf" in sys.modules)
print(json.dumps(report))
"""

# Reads a repository as its page does.
READ = """
import json, sys
from huggingface_hub import HfApi, ModelCard, hf_hub_download
repo_id, revision = sys.argv[1:]
card = ModelCard.load(repo_id)
print(json.dumps({
    "library": card.data.library_name,
    "text": card.text.strip(),
    "titles": [commit.title for commit in HfApi().list_repo_commits(repo_id)],
    "files": HfApi().list_repo_files(repo_id),
    "weights": hf_hub_download(repo_id, "model.safetensors"),
    "old_weights": hf_hub_download(repo_id, "model.safetensors", revision=revision),
}))
"""


def described(model, module: str) -> dict:
    """What LOAD should print of a model that is a copy of this one."""
    weights = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        weights.update(key.encode() + value.numpy().tobytes())
    report = {"module": module, "weights": weights.hexdigest()}
    if hasattr(model, "generate") and model.can_generate():
        inputs = byte_tokenizer()(PROMPT, return_tensors="pt")
        report["tokens"] = model.eval().generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist()
    return report


@pytest.fixture(scope="module")
def pushed(hub, run_python, tmp_path_factory):
    """Models by the names that LOAD takes: pushed by the command, twice, and from Python."""
    folder = write_student(tmp_path_factory.mktemp("pushed") / "student")
    (folder / "README.md").write_text(CARD)
    first = load_student(str(folder))
    push = ["-m", "smt_hf", "push", folder, "user/model"]
    assert f"is at {hub.url}/user/model\n" in run_python(*push, "--commit_message", "first")
    old = hub.repositories["user/model"].branches["main"]
    assert old.files["model.safetensors"].content == (folder / "model.safetensors").read_bytes()

    second = byte_models(seed=1).export_student()
    second.save_pretrained(folder)
    joint = byte_models(seed=2)
    student, folders = joint.export_student(), [folder.parent / name for name in ("one", "teacher", "joint")]
    for model, where in zip((student, joint.teacher, joint), folders, strict=True):
        model.save_pretrained(where)
    run_python("-c", PUSH, folder, *folders)
    return {
        "user/model=AutoModelForCausalLM": second,
        f"user/model@{old.id}=AutoModelForCausalLM": first,
        "user/direct=AutoModelForCausalLM": student,
        "user/direct-teacher=AutoModel": joint.teacher,
        "user/direct-joint=AutoModelForPreTraining": joint,
    }


@pytest.mark.parametrize(("how", "module"), [("remote", "transformers_modules"), ("package", "smt_hf")])
def test_what_was_pushed_loads_by_its_id(how, module, run_python, pushed):
    path = {"path": ""} if how == "remote" else {}
    report = json.loads(run_python("-c", LOAD, how, PROMPT, *pushed, **path).splitlines()[-1])
    for name, model in pushed.items():
        assert report[name.split("=")[0]] == described(model, module), name
    assert len({model["weights"] for model in report.values()}) == len(pushed)


def test_the_page_of_a_repository(hub, run_python, pushed):
    head = hub.repositories["user/model"].branches["main"]
    page = json.loads(run_python("-c", READ, "user/model", head.parent.id))
    assert page["library"] == "transformers" and page["text"] == "# A student"
    assert page["titles"] == ["second", "first", "initial commit"]
    assert hub.requests("HEAD", "/user/model/resolve/.*/model.safetensors") and hub.requests("GET", "/storage/")
    assert "modeling_smt_rnn.py" in page["files"] and "optimizer.pt" not in page["files"]
    for name, commit in (("weights", head), ("old_weights", head.parent)):
        assert Path(page[name]).read_bytes() == commit.files["model.safetensors"].content


def test_push_to_hub(hub, pushed):
    titles = [commit.title for commit in hub.repositories["user/direct"].branches["main"].history()]
    assert titles == ["the tokenizer", "the model", "initial commit"]
    assert hub.repositories["user/direct-teacher"].private and not hub.repositories["user/direct"].private
    assert b"- smt" in hub.repositories["user/direct-joint"].branches["main"].files["README.md"].content


def test_a_run_with_push_to_hub(hub, this_process, run_python, stories, tmp_path):
    folder = tmp_path / "run"
    sizes = (
        "--hidden_size 32 --num_memory_tokens 2 --num_encoder_layers 1 --num_readout_layers 1 --num_updater_layers 1 "
    )
    sizes += (
        "--num_attention_heads 2 --context_length 24 --horizon 8 --num_transitions 8 --num_decoded 2 --max_steps 2 "
    )
    sizes += "--use_cpu true --report_to none --save_strategy no --push_to_hub true --hub_model_id user/run"
    data = ["--dataset", str(stories / "train.txt"), "--cache_dir", str(stories / "cache")]
    assert main(["smt", "--output_dir", str(folder), *data, *sizes.split()]) == 0
    files = hub.repositories["user/run"].branches["main"].files
    assert {"tokenizer.json", "modeling_smt.py", "README.md", "training.json", "metrics.json"} <= set(files)
    assert "training_args.bin" not in files  # a pickle
    card = files["README.md"].content.decode()
    assert '"user/run"' in card and "### SMT" in card and card.encode() == (folder / "README.md").read_bytes()
    assert files["model.safetensors"].content == (folder / "model.safetensors").read_bytes()

    generate = ["-m", "smt_hf", "generate", "user/run", "Tom had"]
    assert run_python(*generate, "--max_new_tokens", "5").startswith("Tom had")

    student, tokenizer = load_student(str(folder)), byte_tokenizer()
    student.read(tokenizer("Once upon a time.", return_tensors="pt").input_ids).push_to_hub("user/notes")
    repository = hub.repositories["user/notes"].branches["main"].files
    assert (
        repository["memory.safetensors"].is_large
        and str(folder).encode() not in repository["memory.safetensors"].content
    )
    greedy = ["--max_new_tokens", "5", "--temperature", "0"]
    inputs = tokenizer("Once upon a time.Tom had", return_tensors="pt")
    expected = tokenizer.decode(student.generate(**inputs, max_new_tokens=5, do_sample=False)[0, 17:])
    assert run_python(*generate, "--memory", "user/notes", *greedy).strip("\n") == expected.strip("\n")
