"""Loading for the commands: a checkpoint is whole, or refused in one line that says what is wrong with it."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from smt_hf import SmtTeacherConfig
from smt_hf.checkpoints import KINDS, check_kind, load, load_joint, load_student, load_teacher, weight_files
from smt_hf.errors import InputError
from smt_hf.hub import write_card
from tests.conftest import tiny_model

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of one joint model, its student and its teacher."""
    joint = tiny_model(dtype=torch.float32)
    folders = {}
    for name, model in {"joint": joint, "student": joint.export_student(), "teacher": joint.teacher}.items():
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
    return folders


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the student's folder, to damage."""
    return shutil.copytree(saved["student"], tmp_path / "student")


def refused(path, *words, loader=load_student):
    with pytest.raises(InputError) as refusal:
        loader(str(path))
    message = str(refusal.value)
    assert "\n" not in message and len(message) < 1000
    for word in (repr(os.path.basename(str(path))[:20])[1:-1], *words):  # as it may stand in one line
        assert word in message, message


def test_whole_folders_load(saved, tmp_path, monkeypatch):
    joint = load_joint(str(saved["joint"]))
    for student in (load_student(str(saved["student"])), load_student(str(saved["joint"]))):
        torch.testing.assert_close(student.lm_head.weight, joint.teacher.lm_head.weight, rtol=0, atol=0)
    for teacher in (load_teacher(str(saved["teacher"])), load_teacher(str(saved["joint"]))):
        torch.testing.assert_close(teacher.state_dict(), joint.teacher.state_dict(), rtol=0, atol=0)
    assert load_student(str(saved["student"]), dtype="bfloat16").dtype == torch.bfloat16
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(saved["student"], tmp_path / "mine")
    assert load_student("~/mine").config.vocab_size == 20
    assert load(str(saved["teacher"]), *KINDS).config.model_type == "smt_teacher"


@pytest.mark.parametrize("kind", ["joint", "teacher"])
def test_other_kinds(saved, kind):
    loaders = {"student": load_student, "teacher": load_teacher, "joint": load_joint}
    refused(saved["student"], "is a student", "pass", loader=loaders[kind])


# ---- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, word",
    [
        (b"null", "is not a JSON object"),
        (b"[]", "is not a JSON object"),
        (b'"smt_rnn"', "is not a JSON object"),
        (b"5", "is not a JSON object"),
        (b"", "not JSON"),
        (b'{"model_type": "smt_rnn"', "not JSON"),
        (b'{"model_type": "smt_rnn\xff"}', "not JSON"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not JSON"),
        (b"{}", "model of type None"),
        (b'{"model_type": ["smt_rnn"]}', "model of type ['smt_rnn']"),
        (b'{"model_type": {}}', "model of type {}"),
        (b'{"model_type": "llama"}', "model of type 'llama'"),
    ],
)
def test_a_damaged_configuration(folder, content, word):
    (folder / "config.json").write_bytes(content)
    refused(folder, word)
    refused(folder, word, loader=lambda path: check_kind(path, "smt_rnn"))


@pytest.mark.parametrize(
    "values, words",
    [
        ({"cell_type": "tape"}, ["cell_type='tape'", "gru"]),
        ({"hidden_act": "nosuch"}, ["hidden_act='nosuch'", "gelu"]),
        ({"hidden_act": None}, ["hidden_act"]),
        ({"num_updater_layers": "two"}, ["num_updater_layers", "'two'"]),
        ({"num_updater_layers": 1.5}, ["num_updater_layers", "1.5"]),
        ({"hidden_size": None}, ["hidden_size"]),
        ({"hidden_size": True}, ["hidden_size"]),
        ({"num_attention_heads": 5}, ["num_attention_heads=5", "choose a multiple"]),
        ({"num_attention_heads": 0}, ["num_attention_heads=0"]),
        ({"vocab_size": 4, "eos_token_id": 9}, ["eos_token_id=9", "4 ids"]),
        ({"eos_token_id": [1, 99]}, ["eos_token_id=99"]),
        ({"dtype": "float99"}, ["dtype='float99'", "float32"]),
        ({"dtype": "nn"}, ["dtype='nn'"]),
        ({"dtype": "int64"}, ["dtype='int64'"]),
        ({"dtype": None, "torch_dtype": "half99"}, ["dtype='half99'"]),
        ({"rms_norm_eps": float("nan")}, ["rms_norm_eps=nan"]),
        ({"rope_theta": float("inf")}, ["rope_theta=inf"]),
        ({"initializer_range": -1.0}, ["initializer_range=-1.0"]),
        ({"attention_dropout": float("nan")}, ["attention_dropout=nan"]),
        ({"id2label": "x"}, ["AttributeError"]),
        ({"problem_type": "single_label_classification", "num_labels": 1}, ["num_labels"]),
        ({"quantization_config": 3}, ["is not a readable checkpoint"]),
    ],
)
def test_values_of_the_configuration_that_cannot_work(folder, values, words):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    refused(folder, *words)


@pytest.mark.parametrize("part", ["teacher_config", "student_config"])
@pytest.mark.parametrize("value, word", [(5, "=5"), ([], "=[]"), ({"hidden_act": "nosuch"}, "nosuch"), ("x", "='x'")])
def test_parts_of_a_joint_configuration(saved, tmp_path, part, value, word):
    folder = shutil.copytree(saved["joint"], tmp_path / "joint")
    config = json.loads((folder / "config.json").read_text())
    config[part] = {**config[part], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    for loader in (load_joint, load_student, load_teacher):
        refused(folder, word, loader=loader)


# ---- the weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, words",
    [
        ({"hidden_size": 64}, ["of another shape", "(20, 32) instead of (20, 64)", "more"]),
        ({"num_memory_tokens": 4}, ["model.initial_memory (3, 32) instead of (4, 32)"]),
        ({"vocab_size": 300}, ["lm_head.weight (20, 32) instead of (300, 32)"]),
        ({"vocab_size": 19}, ["lm_head.weight (20, 32) instead of (19, 32)"]),
        ({"intermediate_size": 7}, ["instead of"]),
        ({"num_updater_layers": 3}, ["missing", "layers.2"]),
        ({"num_updater_layers": 1}, ["unexpected", "layers.1"]),
        ({"cell_type": "mlp"}, ["missing", "unexpected"]),
        ({"tie_word_embeddings": True}, ["not tied though tie_word_embeddings=True", "lm_head.weight"]),
    ],
)
def test_weights_of_another_configuration(folder, values, words):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    refused(folder, *words)


def change(folder, edit):
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize("name", ["lm_head.weight", "model.initial_memory", "model.embed_tokens.weight"])
def test_weights_that_lack_extend_or_spoil_one(saved, tmp_path, name):
    def spoil(tensors):
        tensors[name].view(-1)[-1] = float("inf")

    edits = {
        "missing": lambda tensors: tensors.pop(name),
        "unexpected": lambda tensors: tensors.update({f"{name}.copy": tensors[name].clone()}),
        "instead of": lambda tensors: tensors.update({name: tensors[name].T.contiguous()}),
        "infinity": spoil,
        "NaN": lambda tensors: tensors[name].fill_(float("nan")),
    }
    for word, edit in edits.items():
        folder = shutil.copytree(saved["student"], tmp_path / word.replace(" ", "_"))
        change(folder, edit)
        refused(folder, word, name)


@pytest.mark.parametrize("name", ["teacher.decoder.norm.weight", "teacher.lm_head.weight", "stream_head.weight"])
def test_a_joint_checkpoint_without_a_weight_of_the_readout(saved, tmp_path, name):
    folder = shutil.copytree(saved["joint"], tmp_path / "joint")
    change(folder, lambda tensors: tensors.pop(name))
    for loader in (load_joint, load_student, load_teacher):
        refused(folder, "missing", name, loader=loader)


def test_a_joint_checkpoint_whose_readouts_differ(saved, tmp_path):
    folder = shutil.copytree(saved["joint"], tmp_path / "joint")
    change(folder, lambda tensors: tensors.update({"student.lm_head.weight": tensors["teacher.lm_head.weight"] + 1}))
    refused(folder, "not tied though", "student.lm_head.weight", loader=load_joint)


@pytest.mark.parametrize("kept", [0, 4, 100, -100, -1])
def test_weights_cut_short(folder, kept):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:kept])
    refused(folder, "is not a readable checkpoint")


@pytest.mark.parametrize("content", [b"\xff" * 3000, b"PK\x03\x04" + b"0" * 3000, (2).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_something_else(folder, content):
    (folder / WEIGHTS).write_bytes(content)
    refused(folder)


def test_weights_of_torch(folder):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert load_student(str(folder)).lm_head.weight.equal(tensors["lm_head.weight"])
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    refused(folder, "is not a readable checkpoint")


def test_no_weights(folder):
    (folder / WEIGHTS).unlink()
    refused(folder, f"has no {WEIGHTS}")
    (folder / WEIGHTS).mkdir()
    refused(folder, f"has no {WEIGHTS}")


@pytest.mark.parametrize(
    "index, word",
    [
        ("{bad", "not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {"lm_head.weight": 5}}', "no weight_map"),
        ('{"metadata": {}, "weight_map": {"lm_head.weight": "model-1.safetensors"}}', "has no model-1.safetensors"),
    ],
)
def test_a_damaged_index(folder, index, word):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(index)
    refused(folder, word)


def test_shards(folder, saved):
    (folder / WEIGHTS).unlink()
    load_student(str(saved["student"])).save_pretrained(folder, max_shard_size="20KB")
    shards = weight_files(folder)
    assert len(shards) > 1 and load_student(str(folder)).config.vocab_size == 20
    shards[1].unlink()
    refused(folder, f"has no {shards[1].name}")


# ---- generation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, word",
    [
        ("[]", "generation_config.json"),
        ("null", "generation_config.json"),
        ("{bad", "generation_config.json"),
        ('{"max_new_tokens": -1}', "max_new_tokens"),
        ('{"eos_token_id": 9999}', "eos_token_id=9999"),
        ('{"eos_token_id": [1, 20]}', "eos_token_id=20"),
        ('{"pad_token_id": "x"}', "TypeError"),
        ('{"cache_implementation": "nosuch"}', "nosuch"),
    ],
)
def test_a_damaged_generation_configuration(folder, content, word):
    (folder / "generation_config.json").write_text(content)
    refused(folder, word)


def test_a_folder_without_one(folder):
    (folder / "generation_config.json").unlink()
    assert load_student(str(folder)).can_generate()


# ---- where nothing is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["nobody/nothing", "a" * 5000, "a/b/c", "no such folder", "nul\0", "", ".", "~nobody/x"]
)
def test_places_without_a_checkpoint(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(path, "pass the folder")


@pytest.mark.parametrize(
    "error, words",
    [
        (
            OSError("You are trying to access a gated repo.\nMake sure to have access to it."),
            ["gated repo. Make sure"],
        ),
        (ConnectionError("no route to host"), ["no route to host"]),
        (TimeoutError(), ["pass the folder"]),
        (KeyError("x"), ["KeyError: 'x'"]),
    ],
)
def test_a_hub_that_does_not_give_it(error, words, monkeypatch):
    def give(*_, **__):
        raise error

    monkeypatch.setattr("smt_hf.checkpoints.cached_file", give)
    refused("user/name", *words)


def test_a_file_instead_of_a_folder(folder):
    refused(folder / WEIGHTS, "has no config.json")
    refused(folder / "config.json", "has no config.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "generation_config.json", ""])
def test_what_may_not_be_read(folder, name):
    (folder / name).chmod(0)
    try:
        refused(folder)
    finally:
        (folder / name).chmod(0o700)


def test_a_link_to_nowhere(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / "gone")
    refused(folder, f"has no {WEIGHTS}")


# ---- code of others --------------------------------------------------------------------------------------------------

CODE = "open({mark!r}, 'w')\nfrom transformers import PreTrainedConfig\nclass C(PreTrainedConfig):\n    model_type = 'other'\n"


@pytest.mark.parametrize("model_type", ["other", "smt_rnn", None])
def test_code_in_a_folder_is_neither_run_nor_offered(folder, tmp_path, model_type, monkeypatch):
    mark = tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {name: "evil.C" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}
    config["model_type"] = model_type
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(CODE.format(mark=str(mark)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asked"))
    if model_type == "smt_rnn":
        assert load_student(str(folder)).config.vocab_size == 20
    else:
        refused(folder, f"is a model of type {model_type!r}")
        refused(folder, f"is a model of type {model_type!r}", loader=write_card)
    assert not mark.exists()


def test_the_teachers_configuration_alone_is_no_student(tmp_path):
    SmtTeacherConfig(hidden_size=32).save_pretrained(tmp_path)
    refused(tmp_path, "is a teacher")
    assert AutoConfig.from_pretrained(tmp_path).model_type == "smt_teacher"
