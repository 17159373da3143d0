"""Bad input: one line that names the value and the remedy, exit code 2, nothing overwritten."""

import shutil

import pytest
from transformers import AutoTokenizer

from smt_hf import SmtForPreTraining
from smt_hf.cli.main import main
from smt_hf.data import DataOptions, byte_tokenizer


@pytest.fixture
def fails(capsys):
    def run(argv, *words):
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith(f"smt-hf {argv[0]}: error: ")
        for word in words:
            assert word in message, message
        return message

    return run


@pytest.fixture
def smt(recipes, tmp_path):
    return ["smt", "--config", recipes["smt"], "--output_dir", tmp_path / "out"]


def test_data(fails, smt, tmp_path):
    fails([*smt, "--dataset", tmp_path / "nowhere.txt"], "nowhere.txt", "check the path")
    (tmp_path / "empty.txt").write_text("")
    fails([*smt, "--dataset", tmp_path / "empty.txt"], "empty.txt", "no documents")
    (tmp_path / "short.txt").write_text("Too short.")
    lengths = (
        "has 11 tokens but a window needs 32 (context_length=24, horizon=8): use more text, or lower context_length"
    )
    fails([*smt, "--dataset", tmp_path / "short.txt"], f"the training data {lengths}")
    fails([*smt, "--eval_dataset", tmp_path / "short.txt"], f"the validation data {lengths}")
    (tmp_path / "text.pdf").write_text("x")
    fails([*smt, "--dataset", tmp_path / "text.pdf"], "'.pdf'")
    assert not (tmp_path / "out").exists()


def test_a_training_file_is_never_the_validation_text(stories):
    options = DataOptions(
        dataset=str(stories / "train.txt"), eval_split="validation", cache_dir=str(stories / "cache")
    )
    assert options.eval_tokens(byte_tokenizer()) is None


def test_sizes_and_arguments(fails, smt, tmp_path):
    fails([*smt, "--num_attention_heads", 5], "hidden_size=32 is not divisible by num_attention_heads=5")
    fails([*smt, "--cell_type", "tape"], "cell_type='tape'", "transformer")
    fails([*smt, "--cell_input", "text"], "cell_input='text'", "memory")
    fails([*smt, "--num_transitions", 0], "num_transitions=0")
    fails([*smt, "--encoder_attention", "bidirectional"], "stream_weight=1.0 needs a causal encoder")
    assert not (tmp_path / "out").exists()


def test_bptt(fails, recipes, smt_run, tmp_path):
    bptt = ["bptt", "--config", recipes["bptt"], "--output_dir", tmp_path / "out"]
    fails([*bptt, "--bptt_horizon", 0], "bptt_horizon=0 must be at least 1")
    fails([*bptt, "--bptt_horizon", 25], "bptt_horizon=25 exceeds context_length=24")
    fails([*bptt, "--num_attention_heads", 5], "hidden_size=32 is not divisible by num_attention_heads=5")
    fails([*bptt, "--model", tmp_path / "nowhere"], "nowhere")
    fails([*bptt, "--carry_memory", "true", "--per_device_train_batch_size", 99999], "99999 streams of 8")
    fails(
        ["finetune", "--config", recipes["finetune"], "--output_dir", tmp_path / "out"],
        "model is missing",
        "smt-hf finetune MODEL",
    )
    assert not (tmp_path / "out").exists()


def test_recipes(fails, smt, tmp_path):
    fails(["smt", "--config", tmp_path / "none.yaml"], "none.yaml")
    (tmp_path / "typo.yaml").write_text("learnign_rate: 0.1\n")
    fails(["smt", "--config", tmp_path / "typo.yaml"], "'learnign_rate'", "did you mean 'learning_rate'?")
    (tmp_path / "list.yaml").write_text("- 1\n")
    fails(["smt", "--config", tmp_path / "list.yaml"], "list.yaml")


def test_a_used_output_folder(fails, smt, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("work")
    fails(smt, "is not empty", "--resume", "--overwrite")
    fails([*smt, "--resume", "true"], "no checkpoint to resume")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["precious"]


def test_checkpoints_of_another_kind(fails, recipes, smt_run, dmt_run, tmp_path):
    dmt = ["dmt", "--config", recipes["dmt"], "--output_dir", tmp_path / "out"]
    fails(dmt, "model is missing", "smt-hf dmt MODEL")
    fails([*dmt, "--model", dmt_run], "is a student", "pass a teacher")
    fails([*dmt, "--model", tmp_path / "nowhere"], "nowhere")
    fails([*dmt, "--model", tmp_path], "has no config.json")
    fails(["generate", tmp_path], "has no config.json")
    fails(["smt", "--config", recipes["smt"], "--output_dir", tmp_path / "out", "--model", dmt_run], "is a student")
    assert not (tmp_path / "out").exists()


def test_a_teacher_and_a_student_that_do_not_fit(fails, recipes, stories, smt_run, tmp_path):
    other = tmp_path / "other"
    sizes = ["--num_memory_tokens", "3", "--max_steps", "1"]
    assert main(["smt", "--config", str(recipes["smt"]), "--output_dir", str(other), *sizes]) == 0
    dmt = ["dmt", "--config", recipes["dmt"], "--output_dir", tmp_path / "out", "--teacher", smt_run]
    fails([*dmt, "--model", other], "teacher num_memory_tokens=2 but student num_memory_tokens=3")
    evaluate = ["evaluate", other, "--teacher", smt_run, "--dataset", stories / "valid.txt"]
    fails(evaluate, "teacher num_memory_tokens=2 but student num_memory_tokens=3")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_with_more_tokens_than_the_model(fails, smt_run, stories, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(smt_run, copy)
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(copy)
    message = fails(["evaluate", copy, "--dataset", stories / "valid.txt"], "vocab_size is 258")
    assert "259 tokens" in message


def spoiled(smt_run, folder, value):
    """A copy of a run with one weight replaced."""
    joint = SmtForPreTraining.from_pretrained(smt_run)
    joint.teacher.lm_head.weight.data[0, 0] = value
    joint.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(smt_run / name, folder / name)
    return folder


def test_weights_that_are_no_numbers(fails, smt_run, recipes, tmp_path):
    broken = spoiled(smt_run, tmp_path / "broken", float("nan"))
    smt = ["smt", "--config", recipes["smt"], "--model", broken, "--output_dir", tmp_path / "out"]
    fails(smt, "broken", "NaN or infinity in teacher.lm_head.weight")


def test_a_loss_that_is_no_number(smt_run, recipes, tmp_path, capsys):
    broken = spoiled(smt_run, tmp_path / "broken", 3e38)
    argv = ["smt", "--config", recipes["smt"], "--model", broken, "--output_dir", tmp_path / "out"]
    assert main([str(word) for word in argv]) == 1
    assert "the loss became nan at step 1" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["output", "images", "label", "complete", "complete_rows", "guidance"])
def test_drawing_with_a_student_of_text(flag, fails, dmt_run, tmp_path):
    value = "7" if flag in ("images", "complete_rows", "guidance") else tmp_path / "x.png"
    fails(
        ["generate", dmt_run, "hi", f"--{flag}", value], f"{flag}=", "does not apply", "is a student trained on text"
    )


@pytest.mark.parametrize(
    "flag", ["reference_split", "reference_dataset", "quality_images", "guidance", "class_images"]
)
def test_measuring_a_student_of_text_as_one_of_images(flag, fails, dmt_run, stories):
    evaluate = ["evaluate", dmt_run, "--dataset", stories / "valid.txt"]
    fails([*evaluate, f"--{flag}", "7"], f"{flag} cannot be used", "is a student trained on text")


def test_texts_too_short_to_measure(fails, dmt_run, tmp_path):
    (tmp_path / "short.txt").write_text("Too short.")
    evaluate = ["evaluate", dmt_run, "--dataset", tmp_path / "short.txt", "--cache_dir", tmp_path / "cache"]
    fails(
        evaluate, "short.txt' has 11 tokens", "(context_length=128, rollout_steps=256)", "or lower context_length or"
    )


@pytest.mark.parametrize(
    "name", ["nowhere", "runs/nowhere", "./nowhere", "{tmp}/nowhere", "runs/a b", "runs/é", "a/b/c"]
)
@pytest.mark.parametrize("command", ["generate", "evaluate", "dmt", "serve", "app"])
def test_a_model_that_is_nowhere(command, name, fails, recipes, stories, tmp_path):
    name = name.format(tmp=tmp_path)
    more = ["--config", recipes["dmt"], "--output_dir", tmp_path / "out"] if command == "dmt" else []
    more += ["--dataset", stories / "valid.txt"] if command == "evaluate" else []
    message = fails([command, name, *more], f"there is no folder {name!r} here", "pass the folder or Hub id of a")
    assert "huggingface.co" not in message and "Repo id" not in message
    assert ("the Hub cannot be reached" in message) == (name in ("nowhere", "runs/nowhere"))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--learning_rate", "inf"], "learning_rate=inf must be a finite number, at least 0"),
        (["--weight_decay", "nan"], "weight_decay=nan must be a finite number, at least 0"),
        (["--lr_scheduler_type", "foo"], "lr_scheduler_type='foo' must be one of linear, cosine"),
        (["--image_size", "0"], "image_size=0 must be from 1 to 1024"),
    ],
)
def test_values(flags, message, fails, smt):
    fails([*smt, *flags], message)


def test_evaluations_without_data(fails, recipes, smt_run, tmp_path):
    words = ["finetune", smt_run, "--config", recipes["finetune"], "--output_dir", tmp_path / "out"]
    for strategy in ("steps", "epoch"):
        fails([*words, "--eval_strategy", strategy], f"eval_strategy={strategy} needs validation text")


@pytest.mark.parametrize("command", ["smt", "bptt", "lm"])
def test_a_model_of_ours_is_no_language_model(command, fails, smt_run, dmt_run, stories, tmp_path):
    for folder, kind in ((smt_run, "a teacher and student checkpoint"), (dmt_run, "a student (SmtRnnForCausalLM)")):
        words = [command, *([folder] if command == "lm" else ["--backbone", folder])]
        words += [
            "--dataset",
            stories / "train.txt",
            "--output_dir",
            tmp_path / "out",
            "--cache_dir",
            stories / "cache",
        ]
        message = fails(
            words,
            f"{str(folder)!r} is {kind}",
            "pass a Transformer language model, such as one trained with smt-hf lm",
        )
        assert "backbone=" not in message


def test_a_damaged_checkpoint(fails, smt_run, stories, recipes, tmp_path):
    """Every command that loads one says so in one line."""
    folder = tmp_path / "damaged"
    shutil.copytree(smt_run, folder)
    (folder / "model.safetensors").write_bytes(b"")
    words = ("damaged", "header too small")
    data = ["--dataset", stories / "train.txt", "--output_dir", tmp_path / "out"]
    fails(["generate", folder], *words)
    fails(["evaluate", folder, "--dataset", stories / "valid.txt"], *words)
    fails(["dmt", folder, "--config", recipes["dmt"], *data], *words)
    fails(["finetune", folder, "--config", recipes["finetune"], *data], *words)
    fails(["push", folder, "user/name", "--token", "none"], *words)
    fails(["app", folder], *words)
    fails(["serve", folder], *words)
    assert not (tmp_path / "out").exists()
