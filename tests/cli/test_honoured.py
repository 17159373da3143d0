"""Every option of reading is honoured or refused, for every kind of source."""

import datasets
import numpy as np
import pytest
from PIL import Image

from smt_hf import SmtImageProcessor
from smt_hf.cli import smt
from smt_hf.cli.evaluate import EvaluateOptions
from smt_hf.cli.main import main
from smt_hf.cli.parsing import parse
from smt_hf.data import DataOptions, byte_tokenizer, open_images, text_key
from smt_hf.data.build import MEANT_FOR
from smt_hf.data.image_opening import image_kind
from smt_hf.errors import InputError
from tests.data.test_images import LABELS, NAMES, PIXELS, class_folders

# A value of every option of reading that is not its default.
VALUES = {
    "split": "validation",
    "dataset_config": "large",
    "text_column": "body",
    "separator": "===",
    "streaming": True,
    "image_column": "picture",
    "label_column": "kind",
    "holdout": 3,
    "num_proc": 2,
    "num_eval_windows": 5,
    "num_readers": 2,
    "shuffle_buffer_size": 7,
    "eval_split": "validation",
}
COLUMNS = {"image_column", "label_column"}
# What each source honours, besides num_proc of text.
TEXTS = {
    "a.txt": {"separator"},
    "a.txt.gz": {"separator"},
    "a.jsonl": {"text_column"},
    "a.json.xz": {"text_column"},
    "a.parquet": {"text_column"},
    "folder of text": {"split", "eval_split", "dataset_config", "separator"},
    "folder of both": {"split", "eval_split", "dataset_config", "separator", "text_column"},
    "saved": {"split", "eval_split", "text_column"},
    "saved alone": {"text_column"},
    "owner/name": {"split", "eval_split", "dataset_config", "text_column", "streaming"},
}
IMAGES = {
    "digits": {"split", "eval_split", "holdout"},
    "images": {"split", "eval_split", "holdout"},
    "images in splits": {"split", "eval_split"},
    "classes": {"split", "eval_split", "holdout"},
    "x.npz": {"split", "eval_split", "holdout"},
    "x_train.npz": {"split", "eval_split"},
    "x.npy": {"split", "eval_split", "holdout"},
    "rows.parquet": {"split", "eval_split", *COLUMNS},
    "rows": {"split", "eval_split", *COLUMNS},
    "saved": {"split", "eval_split", *COLUMNS},
    "saved alone": COLUMNS,
    "owner/name": {"split", "eval_split", "dataset_config", "streaming", *COLUMNS},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for name in ("a.txt", "a.txt.gz", "a.jsonl", "a.json.xz", "a.parquet"):
        (folder / name).write_text("text")
    config = "---\nconfigs:\n- config_name: large\n  data_files:\n  - split: train\n    path: '*train*'\n  - split: validation\n    path: '*valid*'\n---\n"
    for place, suffix in (("folder of text", "txt"), ("folder of both", "jsonl")):
        (folder / place).mkdir()
        (folder / place / "train.txt").write_text("text")
        (folder / place / "train2.txt").write_text("text")
        (folder / place / f"valid.{suffix}").write_text("text")
        (folder / place / f"train3.{suffix}").write_text("text")
        (folder / place / "README.md").write_text(config)
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]})
    rows.save_to_disk(folder / "saved alone")
    datasets.DatasetDict(train=rows, validation=rows).save_to_disk(folder / "saved")
    class_folders(folder / "images")
    for split in ("train", "valid"):
        class_folders(folder / "images in splits", split)
    (folder / "classes").mkdir()
    np.save(folder / "classes" / "cat.npy", PIXELS)
    np.save(folder / "x.npy", PIXELS)
    np.savez(folder / "x.npz", x=PIXELS, y=LABELS)
    np.savez(folder / "x_train.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS)
    (folder / "rows").mkdir()
    for file in ("rows.parquet", "rows/train.parquet"):
        rows.to_parquet(folder / file)
    return folder


def source_in(folder, name: str) -> str:
    return str(folder / name) if (folder / name).exists() else name


def test_every_option_of_reading_is_known():
    assert set(MEANT_FOR) == {*VALUES, "reference_split"}


@pytest.mark.parametrize("option", VALUES)
@pytest.mark.parametrize("kind, name", [*(("text", name) for name in TEXTS), *(("images", name) for name in IMAGES)])
def test_honoured_or_refused(folder, kind, name, option):
    """As a flag; a recipe may have been written for other data."""
    honoured = TEXTS[name] | {"num_proc"} if kind == "text" else IMAGES[name]
    processing = byte_tokenizer() if kind == "text" else SmtImageProcessor(4)
    options = DataOptions(dataset=source_in(folder, name), **{option: VALUES[option]})
    if option in honoured:
        options.check_honoured(processing)
        return
    with pytest.raises(
        InputError, match=f"^{option}={VALUES[option]!r} is for .*, but .* is .*leave it out$"
    ) as error:
        options.check_honoured(processing)
    assert "\n" not in str(error.value) and repr(options.dataset) in str(error.value)
    options.of_recipe = frozenset({option})
    options.check_honoured(processing)


def test_what_one_of_several_sources_honours(folder):
    text, rows = source_in(folder, "a.txt"), source_in(folder, "a.jsonl")
    given = {"separator": "===", "text_column": "body", "num_eval_windows": 3}
    DataOptions(dataset=text, eval_dataset=rows, **given).check_honoured(byte_tokenizer())
    DataOptions(dataset=text, eval_dataset=text, eval_split="train").check_honoured(byte_tokenizer())
    with pytest.raises(InputError, match="eval_split='test' is for data with splits"):
        DataOptions(dataset=text, eval_dataset=text, eval_split="test").check_honoured(byte_tokenizer())
    with pytest.raises(InputError, match="is a text file: pass eval_dataset, or leave it out"):
        DataOptions(dataset=text, eval_split="train").check_honoured(byte_tokenizer())
    images = {"dataset": source_in(folder, "x.npz"), "reference_dataset": source_in(folder, "saved alone")}
    EvaluateOptions(**images, label_column="kind").check_honoured(SmtImageProcessor(4))
    with pytest.raises(InputError, match="reference_split='test' is for data with splits"):
        EvaluateOptions(**images, reference_split="test").check_honoured(SmtImageProcessor(4))


@pytest.mark.parametrize(
    "given, streams, refused",
    [
        ({"streaming": True, "num_readers": 2, "shuffle_buffer_size": 7}, True, None),
        ({"streaming": True, "num_proc": 2}, True, "num_proc=2 is for text that is encoded"),
        ({"streaming": True, "num_proc": 2, "eval_dataset": "a.txt"}, True, None),
        ({"num_readers": 2, "shuffle_buffer_size": 7}, False, "num_readers=2, shuffle_buffer_size=7 are for streamed text"),
    ],
)  # fmt: skip
def test_streamed_text(folder, given, streams, refused):
    given = {name: source_in(folder, value) if isinstance(value, str) else value for name, value in given.items()}
    options = DataOptions(dataset=source_in(folder, "a.txt"), **given)
    if refused is None:
        options.check_honoured(byte_tokenizer(), streams)
        return
    with pytest.raises(InputError, match=refused):
        options.check_honoured(byte_tokenizer(), streams)


def test_flags_are_told_from_a_recipe(recipes, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("eval_split: test\nstreaming: true\ndataset_config: large\n")
    words = ["--config", str(recipe), "--output_dir", str(tmp_path / "out"), "--dataset", "x", "--eval_split", "train"]
    options, _ = parse(smt.COMMAND, words)
    assert options.of_recipe == {"streaming", "dataset_config"} and options.eval_split == "train"


FLAGS = {
    "smt": ["--holdout", "5"],
    "bptt": ["--label_column", "kind"],
    "lm": ["--num_readers", "2"],
    "dmt": ["--dataset_config", "large"],
    "finetune": ["--image_column", "picture"],
    "evaluate": ["--split", "nonsense"],
    "tokenize": ["--text_column", "body"],
}


@pytest.mark.parametrize("command", FLAGS)
def test_every_command_that_reads(command, stories, recipes, smt_run, tmp_path, capsys):
    model = [str(smt_run)] if command in ("dmt", "finetune", "evaluate") else []
    config = ["--config", str(recipes[command])] if command in recipes else []
    output = ["--output_dir", str(tmp_path / "out")] if command not in ("evaluate", "tokenize") else []
    data = ["--dataset", str(stories / "train.txt"), "--cache_dir", str(stories / "cache")]
    assert main([command, *model, *config, *output, *data, *FLAGS[command]]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    name, value = FLAGS[command]
    assert f"{name[2:]}={value!r} is for" in error or f"{name[2:]}={value} is for" in error
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("option", ["split", "text_column", "config_name", "separator"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "saved alone"])
def test_the_cache_is_the_same_whatever_is_not_honoured(folder, name, option):
    """In Python, where a file is read whole whatever the split is called."""
    source = source_in(folder, name)
    same = text_key(source, byte_tokenizer()) == text_key(source, byte_tokenizer(), **{option: "other"})
    assert same != (option in TEXTS[name])


def test_the_columns_of_images_tell_caches_apart(tmp_path):
    columns = {name: [Image.fromarray(image) for image in PIXELS] for name in ("one", "two")}
    features = datasets.Features({name: datasets.Image() for name in columns})
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "rows.parquet")
    identities = [open_images(tmp_path / "rows.parquet", image_column=name).identity for name in (None, "one", "two")]
    assert identities[1] != identities[2]
    assert identities[0] == open_images(tmp_path / "rows.parquet").identity


def test_holdout_beside_splits(folder):
    for name in ("images in splits", "x_train.npz"):
        assert "holdout" not in image_kind(folder / name).honours
        with pytest.raises(InputError, match="holdout=3 is for sources without splits"):
            open_images(folder / name, holdout=3)
    assert open_images(folder / "images in splits").class_names == NAMES


def test_a_tokenizer_or_images(recipes, tmp_path, capsys):
    words = ["smt", "--config", str(recipes["smt"]), "--output_dir", str(tmp_path / "out"), "--image_size", "4"]
    assert main([*words, "--tokenizer", "gpt2"]) == 2
    assert "tokenizer='gpt2' is for text, but with image_size=4 the model learns images" in capsys.readouterr().err
    assert main([*words, "--backbone", "lm"]) == 2
    assert "image_size=4: backbone='lm' determines" in capsys.readouterr().err


def test_a_backbones_learning_rate_without_one(recipes, tmp_path, capsys):
    words = ["smt", "--config", str(recipes["smt"]), "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--backbone_learning_rate", "1e-3"]) == 2
    assert "backbone_learning_rate=0.001 needs a teacher with a backbone" in capsys.readouterr().err


def test_accepted_changes(recipes, tmp_path, capsys):
    words = ["smt", "--config", str(recipes["smt"]), "--output_dir", str(tmp_path / "out"), "--save_strategy", "steps"]
    assert main([*words, "--accept_changes", "seed"]) == 2
    assert "accept_changes=['seed'] is for a resumed run: pass --resume" in capsys.readouterr().err
    assert main(words) == 0
    assert main([*words, "--resume", "--accept_changes", "seed", "dta"]) == 2
    assert "accept_changes: there is no setting 'dta': did you mean 'data'?" in capsys.readouterr().err
    assert main([*words, "--resume", "--max_steps", "5", "--accept_changes", "data"]) == 0
