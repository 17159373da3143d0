"""Tables and plots of a comparison on a dataset, from rows made by hand and from a run."""

import json

import pytest

from smt_hf.comparison import run_student, write_corpus_plots, write_corpus_report
from smt_hf.comparison.corpus_report import needed, needed_of, read_rows, relative, runs_of, tables
from smt_hf.comparison.results import BUDGETS, read_results
from smt_hf.errors import InputError
from tests.comparison.corpora import text
from tests.comparison.test_report import table


def row(method, steps, loss, after="", cost=1.0, seed=0, share=1.0, **more):
    """A measurement after so many steps, each at this cost in every budget."""
    names = {"cell": "transformer", "method": method, "after": after, "data_share": share, "seed": seed, "stage": "s"}
    spent = {"steps": steps, **dict.fromkeys(BUDGETS, steps * cost)}
    return {
        **names,
        "unit": "byte",
        "corpus_tokens": 100,
        **spent,
        "loss": loss,
        "standard_error": 0.01,
        "rows": 8,
        **more,
    }


SMT = [row("SMT", 10, 4.0), row("SMT", 100, 2.0, teacher_loss=1.5)]
ROWS = [
    *SMT,
    row("SMT → DMT", 110, 1.5, "SMT"),
    row("SMT → DMT", 200, 1.0, "SMT"),
    *(row("BPTT", steps, loss, cost=10.0) for steps, loss in ((10, 3.0), (100, 1.0), (200, 1.2))),
]


def test_a_run_has_the_path_of_what_it_went_on_from():
    runs = {run["method"]: run for run in runs_of(ROWS)}
    assert [point["steps"] for point in runs["SMT → DMT"]["path"]] == [10, 100, 110, 200]
    assert runs["SMT → DMT"]["own"] == 2 and runs["BPTT"]["own"] == 3


def test_the_budget_needed_lies_on_the_line_between_two_measurements():
    """From 4 to 2 the loss falls evenly with the logarithm of the budget, from 10 to 1000."""
    path = [{"tokens": 10, "loss": 4.0}, {"tokens": 1000, "loss": 2.0}, {"tokens": 2000, "loss": 3.0}]
    assert needed(path, "tokens", 3.0) == (pytest.approx(100), False)
    assert needed(path, "tokens", 2.0) == (pytest.approx(1000), False)
    assert needed(path, "tokens", 4.0) == (10, True) and needed(path, "tokens", 9.0) == (10, True)
    assert needed(path, "tokens", 1.9) is None


def test_the_median_over_seeds_that_reach_a_loss():
    runs = [{"path": [{"tokens": n, "loss": 1.0}]} for n in (10, 30, 20)]
    missed = {"path": [{"tokens": 5, "loss": 2.0}]}
    assert needed_of(runs, "tokens", 1.0) == (20, True)
    assert needed_of([runs[0], missed], "tokens", 1.0) == (10, True)
    assert needed_of([runs[0], missed, missed], "tokens", 1.0) is None
    assert needed_of([], "tokens", 1.0) is None


def test_a_budget_beside_the_reference():
    assert relative((5.0, False), (20.0, False)) == "0.25 (5)"
    assert relative((5.0, True), (20.0, False)) == "\\<0.25 (5)"
    assert relative((5.0, False), None) == "(5)"
    assert relative((5.0, False), (20.0, True)) == "\\>0.25 (5)"
    assert relative((5.0, True), (20.0, True)) == "~0.25 (5)"
    assert relative((5.0, True), None) == "(\\<5)"
    assert relative(None, (20.0, False)) == "–"


def test_tables():
    found = tables(ROWS, targets=[2.0, 1.0])
    assert "one seed" in found and "over 8 rows" in found
    assert table(found, 0) == [
        ["cell", "method", "end", "lowest"],
        ["transformer", "SMT", "2.000 ± 0.010", "2.000 ± 0.010"],
        ["transformer", "SMT: its teacher", "1.500", "–"],
        ["transformer", "SMT → DMT", "1.000 ± 0.010", "1.000 ± 0.010"],
        ["transformer", "BPTT", "1.200 ± 0.010", "1.000 ± 0.010"],
    ]
    assert [line[2:5] + line[-1:] for line in table(found, 1)[1:]] == [
        ["SMT", "100", "100", "1"],
        ["SMT → DMT", "200", "200", "2"],
        ["BPTT", "200", "2e+03", "20"],
    ]
    assert [line[:4] for line in table(found, 2)[1:]] == [
        ["2.000", "transformer", "SMT", "0.32 (100)"],
        ["2.000", "transformer", "SMT → DMT", "0.32 (100)"],
        ["2.000", "transformer", "BPTT", "1 (316)"],
        ["1.000", "transformer", "SMT", "–"],
        ["1.000", "transformer", "SMT → DMT", "0.2 (200)"],
        ["1.000", "transformer", "BPTT", "1 (1e+03)"],
    ]


def test_losses_are_chosen_from_the_reference():
    assert [line[0] for line in table(tables(ROWS), 2)[1::3]] == ["1.500", "1.320", "1.200"]
    assert [line[0] for line in table(tables(ROWS, reference="SMT"), 2)[1::3]] == ["2.500", "2.200", "2.000"]
    assert table(tables([row("BPTT", 10, 1.2346)]), 2)[-1][:4] == ["1.235", "transformer", "BPTT", "~1 (10)"]
    assert "The budget needed" not in tables(ROWS, reference="GRU")
    assert table(tables(ROWS, "GRU", [2.0]), 2)[1][:4] == ["2.000", "transformer", "SMT", "(100)"]


def test_seeds_and_shares():
    more = [row("BPTT", 200, 1.4, cost=10.0, seed=1), row("BPTT", 100, 3.0, share=0.1, corpus_tokens=10)]
    found = tables([*ROWS, *more])
    losses = table(found, 0)
    assert losses[0][2:] == [
        "end, 1 of the data",
        "lowest, 1 of the data",
        "end, 0.1 of the data",
        "lowest, 0.1 of the data",
    ]
    assert losses[-1][2:] == [
        "1.300 (1.200–1.400, n=2)",
        "1.200 (1.000–1.400, n=2)",
        "3.000 ± 0.010",
        "3.000 ± 0.010",
    ]
    assert table(found, 1)[-1][:4] == ["0.1", "transformer", "BPTT", "100"] and table(found, 1)[-1][-1] == "10"
    assert "BPTT (1 of 2 seeds)" in [line[2] for line in table(found, 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished comparison of two cells and two shares."""
    folder = tmp_path_factory.mktemp("report")
    comparison = text(folder, cells=["transformer", "gru"], data_shares=[1.0, 0.5])
    for cell in comparison.cells:
        for share in comparison.data_shares:
            run_student(comparison, cell, share, 0, str(folder / "out"))
    return folder / "out"


def test_the_csv_alone_makes_tables_and_plots(folder, tmp_path):
    pytest.importorskip("matplotlib")
    words = write_corpus_report(str(folder))
    assert (folder / "results.md").read_text(encoding="utf-8") == words == tables(read_rows(folder / "results.csv"))
    drawn = write_corpus_plots(str(folder))
    assert [file.name for file in drawn] == ["budgets.png", "budgets_data_0.5.png"]
    (tmp_path / "results.csv").write_bytes((folder / "results.csv").read_bytes())
    for mine, again in zip(drawn, write_corpus_plots(str(tmp_path)), strict=True):
        assert mine.read_bytes() == again.read_bytes()


def test_the_rows_are_the_measurements(folder):
    write_corpus_report(str(folder))
    runs = {(run["cell"], run["method"], run["data_share"]): run for run in runs_of(read_rows(folder / "results.csv"))}
    assert len(runs) == 2 * (4 + 1)
    for result in read_results(str(folder)):
        run = runs[result["cell"], result["method"], result["data_share"]]
        assert [point["flops"] for point in run["path"]] == [point["flops"] for point in result["path"]]
        losses = [point["loss"] for point in result["trace"][:-1]] + [result["student"]["loss"]]
        assert [point["loss"] for point in run["path"][-run["own"] :]] == losses
        assert run["path"][-1].get("teacher_loss") == result.get("teacher", {}).get("loss")


def test_results_of_two_datasets_in_a_folder_are_refused(folder, tmp_path):
    for name, digest in (("a", "1"), ("b", "2")):
        place = tmp_path / "transformer" / "data-1" / "seed-0" / name
        place.mkdir(parents=True)
        result = json.loads((folder / "transformer" / "data-1" / "seed-0" / "smt" / "result.json").read_text())
        result["settings"]["corpus"]["held_out"] = digest
        (place / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match="several tasks, held-out bytes 1, held-out bytes 2: give each a folder"):
        write_corpus_report(str(tmp_path))
