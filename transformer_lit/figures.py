"""One look for every figure of the book. Figures draw what they are given and compute nothing."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

QUERY = "#3d85d6"
KEY = "#dd5144"
VALUE = "#2f9e62"
OUTPUT = "#9a68d8"
NEUTRAL = "#767676"  # 4.5:1 on white and on black
CYCLE = (QUERY, KEY, VALUE, OUTPUT, "#c07d12", "#1f9aa8", NEUTRAL)


def use_style() -> None:
    """Make figures transparent SVG, legible on white and on black, the same bytes every time."""
    mpl.rcParams.update(
        {
            "svg.hashsalt": "transformer_lit",
            "svg.fonttype": "path",
            "savefig.transparent": True,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "figure.figsize": (6.4, 3.6),
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "text.color": NEUTRAL,
            "axes.edgecolor": NEUTRAL,
            "axes.labelcolor": NEUTRAL,
            "xtick.color": NEUTRAL,
            "ytick.color": NEUTRAL,
            "legend.labelcolor": NEUTRAL,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": mpl.rcsetup.cycler(color=CYCLE),
            "lines.linewidth": 2,
            "image.cmap": "viridis",
        }
    )
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # plain Python: nothing to configure
        return
    set_matplotlib_formats("svg", metadata={"Date": None})


def heatmap(
    ax: Axes,
    values,
    *,
    rows: list[str],
    columns: list[str],
    numbers: bool = True,
    digits: int = 2,
    low: float | None = None,
    high: float | None = None,
) -> None:
    """Draw a labelled matrix, its numbers written in the cells when ``numbers``.

    Args:
        ax: where to draw.
        values: ``(len(rows), len(columns))``, a tensor, array or nested list.
        rows: the labels at the left.
        columns: the labels at the top.
        numbers: write each value into its cell.
        digits: the decimals of those numbers.
        low: the value of the darkest colour; the smallest value by default.
        high: the value of the brightest colour; the largest value by default.

    Raises:
        ValueError: if the labels do not fit the matrix.
    """
    values = [[float(value) for value in row] for row in values]
    if len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise ValueError(
            f"{len(rows)} row and {len(columns)} column labels do not fit a matrix of "
            f"{len(values)} by {len(values[0]) if values else 0}"
        )
    image = ax.imshow(values, aspect="auto", vmin=low, vmax=high)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if numbers:
        bright = np.greater(image.norm(np.asarray(values)), 0.6)
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                shade = "black" if bright[i, j] else "white"
                ax.text(j, i, f"{value:.{digits}f}", ha="center", va="center", color=shade)


def lines(ax: Axes, x, series: dict[str, list[float]], *, xlabel: str, ylabel: str) -> None:
    """Draw one line with points for each entry of ``series`` against ``x``, with a legend."""
    for label, y in series.items():
        ax.plot(list(x), [float(value) for value in y], marker="o", markersize=4, label=label)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if len(series) > 1:
        ax.legend()


def new(width: float = 6.4, height: float = 3.6, columns: int = 1):
    """Make a figure with ``columns`` axes side by side: ``(figure, axes)``."""
    return plt.subplots(1, columns, figsize=(width, height))
