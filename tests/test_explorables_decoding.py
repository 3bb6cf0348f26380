"""Decoding step by step: the steps are those of the package's search, and the page shows them."""

import itertools
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
import traitlets
from torch import nn

from tests.pronouncers import write_pronouncer
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data import pronunciations
from transformer_lit.decoding import beam, greedy
from transformer_lit.encoder_decoder import PAD_ID, STOP_ID, EncoderDecoder
from transformer_lit.explorables import decoding
from transformer_lit.explorables.decoding import SHOWN, WIDTHS, DecodingExplorable, search

A, B = 3, 4  # the letters of the language below


class TwoLetters(EncoderDecoder):
    """As in the first example of chapter 13: what comes next depends on the last letter only."""

    def __init__(self):
        nn.Module.__init__(self)

    def start(self, source, max_len=None):
        return SimpleNamespace(select=lambda rows: None)

    def step(self, tokens, state):
        table = {1: [0, 0, 0, 0.6, 0.4], A: [0, 0, 0.4, 0.35, 0.25], B: [0, 0, 0.9, 0.05, 0.05]}
        return torch.tensor([table[int(token)] for token in tokens]).log()


def values(row):
    return [number for one in row for number in one]


@pytest.fixture(scope="module")
def shipped():
    return load_pronouncer()


@pytest.fixture(scope="module")
def words():
    """The words of chapter 13, by the rule that stands there."""
    fits = [e.word for e in pronunciations.load("test") if 4 <= len(e.word) <= 10]
    return ["sophomore", *fits[::500]]


@pytest.fixture(scope="module")
def expected(shipped, words):
    return DecodingExplorable(shipped, words)


def test_one_beam_and_two_by_hand():
    source = torch.tensor([[1]])
    first = [(0, A, 0.6, math.log(0.6)), (0, B, 0.4, math.log(0.4))]
    one, two = (search(TwoLetters(), source, n_beams=n, max_len=5) for n in (1, 2))
    assert values(one[0]) == pytest.approx(values(first))
    assert values(two[0]) == pytest.approx(values(first))
    end = [(0, STOP_ID, 0.4, math.log(0.24) / 2), (0, A, 0.35, math.log(0.21) / 2)]
    assert values(one[1][:2]) == pytest.approx(values(end)) and len(one) == 2
    overtaken = [(1, STOP_ID, 0.9, math.log(0.36) / 2), *end]
    assert values(two[1][:3]) == pytest.approx(values(overtaken)) and len(two) == 2


@pytest.mark.parametrize("n_beams", WIDTHS)
def test_each_row_lengthens_what_was_kept_and_is_ranked(shipped, n_beams):
    rows = search(shipped.model, shipped.encode(["shortcake"]), n_beams=n_beams, max_len=48)
    for above, row in itertools.pairwise([[None], *rows]):
        scores = [one.score for one in row]
        assert scores == sorted(scores, reverse=True) and len(row) == SHOWN
        assert all(one.parent < min(n_beams, len(above)) for one in row)
        for parent in {one.parent for one in row}:
            assert sum(one.prob for one in row if one.parent == parent) <= 1.0001
    assert all(one.token in (STOP_ID, PAD_ID) for one in rows[-1][:n_beams])


def path(rows, last, place):
    found = []
    for row in reversed(rows[: last + 1]):
        found.append(row[place])
        place = row[place].parent
    return found[::-1]


@pytest.mark.parametrize("n_beams", WIDTHS)
def test_in_the_end_it_has_found_what_the_package_finds(shipped, tmp_path, n_beams):
    random = load_pronouncer(write_pronouncer(tmp_path / "x.safetensors"))
    for pronouncer, word in [(shipped, "thoroughly"), (shipped, "sophomore"), (random, "abc")]:
        model, source = pronouncer.model, pronouncer.encode([word])
        most = model.settings.max_len
        rows = search(model, source, n_beams=n_beams, max_len=most)
        found = beam(model, source, n_beams=n_beams, max_len=most)[0]
        if n_beams == 1:
            found = greedy(model, source, max_len=most)
        whole = [one for one in rows[-1][:n_beams] if one.token in (STOP_ID, PAD_ID)]
        assert len(found) == (len(whole) or n_beams)
        places = [rows[-1].index(one) for one in whole or rows[-1][:n_beams]]
        for place, hypothesis in zip(places, found, strict=True):
            steps = [one for one in path(rows, len(rows) - 1, place) if one.token != PAD_ID]
            tokens = [one.token for one in steps if one.token != STOP_ID]
            assert tokens == hypothesis.tokens.tolist()
            assert steps[-1].score == pytest.approx(hypothesis.score(1.0), abs=1e-5)
            probs = torch.tensor([one.prob for one in steps])
            torch.testing.assert_close(probs, hypothesis.log_probs.exp(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": []}, "not one of the words"),
        ({"word": "gnu"}, "'gnu' is not one of the words"),
        ({"n_beams": 3}, "3"),
        ({"step": 0}, "0"),
    ],
)
def test_what_there_is_not_is_refused(tmp_path, monkeypatch, change, message):
    pronouncer = load_pronouncer(write_pronouncer(tmp_path / "x.safetensors"))
    monkeypatch.setattr(decoding, "WIDTHS", (1,))
    with pytest.raises(traitlets.TraitError, match=message):
        DecodingExplorable(pronouncer, **{"words": ["ab"]} | change)


def test_words_it_cannot_read_and_widths_that_are_not_shown_are_refused(shipped):
    with pytest.raises(ValueError, match="unknown letter 'ï'"):
        DecodingExplorable(shipped, ["naïve"])
    for n_beams in (0, 6):
        with pytest.raises(ValueError, match=rf"must lie in 1 \.\. 5, got {n_beams}"):
            search(shipped.model, torch.tensor([[1]]), n_beams=n_beams, max_len=3)


# ---- in the page


def parse(text):
    rows = [[one.split(" ") for one in line.split(",")] for line in text.split("\n")]
    return [[(int(a), s, float(p), float(q)) for a, s, p, q in row] for row in rows]


def number(text):
    return float(text.replace("−", "-"))


class Shown:
    """The explorable of chapter 13 as it stands on the page."""

    def __init__(self, page, expected):
        self.root, self.expected = page.locator(".explorable.decoding").first, expected
        self.word, self.beams = (self.root.locator(s) for s in ("select.word", "select.beams"))
        self.slider = self.root.locator("input[type=range]")
        self.back, self.on = (self.root.locator(f"button.{name}") for name in ("back", "on"))

    def step(self):
        return int(self.slider.input_value())

    def agrees(self):
        """Compare each candidate on the page, and what is said, with what the package finds."""
        word, width, step = self.word.input_value(), self.beams.input_value(), self.step()
        rows = parse(self.expected.searches[word][width])
        assert self.root.locator("output").inner_text() == f"{step} of {len(rows)}"
        lines = self.root.locator("tbody").first.locator("tr").all()
        assert len(lines) == step
        names = {"<stop>": "stop", "<pad>": "ended"}
        near = {"atol": 0.0055, "rtol": 0}  # two places are shown
        for line, row in zip(lines, rows[:step], strict=True):
            shown = line.locator("td b").all_inner_texts()
            assert shown == [names.get(symbol, symbol) for _, symbol, *_ in row]
            probs = [float(text) for text in line.locator(".prob").all_inner_texts()]
            wanted = [prob for _, symbol, prob, _ in row if symbol != "<pad>"]
            torch.testing.assert_close(torch.tensor(probs), torch.tensor(wanted), **near)
            scores = [number(text) for text in line.locator(".score").all_inner_texts()]
            wanted = [score for *_, score in row]
            torch.testing.assert_close(torch.tensor(scores), torch.tensor(wanted), **near)
            kept = line.locator("td").evaluate_all("c => c.map(x => x.matches('.kept'))")
            assert kept == [place < int(width) for place in range(len(row))]
            ends = line.locator("line").evaluate_all("l => l.map(x => +x.getAttribute('x1'))")
            parents = [place + end - 0.5 for place, end in enumerate(ends)]
            assert parents == ([parent for parent, *_ in row] if ends else [])
        place, best = 0, []
        for row in reversed(rows[:step]):
            best.insert(0, row[place][1])
            place = row[place][0]
        sounds = " ".join(symbol for symbol in best if symbol not in names)
        told = self.root.locator(".best").inner_text()
        whole = {"<stop>", "<pad>"} & set(best)
        beams, said, score = re.match(
            r"Best(?:, and whole| beginning)(?:, of (\d))?: (.*), score (\S+)\.", told
        ).groups()
        assert (beams or "1") == width
        assert ("whole" in told) == bool(whole) and said == (sounds or "nothing")
        assert abs(number(score) - rows[step - 1][0][3]) <= 0.0055
        in_dictionary = sounds in self.expected.listed[word]
        if step == len(rows):
            assert told.endswith(" So it stands in the dictionary.") == in_dictionary
        else:
            assert "dictionary" not in told
        return True


@pytest.fixture
def shown(visit, expected):
    def show(**how):
        visited = visit("book/13-generating.html", **how)
        return visited, Shown(visited.page, expected)

    return show


def test_the_page_shows_the_packages_search(shown, words):
    visited, on_page = shown()
    # A notebook stores the keys of a widget in order.
    assert on_page.word.locator("option").all_inner_texts() == sorted(words)
    assert on_page.agrees()
    for word, width in itertools.product(words[::7], map(str, WIDTHS)):
        on_page.word.select_option(word)
        on_page.beams.select_option(width)
        on_page.slider.focus()
        visited.page.keyboard.press("End")
        assert on_page.agrees() and on_page.on.is_disabled()
    assert not visited.problems


def test_one_steps_by_keyboard(shown, words):
    visited, on_page = shown()
    keyboard = visited.page.keyboard
    on_page.word.focus()
    keyboard.press("ArrowDown")
    listed = sorted(words)
    following = listed[listed.index("sophomore") + 1]
    assert on_page.word.input_value() == following and on_page.step() == 1
    keyboard.press("Tab")
    keyboard.press("ArrowDown")
    assert on_page.beams.input_value() == "2" and on_page.agrees()
    keyboard.press("Tab")
    keyboard.press("ArrowRight")
    assert on_page.step() == 2 and on_page.agrees()
    keyboard.press("Tab")  # Back, which can be pressed now
    keyboard.press("Enter")
    assert on_page.step() == 1 and on_page.agrees()
    on_page.on.focus()
    for step in (2, 3):
        keyboard.press("Space")
        assert on_page.step() == step and on_page.agrees()
    assert not visited.problems


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_one_steps_by_mouse_to_the_end(shown, theme, width):
    visited, on_page = shown(theme=theme, width=width)
    on_page.beams.select_option("5")
    on_page.slider.focus()
    visited.page.keyboard.press("Home")
    assert on_page.back.is_disabled()
    while on_page.on.is_enabled():
        on_page.on.click()
        assert on_page.agrees()
    assert "whole" in on_page.root.locator(".best").inner_text()
    on_page.back.click()
    assert on_page.agrees()
    assert not visited.sideways()
    box = on_page.root.evaluate("root => [root.scrollWidth, root.clientWidth]")
    assert box[0] <= box[1], "the explorable does not fit its frame"
    assert not visited.barriers("color-contrast", "label", "select-name", "button-name")
    assert not visited.problems


def test_the_saved_state_is_small(visit):
    visited = visit("book/13-generating.html")
    [text] = visited.page.locator("script[type$='widget-state+json']").all_text_contents()
    states = json.loads(text)["state"].values()
    [saved] = [m["state"] for m in states if "searches" in m["state"]]
    assert len(json.dumps(saved["searches"])) < 150_000
