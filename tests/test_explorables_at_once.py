"""All at once beside step by step: the file is of its recipe, the page shows what is in it."""

import itertools
import json
import re

import pytest
import torch
import traitlets

import all_at_once
import places_at_once as script
from tests.pronouncers import TINY, write_pronouncer
from tests.test_explorables_decoding import Shown
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data import curves
from transformer_lit.data.pronunciations import Entry, load, part_of
from transformer_lit.encoder_decoder import BEGIN_ID, Settings
from transformer_lit.explorables import at_once, decoding
from transformer_lit.explorables.at_once import AtOnceExplorable, judge
from transformer_lit.non_autoregressive import NonAutoregressive, is_mixture, mask_predict

SAVED = json.loads(at_once.TABLE.read_text("utf-8"))
WORDS = list(SAVED["words"])
AGAIN = "give the command experiments/places_at_once.py again"


def parse(text):
    lines = [[one.split(" ") for one in line.split(",")] for line in text.split("\n")]
    return [[(symbol, float(prob)) for symbol, prob in line] for line in lines]


@pytest.fixture
def tiny():
    torch.manual_seed(5)
    return NonAutoregressive(Settings(**TINY)).eval()


# ---- how an answer stands to the right ones


@pytest.mark.parametrize(
    ("answer", "right", "kind", "of", "marks"),
    [
        ("abc", ["ABC", "abc"], "right", [2], ",,"),
        ("aBC", ["ABCD", "ABc", "abC"], "mixture", [2, 3], "3,2,3"),
        ("aBc", ["ABc", "abc"], "mixture", [1, 2], "2,1,"),
        ("aBd", ["ABc", "abc"], "wrong", [1], "wrong,,wrong"),
        ("abC", ["ABD", "abd"], "wrong", [2], ",,wrong"),
        ("abcD", ["abc", "abcdD"], "length", [], ",,,"),
        ("abc", [], "length", [], ",,"),
    ],
)
def test_answers_by_hand(answer, right, kind, of, marks):
    assert judge(answer, right) == {"kind": kind, "of": of, "marks": marks.split(",")}


def test_it_judges_as_the_chapter_does():
    every = ["".join(symbols) for symbols in itertools.product("xyz", repeat=3)]
    kinds = set()
    for answer, right in itertools.product(every, itertools.combinations(every[::4], 3)):
        found = judge(answer, right)["kind"]
        kinds.add(found)
        assert (found == "right") == (answer in right)
        assert (found == "mixture") == is_mixture(answer, right)
    assert kinds == {"right", "mixture", "wrong"}


# ---- the script


@torch.no_grad()
def test_places_are_those_of_one_pass(tiny):
    word = "gnu's"
    found = script.places(tiny, word)
    source = script.letters.encode(word)[None]
    [answer] = mask_predict(tiny, source)
    rows = parse(found["places"])
    assert found["length"] == len(rows) == len(answer)
    assert [row[0][0] for row in rows] == script.phonemes.decode(answer)
    memory, inputs = tiny.encode(source), torch.full((1, len(answer)), BEGIN_ID)
    exp = tiny.fill(inputs, *memory, torch.tensor([len(answer)]))[0].exp()
    exp[:, :3] = 0  # padding, begin and stop are never written
    for row, numbers in zip(rows, exp / exp.sum(1, keepdim=True), strict=True):
        ids = script.phonemes.encode([symbol for symbol, _ in row])
        assert len(set(ids.tolist())) == script.SHOWN
        probs = torch.tensor([prob for _, prob in row])
        torch.testing.assert_close(probs, numbers[ids], atol=6e-5, rtol=0)
        torch.testing.assert_close(numbers.topk(script.SHOWN).values, probs, atol=6e-5, rtol=0)
    exp = tiny.length_logits(*memory)[0].exp()
    assert found["prob"] == pytest.approx(float(exp[len(answer)] / exp[1:].sum()), abs=6e-5)


def test_words_are_chosen_by_the_rule(tiny, monkeypatch):
    many = [Entry(f"ab{'cdefghij'[i % 8]}{'klmnop'[i // 8]}", (("T",),)) for i in range(48)]
    two = [Entry(e.word + "z", (("T", "AE", "K"), ("D", "AH", "K"))) for e in many[:20]]
    long = [Entry("a" * 11, (("T",),)), Entry("abc", (("T",),))]
    monkeypatch.setattr(script, "load", lambda part: long + many + two)
    monkeypatch.setattr(script, "EVERY", 30)
    mixed, said = {two[i].word for i in (3, 4, 8, 9, 11, 15)}, []

    def written(write, entries):
        said.extend(entries)
        return [("T", "AH" if e.word in mixed else "AE", "K") for e in entries]

    monkeypatch.setattr(all_at_once, "written", written)
    expected = {many[0].word, many[30].word, two[12].word, two[0].word, two[13].word}
    expected |= {two[i].word for i in (3, 4, 8, 9, 11)}
    assert script.choose(tiny) == sorted(expected) and said == two


def test_the_script_writes_the_same_file_every_time(monkeypatch, tmp_path, capsys):
    sizes = {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 11, "epochs": 2, "batch": 2}
    sizes["warmup"] = 2
    entries = [Entry("cat", (("K", "AE", "T"),)), Entry("at", (("AE", "T"), ("AH", "T")))]
    monkeypatch.setattr(all_at_once, "RECIPE", all_at_once.RECIPE | sizes)
    monkeypatch.setattr(all_at_once, "draw", lambda: {"training": entries})
    monkeypatch.setattr(script, "choose", lambda model: ["gnat", "gnu"])
    monkeypatch.setattr(script, "TABLE", tmp_path / "at_once.json")
    script.main()
    first = script.TABLE.read_bytes()
    script.main()
    assert script.TABLE.read_bytes() == first
    written = json.loads(first)
    assert list(written) == list(SAVED) and written["recipe"] == SAVED["recipe"] | sizes
    assert list(written["words"]) == ["gnat", "gnu"] and len(written["loss"]) == 2
    assert capsys.readouterr().out.startswith("2 words, ")


# ---- the file


def test_the_file_is_of_todays_recipe_and_of_the_run_that_the_chapter_draws():
    assert SAVED["recipe"] == all_at_once.RECIPE, AGAIN
    assert {name: SAVED[name] for name in script.RUN} == script.RUN, AGAIN
    assert re.fullmatch("[0-9a-f]{64}", SAVED["sha256"])
    runs = curves.load("all_at_once")["runs"]
    [run] = [r for r in runs if {name: r[name] for name in script.RUN} == script.RUN]
    assert SAVED["loss"] == pytest.approx(run["loss"], abs=0.01), AGAIN
    known = {one["word"]: one["answer"] for one in run["examples"]}
    both = set(known) & set(WORDS)
    assert both, "no word that the run has, too"
    for word in both:
        answer = [row[0][0] for row in parse(SAVED["words"][word]["places"])]
        assert " ".join(answer) == known[word], AGAIN


def test_the_file_is_of_these_words_and_whole():
    entries = {entry.word: entry for entry in load("test")}
    fits = [word for word in entries if script.SHORTEST <= len(word) <= script.LONGEST]
    assert sorted(WORDS) == WORDS and {*fits[:: script.EVERY]} < set(WORDS)
    assert all(part_of(word) == "test" for word in WORDS)
    kinds = []
    for word, said in SAVED["words"].items():
        rows = parse(said["places"])
        assert len(rows) == said["length"] and 0 < said["prob"] <= 1
        for row in rows:
            probs = [prob for _, prob in row]
            assert len(row) == script.SHOWN and sum(probs) < 1.0003
            assert probs == sorted(probs, reverse=True)
        answer = [row[0][0] for row in rows]
        kinds.append(judge(answer, entries[word].pronunciations)["kind"])
    assert kinds.count("mixture") >= script.N_MIXED
    assert {"right", "wrong", "length"} < set(kinds)
    assert at_once.TABLE.stat().st_size < 50_000


@pytest.mark.parametrize(
    ("change", "message"),
    [({"word": "gnu"}, "'gnu' is not one of"), ({"n_beams": 3}, "3"), ({"step": 0}, "0")],
)
def test_what_there_is_not_is_refused(tmp_path, monkeypatch, change, message):
    pronouncer = load_pronouncer(write_pronouncer(tmp_path / "x.safetensors"))
    monkeypatch.setattr(decoding, "WIDTHS", (1,))
    with pytest.raises(traitlets.TraitError, match=message):
        AtOnceExplorable(pronouncer, **change)


# ---- in the page


@pytest.fixture(scope="module")
def expected():
    return AtOnceExplorable(load_pronouncer())


class Beside(Shown):
    """The explorable of chapter 15 as it stands on the page: a search, and all at once."""

    def agrees(self):
        """Compare the search, and each place and what is said of it, with what the package has."""
        super().agrees()
        word = self.word.input_value()
        said, once = self.expected.at_once[word], self.root.locator(".once")
        length, prob = once.locator(".length").inner_text().split(", told with probability ")
        assert int(length) == said["length"] and abs(float(prob) - said["prob"]) <= 0.0055
        lines, rows = once.locator("tbody tr").all(), parse(said["places"])
        for line, row, mark in zip(lines, rows, said["marks"], strict=True):
            assert line.locator("b").all_inner_texts() == [symbol for symbol, _ in row]
            probs = [float(text) for text in line.locator(".prob").all_inner_texts()]
            wanted = torch.tensor([prob for _, prob in row])
            torch.testing.assert_close(torch.tensor(probs), wanted, atol=0.0055, rtol=0)
            shown = line.locator(".mark").inner_text()
            assert shown == (f"from {mark}" if mark in ("1", "2", "3", "4") else mark)
        right = once.locator("ol li").all_inner_texts()
        assert right == self.expected.listed[word]
        answer, told = once.locator(".answer").inner_text().split(": ")
        assert answer == " ".join(row[0][0] for row in rows)
        kind, of = said["kind"], said["of"]
        assert ("right, " in told) == (kind == "right") and ("mixture" in told) == (
            kind == "mixture"
        )
        assert ("marked" in told) == (kind == "wrong") and ("no right" in told) == (
            kind == "length"
        )
        numbers = [int(found) for found in re.findall(r"\d+", told)]
        assert numbers == (of or [said["length"]])
        return True


@pytest.fixture
def shown(visit, expected):
    def show(**how):
        visited = visit("book/15-all-at-once.html", **how)
        return visited, Beside(visited.page, expected)

    return show


def test_the_page_shows_the_search_and_the_file(shown, expected):
    visited, on_page = shown()
    [text] = visited.page.locator("script[type$='widget-state+json']").all_text_contents()
    states = [model["state"] for model in json.loads(text)["state"].values()]
    [saved] = [state for state in states if "at_once" in state]
    assert saved["at_once"] == expected.at_once, "run `make notebooks`"
    assert len(text) < 300_000
    assert on_page.word.locator("option").all_inner_texts() == WORDS
    for word in WORDS:
        on_page.word.select_option(word)
        assert on_page.agrees()
    assert not visited.problems


def test_all_places_are_there_while_one_steps_by_keyboard(shown):
    visited, on_page = shown()
    keyboard = visited.page.keyboard
    on_page.word.focus()
    following = WORDS[(WORDS.index(on_page.word.input_value()) + 1)]
    keyboard.press("ArrowDown")
    assert on_page.word.input_value() == following and on_page.agrees()
    places = on_page.root.locator(".once").inner_text()
    keyboard.press("Tab")
    keyboard.press("ArrowDown")
    assert on_page.beams.input_value() == "2" and on_page.agrees()
    on_page.on.focus()
    for step in (2, 3):
        keyboard.press("Space")
        assert on_page.step() == step and on_page.agrees()
    assert on_page.root.locator(".once").inner_text() == places
    assert not visited.problems


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_it_fits_and_can_be_read(shown, theme, width):
    visited, on_page = shown(theme=theme, width=width)
    on_page.beams.select_option("5")
    for word in (max(WORDS, key=len), WORDS[0]):
        on_page.word.select_option(word)
        on_page.slider.focus()
        visited.page.keyboard.press("End")
        assert on_page.agrees()
        assert not visited.sideways()
        box = on_page.root.evaluate("root => [root.scrollWidth, root.clientWidth]")
        assert box[0] <= box[1], "the explorable does not fit its frame"
        left, right = (on_page.root.locator(s).bounding_box() for s in (".search", ".once"))
        stacked = left["y"] + left["height"] <= right["y"]
        assert stacked if width == 390 else left["x"] + left["width"] <= right["x"]
    assert not visited.barriers("color-contrast", "label", "select-name", "button-name")
    assert not visited.problems


def test_the_figure_of_chapter_13_has_no_second_column(visit):
    visited = visit("book/13-generating.html")
    assert visited.page.locator(".explorable.decoding").count() == 1
    assert visited.page.locator(".explorable.decoding .once").count() == 0
