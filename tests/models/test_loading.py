"""`from_pretrained` draws no weight at random unless it is asked to, and tied weights raise no alarm."""

import json
import os
import subprocess
import sys

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForPreTraining, AutoModelForSequenceClassification

from smt_hf import SmtRnnForCausalLM, SmtRnnForSequenceClassification, SmtRnnModel, SmtTeacherModel
from tests.conftest import tiny_model

WEIGHTS = "model.safetensors"


def tied_student(student):
    config = type(student.config)(**{**student.config.to_dict(), "tie_word_embeddings": True})
    return SmtRnnForCausalLM(config).eval()


@pytest.fixture(scope="module")
def models():
    joint = tiny_model(dtype=torch.float32)
    student = joint.export_student().eval()
    student.config.num_labels = 3
    classifier = SmtRnnForSequenceClassification(student.config).eval()
    return {
        "joint": joint,
        "bidirectional": tiny_model("bidirectional", torch.float32),
        "student": student,
        "tied": tied_student(student),
        "base": student.model,
        "teacher": joint.teacher,
        "classifier": classifier,
    }


KINDS = ["joint", "bidirectional", "student", "tied", "base", "teacher", "classifier"]


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    found = {}
    for kind, model in models.items():
        found[kind] = tmp_path_factory.mktemp(kind)
        model.save_pretrained(found[kind])
    return found


def damaged(folder, place, edit):
    """A copy of a folder with its weights edited."""
    place.mkdir(exist_ok=True)
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, place / WEIGHTS, {"format": "pt"})
    (place / "config.json").write_bytes((folder / "config.json").read_bytes())
    return place


def assert_same(loaded, model):
    assert type(loaded) is type(model) and not loaded.training
    for name, value in model.state_dict().items():
        assert value.equal(loaded.state_dict()[name].to(value.dtype)), name


# ---- whole checkpoints raise no alarm --------------------------------------------------------------------------------


def shards(model, folder):
    model.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / f"{WEIGHTS}.index.json").exists()


def all_names(model, folder):
    """As FSDP's and DeepSpeed's tools merge their checkpoints: tied weights under each of their names."""
    model.config.save_pretrained(folder)
    save_file({name: value.clone() for name, value in model.state_dict().items()}, folder / WEIGHTS, {"format": "pt"})


def of_torch(model, folder):
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


@pytest.mark.parametrize("save", [type(tiny_model()).save_pretrained, shards, all_names, of_torch])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_loads(models, tmp_path, kind, save, caplog):
    save(models[kind], tmp_path)
    loaded, info = type(models[kind]).from_pretrained(tmp_path, output_loading_info=True)
    assert_same(loaded, models[kind])
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert not caplog.records


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": torch.float64},
        {"dtype": "auto"},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
        {"attn_implementation": "eager"},
        {"low_cpu_mem_usage": True},
        {"use_safetensors": True},
        {"disable_mmap": True},
        {"strict": False},
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_options_of_loading(models, folders, kind, options):
    assert_same(type(models[kind]).from_pretrained(folders[kind], **options), models[kind])


@pytest.mark.parametrize("kind", ["joint", "student", "tied", "classifier"])
def test_weights_on_the_disk(models, folders, tmp_path, tokens, kind):
    first, *others = [name for name, _ in models[kind].named_children()]
    device_map = {first: "disk"} | dict.fromkeys(others, "cpu") if kind not in ("joint", "tied") else {"": "disk"}
    loaded = type(models[kind]).from_pretrained(folders[kind], device_map=device_map, offload_folder=tmp_path)
    inputs = (tokens, torch.tensor([0, 4]), torch.tensor([3]), 4) if kind == "joint" else (tokens,)
    for mine, theirs in zip(loaded(*inputs).to_tuple(), models[kind](*inputs).to_tuple(), strict=True):
        if isinstance(mine, torch.Tensor):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_memory(models, kind):
    model = models[kind]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    loaded = type(model).from_pretrained(None, config=model.config, state_dict=state)
    assert_same(loaded, model)
    with pytest.raises(ValueError, match="missing: "):
        type(model).from_pretrained(None, config=model.config, state_dict={})


@pytest.mark.parametrize("kind", ["joint", "tied"])
def test_tied_weights_load_under_any_of_their_names(models, kind):
    model = models[kind]
    names = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    assert any(len(same) > 1 for same in names.values())
    values = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    for place in (0, -1):
        other = type(model)(model.config)
        result = other.load_state_dict({same[place]: values[same[place]] for same in names.values()})
        assert not result.missing_keys and not result.unexpected_keys
        for same in names.values():
            assert other.state_dict()[same[0]].equal(values[same[place]])
    result = other.load_state_dict({}, strict=False)
    assert set(result.missing_keys) == set(values)


# ---- checkpoints of another class ------------------------------------------------------------------------------------


def test_a_base_model_from_a_checkpoint_with_a_head(models, folders):
    for kind in ("student", "tied", "classifier"):
        assert_same(SmtRnnModel.from_pretrained(folders[kind]), models[kind].model)
    assert_same(SmtTeacherModel.from_pretrained(folders["joint"]), models["teacher"])
    assert_same(AutoModel.from_pretrained(folders["student"]), models["base"])


@pytest.mark.parametrize(
    "kind, other, words",
    [
        ("student", "base", "missing: lm_head.weight"),
        ("student", "classifier", "missing: lm_head.weight; unexpected: score.weight"),
        ("student", "joint", "missing"),
        ("joint", "student", "tie_word_embeddings=False"),
        ("joint", "teacher", "tie_word_embeddings=False"),
        ("teacher", "student", "missing"),
    ],
)
def test_checkpoints_that_lack_what_the_class_needs(models, folders, kind, other, words):
    with pytest.raises((ValueError, StrictDataclassError), match=words):
        type(models[kind]).from_pretrained(folders[other])


def test_a_classifier_from_a_language_model(models, folders, tmp_path):
    for kind in ("student", "base", "tied"):
        classifier = AutoModelForSequenceClassification.from_pretrained(folders[kind], num_labels=5)
        assert classifier.score.weight.shape == (5, 32)
        torch.testing.assert_close(
            classifier.model.state_dict(), getattr(models[kind], "model", models[kind]).state_dict()
        )
    with pytest.raises(ValueError, match=r"score.weight \(3, 32\) instead of \(5, 32\)"):
        AutoModelForSequenceClassification.from_pretrained(folders["classifier"], num_labels=5)
    other = AutoModelForSequenceClassification.from_pretrained(
        folders["classifier"], num_labels=5, ignore_mismatched_sizes=True
    )
    assert other.num_labels == 5
    lost = damaged(folders["classifier"], tmp_path, lambda tensors: tensors.pop("score.weight"))
    with pytest.raises(ValueError, match="missing: score.weight"):
        AutoModelForSequenceClassification.from_pretrained(lost)


# ---- damaged checkpoints ---------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_lost_added_or_reshaped_is_named(models, folders, tmp_path, data):
    kind = data.draw(st.sampled_from(KINDS))
    names = sorted(load_file(folders[kind] / WEIGHTS))
    chosen = st.lists(st.sampled_from(names), unique=True, max_size=3)
    lost, added = data.draw(chosen), [f"{name}.more" for name in data.draw(chosen)]
    reshaped = [name for name in data.draw(chosen) if name not in lost]

    def edit(tensors):
        for name in reshaped:
            tensors[name] = tensors[name][..., :-1].contiguous()
        for name in lost:
            tensors.pop(name)
        for name in added:
            tensors[name] = torch.zeros(1)

    folder = damaged(folders[kind], tmp_path / "damaged", edit)
    load = type(models[kind]).from_pretrained
    if not (lost or added or reshaped):
        return assert_same(load(folder), models[kind])
    with pytest.raises(ValueError) as refusal:
        load(folder)
    message = str(refusal.value)
    assert "\n" not in message and "strict=False" in message
    for word, wanted in {"missing: ": lost, "unexpected: ": added, "of another shape: ": reshaped}.items():
        assert (word in message) == bool(wanted)
    for name in sorted(added)[:3] + sorted(reshaped)[:3]:
        assert name in message
    loaded, info = load(folder, strict=False, ignore_mismatched_sizes=True, output_loading_info=True)
    assert {name for name, *_ in info["mismatched_keys"]} == set(reshaped) and info["unexpected_keys"] == set(added)
    assert set(lost) <= info["missing_keys"]
    if kind in ("joint", "tied", "bidirectional"):  # what is tied to a lost weight is lost too
        alone = {name for name in info["missing_keys"] if name not in loaded.all_tied_weights_keys}
        assert alone == set(lost)
    assert all(value.isfinite().all() for value in loaded.state_dict().values())
    for name, value in models[kind].state_dict().items():
        if name not in {*info["missing_keys"], *reshaped} and name in names:
            assert value.equal(loaded.state_dict()[name])


def test_shapes_and_names_are_asked_for_apart(models, folders, tmp_path):
    def edit(tensors):
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:4].contiguous()
        tensors.pop("model.initial_memory")

    folder = damaged(folders["student"], tmp_path, edit)
    with pytest.raises(ValueError, match=r"missing: model.initial_memory\)"):
        SmtRnnForCausalLM.from_pretrained(folder, ignore_mismatched_sizes=True)
    with pytest.raises(ValueError, match=r"\(of another shape: lm_head.weight \(4, 32\) instead of \(20, 32\)\)"):
        SmtRnnForCausalLM.from_pretrained(folder, strict=False)


@pytest.mark.parametrize("kind, name", [("joint", "student.lm_head.weight"), ("tied", "lm_head.weight")])
def test_two_values_for_one_weight(models, folders, tmp_path, kind, name):
    model = models[kind]
    value = model.state_dict()[name] + 1
    folder = damaged(folders[kind], tmp_path, lambda tensors: tensors.update({name: value}))
    with pytest.raises(ValueError, match=f"not tied though tie_word_embeddings=True: {name}"):
        type(model).from_pretrained(folder)
    loaded = type(model).from_pretrained(folder, strict=False)  # as in the library: both are kept
    assert loaded.state_dict()[name].equal(value)
    for other, kept in model.state_dict().items():
        assert other == name or loaded.state_dict()[other].equal(kept)


@pytest.mark.parametrize(
    "auto, kind", [(AutoModelForCausalLM, "student"), (AutoModel, "teacher"), (AutoModelForPreTraining, "joint")]
)
def test_auto_classes_hand_the_words_on(models, folders, tmp_path, auto, kind):
    name = sorted(load_file(folders[kind] / WEIGHTS))[0]
    folder = damaged(folders[kind], tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError, match=f"missing: .*{name}"):
        auto.from_pretrained(folder)
    loaded, info = auto.from_pretrained(folder, strict=False, output_loading_info=True)
    assert name in info["missing_keys"] and type(loaded) is type(models[kind])


REMOTE = """
import json, sys
import transformers
found = []
for kind, whole, lost in (sys.argv[1:4], sys.argv[4:7]):
    load = getattr(transformers, kind).from_pretrained
    model = load(whole, trust_remote_code=True)
    try:
        load(lost, trust_remote_code=True)
    except ValueError as error:
        found.append(str(error))
    drawn = load(lost, trust_remote_code=True, strict=False)
    assert type(model).__name__ == type(drawn).__name__ and type(model).__module__.startswith("transformers_modules")
assert "smt_hf" not in sys.modules
print(json.dumps(found))
"""


def test_folders_without_this_package(models, tmp_path):
    words, names = [], []
    for kind, auto in {"student": "AutoModelForCausalLM", "joint": "AutoModelForPreTraining"}.items():
        whole, lost = tmp_path / kind, tmp_path / f"{kind}_lost"
        for folder in (whole, lost):
            models[kind].save_pretrained(folder)
        names.append(sorted(load_file(whole / WEIGHTS))[0])
        damaged(whole, lost, lambda tensors: tensors.pop(names[-1]))
        words += [auto, str(whole), str(lost)]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", REMOTE, *words]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for name, message in zip(names, json.loads(result.stdout.splitlines()[-1]), strict=True):
        assert f"missing: {name}" in message


PARTS = """
import sys
import torch
import transformers
auto, folder, saved = sys.argv[1:]
model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True)
parts = {"AutoModel": [model.model] if auto == "AutoModelForCausalLM" else [model.teacher, model.student.model]}
if auto == "AutoModelForPreTraining":
    parts["AutoModelForCausalLM"] = [model.student, model.export_student()]
for kind, models in parts.items():
    for number, part in enumerate(models):
        place = f"{saved}/{kind}{number}"
        part.save_pretrained(place)
        again = getattr(transformers, kind).from_pretrained(place, trust_remote_code=True)
        assert type(again).__name__ == type(part).__name__ and type(again) is not type(part)
        torch.testing.assert_close(again.state_dict(), part.state_dict(), rtol=0, atol=0)
        part.config.save_pretrained(f"{place}_config")
        config = transformers.AutoConfig.from_pretrained(f"{place}_config", trust_remote_code=True)
        assert type(config).__name__ == type(part.config).__name__
assert "smt_hf" not in sys.modules
"""


@pytest.mark.parametrize("kind, auto", [("joint", "AutoModelForPreTraining"), ("student", "AutoModelForCausalLM")])
def test_parts_carry_their_code_without_this_package(folders, tmp_path, kind, auto):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", PARTS, auto, str(folders[kind]), str(tmp_path / "saved")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_folder_of_an_adapter(models, folders, tmp_path, tokens):
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", modules_to_save=["lm_head"])
    model = peft.get_peft_model(SmtRnnForCausalLM.from_pretrained(folders["student"]), adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn_like(parameter) / 10)
    model.save_pretrained(tmp_path)
    expected = model.eval()(tokens).logits
    for loaded in (
        peft.PeftModel.from_pretrained(SmtRnnForCausalLM.from_pretrained(folders["student"]), tmp_path).eval(),
        SmtRnnForCausalLM.from_pretrained(tmp_path),
        AutoModelForCausalLM.from_pretrained(tmp_path),
    ):
        torch.testing.assert_close(loaded(tokens).logits, expected)
