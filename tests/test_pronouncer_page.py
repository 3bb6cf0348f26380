"""The page that runs the pronouncer: what it shows is what PyTorch computes."""

import re

import pytest
import torch

from tests.test_explorables_heads import WORDS
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data import pronunciations
from transformer_lit.decoding import beam
from transformer_lit.encoder_decoder import BEGIN_ID, PAD_ID

PAGE = "book/pronouncer.html"
LISTED = dict(pronunciations.load("test"))
CLOSE = 1e-3


@pytest.fixture(scope="module")
def pronouncer():
    return load_pronouncer()


class Reader:
    """The page as its reader sees it."""

    def __init__(self, visited):
        self.visited, self.page = visited, visited.page
        self.page.emulate_media(reduced_motion="reduce")  # no pause between two phonemes
        self.root = self.page.locator("#pronouncer")
        self.button = self.root.get_by_role("button", name="Load the model")
        self.word = self.root.get_by_role("textbox", name="Word")
        self.decoding = self.choice("Decoding")
        self.result, self.wrong = self.root.get_by_role("status"), self.root.get_by_role("alert")

    def choice(self, name):
        return self.root.get_by_role("combobox", name=name, exact=True)

    def load(self):
        self.button.click()
        self.word.wait_for(timeout=120_000)
        return self

    def read(self, word, shown=None):
        """Type a word in place of the last one, and wait until it is read."""
        self.word.press("ControlOrMeta+a")
        self.word.press_sequentially(word)
        self.word.press("Enter")
        return self.answer(shown or word)

    def answer(self, word):
        self.page.wait_for_function(
            "start => document.querySelector('#pronouncer .result').textContent.startsWith(start)",
            arg=f"{word} is read as ",
        )
        return self.result.inner_text()

    def steps(self):
        """For each step what was written, and the likeliest with their probabilities."""
        rows = self.root.locator(".steps tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return [
            (written, [(name, float(percent) / 100) for name, percent in map(str.split, cells)])
            for written, *cells in rows
        ]

    def heat(self):
        """The names of the rows, the letters, and the whole percents."""
        table = self.root.locator(".heat")
        rows = table.locator("tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        percents = torch.tensor([[int(text) for text in cells] for _, *cells in rows])
        return [row[0] for row in rows], table.locator("thead th").all_inner_texts(), percents

    def kept(self):
        """The beginnings that beam search kept: their scores and symbols."""
        rows = self.root.locator(".kept tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return [(float(score), text.split()) for score, text in rows]


@pytest.fixture
def reader(visit):
    return lambda **how: Reader(visit(PAGE, **how))


def names(pronouncer, tokens):
    """The symbols of some tokens and the stop token behind them, as the page writes them."""
    return [*pronouncer.phonemes.decode(tokens), "stop"]


def check_steps(pronouncer, word, said, steps):
    """Hold each probability on the page against PyTorch's."""
    target = torch.cat([torch.tensor([BEGIN_ID]), said.tokens])[None]
    with torch.no_grad():
        probs = pronouncer.model(pronouncer.encode([word]), target)[0].softmax(-1)
    assert [written for written, _ in steps] == names(pronouncer, said.tokens), word
    for row, (_, shown) in zip(probs, steps, strict=True):
        row[PAD_ID] = row[BEGIN_ID] = 0
        best = row.topk(5).values
        for (name, probability), expected in zip(shown, best, strict=True):
            token = 2 if name == "stop" else pronouncer.phonemes.id_of(name)
            assert abs(probability - expected) < CLOSE, (word, name)
            assert abs(probability - row[token]) < CLOSE, (word, name)
        assert len({name for name, _ in shown}) == 5


def verdict(word, said):
    """What the page says in the end of a word of the test part."""
    listed = [" ".join(one) for one in LISTED[word]]
    if said in listed:
        return f"{word} is read as {said}, as the dictionary has it."
    return f"{word} is read as {said}; the dictionary has {' or '.join(listed)}."


def test_200_held_out_words_are_read_as_pytorch_reads_them(reader, pronouncer):
    read = reader().load()
    assert len(WORDS) == 200 and set(WORDS) <= set(LISTED)
    for word, said in zip(WORDS, pronouncer.pronounce(WORDS), strict=True):
        told = read.read(word)
        check_steps(pronouncer, word, said, read.steps())
        assert told == verdict(word, " ".join(pronouncer.phonemes.decode(said.tokens)))
    assert not read.visited.problems


def test_beam_search_keeps_what_pytorch_keeps(reader, pronouncer):
    read = reader().load()
    read.decoding.select_option("5")
    max_len = pronouncer.model.settings.max_len
    for word in WORDS[::11]:
        told = read.read(word)
        [expected] = beam(pronouncer.model, pronouncer.encode([word]), n_beams=5, max_len=max_len)
        kept = read.kept()
        assert [text for _, text in kept] == [names(pronouncer, one.tokens) for one in expected]
        for (score, _), one in zip(kept, expected, strict=True):
            assert abs(score - one.score(alpha=1.0)) < CLOSE
        check_steps(pronouncer, word, expected[0], read.steps())
        assert told == verdict(word, " ".join(pronouncer.phonemes.decode(expected[0].tokens)))
    read.decoding.select_option("1")  # reads the word once more
    [said] = pronouncer.pronounce([word])
    read.answer(word)
    check_steps(pronouncer, word, said, read.steps())
    assert not read.root.locator(".kept").is_visible()


def test_the_heat_map_shows_the_head_that_was_chosen(reader, pronouncer):
    read, word = reader().load(), WORDS[97]
    read.read(word)
    [said] = pronouncer.pronounce([word])
    target = torch.cat([torch.tensor([BEGIN_ID]), said.tokens])[None]
    with torch.no_grad():
        weights = pronouncer.model.attention(pronouncer.encode([word]), target)
    for layer, head in [(0, 0), (0, 3), (2, 0), (1, 2)]:
        read.choice("Layer").select_option(str(layer))
        read.choice("Head").select_option(str(head))
        rows, columns, percents = read.heat()
        assert (rows, columns) == (names(pronouncer, said.tokens), list(word))
        assert (percents - 100 * weights[layer][0, head]).abs().max() < 0.51
    assert not read.visited.problems


def test_the_tables_grow_row_by_row(reader):
    read, word = reader().load(), WORDS[0]
    read.page.evaluate(
        """() => {
          globalThis.seen = [];
          const count = (kind) => document.querySelectorAll(`.${kind} tbody tr`).length;
          const note = () => seen.push([count("steps"), count("heat")]);
          const watched = document.querySelector(".heat tbody");
          new MutationObserver(note).observe(watched, { childList: true });
        }"""
    )
    read.read(word)
    rows = len(read.steps())
    assert rows > 4
    assert read.page.evaluate("seen") == [[row, row] for row in range(1, rows + 1)]


def test_nothing_is_loaded_before_the_button_is_pressed_and_the_button_says_how_much(visit, site):
    visited = visit(PAGE)
    read, asked = Reader(visited), []
    visited.page.on("request", lambda request: asked.append(request.url))
    folder = site.folder / "_static" / "pronouncer"
    size = float(re.fullmatch(r"Load the model \((.*) MB\)", read.button.inner_text())[1])
    visited.page.reload()
    before = {url.rpartition("/")[2] for url in asked}
    assert {"about.js", "pronouncer.js"} <= before
    assert not [name for name in before if name.endswith((".z", ".mjs", ".wasm", ".onnx"))]
    asked.clear()
    read.load()
    ours = [url for url in asked if "/pronouncer/" in url]  # and perhaps the site's icon
    files = {folder / url.removeprefix(f"{site.address}_static/pronouncer/") for url in ours}
    assert len(files) == len(ours) == 5
    assert abs(sum(file.stat().st_size for file in files) / 1e6 - size) <= 0.05
    assert not visited.problems


def test_what_the_pronouncer_cannot_read_gets_a_message(reader, pronouncer):
    read = reader().load()
    for typed, message in [
        ("", "Type a word first."),
        ("naïve", "The pronouncer does not know “ï”"),
        ("two words 2", "The pronouncer does not know “ ”, “2”"),
        ("a" * 49, "The word has 49 letters; the pronouncer reads at most 48."),
    ]:
        read.word.fill(typed)
        read.word.press("Enter")
        assert read.wrong.inner_text().startswith(message)
        assert read.word.get_attribute("aria-invalid") == "true"
        assert not read.root.locator(".shown").is_visible()
    told = read.read(" Nation’s ", "nation's")
    [said] = pronouncer.pronounce(["nation's"])
    assert " ".join(pronouncer.phonemes.decode(said.tokens)) in told
    assert read.wrong.inner_text() == "" and read.word.get_attribute("aria-invalid") == "false"
    told = read.read("zzyzzxq")
    assert told.endswith(
        "none of the 12,752 test words, so there is nothing here to compare it with."
    )
    assert not read.visited.problems


def test_it_works_by_keyboard_alone(reader):
    read = reader()
    keyboard = read.page.keyboard
    read.button.focus()
    keyboard.press("Enter")
    read.word.wait_for(timeout=120_000)
    assert read.word.evaluate("input => input === document.activeElement")
    keyboard.type("nation")
    keyboard.press("Tab")
    keyboard.press("ArrowDown")  # beam search, which reads the word
    read.answer("nation")
    assert len(read.kept()) == 5
    layer = read.choice("Layer")
    before, chosen = read.heat(), layer.input_value()
    for _ in range(7):
        keyboard.press("Tab")
        if layer.evaluate("select => select === document.activeElement"):
            break
    keyboard.press("ArrowDown")
    assert layer.input_value() != chosen and not read.heat()[2].equal(before[2])


def test_a_test_word_is_drawn(reader):
    read = reader().load()
    read.root.get_by_role("button", name="Draw a test word").click()
    word = read.word.input_value()
    assert word in LISTED
    assert "none of the" not in read.answer(word)


@pytest.mark.parametrize(("theme", "width"), [("light", 390), ("dark", 390), ("dark", 1280)])
def test_all_of_it_fits_and_can_be_read(reader, theme, width):
    read = reader(theme=theme, width=width).load()
    read.decoding.select_option("5")
    for word in ("antidisestablishmentarianism", "nation"):
        read.read(word)
        assert not read.visited.sideways()
        assert not read.visited.barriers()
        box = read.root.evaluate("root => [root.scrollWidth, root.clientWidth]")
        assert box[0] <= box[1], "the explorable does not fit its frame"
    read.word.fill("é")
    read.word.press("Enter")
    assert not read.visited.barriers("color-contrast")
    assert not read.visited.problems


def test_a_load_that_fails_says_so_and_can_be_tried_again(reader):
    read = reader()
    read.page.route("**/decoder.z", lambda route: route.abort())
    read.button.click()
    read.page.wait_for_function("document.querySelector('.complaint').textContent !== ''")
    assert read.wrong.inner_text().startswith("The model could not be loaded: ")
    read.page.unroute("**/decoder.z")
    read.load()
    assert read.read("nation").startswith("nation is read as ")


def test_a_page_opened_as_a_file_says_that_it_cannot_load_the_model(visit, site):
    visited = visit((site.folder / PAGE).as_uri())
    root = visited.page.locator("#pronouncer")
    assert "make serve" in root.get_by_role("status").inner_text()
    assert not root.get_by_role("button").is_visible()
    assert not visited.problems
