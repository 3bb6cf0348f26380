"""Heads against words: the file is of the shipped checkpoint, the page shows what is in it."""

import base64
import json
import re
import zlib

import pytest
import torch
import traitlets

import heads_of_the_pronouncer as script
from tests.pronouncers import write_pronouncer
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data.pronunciations import part_of
from transformer_lit.explorables import heads
from transformer_lit.explorables.heads import HeadsExplorable

SAVED = json.loads(heads.TABLE.read_text("utf-8"))
WORDS = [word for word, *_ in SAVED["words"]]


@pytest.fixture(scope="module")
def pronouncer():
    return load_pronouncer()


def test_the_tables_lie_one_behind_the_other_as_in_a_file_written_by_hand(tmp_path, monkeypatch):
    numbers = list(range(2 * 3 * (3 * 5 + 2 * 7)))  # words of 5 and 7 letters, 2 and 1 sounds
    table = {
        "checkpoint": "",
        "layers": 2,
        "heads": 3,
        "words": [["a" * 5, "X Y", ""], ["b" * 7, "Z", ""]],
        "percents": base64.b64encode(zlib.compress(bytes(numbers))).decode(),
    }
    monkeypatch.setattr(heads, "TABLE", tmp_path / "heads.json")
    heads.TABLE.write_text(json.dumps(table))
    first = HeadsExplorable("a" * 5, layer=0, head=1).percents()
    assert first.tolist() == [list(range(15 + 5 * i, 20 + 5 * i)) for i in range(3)]
    start = 6 * 15 + 5 * 14  # all tables of the first word, five of the second
    last = HeadsExplorable("b" * 7, layer=1, head=2).percents()
    assert last.tolist() == [list(range(start, start + 7)), list(range(start + 7, start + 14))]


@pytest.mark.parametrize("word", WORDS[:: len(WORDS) // 7])
def test_the_weights_of_a_row_sum_to_one(word):
    for layer in range(SAVED["layers"]):
        for head in range(SAVED["heads"]):
            sums = HeadsExplorable(word, layer=layer, head=head).percents().sum(1)
            assert (sums - 100).abs().max() <= len(word) / 2  # half a percent for each letter


def test_the_file_is_of_the_shipped_checkpoint_and_of_these_words(pronouncer):
    again = "give the command experiments/heads_of_the_pronouncer.py again"
    assert SAVED["checkpoint"] == pronouncer.about["sha256"], again
    settings = pronouncer.model.settings
    assert (SAVED["layers"], SAVED["heads"]) == (settings.n_layers, settings.n_heads)
    assert [entry.word for entry in script.draw()] == WORDS == sorted(set(WORDS))
    assert len(WORDS) == 200
    assert all(4 <= len(word) <= 10 and part_of(word) == "test" for word in WORDS)
    assert heads.TABLE.stat().st_size < 300_000


@pytest.mark.parametrize("at", [0, 41, 97, 151, 199])
def test_the_file_holds_the_weights_of_the_model(pronouncer, at):
    word, said, listed = SAVED["words"][at]
    [hypothesis] = pronouncer.pronounce([word])
    assert " ".join(pronouncer.phonemes.decode(hypothesis.tokens)) == said
    assert (listed == "") == (tuple(said.split()) in script.draw()[at].pronunciations)
    target = pronouncer.phonemes.encode(["<begin>", *said.split()])[None]
    weights = pronouncer.model.attention(pronouncer.encode([word]), target)
    for layer in range(SAVED["layers"]):
        for head in range(SAVED["heads"]):
            found = HeadsExplorable(word, layer=layer, head=head).percents()
            expected = 100 * weights[layer][0, head].detach()
            assert (found - expected).abs().max() < 0.51  # rounded, and computed elsewhere


def test_another_head_has_other_weights():
    tables = {
        tuple(HeadsExplorable(WORDS[0], layer=layer, head=head).percents().flatten().tolist())
        for layer in range(SAVED["layers"])
        for head in range(SAVED["heads"])
    }
    assert len(tables) == SAVED["layers"] * SAVED["heads"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"word": "zyzzyva"}, "'zyzzyva' is not one of the 200 words"),
        ({"word": ""}, "'' is not one of"),
        ({"layer": SAVED["layers"]}, f"layer must lie in 0 .. .*, got {SAVED['layers']}"),
        ({"head": -1}, "head must lie in 0 .. .*, got -1"),
    ],
)
def test_what_is_not_in_the_file_is_refused(change, message):
    with pytest.raises(traitlets.TraitError, match=message):
        HeadsExplorable(**{"word": WORDS[0]} | change)


def test_the_script_writes_the_same_file_every_time(monkeypatch, tmp_path, capsys):
    few = script.draw()[:3]
    monkeypatch.setattr(script, "TABLE", tmp_path / "heads.json")
    monkeypatch.setattr(script, "draw", lambda: few)
    script.main()
    first = script.TABLE.read_bytes()
    script.main()
    assert script.TABLE.read_bytes() == first
    written = json.loads(first)
    assert written["words"] == SAVED["words"][:3]
    begin, whole = (zlib.decompress(base64.b64decode(t["percents"])) for t in (written, SAVED))
    assert max(abs(a - b) for a, b in zip(begin, whole, strict=False)) <= 1
    assert capsys.readouterr().out.startswith("3 words, ")


def test_a_model_that_does_not_stop_is_no_model_to_show(tmp_path):
    untrained = load_pronouncer(write_pronouncer(tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match="the pronouncer did not stop"):
        script.table(untrained, script.draw()[:5])


# ---- in the page


class Shown:
    """The explorable of chapter 11 as it stands on the page."""

    def __init__(self, page):
        self.page, self.root = page, page.locator(".explorable.heads").first
        self.word = self.root.locator("select")
        states = page.locator("script[type$='widget-state+json']").all_text_contents()
        saved = [m["state"] for s in states for m in json.loads(s)["state"].values()]
        [self.saved] = [state for state in saved if "percents" in state.get("table", {})]

    def picture(self, layer, head):
        radio = self.page.locator(f"input[value='{layer} {head}']")
        return self.root.locator("label", has=radio)

    def chosen(self):
        return tuple(map(int, self.root.locator("input:checked").input_value().split()))

    def agrees(self):
        """Compare every number and each word on the page with what the package has."""
        word, (layer, head) = self.word.input_value(), self.chosen()
        expected = HeadsExplorable(word, layer=layer, head=head).percents()
        cells = [int(text) for text in self.root.locator("tbody td").all_inner_texts()]
        assert cells == expected.flatten().tolist()
        assert self.root.locator("thead th").all_inner_texts() == list(word)
        _, said, listed = SAVED["words"][WORDS.index(word)]
        assert self.root.locator("tbody th").all_inner_texts() == [*said.split(), "stop"]
        told = self.root.locator(".said").inner_text()
        ending = f"; the dictionary has {listed}." if listed else ", as the dictionary has it."
        assert told == f"is read as {said}{ending}"
        caption = self.root.locator("caption").inner_text()
        assert re.match(r"Layer (\d+), head (\d+):", caption).groups() == (str(layer), str(head))
        most = [word[i] for i in expected.max(1).indices]
        looks = zip([*said.split(), "stop"], most, strict=True)
        told = f"Layer {layer}, head {head} looks most: {', '.join(map(' at '.join, looks))}."
        assert self.root.locator(".most").inner_text() == told
        shares = self.picture(layer, head).locator("rect")
        drawn = torch.zeros_like(expected, dtype=torch.float)
        for x, y, share in shares.evaluate_all(
            "rects => rects.map(r => ['x', 'y', 'fill-opacity'].map(n => +r.getAttribute(n)))"
        ):
            drawn[int(y), int(x)] = 100 * share
        torch.testing.assert_close(drawn, expected.float())
        return True


@pytest.fixture
def shown(visit):
    def show(**how):
        visited = visit("book/11-encoder-and-decoder.html", **how)
        return visited, Shown(visited.page)

    return show


def test_the_page_shows_the_file(shown):
    visited, on_page = shown()
    assert on_page.saved["table"] == SAVED, "run `make notebooks`"
    assert on_page.word.locator("option").all_inner_texts() == WORDS
    assert on_page.root.locator("input").count() == SAVED["layers"] * SAVED["heads"]
    assert on_page.agrees()
    for word in (WORDS[0], WORDS[-1], next(w for w, _, listed in SAVED["words"] if listed)):
        on_page.word.select_option(word)
        assert on_page.agrees()
    assert not visited.problems


def test_words_and_heads_are_chosen_by_keyboard(shown):
    visited, on_page = shown()
    keyboard = visited.page.keyboard
    on_page.word.focus()
    before = on_page.word.input_value()
    keyboard.press("ArrowDown")
    assert on_page.word.input_value() == WORDS[WORDS.index(before) + 1]
    assert on_page.agrees()
    keyboard.type(WORDS[100][:4])  # as in any list
    assert on_page.word.input_value() == WORDS[100]
    assert on_page.agrees()
    keyboard.press("Tab")
    was = on_page.chosen()
    keyboard.press("ArrowRight")
    assert on_page.chosen() != was
    assert on_page.agrees()
    seen = set()
    for _ in range(SAVED["layers"] * SAVED["heads"]):
        keyboard.press("ArrowRight")
        seen.add(on_page.chosen())
    assert len(seen) == SAVED["layers"] * SAVED["heads"] and on_page.agrees()
    assert not visited.problems


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_head_is_clicked_and_the_longest_word_fits(shown, theme, width):
    visited, on_page = shown(theme=theme, width=width)
    longest = max(SAVED["words"], key=lambda entry: (len(entry[0]), len(entry[1])))
    on_page.word.select_option(longest[0])
    for at in [(SAVED["layers"] - 1, 0), (0, SAVED["heads"] - 1)]:
        picture = on_page.picture(*at)
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        visited.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert on_page.chosen() == at
        assert on_page.agrees()
    assert not visited.sideways()
    box = on_page.root.evaluate("root => [root.scrollWidth, root.clientWidth]")
    assert box[0] <= box[1], "the explorable does not fit its frame"
    assert not visited.barriers(
        "color-contrast", "label", "select-name", "label-content-name-mismatch"
    )
    assert not visited.problems
