"""Comparisons on a dataset: what students train on, what is measured, and how a stopped one goes on."""

import pytest

from smt_hf.checkpoints import load_student
from smt_hf.comparison import run_student
from smt_hf.comparison.corpus_share import share_of
from smt_hf.comparison.corpus_subject import order_seed
from smt_hf.comparison.flops import step_flops
from smt_hf.comparison.runs import Run, new_trainer, sample_batches
from smt_hf.comparison.trace import logarithmic_shares
from smt_hf.data import ImageRows
from smt_hf.errors import InputError
from smt_hf.evaluation import evaluate_models
from smt_hf.evaluation.images import evaluate_images
from tests.comparison.conftest import tiny
from tests.comparison.corpora import STAGES, images, text
from tests.comparison.test_flops import cell, readout
from tests.comparison.test_runs import MemoryTrainer, untimed


@pytest.fixture(scope="module")
def text_run(tmp_path_factory):
    """A comparison on a text, its folder, and the results of its one run."""
    folder = tmp_path_factory.mktemp("text")
    comparison = text(folder)
    return comparison, folder / "out", run_student(comparison, "transformer", 1.0, 0, str(folder / "out"))


def student_of(folder, name):
    return load_student(str(folder / "transformer" / "data-1" / "seed-0" / name)).eval()


def test_what_a_stage_spends(text_run):
    """Three steps: windows as they are read, of a stream only what it goes on by."""
    _, _, results = text_run
    assert [result["settings"]["stages"][-1]["name"] for result in results] == list(STAGES)
    tokens = [result["trace"][-1]["tokens"] for result in results]
    assert tokens == [3 * 4 * length for length in (12 + 4, 12 + 1, 12 + 1, 4)]
    assert [[point["steps"] for point in result["trace"]] for result in results] == [[1, 3]] * 4


def test_targets_alone_cost_nothing(text_run, tmp_path):
    """A window has a token more than BPTT reads, and a stream's segment too."""
    comparison, _, results = text_run
    c, r = cell(2), readout(2) - 2 * 16 * 5 + 2 * 16 * 258  # the head of another vocabulary
    spent = {result["settings"]["stages"][-1]["name"]: result["trace"][-1] for result in results}
    assert spent["bptt"]["sequential_flops"] == 3 * (3 * 12 * c + 3 * r)
    assert spent["carried"]["sequential_flops"] == 3 * (3 * 4 * c + 3 * r)
    assert spent["carried"]["flops"] == pytest.approx(
        3 * 3 * (4 * 4 * (c + r) + r), rel=0.02
    )  # and the initial memory


def test_losses_are_those_of_the_evaluation(text_run):
    comparison, folder, results = text_run
    for name, result in zip(STAGES, results, strict=True):
        report = evaluate_models(student_of(folder, name), comparison.subject.held_out, None, 4, 12, 6)
        assert result["student"]["loss"] == report["student_cold"]["nats_per_token"]
        assert result["student"]["standard_error"] == report["student_cold"]["standard_error"]
        assert result["student"]["rows"] == 6 and result["trace"][-1]["rows"] == 4
        assert ("teacher" in result) == (name == "smt")


def test_bytes_are_counted_and_not_tokens(tmp_path, monkeypatch):
    """A tokenizer of words of two bytes has twice the loss a token."""
    comparison = text(tmp_path)
    report = {"student_cold": {"nats_per_token": 3.0, "standard_error": 0.5}, "bytes_per_token": 2.0, "num_windows": 4}
    monkeypatch.setattr("smt_hf.comparison.corpus_subject.evaluate_models", lambda *arguments: report)
    measured = comparison.subject.measure(None, comparison.all_stages()[-1], 1.0)
    assert measured == {"loss": 1.5, "standard_error": 0.25, "rows": 4}


def test_images(tmp_path):
    comparison = images(tmp_path)
    results = run_student(comparison, "transformer", 1.0, 0, str(tmp_path / "out"))
    assert results[0]["trace"][-1]["tokens"] == 3 * 4 * 17 and results[3]["trace"][-1]["tokens"] == 3 * 4 * 4
    assert results[0]["corpus_tokens"] == 48 * 17
    subject = comparison.subject
    report = evaluate_images(student_of(tmp_path / "out", "dmt"), subject.processing, ImageRows(subject.held_out))
    assert len(ImageRows(subject.held_out)) == 12
    half = run_student(images(tmp_path, eval_rows=12, only=["dmt"]), "transformer", 1.0, 0, str(tmp_path / "again"))
    assert half[1]["student"]["loss"] == report["student"]["nats_per_pixel"]


def test_killed_and_started_again_equals_uninterrupted(text_run, tmp_path, monkeypatch):
    comparison, _, results = text_run
    train, trained = MemoryTrainer.train, []

    def killed(trainer, *args, **kwargs):
        trained.append(trainer)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(trainer, *args, **kwargs)

    monkeypatch.setattr(MemoryTrainer, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        run_student(comparison, "transformer", 1.0, 0, str(tmp_path))
    assert untimed(run_student(comparison, "transformer", 1.0, 0, str(tmp_path))) == untimed(results)
    assert len(trained) == 5  # SMT, DMT broken off, DMT and both of BPTT


def test_finished_stages_are_not_trained_again(text_run, monkeypatch):
    comparison, folder, results = text_run
    monkeypatch.setattr(MemoryTrainer, "train", lambda trainer: pytest.fail("trained again"))
    assert run_student(comparison, "transformer", 1.0, 0, str(folder)) == results


def test_other_data_are_refused(text_run, tmp_path):
    comparison, folder, _ = text_run
    other = text(tmp_path)
    (tmp_path / "train.txt").write_text("quite another story " * 40)
    with pytest.raises(InputError, match="smt/result.json' was made with different settings .corpus.train"):
        run_student(other, "transformer", 1.0, 0, str(folder))


def test_a_share_of_the_data(tmp_path):
    comparison = text(tmp_path, data_shares=[1.0, 0.25], only=["bptt"])
    comparison.subject.open()
    results = run_student(comparison, "transformer", 0.25, 0, str(tmp_path / "out"))
    assert (tmp_path / "out" / "transformer" / "data-0.25" / "seed-0" / "bptt" / "result.json").is_file()
    corpus, quarter = comparison.subject.whole, comparison.subject.training_data(0.25)
    assert quarter.num_documents == 10 and results[0]["corpus_tokens"] == quarter.num_tokens

    def document(cache, number):
        ends = [*cache.document_starts[1:], cache.num_tokens]
        return cache.tokens[cache.document_starts[number] : ends[number]].tolist()

    assert [document(quarter, i) for i in range(10)] == [document(corpus, 4 * i) for i in range(10)]
    assert quarter.num_bytes == quarter.num_tokens
    assert share_of(corpus, 1) is corpus
    assert share_of(corpus, 0.001, tmp_path / "cache").num_documents == 1


def test_a_stage_trains_the_cells_that_it_names(tmp_path):
    comparison = text(tmp_path, cells=["transformer", "gru"])
    assert [stage.name for stage in comparison.stages_of("transformer")] == list(STAGES)
    assert [stage.name for stage in comparison.stages_of("gru")] == ["bptt"]


def test_a_stage_may_have_another_teacher(tmp_path):
    """And those after it go on with it, and it alone is refused when it changes."""
    stages = {**STAGES, "paper": {"trainer": "smt", "model": {"encoder_attention": "bidirectional"}}}
    stages["after"] = {"trainer": "dmt", "after": "paper", "rollout_length": 8}
    comparison = text(tmp_path, stages=stages)
    kinds = {
        stage.name: comparison.model_config("transformer", 1.0, stage).teacher_config.encoder_attention
        for stage in comparison.all_stages()
    }
    assert kinds["smt"] == kinds["dmt"] == "causal" and kinds["paper"] == kinds["after"] == "bidirectional"
    run = Run(comparison, "transformer", 1.0, 0, str(tmp_path))
    settings = {stage.name: run.settings(stage)["config"] for stage in comparison.all_stages()}
    assert settings["paper"] == settings["after"] != settings["smt"] == settings["dmt"]


def test_stages_read_in_orders_of_their_own(tmp_path):
    comparison = text(tmp_path)
    seeds = {order_seed(seed, stage) for seed in (0, 1) for stage in comparison.all_stages()}
    assert len(seeds) == 8
    arguments = [comparison.arguments(stage, 1.0, 0, "unused") for stage in comparison.all_stages()]
    assert [each.data_seed for each in arguments] == [order_seed(0, stage) for stage in comparison.all_stages()]
    assert {each.seed for each in arguments} == {0}


def test_a_sequential_rollout_is_counted_once(tmp_path, monkeypatch):
    """Every draw costs the same, and with the paper's encoder takes minutes."""
    stages = {"smt": STAGES["smt"], "dmt": {**STAGES["dmt"], "rollout": "sequential"}}
    comparison = text(tmp_path, stages=stages)
    run_student(text(tmp_path, stages=stages, only=["smt"]), "transformer", 1.0, 0, str(tmp_path / "out"))
    run, (smt, dmt) = Run(comparison, "transformer", 1.0, 0, str(tmp_path / "out")), comparison.all_stages()
    arguments = comparison.arguments(dmt, 1.0, 0, str(tmp_path / "dmt"))
    trainer = new_trainer(run, dmt, smt, args=arguments, **comparison.subject.data(dmt, 1.0, 0, arguments))
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    one = step_flops(trainer, [batch])
    monkeypatch.setattr("smt_hf.comparison.flops.NUM_DRAWS", 1000)
    assert step_flops(trainer, [batch]) == one


def test_counting_leaves_no_memory_to_carry_on(tmp_path):
    comparison = text(tmp_path, only=["carried"])
    run, stage = Run(comparison, "transformer", 1.0, 0, str(tmp_path)), comparison.chosen_stages()[0]
    arguments = comparison.arguments(stage, 1.0, 0, str(tmp_path / "carried"))
    trainer = new_trainer(run, stage, None, args=arguments, **comparison.subject.data(stage, 1.0, 0, arguments))
    step_flops(trainer, sample_batches(trainer))
    assert trainer.carried.memories == [] and trainer.carried.batch == 0


def test_logarithmic_shares():
    shares = logarithmic_shares(4)
    assert shares == pytest.approx([1 / 64, 1 / 16, 1 / 4, 1]) and shares[-1] == 1
    assert logarithmic_shares(1) == [1]


@pytest.mark.parametrize(
    "make, changes, words",
    [
        (text, {"task": "retrieval"}, "task='retrieval' and dataset=.* are both given: leave one out"),
        (text, {"eval_dataset": None}, "eval_dataset is missing: pass held-out text or images"),
        (text, {"lengths": [16]}, r"lengths=\[16\] is not for comparisons on a dataset: leave it out"),
        (text, {"eval_factors": [1]}, "eval_factors=.* is not for comparisons on a dataset"),
        (text, {"data_shares": []}, "data_shares is empty"),
        (text, {"data_shares": [0.0]}, r"data_shares=\[0.0\]: 0.0 must be above 0 and at most 1"),
        (text, {"data_shares": [1.5]}, "1.5 must be above 0 and at most 1"),
        (text, {"data_shares": [1.0, 1.0]}, "1.0 appears twice"),
        (text, {"data_shares": [1.0, 0.5], "cpu_seconds": [1, 2, 3]}, r"one for each of data_shares=\[1.0, 0.5\]"),
        (text, {"target_losses": ["low"]}, "'low' must be a number"),
        (text, {"target_losses": [0.0]}, r"target_losses=\[0.0\]: 0.0 must be above 0"),
        (text, {"rollout_steps": 0}, "rollout_steps=0 must be at least 1"),
        (text, {"cells": ["gru"], "only": ["smt"]}, "no stage trains 'gru'"),
        (text, {"stages": {"smt": {"cells": ["grru"]}}}, "stage 'smt': cells: cell_type='grru' is unknown"),
        (text, {"stages": {"smt": {"cells": "gru"}}}, "stage 'smt': cells='gru' must be a list"),
        (text, {"stages": {"smt": {"length": 8}}}, "stage 'smt': length and task_options are for synthetic tasks"),
        (text, {"stages": {"smt": {"model": 3}}}, "stage 'smt': model=3 must be a mapping"),
        (text, {"stages": {"smt": {"model": {"layers": 3}}}}, "stage 'smt': model: unknown field 'layers'"),
        (
            text,
            {"stages": {"smt": {}, "more": {"trainer": "smt", "after": "smt", "model": {"hidden_size": 8}}}},
            "stage 'more': its model is that of 'smt': set `model` in the stage that begins it",
        ),
        (text, {"stages": {"smt": {"horizon": 0}}}, "stage 'smt': horizon=0 must be at least 1"),
    ],
)
def test_what_cannot_work(make, changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        make(tmp_path, **changes)


@pytest.mark.parametrize(
    "make, changes, words",
    [
        (text, {"dataset": "/nowhere.txt"}, "there is no file or folder '/nowhere.txt'"),
        (
            text,
            {"eval_dataset": None, "eval_split": "validation"},
            "is one file, which has no splits: pass eval_dataset",
        ),
        (text, {"rollout_steps": 5000}, "but a window needs 5004"),
        (text, {"data_shares": [0.02]}, "stage 'smt', data_share 0.02: .* fewer than per_device_train_batch_size=4"),
        (
            text,
            {"training": {"per_device_train_batch_size": 4096, "context_length": 12}, "only": ["carried"]},
            "stage 'carried', data_share 1: the corpus has .* 4096 streams",
        ),
        (text, {"model": {"hidden_size": 15}}, "hidden_size=15 is not divisible"),
        (images, {"image_size": 0}, "image_size=0 must be from 1 to 1024"),
        (images, {"holdout": None}, "validation"),
    ],
)
def test_data_that_cannot_work_are_refused_before_anything_is_trained(make, changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        make(tmp_path, **changes).subject.open()


def test_a_task_has_no_fields_of_datasets():
    for name, value in (("image_size", 8), ("holdout", 4), ("data_shares", [0.1]), ("split", "test")):
        with pytest.raises(InputError, match=f"{name}=.* is not for comparisons on a task: leave it out"):
            tiny(**{name: value})
