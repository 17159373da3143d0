"""TRL's `SFTTrainer`, and the collators of `Trainer`."""

import copy

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    DataCollatorWithFlattening,
    Trainer,
    TrainingArguments,
)

pytest.importorskip("trl")

from trl import SFTConfig, SFTTrainer

from tests.ecosystem.conftest import CHAT_TEMPLATE, TEXTS, assert_loss_falls, training

SFT = {"max_length": 64, "bf16": False, "gradient_checkpointing": False}  # the latter two are on by default, and slow
CHATS = [
    [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}]
    for word in ("hi", "no", "mat")
] * 10


@pytest.fixture
def chat_tokenizer(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def make_sft(small_student, chat_tokenizer, tmp_path):
    def make(rows, model=small_student, **overrides):
        arguments = SFTConfig(**training(tmp_path / "sft", **{**SFT, **overrides}))
        dataset = Dataset.from_list(rows)
        return SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=chat_tokenizer)

    return make


def first_batch(trainer):
    trainer.accelerator.free_memory()
    return next(iter(trainer.get_train_dataloader()))


DATA = {
    "text": [{"text": text} for text in TEXTS],
    "chat": [{"messages": chat} for chat in CHATS],
    "completion": [{"prompt": "say " + chat[1]["content"], "completion": " " + chat[1]["content"]} for chat in CHATS],
}


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kind", list(DATA))
def test_sft_lowers_the_loss_and_saves(make_sft, kind, packing, tmp_path):
    trainer = make_sft(DATA[kind], packing=packing, per_device_train_batch_size=1 if packing else 4)
    trainer.train()
    assert_loss_falls(trainer)
    trainer.save_model(str(tmp_path / "saved"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert loaded.generation_config.use_cache
    for name, value in trainer.model.state_dict().items():
        assert value.equal(loaded.state_dict()[name]), name


def lengths_of(position_ids):
    starts = [*(position_ids[0] == 0).nonzero().flatten().tolist(), position_ids.shape[1]]
    return [end - start for start, end in zip(starts, starts[1:], strict=False)]


def test_packed_documents_do_not_leak(make_sft, small_student):
    """The packed loss is that of every document by itself."""
    trainer = make_sft(DATA["text"], packing=True, per_device_train_batch_size=2)
    batch = first_batch(trainer)
    lengths = lengths_of(batch["position_ids"])
    assert "attention_mask" not in batch and len(lengths) > 4
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, dict(batch))
        total = sum(
            small_student(row, labels=row).loss * (row.shape[1] - 1)
            for row in batch["input_ids"].split(lengths, dim=1)
        )
    torch.testing.assert_close(loss, total / (sum(lengths) - len(lengths)))


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_only_the_answers_are_learnt(make_sft, tokenizer, kind):
    """The completion of a prompt, which is the default, or what the chat template marks."""
    batch = first_batch(make_sft(DATA[kind], assistant_only_loss=kind == "chat"))
    for row, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        word = tokenizer.decode(row, skip_special_tokens=True).replace(":", " ").split()[-1]
        assert tokenizer.decode(labels[labels != -100]).lstrip() == f"{word}<|endoftext|>"


def test_activation_checkpointing_changes_nothing(make_sft, small_student):
    gradients = []
    for checkpointing in (True, False):
        trainer = make_sft(
            DATA["text"], copy.deepcopy(small_student), gradient_checkpointing=checkpointing, max_steps=1
        )
        trainer.train()
        gradients.append(trainer.model.state_dict())
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-5, atol=1e-6)


def test_lora_through_sft(small_student, chat_tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    before = copy.deepcopy(small_student.state_dict())
    trainer = SFTTrainer(
        model=small_student,
        args=SFTConfig(**training(tmp_path, **SFT, learning_rate=3e-2)),
        train_dataset=Dataset.from_list(DATA["text"]),
        processing_class=chat_tokenizer,
        peft_config=peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"),
    )
    trainer.train()
    assert_loss_falls(trainer, 0.9)
    trainer.save_model(str(tmp_path / "adapter"))
    merged = trainer.model.merge_and_unload()
    assert merged.lm_head.weight.equal(before["lm_head.weight"])
    assert merged.model.initial_memory.equal(before["model.initial_memory"])


@pytest.mark.parametrize("kind", ["padding", "flattening"])
def test_the_stock_trainer(small_student, tokenizer, tmp_path, kind):
    collator = DataCollatorWithFlattening()
    if kind == "padding":
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    rows = [{"input_ids": tokenizer(text + "<|endoftext|>").input_ids} for text in TEXTS]
    trainer = Trainer(
        model=small_student,
        args=TrainingArguments(**training(tmp_path)),
        train_dataset=Dataset.from_list(rows),
        data_collator=collator,
        processing_class=tokenizer,
    )
    trainer.train()
    assert_loss_falls(trainer)


def test_flattened_and_padded_batches_give_one_loss(small_student, tokenizer):
    rows = [{"input_ids": tokenizer(text).input_ids} for text in TEXTS[:4]]
    losses = [small_student(**DataCollatorWithFlattening()(rows)).loss]
    for side in ("left", "right"):
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.padding_side = side
        batch = DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)
        begins = batch["attention_mask"].cumsum(dim=1) == 1  # after left padding the collator asks for these too
        batch["labels"] = batch["labels"].masked_fill(begins, -100)
        losses.append(small_student(**batch).loss)
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(losses[2], losses[0])
