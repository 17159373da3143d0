"""The style of the pictures: one colour per method and one marker per cell in every picture, and a legend that fits.

The colours are those of Okabe and Ito and two of Tol's, which readers with any kind of colour vision can tell apart. Markers and dashes
repeat the distinction.
"""

import re
from collections.abc import Callable
from pathlib import Path

COLOURS = {
    "SMT": "#56B4E9",
    "SMT → DMT": "#0072B2",
    "SMT → DMT (detached, n steps deep)": "#E69F00",
    "SMT → DMT (detached, full depth)": "#CC79A7",
    "SMT → DMT → BPTT": "#009E73",
    "BPTT": "#D55E00",
    "BPTT (over n steps)": "#000000",
    "BPTT (few keys first)": "#882255",
    "BPTT (short rows first)": "#882255",
}
SPARE_COLOURS = (
    "#332288",
    "#999933",
    "#AA4499",
    "#44AA99",
    "#661100",
    "#6699CC",
    "#117733",
    "#DDCC77",
    "#AA4466",
    "#4477AA",
)
CELL_LINES = {
    "transformer": {"marker": "o", "linestyle": "-"},
    "gru": {"marker": "^", "linestyle": "--"},
    "lstm": {"marker": "D", "linestyle": "-."},
    "mlp": {"marker": "s", "linestyle": (0, (5, 1))},
    "elman": {"marker": "v", "linestyle": (0, (3, 1, 1, 1))},
}
START_LINES = {
    "teacher": {"label": "teacher", "color": "#000000"},
    "student_cold": {"label": "student, cold start", "color": "#0072B2"},
    "student_warm": {
        "label": "student, warm start",
        "color": "#E69F00",
        "linestyle": "--",
    },  # often on top of the cold one
}
PAGE_WIDTH = 8.0  # inches: the width of a picture on a page of the docs, so that 10 points are 10 points there
RC = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "savefig.dpi": 160,
}


def line_styles(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], dict]:
    """The label, colour, marker and dashes of lines by cell and method, the same in every picture.

    Methods that are not in `COLOURS` get spare colours in the order in which they come.
    """
    one_cell = len({cell for cell, _ in pairs}) == 1
    kinds = [re.sub(r"\d+( to \d+)?", "n", method) for _, method in pairs]
    unknown = list(dict.fromkeys(kind for kind in kinds if kind not in COLOURS))
    colours = COLOURS | {kind: SPARE_COLOURS[number % len(SPARE_COLOURS)] for number, kind in enumerate(unknown)}
    return {
        (cell, method): {
            "label": method if one_cell else f"{cell}: {method}",
            "color": colours[kind],
            **CELL_LINES.get(cell, CELL_LINES["transformer"]),
        }
        for (cell, method), kind in zip(pairs, kinds, strict=True)
    }


def new_figure(panels: int, columns: int, height: float):
    """A figure as wide as a page, with panels in rows of `columns`; each row is `height` inches high.

    Returns:
        The figure and the axes of its panels.
    """
    from matplotlib import pyplot

    columns = min(panels, columns)
    rows = -(-panels // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(PAGE_WIDTH, height * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[panels:]:
        axis.remove()
    return figure, axes.flat[:panels]


def legend(figure, axes) -> None:
    """Adds one legend for all panels, below them, in as many columns as fit into the figure."""
    handles = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    for columns in range(min(4, len(handles)), 0, -1):
        box = figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
        if columns == 1 or box.get_window_extent().width <= 0.98 * figure.bbox.width:
            return
        box.remove()


def save(figure, axes, file) -> None:
    """Adds the legend, grows the figure by its height, writes the file and closes the figure."""
    from matplotlib import pyplot

    legend(figure, axes)
    for box in figure.legends:
        figure.set_figheight(figure.get_figheight() + box.get_window_extent().height / figure.dpi)
    figure.savefig(file)
    pyplot.close(figure)


def draw(file: Path, grid: tuple[int, int, float], drawing: Callable) -> Path:
    """Draws one picture: `drawing(axes)` fills the panels of a figure. `grid` holds its panels, columns, and inches per row."""
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context(RC):
        figure, axes = new_figure(*grid)
        drawing(axes)
        save(figure, axes, file)
    return file
