import math
import re

import pytest
import torch
import traitlets

from transformer_lit.explorables.alibi import ALiBiExplorable
from transformer_lit.explorables.rope import RoPEExplorable

QUERY, KEY = [1.5, 0.5, 1.0, -1.0], [0.5, 1.5, 1.2, 0.4]


# ---- RoPE


def test_arrows_turn_by_hand():
    shares, score = RoPEExplorable([1, 0, 1, 0], [1, 0, 0, 1], query_place=3, key_place=1).score()
    # The first pair: the cosine of the 2 radians between the arrows, over sqrt(4). The second:
    # a right angle between them, from which 2 steps of 0.01 are taken.
    torch.testing.assert_close(shares, torch.tensor([math.cos(2) / 2, math.sin(0.02) / 2]))
    torch.testing.assert_close(score, shares.sum())


def test_walking_together_leaves_the_score():
    here, there = (
        RoPEExplorable(QUERY, KEY, query_place=a, key_place=a + 7).score() for a in (0, 41)
    )
    torch.testing.assert_close(here, there, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": [1, 2, 3]}, "got 3 and 4 numbers"),
        ({"query": [1, 2, 0], "key": [1, 2, 0]}, "got 3 and 3 numbers"),
        ({"query": [1, 2], "key": [1, 2]}, "4"),
        ({"query": [3, 0, 0, 0]}, r"between -2 and 2, got \[3\.0"),
        ({"query": [math.nan, 0, 0, 0]}, "nan"),
        ({"key_place": 61}, "60"),
        ({"query_place": -1}, "0"),
    ],
)
def test_bad_arrows_are_refused(change, message):
    with pytest.raises(traitlets.TraitError, match=message):
        RoPEExplorable(**{"query": QUERY, "key": KEY} | change)


# ---- ALiBi


def test_a_heads_weights_by_hand():
    slopes, weights = ALiBiExplorable(n_heads=2, head=0).attend()
    assert slopes.tolist() == [2**-4, 2**-8]
    ratio = math.exp(-1 / 16)
    torch.testing.assert_close(weights[1:] / weights[:-1], torch.full((31,), ratio))
    torch.testing.assert_close(weights[0], torch.tensor((1 - ratio) / (1 - ratio**32)))


@pytest.mark.parametrize(("n_heads", "head"), [(0, 0), (17, 0), (8, 8), (8, -1)])
def test_bad_heads_are_refused(n_heads, head):
    with pytest.raises(traitlets.TraitError, match=r"0|16|got 8|got -1"):
        ALiBiExplorable(n_heads=n_heads, head=head)


# ---- in the page


class Dials:
    """The explorable of RoPE as it stands on the page."""

    def __init__(self, page, start):
        self.root, self.start = page.locator(".explorable.rope").first, start

    def places(self):
        return [int(self.root.locator(f"{name} + output").inner_text()) for name in (".q", ".k")]

    def score(self):
        text = self.root.locator(".sum").inner_text()
        return [float(x) for x in re.search(r"query: (-?\d+) steps. Score: (\S+)", text).groups()]

    def agrees(self):
        """Compare every number on the page with the package's."""
        query_place, key_place = self.places()
        expected = RoPEExplorable(*self.start, query_place=query_place, key_place=key_place)
        shares, score = expected.score()
        shown = [float(text) for text in self.root.locator(".share").all_inner_texts()]
        torch.testing.assert_close(torch.tensor(shown), shares, atol=1e-3, rtol=0)
        assert self.score()[0] == key_place - query_place
        assert abs(self.score()[1] - float(score)) < 1e-3
        return True


class Slopes:
    """The explorable of ALiBi as it stands on the page."""

    def __init__(self, page):
        self.root = page.locator(".explorable.alibi").first

    def agrees(self):
        """Compare every number on the page with the package's."""
        heads, head = (
            int(self.root.locator(f"{name} + output").inner_text()) for name in (".n", ".head")
        )
        slopes, weights = ALiBiExplorable(n_heads=heads, head=head).attend()
        shown = [float(text) for text in self.root.locator(".slope").all_inner_texts()]
        torch.testing.assert_close(torch.tensor(shown), slopes, rtol=5e-3, atol=0)
        bars = [float(bar.get_attribute("height")) for bar in self.root.locator("rect").all()]
        torch.testing.assert_close(
            torch.tensor(bars) / 6, weights / weights.max(), atol=1e-4, rtol=0
        )
        told = self.root.locator(".told").inner_text()
        own, far, half = re.match(
            rf"Head {head} of {heads}: own place (\S+), 31 steps back (\S+)\. .* nearest (\d+)\.",
            told,
        ).groups()
        assert abs(float(own) - float(weights[0])) < 1e-3
        assert math.isclose(float(far), float(weights[-1]), rel_tol=0.06)
        assert int(half) == 1 + int((weights.cumsum(0) < 0.5).sum())
        return True


@pytest.fixture
def shown(visit):
    def show(**how):
        visited = visit("book/07-how-far-apart.html", **how)
        start = (  # as the chapter has it
            [1.5, 0.5, 1.2, -0.8, 1.0, 1.0, 0.3, 1.4],
            [0.8, 1.4, 1.4, 0.2, -0.5, 1.3, 1.2, 0.6],
        )
        return visited, Dials(visited.page, start), Slopes(visited.page)

    return show


def test_the_page_shows_the_packages_numbers(shown):
    visited, dials, slopes = shown()
    assert dials.agrees() and slopes.agrees()
    assert not visited.problems


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_places_move_the_arrows_and_the_distance_alone_the_score(shown, theme, width):
    visited, dials, _ = shown(theme=theme, width=width)
    keyboard = visited.page.keyboard
    dials.root.locator(".k").focus()
    before = dials.score()
    keyboard.press("ArrowRight")
    assert dials.score()[0] == before[0] + 1 and dials.score()[1] != before[1]
    assert dials.agrees()
    dials.root.locator("input[type=checkbox]").check()
    before, arrows = dials.score(), dials.root.locator("svg").first.inner_html()
    dials.root.locator(".q").focus()
    for _ in range(5):
        keyboard.press("ArrowRight")
    assert dials.score() == before and dials.agrees()
    assert dials.root.locator("svg").first.inner_html() != arrows
    keyboard.press("End")  # neither leaves the text
    assert max(dials.places()) == 60 and dials.score() == before
    assert not visited.sideways()
    assert not visited.problems


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_heads_come_and_go_and_one_is_chosen(shown, theme, width):
    visited, _, slopes = shown(theme=theme, width=width)
    keyboard = visited.page.keyboard
    slopes.root.locator(".head").focus()
    keyboard.press("End")
    assert slopes.agrees()
    slopes.root.locator(".n").focus()
    for key in ("ArrowLeft", "End", "ArrowLeft", "Home"):  # fewer, 16, 15, 1 heads
        keyboard.press(key)
        assert slopes.agrees()
    assert slopes.root.locator(".slope").count() == 1
    assert not visited.sideways()
    assert not visited.problems
