"""LoRA on the updater and the readout."""

import copy

import pytest
import torch

pytest.importorskip("peft")

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from smt_hf.models import fingerprint_smt_rnn

EXACT = {"rtol": 0, "atol": 0}
MERGED = {"rtol": 1e-4, "atol": 1e-4}  # float32: the merged weights are rounded
BATCH = torch.randint(256, (4, 12), generator=torch.Generator().manual_seed(0))
UPDATER = r".*\.cell\..*_proj"
READOUT = r".*\.decoder\..*_proj"


def lora(student, **options):
    return get_peft_model(student, LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, **options}))


def fit(model, num_steps=12):
    """A few steps of AdamW on one batch; returns the losses."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(num_steps):
        loss = model(BATCH, labels=BATCH).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def logits_of(model):
    return model.eval()(BATCH).logits


def moved(model, before):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def adapted(model):
    """The layers that carry an adapter, as paths in the student."""
    names = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name, _ in model.named_parameters()}
    return {name for name in names if name.endswith("_proj")}


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], UPDATER, READOUT])
def test_only_the_adapters_move(small_student, targets):
    model = lora(small_student, target_modules=targets)
    before = copy.deepcopy(model.state_dict())
    losses = fit(model)
    assert losses[-1] < losses[0] - 0.02
    assert moved(model, before) == {name for name in before if ".lora_" in name}


def test_what_the_targets_name(small_student):
    layers = {"all-linear": 12, UPDATER: 6, READOUT: 6}
    found = {name: adapted(lora(copy.deepcopy(small_student), target_modules=name)) for name in layers}
    assert {name: len(paths) for name, paths in found.items()} == layers
    assert all(path.startswith("model.cell.transformer.layers.0.") for path in found[UPDATER])
    assert all(path.startswith("model.decoder.layers.0.") for path in found[READOUT])


def test_saved_and_merged_adapters_give_the_same_logits(small_student, tmp_path):
    base = copy.deepcopy(small_student)
    model = lora(small_student, target_modules="all-linear", modules_to_save=["lm_head"])
    before = copy.deepcopy(model.state_dict())
    fit(model)
    assert all(".lora_" in name or ".modules_to_save." in name for name in moved(model, before))
    assert "base_model.model.lm_head.modules_to_save.default.weight" in moved(model, before)
    model.save_pretrained(tmp_path)
    logits = logits_of(model)
    assert (logits - logits_of(base)).abs().max() > 0.1
    loaded = PeftModel.from_pretrained(
        base, tmp_path, is_trainable=True
    )  # frozen weights take kernels that round otherwise
    torch.testing.assert_close(logits_of(loaded), logits, **EXACT)
    torch.testing.assert_close(logits_of(model.merge_and_unload()), logits, **MERGED)


@pytest.mark.parametrize("options", [{"do_sample": False}, {"num_beams": 2}])
def test_generation(small_student, options):
    model = lora(small_student, target_modules="all-linear")
    fit(model, 4)
    results = [
        model.eval().generate(BATCH[:, :4], max_new_tokens=8, use_cache=use, **options) for use in (True, False)
    ]
    assert results[0].equal(results[1])
    assert results[0].equal(model.merge_and_unload().generate(BATCH[:, :4], max_new_tokens=8, **options))


def test_the_initial_memory_trains_beside_the_adapters(small_student, tmp_path):
    """It is a parameter without a module of its own, so adapters cannot name it; the merged student carries it."""
    model = lora(small_student, target_modules=UPDATER)
    small_student.model.initial_memory.requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    fit(model, 4)
    assert "base_model.model.model.initial_memory" in moved(model, before)
    logits = logits_of(model)
    model.merge_and_unload().save_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(type(small_student).from_pretrained(tmp_path)), logits, **MERGED)


def write(model, **options):
    return model.generate(**options, max_new_tokens=4, do_sample=False, eos_token_id=None)


def refused(model, memory):
    with pytest.raises(ValueError, match="belongs to the student"):
        write(model, memory=memory)
    return True


@pytest.mark.parametrize("targets", ["all-linear", UPDATER, READOUT, ["q_proj"], ["lm_head"], ["embed_tokens"]])
def test_a_memory_belongs_to_the_active_adapter(small_student, targets):
    """Also if the adapter moves the readout alone, and no memory."""
    base = small_student.read(BATCH[:1])
    model = lora(small_student, target_modules=targets, init_lora_weights=False).eval()
    model.add_adapter("second", model.peft_config["default"])
    memories = {}
    for name in ("default", "second"):
        model.set_adapter(name)
        memories[name] = model.read(BATCH[:1])
        assert refused(model, base)
    assert refused(model, memories["default"])
    model.set_adapter("default")
    write(model, memory=memories["default"])
    assert refused(model, memories["second"])
    with model.disable_adapter():
        write(model, memory=base)
        assert refused(model, memories["default"])
    write(model, memory=memories["default"])


def test_an_adapter_that_was_hardly_trained_is_another_function(small_student):
    base = small_student.read(BATCH[:1])
    model = lora(small_student, target_modules="all-linear")
    write(model.eval(), memory=base)  # a new adapter changes nothing
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for _ in range(3):
        model(BATCH, labels=BATCH).loss.backward()
        optimizer.step()
    trained = model.read(BATCH[:1])
    assert refused(model, base)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.set_scale("default", 2.0)
    assert refused(model, trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_merged_weights_agree_with_their_adapter(small_student, dtype):
    small_student = small_student.to(dtype)
    base = small_student.read(BATCH[:1])
    model = lora(small_student, target_modules="all-linear", init_lora_weights=False).eval()
    adapted = model.read(BATCH[:1])
    model.merge_adapter()
    write(model, memory=adapted)
    assert refused(model, base)
    model.unmerge_adapter()
    write(model, memory=adapted)
    merged = model.merge_and_unload()
    assert type(merged) is type(small_student)
    write(merged, memory=adapted)
    write(model, memory=merged.read(BATCH[:1]))
    assert refused(merged, base)


def test_the_fingerprint_of_an_adapter_is_computed_once(small_student, monkeypatch):
    calls, probe = [], fingerprint_smt_rnn.probe
    monkeypatch.setattr(fingerprint_smt_rnn, "probe", lambda student: calls.append(student) or probe(student))
    model = lora(small_student, target_modules="all-linear", init_lora_weights=False).eval()
    memory = model.read(BATCH[:1])
    for _ in range(3):
        write(model, memory=memory)
        model.read(BATCH[:1], memory=memory)
    assert len(calls) == 1
