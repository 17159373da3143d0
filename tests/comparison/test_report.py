"""Tables from results made by hand."""

import csv

import pytest

from smt_hf.comparison import write_report
from smt_hf.comparison.report import at_budget
from smt_hf.comparison.results import methods, read_results, whole_path
from smt_hf.errors import InputError
from tests.comparison.handmade import point, write_result, write_results


@pytest.fixture
def folder(tmp_path):
    write_results(tmp_path)
    return tmp_path


def table(text, number):
    """The rows of a table of the Markdown, each a list of cells, the head first."""
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[number]]
    assert len({len(row) for row in rows}) == 1
    return [rows[0], *rows[2:]]


def test_the_path_of_a_chain_adds_up():
    traces = [[point(1, 0.1), point(2, 0.2)], [point(5, 0.5, 3.0)], [point(1, 0.9)]]
    path = whole_path([{"trace": trace, "shown": True} for trace in traces])
    assert [p["steps"] for p in path] == [1, 2, 7, 8]
    assert [p["flops"] for p in path] == [1, 2, 17, 18]
    assert [p["accuracy"] for p in path] == [0.1, 0.2, 0.5, 0.9]


def test_the_steps_of_a_curriculum_are_spent_but_stand_in_no_path():
    """They are measured on rows of their own."""
    traces = [[point(2, 0.9)], [point(1, 0.3), point(2, 0.4)]]
    path = whole_path([{"trace": trace, "shown": shown} for trace, shown in zip(traces, (False, True), strict=True)])
    assert [(p["steps"], p["accuracy"]) for p in path] == [(3, 0.3), (4, 0.4)]


def test_paths_and_methods(folder):
    results = {(result["method"], result["seed"]): result for result in read_results(str(folder))}
    assert {method for method, _ in results} == {"SMT", "SMT → DMT", "BPTT"}
    dmt = results["SMT → DMT", 1]
    assert [p["steps"] for p in dmt["path"]] == [10, 20, 25, 30]
    assert dmt["path"][1]["accuracy"] == 0.6 and dmt["accuracy"] == pytest.approx(0.8)
    assert results["BPTT", 0]["path"][-1]["cpu_seconds"] == 32


def test_the_order_of_methods():
    """A step of a curriculum more does not move a method."""
    names = ["SMT", "SMT → DMT", "SMT → DMT (detached)", "SMT → DMT → BPTT", "BPTT"]
    found = methods([{"cell": cell, "method": name} for name in reversed(names) for cell in ("gru", "elman")])
    assert found == [(cell, name) for cell in ("elman", "gru") for name in names]


def test_the_csv(folder):
    write_report(str(folder), chance=0.25)
    with open(folder / "results.csv", encoding="utf-8") as file:
        rows = {(row["method"], row["seed"]): row for row in csv.DictReader(file)}
    assert len(rows) == 6
    dmt, smt = rows["SMT → DMT", "0"], rows["SMT", "1"]
    assert (dmt["cell"], dmt["length"]) == ("transformer", "8")
    assert float(dmt["accuracy_at_1x"]) == 0.7 and float(dmt["accuracy_at_2x"]) == 0.35
    assert (float(dmt["steps"]), float(dmt["flops"])) == (30, 30)
    assert (float(dmt["drift_first"]), float(dmt["drift_last"])) == (0.01, 0.08)
    assert float(smt["teacher_accuracy_at_2x"]) == 1.0 and dmt["teacher_accuracy_at_2x"] == ""
    assert rows["BPTT", "0"]["drift_last"] == ""


def test_accuracies_are_means_and_ranges(folder):
    text = write_report(str(folder), chance=0.25)
    assert (folder / "results.md").read_text(encoding="utf-8") == text
    assert "chance is 25.0" in text
    assert table(text, 0) == [
        ["cell", "method", "length 8"],
        ["transformer", "SMT", "55.0 (50.0–60.0, n=2)"],
        ["transformer", "SMT: its teacher", "100.0 (100.0–100.0, n=2)"],
        ["transformer", "SMT → DMT", "75.0 (70.0–80.0, n=2)"],
        ["transformer", "BPTT", "85.0 (80.0–90.0, n=2)"],
    ]


def test_longer_rows(folder):
    rows = table(write_report(str(folder), chance=0.25), 1)
    assert rows[0] == ["cell", "method", "8, ×1", "8, ×2"]
    assert ["transformer", "SMT → DMT", "75.0", "37.5"] in rows
    assert ["transformer", "SMT: its teacher", "100.0", "100.0"] in rows
    assert len(rows) == 5


def test_effective_ranks(folder):
    write_result(folder, "bptt", 0.4, [point(4, 0.4)], length=16, effective_rank=5.04)
    assert table(write_report(str(folder), chance=0.25), 2) == [
        ["cell", "method", "length 8", "length 16"],
        ["transformer", "SMT", "2.0", "–"],
        ["transformer", "SMT: its teacher", "3.0", "–"],
        ["transformer", "SMT → DMT", "2.0", "–"],
        ["transformer", "BPTT", "2.0", "5.0"],
    ]


def test_accuracy_within_a_budget():
    path = [point(1, 0.1), point(2, 0.2), point(3, 0.3)]
    assert at_budget(path, "flops", 2.5) == 0.2
    assert at_budget(path, "flops", 3) == 0.3
    found = at_budget(path, "flops", 0.5)
    assert found != found


def test_the_same_budget_for_all(folder):
    """SMT spends 20 of everything, SMT and DMT 30, BPTT 32, of which it has 4 steps within 30."""
    rows = table(write_report(str(folder), chance=0.25), 3)
    assert rows[1] == ["8", "", "*budget*", *["*30*"] * 5]
    assert rows[2:] == [
        ["8", "transformer", "SMT", *["55.0"] * 5],
        ["8", "transformer", "SMT → DMT", *["75.0"] * 5],
        ["8", "transformer", "BPTT", *["30.0"] * 5],
    ]


def test_a_method_that_was_never_measured_within_the_budget(tmp_path):
    write_result(tmp_path, "smt", 0.5, [point(2, 0.5)])
    write_result(tmp_path, "bptt", 0.9, [point(4, 0.9)])
    rows = table(write_report(str(tmp_path), chance=0.25), 3)
    assert rows[-1] == ["8", "transformer", "BPTT", *["–"] * 5]


def test_what_was_spent(folder):
    rows = table(write_report(str(folder), chance=0.25), 4)
    assert rows[0][:4] == ["length", "cell", "method", "steps"]
    assert [row[2:5] for row in rows[1:]] == [["SMT", "20", "20"], ["SMT → DMT", "30", "30"], ["BPTT", "8", "32"]]


def test_what_is_missing_does_not_stop_the_rest(folder):
    """Another length and cell with one seed and fewer factors, as after a stop."""
    write_result(folder, "bptt", 0.4, [point(4, 0.4)], length=16, cell="gru", factors=(1,))
    text = write_report(str(folder), chance=0.25)
    assert ["gru", "BPTT", "–", "40.0"] in table(text, 0)
    assert ["transformer", "BPTT", "85.0 (80.0–90.0, n=2)", "–"] in table(text, 0)
    assert ["gru", "BPTT", "–", "–", "40.0", "–"] in table(text, 1)


def test_two_tasks_in_a_folder_are_refused(folder):
    write_result(folder, "bptt", 0.4, [point(4, 0.4)], length=16)
    file = folder / "transformer" / "length-16" / "seed-0" / "bptt" / "result.json"
    file.write_text(file.read_text().replace('"task": "parity"', '"task": "stack"'))
    with pytest.raises(InputError, match="several tasks, parity {}, stack {}: give each a folder"):
        write_report(str(folder), chance=0.25)


def test_a_stage_whose_beginning_is_gone_is_left_out(folder):
    """Nobody knows what it spent."""
    (folder / "transformer" / "length-8" / "seed-1" / "smt" / "result.json").unlink()
    methods = [(result["method"], result["seed"]) for result in read_results(str(folder))]
    assert ("SMT → DMT", 0) in methods and ("SMT → DMT", 1) not in methods and len(methods) == 4


def test_no_results(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="contains no results: train first, or fix output_dir"):
            write_report(str(place), chance=0.25)


def test_the_results_of_a_run(comparison_run):
    """What `run_student` writes is what the tables read: the step of a curriculum is spent, but in no row."""
    folder, results = comparison_run
    read = {result["stages"][-1]: result for result in read_results(str(folder))}
    assert read["finetune"]["method"] == "SMT → DMT → BPTT" and "short" not in read
    spent = [result["trace"][-1] for result in results[:4]]
    assert read["finetune"]["path"][-1]["steps"] == 12
    assert read["finetune"]["path"][-1]["flops"] == pytest.approx(sum(stage["flops"] for stage in spent))
