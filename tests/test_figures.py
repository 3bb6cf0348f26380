"""The one look of all figures, and the helper that shows a module's source."""

import io

import matplotlib as mpl
import pytest
import torch
from matplotlib.colors import to_rgb

from transformer_lit import figures, show, window


@pytest.fixture(autouse=True)
def style():
    """The book's style, undone behind each test."""
    mpl.use("agg")
    with mpl.rc_context():
        figures.use_style()
        yield
    mpl.pyplot.close("all")


def contrast(one, other):
    """WCAG 2.1's contrast ratio of two colours, 1 to 21."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, bright = sorted(luminance(to_rgb(colour)) for colour in (one, other))
    return (bright + 0.05) / (dark + 0.05)


def svg(figure):
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


@pytest.mark.parametrize("page", ["white", "black"])
def test_colours_are_seen_on_white_and_on_black(page):
    assert contrast(figures.NEUTRAL, page) >= 4.5
    for colour in figures.CYCLE:
        assert contrast(colour, page) >= 3, colour


def test_colours_of_the_cycle_differ():
    assert len({to_rgb(colour) for colour in figures.CYCLE}) == len(figures.CYCLE)


def drawn():
    figure, (left, right) = figures.new(columns=2)
    figures.heatmap(left, torch.tensor([[0.2, 0.8]]), rows=["a"], columns=["b", "c"])
    figures.lines(right, [2, 3], {"up": [5.0, 7.0], "down": [7.0, 5.0]}, xlabel="x", ylabel="y")
    return figure


def test_a_figure_is_the_same_bytes_each_time_and_has_no_background():
    assert svg(drawn()) == svg(drawn())
    assert b"fill: #ffffff" not in svg(drawn()).split(b'<g id="axes_1">')[0]


def test_a_heatmap_has_its_labels_and_numbers():
    axes = drawn().axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a"]
    assert [text.get_text() for text in axes.texts] == ["0.20", "0.80"]


def test_numbers_can_be_left_out_or_rounded():
    _, axes = figures.new()
    figures.heatmap(axes, [[0.25, 1]], rows=["a"], columns=["b", "c"], numbers=False)
    assert not axes.texts
    figures.heatmap(axes, [[0.25, 1]], rows=["a"], columns=["b", "c"], digits=0)
    assert [text.get_text() for text in axes.texts] == ["0", "1"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, 2], [3, 4]], "1 row and 2 column labels do not fit a matrix of 2 by 2"),
        ([[1, 2, 3]], "1 row and 2 column labels do not fit a matrix of 1 by 3"),
        ([], "1 row and 2 column labels do not fit a matrix of 0 by 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(values, message):
    _, axes = figures.new()
    with pytest.raises(ValueError, match=message):
        figures.heatmap(axes, values, rows=["a"], columns=["b", "c"])


def test_lines_have_their_values_and_a_legend_only_when_there_are_two():
    axes = drawn().axes[1]
    assert [list(line.get_ydata()) for line in axes.lines] == [[5, 7], [7, 5]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["up", "down"]
    _, alone = figures.new()
    figures.lines(alone, [2, 3], {"up": [5.0, 7.0]}, xlabel="x", ylabel="y")
    assert alone.get_legend() is None


def test_a_modules_source_is_shown_whole():
    shown = show.source(window)
    assert "class WindowClassifier(nn.Module):" in shown.data
    assert shown.data.startswith("```python\n") and shown.data.endswith("```")
