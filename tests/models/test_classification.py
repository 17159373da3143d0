"""The student as a classifier: what it scores, what it learns, and how the library finds it."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.utils import logging

from smt_hf import SmtRnnConfig, SmtRnnForCausalLM, SmtRnnForSequenceClassification
from smt_hf.models.cache_smt_rnn import CACHE_NAME

EXACT = {"rtol": 0, "atol": 1e-9}
SIZES = {
    "hidden_size": 32,
    "num_memory_tokens": 3,
    "num_updater_layers": 2,
    "num_readout_layers": 1,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}


def make(dtype=torch.float64, **options):
    torch.manual_seed(0)
    config = SmtRnnConfig(**{"vocab_size": 20, "num_labels": 4, **SIZES, **options})
    return SmtRnnForSequenceClassification(config).to(dtype).eval()


@pytest.fixture
def classifier():
    return make()


def naive_logits(classifier, row):
    memory = classifier.model.start_memory(1)
    for token in row:
        memory = classifier.model.update(memory, token[None])
    return classifier.score(classifier.model.readout_features(memory))[0]


def test_it_scores_the_memory_after_the_last_token(classifier, tokens):
    logits = classifier(tokens).logits
    assert logits.shape == (3, 4)
    torch.testing.assert_close(logits, torch.stack([naive_logits(classifier, row) for row in tokens]), **EXACT)


@pytest.mark.parametrize("cell_type", ["transformer", "gru"])
def test_padding_anywhere_changes_nothing(cell_type, tokens):
    classifier = make(cell_type=cell_type, num_memory_tokens=4)
    places = [slice(0, 5), slice(9, 14), slice(4, 8)]  # left, right, within
    mask, kept = torch.ones_like(tokens), []
    for row, place in enumerate(places):
        mask[row, place] = 0
        kept.append(tokens[row][mask[row].bool()])
    output = classifier(tokens, attention_mask=mask)
    torch.testing.assert_close(output.logits, torch.stack([naive_logits(classifier, row) for row in kept]), **EXACT)
    noise = torch.where(mask.bool(), tokens, (tokens + 7) % 20)
    torch.testing.assert_close(classifier(noise, attention_mask=mask).logits, output.logits, **EXACT)
    nothing = classifier(tokens, attention_mask=torch.zeros_like(tokens)).logits
    torch.testing.assert_close(nothing, naive_logits(classifier, []).expand(3, -1), **EXACT)


def test_embeddings_caches_and_outputs(classifier, tokens):
    expected = classifier(tokens).logits
    embeds = classifier.model.embed_tokens(tokens)
    torch.testing.assert_close(classifier(inputs_embeds=embeds).logits, expected, **EXACT)
    first = classifier(tokens[:, :6], use_cache=True)
    for name in ("cache", "past_key_values"):
        warm = classifier(tokens[:, :6], use_cache=True)[CACHE_NAME]
        torch.testing.assert_close(classifier(tokens[:, 6:], **{name: warm}).logits, expected, **EXACT)
    assert first[CACHE_NAME].get_seq_length() == 6 and CACHE_NAME not in classifier(tokens, use_cache=False)
    hidden_states = classifier(tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(classifier.score(hidden_states[-1][:, -1]), expected, **EXACT)
    loss, logits, *_ = classifier(tokens, labels=torch.tensor([0, 1, 2]), return_dict=False)
    torch.testing.assert_close(logits, expected, **EXACT)
    with pytest.raises(ValueError, match="exactly one"):
        classifier()


def test_losses_of_the_library(tokens):
    ids, numbers = torch.tensor([0, 3, 1]), torch.rand(3, 4).double()
    functional = torch.nn.functional
    cases = [
        ({}, ids, lambda logits: functional.cross_entropy(logits, ids), "single_label_classification"),
        ({}, numbers, lambda logits: functional.binary_cross_entropy_with_logits(logits, numbers), "multi_label_classification"),
        ({"problem_type": "regression"}, numbers, lambda logits: functional.mse_loss(logits, numbers), "regression"),
        ({"num_labels": 1}, numbers[:, 0], lambda logits: functional.mse_loss(logits[:, 0], numbers[:, 0]), "regression"),
    ]  # fmt: skip
    for options, labels, loss, problem_type in cases:
        classifier = make(**options)
        output = classifier(tokens, labels=labels)
        torch.testing.assert_close(output.loss, loss(output.logits))
        assert classifier.config.problem_type == problem_type
    with pytest.raises(ValueError, match="num_labels=0"):
        make(num_labels=0)


def gradients(classifier, tokens, **options):
    classifier.zero_grad()
    classifier.train()(tokens, labels=torch.tensor([0, 3, 1]), **options).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in classifier.named_parameters()}


def test_recomputing_changes_nothing(classifier, tokens):
    expected = gradients(classifier, tokens)
    assert all(gradient.any() for gradient in expected.values())
    torch.testing.assert_close(gradients(classifier, tokens, checkpoint_steps=4), expected, **EXACT)
    classifier.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients(classifier, tokens), expected, **EXACT)


def test_the_horizon_cuts_the_gradient(classifier, tokens):
    embeds = classifier.model.embed_tokens(tokens).detach().requires_grad_()
    classifier(inputs_embeds=embeds, bptt_horizon=5).logits.sum().backward()
    reached = embeds.grad.abs().amax(dim=(0, 2)) > 0
    assert reached.tolist() == [False] * 10 + [True] * 4  # cut after 5 and 10 tokens


def test_padding_without_a_mask_is_warned_of(tokens, caplog):
    classifier = make(pad_token_id=0)
    logging.enable_propagation()
    try:
        classifier(torch.cat([tokens.clamp(min=1), torch.zeros(3, 2, dtype=torch.long)], dim=1))
    finally:
        logging.disable_propagation()
    assert "attention_mask" in caplog.text


def test_it_is_found_by_the_auto_class(classifier, tokens, tmp_path):
    classifier.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is SmtRnnForSequenceClassification
    torch.testing.assert_close(loaded(tokens).logits, classifier(tokens).logits, **EXACT)
    assert type(AutoModelForSequenceClassification.from_config(loaded.config)) is type(loaded)


def test_the_pipeline(tokenizer, tmp_path):
    ids = {"pad_token_id": 257, "eos_token_id": 256, "bos_token_id": 256}
    names = {"id2label": {0: "calm", 1: "wild"}, "label2id": {"calm": 0, "wild": 1}}
    classifier = make(torch.float32, vocab_size=258, num_labels=2, **ids, **names)
    classifier.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["a", "a much longer text than that", "text"]
    found = pipeline("text-classification", model=str(tmp_path), device="cpu")
    batch = found(texts, batch_size=3, top_k=None)
    for text, answer in zip(texts, batch, strict=True):
        logits = classifier(**tokenizer(text, return_tensors="pt")).logits[0]
        scores = {score["label"]: score["score"] for score in answer}
        torch.testing.assert_close(torch.tensor([scores["calm"], scores["wild"]]), logits.softmax(dim=0))


def ragged_rows(num_rows, seed):
    """Texts of 4 to 16 bytes; the label is which of three letters stands first, so it must be remembered to the end."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(num_rows):
        length = int(torch.randint(4, 17, (1,), generator=generator))
        label = int(torch.randint(3, (1,), generator=generator))
        rest = torch.randint(97, 123, (length - 1,), generator=generator)
        rows.append({"input_ids": [65 + label, *rest.tolist()], "labels": label})
    return rows


def stock_trainer(classifier, tokenizer, folder, rows, **options):
    common = {
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 16,
        "learning_rate": 1e-2,
        "max_steps": 60,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    return Trainer(
        model=classifier,
        args=TrainingArguments(str(folder), **{**common, **options}),
        train_dataset=rows,
        eval_dataset=ragged_rows(64, 1),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda given: {"accuracy": float((given.predictions.argmax(-1) == given.label_ids).mean())},
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_stock_trainer_teaches_it(tokenizer, tmp_path, side):
    options = {
        "vocab_size": 258,
        "num_labels": 3,
        "pad_token_id": 257,
        "initializer_range": 0.1,
        "num_updater_layers": 1,
    }
    classifier = make(torch.float32, cell_type="gru", **options)
    tokenizer.padding_side, usual = side, tokenizer.padding_side
    try:
        trainer = stock_trainer(classifier, tokenizer, tmp_path, ragged_rows(512, 0), label_smoothing_factor=0.05)
        before = trainer.evaluate()["eval_accuracy"]
        trainer.train()
        after = trainer.evaluate()["eval_accuracy"]
    finally:
        tokenizer.padding_side = usual
    assert before < 0.6 and after > 0.95, (before, after)
    trainer.save_model(str(tmp_path / "saved"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    row = torch.tensor([ragged_rows(1, 2)[0]["input_ids"]])
    torch.testing.assert_close(loaded(row).logits, classifier.eval()(row).logits, rtol=0, atol=0)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_accumulated_gradients_are_those_of_one_batch(tokenizer, tmp_path, problem_type):
    rows = ragged_rows(8, 0)
    for place, row in enumerate(rows):
        if problem_type != "single_label_classification":
            row["labels"] = [float(place % 2), 1.0, 0.25]
    found = []
    for options in (
        {"per_device_train_batch_size": 8},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    ):
        classifier = make(torch.float32, vocab_size=258, num_labels=3, pad_token_id=257, problem_type=problem_type)
        options |= {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
        stock_trainer(classifier, tokenizer, tmp_path, rows, **options).train()
        found.append(classifier.state_dict())
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)


def test_adapters(tokens, tmp_path):
    peft = pytest.importorskip("peft")
    classifier = make(torch.float32)
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", r=2)
    model = peft.get_peft_model(classifier, config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(10):
        loss = model(tokens, labels=torch.tensor([0, 3, 1])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(make(torch.float32), tmp_path)
    torch.testing.assert_close(loaded.eval()(tokens).logits, model.eval()(tokens).logits)


REMOTE = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification
folder, saved = sys.argv[1:]
model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, trust_remote_code=True)
tokens = torch.arange(12).reshape(2, 6)
model.train()(tokens, labels=torch.tensor([0, 2])).loss.backward()
torch.optim.SGD(model.parameters(), lr=0.1).step()
model.save_pretrained(saved)
again = AutoModelForSequenceClassification.from_pretrained(saved, trust_remote_code=True)
assert "smt_hf" not in sys.modules and type(again).__module__.startswith("transformers_modules")
print(json.dumps(again(tokens).logits.tolist()))
"""


def test_from_a_student_without_this_package(tmp_path):
    student, saved = tmp_path / "student", tmp_path / "classifier"
    SmtRnnForCausalLM(SmtRnnConfig(vocab_size=20, **SIZES)).save_pretrained(student)
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", REMOTE, str(student), str(saved)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    logits = torch.tensor(json.loads(result.stdout.splitlines()[-1]))
    loaded = AutoModelForSequenceClassification.from_pretrained(saved)
    torch.testing.assert_close(loaded(torch.arange(12).reshape(2, 6)).logits, logits)
