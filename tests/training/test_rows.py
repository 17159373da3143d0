"""Rows of any length and tokenizers of any kind: no pad token, and saved as they were used."""

import pytest
import torch
from datasets import IterableDataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, default_data_collator

from smt_hf.data import TokenWindows, byte_tokenizer, cached_tokens, collate
from smt_hf.errors import InputError, explain
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
from tests.training.conftest import COMMON, DMT, SMT, logged, model_for_bytes

ROWS = [{"input_ids": list(range(length, 2 * length)), "labels": list(range(length))} for length in (40, 33, 36, 40)]


def padless_tokenizer():
    """Of 258 words, which begins every text with `<s>`, and pads nothing."""
    backend = Tokenizer(
        models.WordLevel({"<s>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, 258)}, unk_token="</s>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def trainer_of(kind, folder, dataset, **options):
    joint = model_for_bytes()
    if kind == "smt":
        arguments = SmtTrainingArguments(output_dir=str(folder), **COMMON, **SMT)
        return SmtTrainer(model=joint, args=arguments, train_dataset=dataset, **options)
    if kind == "dmt":
        arguments = DmtTrainingArguments(output_dir=str(folder), **COMMON, **DMT)
        student = joint.export_student()
        return DmtTrainer(model=student, teacher=joint.teacher, args=arguments, train_dataset=dataset, **options)
    if kind == "lm":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=258, n_layer=1, n_head=2, n_embd=16, bos_token_id=0))
        arguments = LmTrainingArguments(output_dir=str(folder), **COMMON)
        return LmTrainer(model=model, args=arguments, train_dataset=dataset, **options)
    arguments = BpttTrainingArguments(output_dir=str(folder), **COMMON)
    return BpttTrainer(model=joint.export_student(), args=arguments, train_dataset=dataset, **options)


@pytest.mark.parametrize("kind", ["smt", "dmt", "bptt"])
@pytest.mark.parametrize("labels", [True, False])
def test_rows_of_different_lengths_need_no_pad_token(kind, labels, tmp_path):
    rows = [row if labels else {"input_ids": row["input_ids"]} for row in ROWS]
    trainer = trainer_of(kind, tmp_path, rows, processing_class=padless_tokenizer())
    assert trainer.data_collator is collate
    trainer.train()
    assert len(logged(trainer)) == 3 and all(0 < loss < 20 for loss in logged(trainer))


def test_a_collator_of_ones_own_is_used(tmp_path):
    trainer = trainer_of("bptt", tmp_path, ROWS, data_collator=default_data_collator)
    assert trainer.data_collator is default_data_collator


METHODS = ["smt", "dmt", "bptt", "lm"]


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    "columns, words",
    [
        ({"labels": [-100] * 33}, "labels are -100 in all rows of the first step, .* leave the column out"),
        ({"shift_labels": [-100] * 33}, "shift_labels are -100 in all rows of the first step"),
        ({"attention_mask": [0] * 33}, "all tokens of the first step are padding"),
        ({"input_ids": [0.5] * 33}, "input_ids are of type float32"),
        ({"labels": [0.5] * 33}, "labels are of type float32"),
    ],
)
def test_data_that_nothing_can_be_learned_from(kind, columns, words, tmp_path):
    rows = [{"input_ids": list(range(33)), **columns}] * 8
    with pytest.raises(InputError, match=words) as refusal:
        trainer_of(kind, tmp_path, rows).train()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", METHODS)
def test_one_label_among_all_rows_is_enough(kind, tmp_path):
    rows = [{"input_ids": list(range(33)), "labels": [-100] * 33} for _ in range(8)]
    rows[5]["labels"][12] = 12
    trainer_of(kind, tmp_path, rows).train()


@pytest.mark.parametrize("kind", METHODS)
def test_data_sets_without_a_batch(kind, tmp_path):
    with pytest.raises(InputError, match="train_dataset has no rows"):
        trainer_of(kind, tmp_path, []).train()
    with pytest.raises(InputError, match="eval_dataset has no rows"):
        trainer_of(kind, tmp_path, ROWS, eval_dataset=[]).evaluate()
    trainer = trainer_of(kind, tmp_path, ROWS)
    trainer.args.dataloader_drop_last = True
    with pytest.raises(InputError, match="dataloader_drop_last drops the only batch of train_dataset"):
        trainer.train()


@pytest.mark.parametrize("kind", METHODS)
def test_streams_that_give_nothing(kind, tmp_path):
    empty = IterableDataset.from_generator(lambda: iter(()))
    with pytest.raises(InputError, match="train_dataset yielded no rows: check what it reads"):
        trainer_of(kind, tmp_path, empty).train()
    with pytest.raises(InputError, match="eval_dataset yielded no rows"):
        trainer_of(kind, tmp_path, ROWS, eval_dataset=empty).evaluate()


def test_padding_trains_nothing(tmp_path):
    padded = trainer_of("bptt", tmp_path, ROWS)
    alone = [trainer_of("bptt", tmp_path, [row]) for row in ROWS]

    def gradient(trainer):
        batch = collate(list(trainer.train_dataset))
        trainer.current_gradient_accumulation_steps = 1
        trainer.compute_loss(trainer.model, batch, num_items_in_batch={"readout": torch.tensor(100)}).backward()
        return trainer.student().model.initial_memory.grad

    expected = sum(gradient(trainer) for trainer in alone)
    torch.testing.assert_close(gradient(padded), expected, rtol=1e-4, atol=1e-6)


def test_the_tokenizer_of_a_text_is_saved_as_it_was_used(tmp_path):
    (tmp_path / "text.txt").write_text(" ".join(f"w{2 + i % 250}" for i in range(400)))
    tokenizer = padless_tokenizer()
    windows = TokenWindows(cached_tokens(tmp_path / "text.txt", tokenizer, tmp_path / "caches"), 32)
    trainer_of("bptt", tmp_path / "text", windows, processing_class=tokenizer).save_model()
    assert AutoTokenizer.from_pretrained(tmp_path / "text")("w5 w6")["input_ids"] == [5, 6]
    # Rows are the user's own: so is the tokenizer.
    trainer_of("bptt", tmp_path / "rows", ROWS, processing_class=tokenizer).save_model()
    assert AutoTokenizer.from_pretrained(tmp_path / "rows")("w5 w6")["input_ids"] == [0, 5, 6]
    plain = byte_tokenizer()
    assert trainer_of("bptt", tmp_path, windows, processing_class=plain).processing_class is plain


BAD = [{"input_ids": [300] * 40}] * 4


def says_bad(run):
    """Whether the id that the model has not is told in one line."""
    with pytest.raises(InputError) as caught:
        run()
    said = explain(caught.value)
    assert said.startswith("token id 300 is outside the model's vocabulary of 258 ids: use the tokenizer")
    assert said.endswith("larger vocab_size")


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_ids_that_the_model_has_not_are_told_in_training_and_evaluation(kind, num_workers, tmp_path):
    for trainer in (trainer_of(kind, tmp_path, ROWS, eval_dataset=BAD), trainer_of(kind, tmp_path, BAD)):
        trainer.args.dataloader_num_workers = num_workers
        says_bad(trainer.train if trainer.eval_dataset is None else trainer.evaluate)


@pytest.mark.parametrize("kind", METHODS)
def test_a_loader_of_ones_own_is_checked_too(kind, tmp_path):
    trainer = trainer_of(kind, tmp_path, BAD)
    trainer.get_train_dataloader = lambda: torch.utils.data.DataLoader(BAD, 2, collate_fn=collate)
    says_bad(trainer.train)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_for_another_device_ids_are_checked_before_they_are_moved(kind, num_workers, tmp_path, monkeypatch):
    """By the loader itself, in its workers if it has any."""
    trainer = trainer_of(kind, tmp_path, BAD, eval_dataset=BAD)
    trainer.args.dataloader_num_workers = num_workers
    monkeypatch.setattr(type(trainer.args), "device", torch.device("cuda"))
    for loader in (trainer.get_train_dataloader, trainer.get_eval_dataloader):
        says_bad(lambda loader=loader: next(iter(loader())))
    assert trainer.data_collator is collate
