"""`smt-hf compare` from a recipe to tables and plots, in one process and in two."""

import json
from concurrent.futures import Future

import pytest
import yaml

from smt_hf.cli import compare
from smt_hf.cli.main import main
from tests.comparison.conftest import TINY
from tests.comparison.corpora import text
from tests.comparison.handmade import write_results

STAGES = {
    "smt": {"num_transitions": 4},
    "short": {"trainer": "bptt", "length": 8},
    "bptt": {"after": "short", "max_steps": 2},
}


@pytest.fixture
def recipe(tmp_path):
    values = {**TINY, "stages": STAGES, "seeds": [0], "eval_factors": [1], "gradient_length": 12}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def untimed(folder):
    """The results under a folder without what a clock says."""
    results = {}
    for file in sorted(folder.glob("*/*/*/*/result.json")):
        result = json.loads(file.read_text())
        for point in result["trace"]:
            del point["cpu_seconds"], point["wall_seconds"]
        results[str(file.relative_to(folder))] = {**result, "log": None}
    return results


def test_one_process_and_two(recipe, tmp_path, capsys):
    words = ["compare", "--config", str(recipe)]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*words, "--output_dir", str(one)]) == 0
    assert main([*words, "--output_dir", str(one), "--only", "bptt", "--seeds", "0", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("transformer, length 12, seed 0, bptt: accuracy") == 1  # not trained again
    assert "transformer, length 12, seed 1, bptt: accuracy" in printed
    assert (one / "results.md").read_text() in printed
    names = {
        "curves.json",
        "results.csv",
        "results.md",
        "accuracy.png",
        "budgets.png",
        "gradients.png",
        "drift.png",
        "memory_space.png",
    }
    assert {file.name for file in one.iterdir()} == names | {"transformer"}
    assert main([*words, "--output_dir", str(two), "--only", "bptt", "--seeds", "0", "1", "--num_processes", "2"]) == 0
    assert (two / "results.csv").is_file()
    alone = {name: result for name, result in untimed(one).items() if "smt" not in name}
    assert len(alone) == 4 and untimed(two) == alone


def test_report_only_trains_nothing(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "run_student", lambda *run: pytest.fail("trained"))
    write_results(tmp_path / "out")
    words = ["compare", "--config", str(recipe), "--output_dir", str(tmp_path / "out"), "--report_only", "true"]
    assert main(words) == 0
    assert "SMT → DMT" in capsys.readouterr().out
    assert (tmp_path / "out" / "budgets.png").is_file()


def test_without_matplotlib(recipe, tmp_path, monkeypatch, capsys):
    def missing(*arguments):
        raise ImportError("No module named 'matplotlib'")

    monkeypatch.setattr(compare, "write_plots", missing)
    write_results(tmp_path / "out")
    words = ["compare", "--config", str(recipe), "--output_dir", str(tmp_path / "out"), "--report_only"]
    assert main(words) == 0
    assert "no plot was drawn: pip install 'smt-hf[plot]'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["--cells", "tape"], "cell_type='tape' is unknown"),
        (["--only", "dmt"], "there is no stage 'dmt': choose one of smt, short, bptt"),
        (["--only", "short"], "only=['short']: none of these stages appears in a table: add one"),
        (["--stages", '{"dmt": {}}'], "stage 'dmt' needs a teacher"),
        (["--stages", "{"], "stages='{' is not a JSON object"),
        (["--training", '{"learnign_rate": 0.1}'], "training: unknown field 'learnign_rate'"),
        (["--lengths", "12", "24", "--cpu_seconds", "1", "2", "3"], "one for each of lengths=[12, 24]"),
        (["--num_processes", "0"], "num_processes=0 must be at least 1"),
        (["--report_only"], "contains no results: train first"),
    ],
)
def test_bad_input(words, message, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "run_student", lambda *run: pytest.fail("trained"))
    out = tmp_path / "out"
    assert main(["compare", "--config", str(recipe), "--output_dir", str(out), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("smt-hf compare: error: ") and message in line
    assert not out.exists()


def test_an_output_folder_that_is_a_file(recipe, tmp_path, capsys):
    assert main(["compare", "--config", str(recipe), "--output_dir", str(recipe)]) == 2
    assert "is a file: pass a folder" in capsys.readouterr().err


def test_other_settings_in_the_same_folder(recipe, tmp_path, capsys):
    words = [
        "compare",
        "--config",
        str(recipe),
        "--only",
        "bptt",
        "--seeds",
        "0",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    assert main([*words, "--eval_rows", "8"]) == 2
    assert "was made with different settings (eval_rows: 16, now 8)" in capsys.readouterr().err


def test_a_loss_that_is_no_number(recipe, tmp_path, capsys):
    training = json.dumps({**TINY["training"], "learning_rate": 1e38, "weight_decay": 0.0})
    words = ["compare", "--config", str(recipe), "--training", training, "--output_dir", str(tmp_path / "out")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "stage 'short' of transformer, every length, seed 0: the loss became nan at step 2" in error


def test_a_dataset_in_one_process_and_in_two(tmp_path, capsys):
    """Over two shares of it, then the report alone."""
    fields = {name: value for name, value in vars(text(tmp_path)).items() if name not in ("subject", "cpu_seconds")}
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump({k: v for k, v in fields.items() if v is not None}, sort_keys=False)
    )
    words = ["compare", str(tmp_path / "recipe.yaml"), "--data_shares", "1", "0.5", "--only", "bptt", "carried"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*words, "--output_dir", str(one)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("nats per byte\n") == 4 and (one / "results.md").read_text() in printed
    assert {file.name for file in one.iterdir()} == {
        "transformer",
        "results.csv",
        "results.md",
        "budgets.png",
        "budgets_data_0.5.png",
    }
    assert main([*words, "--output_dir", str(two), "--num_processes", "2"]) == 0
    assert untimed(two) == untimed(one)
    (tmp_path / "train.txt").unlink()
    assert main([*words, "--output_dir", str(one), "--report_only"]) == 0


class Pool:
    """Runs side by side, the second of which fails at once."""

    def __init__(self, *arguments, **options):
        self.cancelled = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        assert self.cancelled, "the other runs would go on"

    def submit(self, function, *run):
        future = Future()
        if run == (1,):
            future.set_exception(FloatingPointError("nan"))
        return future

    def shutdown(self, wait, cancel_futures):
        self.cancelled = cancel_futures


def test_after_a_failure_no_other_run_begins(monkeypatch):
    monkeypatch.setattr(compare, "ProcessPoolExecutor", Pool)
    with pytest.raises(FloatingPointError, match="nan"):
        compare.train([(print, [(0,), (1,), (2,)])], num_processes=2)
