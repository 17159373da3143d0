"""Plots are drawn of whatever results there are."""

import pytest

pytest.importorskip("matplotlib")

from matplotlib import pyplot
from matplotlib.colors import to_hex

from smt_hf.comparison import plots, write_plots
from smt_hf.comparison.curves import read_curves, write_curves
from smt_hf.errors import InputError
from smt_hf.utils.figures import COLOURS, legend, line_styles, new_figure
from tests.comparison.handmade import point, write_result, write_results

NAMES = ["accuracy.png", "budgets.png", "gradients.png", "drift.png", "memory_space.png"]


def drawn(folder):
    files = write_plots(str(folder), chance=0.25)
    assert [file.name for file in files] == NAMES
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_whole_results(tmp_path):
    write_results(tmp_path)
    drawn(tmp_path)
    assert not pyplot.get_fignums()


@pytest.mark.parametrize("name", ["smt", "bptt"])
def test_a_single_result(tmp_path, name):
    write_result(tmp_path, name, 0.5, [point(4, 0.5)])
    drawn(tmp_path)


def test_partial_results(tmp_path):
    """Lengths, cells and methods that not every seed has, and a gradient that vanishes everywhere."""
    write_result(tmp_path, "smt", 0.5, [point(4, 0.5)], length=16, seed=1)
    write_result(tmp_path, "bptt", 0.5, [point(4, 0.5)], length=16, cell="gru", gradient_norms=[0.0] * 5)
    write_result(tmp_path, "bptt", 0.5, [point(4, 0.5)], length=8)
    drawn(tmp_path)


def test_more_methods_than_fit_side_by_side(tmp_path):
    for cell in ("transformer", "gru"):
        for name in ("smt", "dmt", "bptt"):
            write_result(tmp_path, name, 0.5, [point(4, 0.5)], cell=cell)
    drawn(tmp_path)
    shapes = {name: pyplot.imread(tmp_path / name).shape[:2] for name in NAMES}
    assert len({width for _, width in shapes.values()}) == 1  # that of a page
    assert shapes["memory_space.png"][0] > shapes["gradients.png"][0]


def test_a_stage_that_got_another_name(tmp_path):
    """Its results stay in the folder, and both are called the same."""
    write_result(tmp_path, "smt", 0.5, [point(4, 0.5)])
    folder = tmp_path / "transformer" / "length-8" / "seed-0"
    (folder / "teach").mkdir()
    text = (folder / "smt" / "result.json").read_text().replace('"name": "smt"', '"name": "teach"')
    (folder / "teach" / "result.json").write_text(text)
    drawn(tmp_path)


def test_no_results(tmp_path):
    with pytest.raises(InputError, match="contains no results"):
        write_plots(str(tmp_path), chance=0.25)


def test_gradients_are_drawn_by_their_distance_to_the_loss(tmp_path):
    write_result(tmp_path, "smt", 0.5, [point(4, 0.5)])
    _, axes = pyplot.subplots(1, 2)
    results = plots.read_results(str(tmp_path))
    plots.gradients(axes, results, line_styles(plots.methods(results)))
    (line,) = axes[0].get_lines()
    assert list(line.get_ydata()) == [0.1, 1e-2, 1e-3]  # after the labelled step there is none
    assert list(line.get_xdata()) == [0, 1, 2]
    pyplot.close()


def test_a_method_has_one_colour_and_one_entry_in_the_legend(tmp_path):
    """Whatever panel it is in, and though some panels lack it."""
    write_results(tmp_path)
    results = plots.read_results(str(tmp_path))
    lines = line_styles(plots.methods(results))
    colours = {line["label"]: to_hex(line["color"]) for line in lines.values()}
    assert len(set(colours.values())) == len(lines) == len(plots.methods(results))
    figure, axes = pyplot.subplots(1, len(plots.BUDGETS))
    plots.budgets(axes, results, lines)
    legend(figure, axes)
    (box,) = figure.legends
    assert sorted(text.get_text() for text in box.get_texts()) == sorted(colours)
    assert all(to_hex(line.get_color()) == colours[line.get_label()] for axis in axes for line in axis.get_lines())
    pyplot.close()


def test_many_methods_differ_in_colour():
    assert len({line["color"] for line in line_styles([("gru", f"method {c}") for c in "abcdefghij"]).values()}) == 10


def test_a_method_has_the_same_colour_whatever_is_beside_it():
    alone = line_styles([("gru", "BPTT (over 8 steps)")])["gru", "BPTT (over 8 steps)"]
    other = line_styles([("mlp", "SMT"), ("mlp", "BPTT (over 16 steps)")])["mlp", "BPTT (over 16 steps)"]
    assert alone["color"] == other["color"] == COLOURS["BPTT (over n steps)"]
    assert alone["marker"] != other["marker"]  # which cell it is


def test_nothing_is_clipped_and_no_panel_overlaps_the_legend():
    """With as many methods, and as long names, as a picture of ours has."""
    names = [f"SMT → DMT (detached, {n} to 16 steps deep) and more" for n in "abcdefgh"]
    lines = line_styles([("transformer", name) for name in names] + [("gru", "SMT")])
    figure, axes = new_figure(2, 2, 3.0)
    for line in lines.values():
        axes[0].plot([0, 1], [0, 1], **line)
    axes[1].set(title="title", xlabel="x", ylabel="y")
    legend(figure, axes)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
    assert all(axis.get_tightbbox().y0 >= box.y1 for axis in axes)
    pyplot.close(figure)


def test_curves_draw_the_same_pictures_as_the_results(tmp_path):
    write_results(tmp_path)
    results = plots.read_results(str(tmp_path))
    write_curves(results, tmp_path / "curves.json")
    for folder, rows in (("whole", results), ("stored", read_curves(tmp_path / "curves.json"))):
        (tmp_path / folder).mkdir()
        plots.plot_curves(rows, tmp_path / folder)
    for name in NAMES[1:]:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stored" / name).read_bytes()


def test_losses_are_drawn_from_the_end_of_the_stage_before(tmp_path):
    """A later stage does not hide the earlier ones."""
    write_result(tmp_path, "smt", 0.5, [point(4, 0.5), point(8, 0.5)])
    write_result(tmp_path, "dmt", 0.5, [point(2, 0.5)])
    results = plots.read_results(str(tmp_path))
    _, axes = pyplot.subplots(1, len(plots.BUDGETS))
    plots.budgets(axes, results, line_styles(plots.methods(results)))
    drawn = {line.get_label(): len(line.get_xdata()) for line in axes[0].get_lines()}
    assert drawn == {"SMT": 2, "SMT → DMT": 2}
    pyplot.close()


def test_the_length_that_is_shown_has_most_methods(tmp_path):
    """Of several such lengths the longest."""
    for name, length in (("smt", 8), ("bptt", 8), ("smt", 16), ("bptt", 16), ("smt", 32)):
        write_result(tmp_path, name, 0.5, [point(4, 0.5)], length=length)
    assert plots.shown_length(plots.read_results(str(tmp_path))) == 16


def test_spending_is_drawn_with_a_point_a_method():
    budgets = dict.fromkeys(plots.BUDGETS, 10.0)
    rows = [
        {"cell": "gru", "method": m, "length": 8, "accuracy": a, **budgets}
        for m in ("SMT", "BPTT")
        for a in (0.5, 1.0)
    ]
    _, axes = pyplot.subplots(1, len(plots.BUDGETS))
    plots.spending(axes, rows, line_styles(plots.methods(rows)))
    points = {box.get_label(): box.lines[0].get_xydata().tolist() for box in axes[0].containers}
    assert points == {"SMT": [[10.0, 75.0]], "BPTT": [[10.0, 75.0]]}
    pyplot.close()
