"""A Sphinx extension: what `make bench` measured, on book/measured.md.

- `{benchmark} attention` is the table of benchmarks/results/attention.json, with the conditions
  under which it was measured and the command that measures again.
- `{benchmark-figure} attention` draws it; the rest is as in `{figure}`: the options `alt` and
  `name`, and the caption.

A result that is missing stops the build and is named.
"""

import functools
import pathlib
import sys

import matplotlib.pyplot as plt
from docutils import nodes, statemachine
from docutils.parsers.rst import Directive
from matplotlib import ticker
from sphinx.directives.patches import Figure

from transformer_lit import figures

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "figures"


@functools.cache
def measure():
    """The module that the benchmarks share, which writes and reads their results."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import measure

    return measure


def text(name: str, result: dict) -> str:
    """A result in Markdown: its table, and how it came about."""
    conditions = measure().conditions(result)
    return f"{measure().table(result['rows'])}\n\n{conditions}. `python benchmarks/{name}.py`"


def load(directive: Directive) -> tuple[str, dict]:
    """The name that a directive was given, and the result."""
    name = directive.arguments[0]
    environment = directive.state.document.settings.env
    environment.note_dependency(str(measure().RESULTS / f"{name}.json"))
    try:
        return name, measure().load(name)
    except FileNotFoundError as error:
        raise directive.error(str(error)) from None


class Benchmark(Directive):
    """`{benchmark} attention`: the table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the table in Markdown and have it parsed."""
        container = nodes.container(classes=["benchmark"])
        lines = statemachine.StringList(text(*load(self)).splitlines(), source="benchmarks/results")
        self.state.nested_parse(lines, self.content_offset, container)
        return [container]


# --- figures ---------------------------------------------------------------------------------


def draw_attention(result: dict, figure: plt.Figure) -> None:
    """The time of each layer against the length."""
    ax = figure.subplots()
    for name in dict.fromkeys(row["implementation"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["implementation"] == name]
        times = [row["milliseconds"]["median"] for row in rows]
        ax.loglog([row["n"] for row in rows], times, marker="o", label=name)
    label(ax, "positions", "milliseconds", [row["n"] for row in rows])


def draw_growth(result: dict, figure: plt.Figure) -> None:
    """How many times as long everything takes, against how many times as much of each size."""
    whats = list(dict.fromkeys(row["what"] for row in result["rows"]))
    for ax, what in zip(figure.subplots(len(whats), sharex=True), whats, strict=True):
        for row in (row for row in result["rows"] if row["what"] == what):
            times = row["milliseconds"]
            sizes = [size / row["sizes"][0] for size in row["sizes"]]
            name = f"{row['grows']}: exponent {row['exponent']['median']:.2f}"
            ax.loglog(sizes, [time / times[0] for time in times], marker="o", label=name)
        ax.set_title(what, fontsize="medium")
        label(ax, "times the smallest size", "times the time", sizes)
        ax.label_outer()


def label(ax: plt.Axes, x: str, y: str, ticks: list[float]) -> None:
    """Name the axes, and say sizes as numbers."""
    ax.set(xlabel=x, ylabel=y, xticks=ticks)
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.legend(fontsize="small")


DRAWN = {"attention": (draw_attention, 3.6), "growth": (draw_growth, 8)}


def draw(name: str, result: dict) -> pathlib.Path:
    """Draw a result into a file, narrow enough to be read on a phone."""
    function, height = DRAWN[name]
    figures.use_style()
    figure = plt.figure(figsize=(4.8, height))
    function(result, figure)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


class BenchmarkFigure(Figure):
    """`{benchmark-figure} attention`: a figure like others, drawn first."""

    def run(self) -> list[nodes.Node]:
        """Draw it, and go on as if the file had been named."""
        self.arguments = [f"/{draw(*load(self)).relative_to(ROOT).as_posix()}"]
        return super().run()


def setup(app):
    """Called by Sphinx."""
    app.add_directive("benchmark", Benchmark)
    app.add_directive("benchmark-figure", BenchmarkFigure)
    return {"parallel_read_safe": True}
