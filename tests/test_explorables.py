import json
import math
import re

import pytest
import torch
import traitlets

from transformer_lit.explorables.attention import AttentionExplorable
from transformer_lit.explorables.masking import MaskingExplorable
from transformer_lit.explorables.positions import PositionsExplorable
from transformer_lit.masking import causal_mask, local_mask, padding_mask

WORDS = ["money", "bank", "grows"]
VECTORS = [[2.0, 0.5], [1.5, 1.0], [-0.5, 1.5]]


def test_one_word_attends_by_hand():
    # Scores of the query (1, 0): 1, 0, 0 over sqrt(2), times sqrt(2) by the temperature.
    shown = AttentionExplorable(
        WORDS, [[1, 0], [0, 1], [0, 2]], query=0, temperature=1 / math.sqrt(2)
    )
    output, weights = shown.attend()
    e = math.e
    torch.testing.assert_close(weights, torch.tensor([e, 1, 1]) / (e + 2))
    torch.testing.assert_close(output, torch.tensor([e, 3]) / (e + 2))


def test_a_cold_softmax_looks_one_word_up():
    output, weights = AttentionExplorable(WORDS, VECTORS, query=1, temperature=0.01).attend()
    assert weights.argmax() == 0 and weights.max() > 0.999
    torch.testing.assert_close(output, torch.tensor(VECTORS[0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": WORDS[:2], "vectors": VECTORS[:2]}, "3"),
        ({"words": ["a"] * 7, "vectors": [[0, 0]] * 7}, "6"),
        ({"words": [*WORDS, "fast"]}, "4 words"),
        ({"vectors": [[1, 2, 3]] * 3}, "2"),
        ({"vectors": [[4, 0], [0, 0], [0, 0]]}, r"4\.0"),
        ({"vectors": [[math.nan, 0], [0, 0], [0, 0]]}, "nan"),
        ({"query": 3}, "got 3"),
        ({"query": -1}, "got -1"),
        ({"temperature": 0.0}, r"got 0\.0"),
        ({"temperature": math.nan}, "got nan"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = {"words": WORDS, "vectors": VECTORS} | change
    with pytest.raises(traitlets.TraitError, match=message):
        AttentionExplorable(**given)


class Shown:
    """The explorable of chapter 04 as it stands on the page."""

    def __init__(self, page):
        self.root = page.locator(".explorable.attention").first

    def numbers(self, part):
        return [float(text) for text in self.root.locator(part).all_inner_texts()]

    def agrees(self):
        """Compare every number on the page with the package's."""
        vectors = [
            [float(cell.input_value()) for cell in row.locator("input[type=number]").all()]
            for row in self.root.locator("tbody tr").all()
        ]
        radios = self.root.locator("input[type=radio]").all()
        [query] = [j for j, radio in enumerate(radios) if radio.is_checked()]
        words = self.root.locator("tbody th").all_inner_texts()
        temperature = float(self.root.locator("output").inner_text())
        expected = AttentionExplorable(words, vectors, query=query, temperature=temperature)
        output, weights = expected.attend()
        mixture = self.root.locator(".mixture").inner_text()
        shown = [float(x) for x in re.search(r"\((.+), (.+)\)", mixture).groups()]
        x = torch.tensor(vectors)
        torch.testing.assert_close(
            torch.tensor(self.numbers(".score")), x @ x[query] / 2**0.5, atol=1e-3, rtol=0
        )
        torch.testing.assert_close(
            torch.tensor(self.numbers(".number")), weights, atol=1e-3, rtol=0
        )
        torch.testing.assert_close(torch.tensor(shown), output, atol=1e-3, rtol=0)
        return True


@pytest.fixture
def explorable(visit):
    def show(**how):
        visited = visit("book/04-self-attention.html", **how)
        return visited, Shown(visited.page)

    return show


def test_the_page_shows_the_packages_numbers(explorable):
    visited, shown = explorable()
    assert shown.agrees()
    assert not visited.problems


def test_typed_numbers_move_everything(explorable):
    visited, shown = explorable()
    before = shown.numbers(".number")
    field = shown.root.locator("input[type=number]").nth(2)
    field.fill("-1.25")
    assert shown.numbers(".number") != before
    assert shown.agrees()
    field.fill("77")  # beyond the plane: it stays at the edge
    field.blur()
    assert field.input_value() == "3"
    assert shown.agrees()
    assert not visited.problems


def test_the_keyboard_is_enough(explorable):
    visited, shown = explorable()
    keyboard = visited.page.keyboard
    before = [radio.is_checked() for radio in shown.root.locator("input[type=radio]").all()]
    shown.root.locator("input[type=radio]:checked").focus()
    keyboard.press("ArrowDown")
    assert [r.is_checked() for r in shown.root.locator("input[type=radio]").all()] != before
    assert shown.agrees()
    keyboard.press("Tab")
    keyboard.press("ArrowUp")  # a number field: one step up
    assert shown.agrees()
    for _ in range(12):  # onwards to the slider and the buttons, in the order of the page
        keyboard.press("Tab")
        if visited.page.evaluate("document.activeElement.type") == "range":
            break
    keyboard.press("Home")
    assert shown.root.locator("output").inner_text() == "0.05"
    assert shown.agrees()
    keyboard.press("Tab")
    keyboard.press("Enter")
    assert shown.root.locator("tbody tr").count() == len(before) + 1
    assert shown.agrees()
    assert not visited.problems


def test_words_come_and_go_between_three_and_six(explorable):
    _, shown = explorable()
    add, remove = shown.root.locator(".add"), shown.root.locator(".remove")
    while add.is_enabled():
        add.click()
    assert shown.root.locator("tbody tr").count() == 6
    shown.root.locator("input[type=radio]").nth(5).check()
    assert shown.agrees()
    while remove.is_enabled():
        remove.click()
        assert shown.agrees()
    assert shown.root.locator("tbody tr").count() == 3


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_word_is_dragged(explorable, theme, width):
    visited, shown = explorable(theme=theme, width=width)
    dot = shown.root.locator("circle.word").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = shown.root.locator("input[type=number]").first.input_value()
    visited.page.mouse.move(x, y)
    visited.page.mouse.down()
    visited.page.mouse.move(x - 40, y + 30, steps=3)
    visited.page.mouse.up()
    assert shown.root.locator("input[type=number]").first.input_value() != before
    assert shown.agrees()
    assert not visited.sideways()
    assert not visited.problems


# ---- positions, chapter 06


def test_the_likeness_of_places_by_hand():
    # Eight pairs, so the cosine is the mean of the cosines of eight angles, one per pair.
    shown = PositionsExplorable(place=3, other=5, d_model=16)
    by_hand = sum(math.cos(2 / 10_000 ** (i / 8)) for i in range(8)) / 8
    assert abs(float(shown.alike()[5]) - by_hand) < 1e-6
    assert abs(float(shown.alike()[3]) - 1) < 1e-6
    assert shown.vector()[:2].tolist() == pytest.approx([math.sin(3), math.cos(3)])


@pytest.mark.parametrize(
    "change", [{"place": -1}, {"place": 64}, {"other": 64}, {"d_model": 7}, {"d_model": 256}]
)
def test_places_and_widths_that_are_not_there_are_refused(change):
    with pytest.raises(traitlets.TraitError):
        PositionsExplorable(**change)


class ShownPositions:
    """The explorable of chapter 06 as it stands on the page."""

    def __init__(self, page):
        self.root = page.locator(".explorable.positions").first
        self.place, self.other = (self.root.locator(f"input.{name}") for name in ("place", "other"))

    def agrees(self):
        """Compare every number on the page, and the colours of the picture, with the package's."""
        place, other = int(self.place.input_value()), int(self.other.input_value())
        d_model = int(self.root.locator("select").input_value())
        expected = PositionsExplorable(place=place, other=other, d_model=d_model)
        assert self.root.locator("output").all_inner_texts() == [str(place), str(other)]

        close = {"atol": 1e-3, "rtol": 0}
        cells = self.root.locator("tbody td").all_text_contents()
        cosines = torch.tensor([float(cell) for cell in cells])
        torch.testing.assert_close(cosines, expected.alike(), **close)
        said = self.root.locator(".said").inner_text()
        pattern = (
            r"Places (\d+) and (\d+) are (\d+) apart: cosine (\S+), dot product (\S+) of (\d+)\."
        )
        *places, cosine, product, most = re.fullmatch(pattern, said).groups()
        assert places == [str(place), str(other), str(abs(place - other))]
        told = torch.tensor([float(cosine), float(product)])
        by_package = expected.alike()[other] * torch.tensor([1, d_model / 2])
        torch.testing.assert_close(told, by_package, **close)
        assert int(most) == d_model // 2
        heading, numbers = self.root.locator(".vector").text_content().split(": ")
        assert heading == f"The vector of place {place}"
        vector = torch.tensor([float(number) for number in numbers.split()])
        torch.testing.assert_close(vector, expected.vector(), **close)

        heights = self.root.locator(".bar").evaluate_all(
            "bars => bars.map(b => +b.attributes.height.value)"
        )
        torch.testing.assert_close(torch.tensor(heights), expected.alike(), **close)
        greens = self.root.locator("canvas").evaluate(
            """(canvas, x) => [...canvas.getContext("2d").getImageData(x, 0, 1, canvas.height).data]
                .filter((_, i) => i % 4 === 1)""",
            place,
        )  # green rises from the darkest colour to the brightest
        drawn = torch.cat([expected.vector()[0::2], expected.vector()[1::2]])
        shades = torch.tensor(greens)[drawn.argsort()]
        assert len(greens) == d_model and (shades.diff() >= 0).all()
        return True


@pytest.fixture
def positions(visit):
    def show(**how):
        visited = visit("book/06-where-am-i.html", **how)
        return visited, ShownPositions(visited.page)

    return show


def test_the_page_shows_the_packages_positions(positions):
    visited, shown = positions()
    assert shown.agrees()
    assert not visited.problems


def test_places_and_width_are_chosen_by_keyboard(positions):
    visited, shown = positions()
    keyboard = visited.page.keyboard
    before = int(shown.place.input_value())
    shown.place.focus()
    keyboard.press("ArrowRight")
    assert int(shown.place.input_value()) == before + 1
    assert shown.agrees()
    keyboard.press("Tab")
    keyboard.press("End")
    assert shown.other.input_value() == "63"
    assert shown.agrees()
    keyboard.press("Tab")
    keyboard.press("ArrowUp")
    assert shown.root.locator("select").input_value() == "32"
    assert shown.agrees()
    keyboard.press("Tab")
    keyboard.press("Enter")
    assert shown.root.locator("table").is_visible()
    assert not visited.problems


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_place_is_picked_in_the_picture(positions, theme, width):
    visited, shown = positions(theme=theme, width=width)
    for plot, place in ((".map", 5), (".curve", 60)):
        shown.root.locator(plot).scroll_into_view_if_needed()
        box = shown.root.locator(plot).bounding_box()
        y = box["y"] + box["height"] / 2
        visited.page.mouse.move(box["x"] + box["width"] / 2, y)
        visited.page.mouse.down()
        visited.page.mouse.move(box["x"] + box["width"] * (place + 0.5) / 64, y, steps=3)
        visited.page.mouse.up()
        assert int(shown.place.input_value()) == place
        assert shown.agrees()
        frame = shown.root.locator(".frame.place")
        around = frame.bounding_box()
        off = around["x"] + around["width"] / 2 - box["x"] - box["width"] * (place + 0.5) / 64
        assert abs(off) < 2
        style = frame.evaluate("frame => getComputedStyle(frame).backgroundColor")
        assert style == "rgba(0, 0, 0, 0)"  # the page has styles of its own
    shown.root.locator("summary").click()
    assert not visited.sideways()
    assert not visited.barriers("color-contrast")
    assert not visited.problems


# ---- chapter 08: a mask to paint

LETTERS = ["a", "b", "c", "d", "e"]
SCORES = [[((3 * i + 5 * j) % 7) / 2 - 1.5 for j in range(5)] for i in range(5)]


def test_painted_weights_by_hand():
    shown = MaskingExplorable(
        ["aap", "kaise", "hai"],
        [[math.log(2), 0, 0], [0, math.log(3), math.log(2)], [0, 0, 0]],
        mask=[[True, False, False], [True, True, False], [False, False, False]],
    )
    expected = torch.tensor([[1, 0, 0], [1 / 4, 3 / 4, 0], [0, 0, 0]])
    torch.testing.assert_close(shown.weights(), expected)


def test_without_a_mask_everything_may_be_seen():
    shown = MaskingExplorable(LETTERS, SCORES)
    assert shown.mask == [[True] * 5] * 5 and shown.length == 5
    torch.testing.assert_close(shown.weights(), torch.tensor(SCORES).softmax(-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": ["a"], "scores": [[0]]}, "2"),
        ({"words": ["a"] * 7, "scores": [[0] * 7] * 7}, "6"),
        ({"scores": SCORES[:4]}, r"scores need 5 rows of 5, got rows of \[5, 5, 5, 5\]"),
        ({"mask": [[True] * 4] * 5}, r"mask need 5 rows of 5, got rows of \[4, 4, 4, 4, 4\]"),
        ({"scores": [[math.inf] * 5] * 5}, "must be finite, got .*inf"),
        ({"scores": [[math.nan] * 5] * 5}, "must be finite, got .*nan"),
        ({"length": 6}, "got 6"),
        ({"length": -1}, "got -1"),
        ({"window": -1}, "got -1"),
    ],
)
def test_a_bad_painting_is_refused(change, message):
    given = {"words": LETTERS, "scores": SCORES} | change
    with pytest.raises(traitlets.TraitError, match=message):
        MaskingExplorable(given.pop("words"), given.pop("scores"), **given)


class Painted:
    """The explorable of chapter 08 as it stands on the page, and the state it was saved with."""

    def __init__(self, page):
        self.page = page
        self.root = page.locator(".explorable.masking").first
        states = page.locator("script[type$='widget-state+json']").all_text_contents()
        saved = [m["state"] for s in states for m in json.loads(s)["state"].values()]
        [self.saved] = [state for state in saved if "scores" in state]
        self.n = len(self.saved["words"])

    def cell(self, query, key):
        return self.root.locator(f"tbody button[data-at='{query} {key}']")

    def press(self, preset):
        self.root.locator(f"button[data-preset={preset}]").click()

    def mask(self):
        cells = self.root.locator("tbody button").all()
        flat = [button.get_attribute("aria-pressed") == "true" for button in cells]
        return torch.tensor(flat).reshape(self.n, self.n)

    def numbers(self, part):
        return torch.tensor([float(x) for x in self.root.locator(part).all_inner_texts()])

    def agrees(self):
        """Compare every number on the page with the package's for the mask that is painted."""
        expected = MaskingExplorable(
            self.saved["words"], self.saved["scores"], mask=self.mask().tolist()
        ).weights()
        near = {"atol": 1e-3, "rtol": 0}
        torch.testing.assert_close(self.numbers(".number"), expected.flatten(), **near)
        torch.testing.assert_close(self.numbers(".sum"), expected.sum(-1), **near)
        shown = self.root.locator(".score").all_inner_texts()
        scores = torch.tensor(self.saved["scores"]).flatten().tolist()
        for text, may, score in zip(shown, self.mask().flatten().tolist(), scores, strict=True):
            assert text == "−∞" if not may else abs(float(text) - score) < 0.01
        told = self.root.get_by_role("status").inner_text()
        assert told.startswith(f"{self.mask().sum()} of {self.n**2} cells may be seen. ")
        return True


@pytest.fixture
def painter(visit):
    def show(**how):
        visited = visit("book/08-what-may-not-be-seen.html", **how)
        return visited, Painted(visited.page)

    return show


def test_the_saved_mask_shows_the_packages_numbers(painter):
    visited, shown = painter()
    assert shown.mask().tolist() == shown.saved["mask"]
    assert shown.agrees()
    assert not visited.problems


def test_each_preset_joins_the_mask_of_the_package(painter):
    visited, shown = painter()
    n = shown.n
    made = {
        "causal": causal_mask(n),
        "padding": padding_mask(torch.tensor([shown.saved["length"]]), n),
        "local": local_mask(n, shown.saved["window"]),
    }
    for name, mask in made.items():
        shown.press("none")
        assert shown.mask().all()
        shown.press(name)
        assert torch.equal(shown.mask(), mask[0, 0].expand(n, n)), name
        assert not shown.mask().all(), f"{name} hides nothing in this example"
        assert shown.agrees()
    shown.press("none")
    for name in made:
        shown.press(name)
    assert torch.equal(shown.mask(), (made["causal"] & made["padding"] & made["local"])[0, 0])
    assert shown.agrees()
    assert not visited.problems


def test_a_row_with_nothing_to_attend_to_shows_zeros(painter):
    visited, shown = painter()
    shown.press("none")
    assert "Nothing" not in shown.root.locator("[role=status]").inner_text()
    for key in range(shown.n):
        shown.cell(1, key).click()
        assert shown.agrees()
    assert shown.numbers(".number").reshape(shown.n, shown.n)[1].tolist() == [0.0] * shown.n
    assert shown.numbers(".sum")[1] == 0
    assert shown.saved["words"][1] in shown.root.locator("[role=status]").inner_text()
    assert "NaN" not in shown.root.inner_text()
    assert not visited.problems


def test_a_mask_is_painted_by_keyboard(painter):
    visited, shown = painter()
    keyboard, page = visited.page.keyboard, visited.page
    shown.root.locator("button[data-preset=none]").focus()
    keyboard.press("Enter")
    assert shown.mask().all()
    for _ in range(4):  # three more presets, then the grid
        keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.at") == "0 0"
    keyboard.press("ArrowUp")  # at the edge: nowhere to go
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        keyboard.press(key)
    assert page.evaluate("document.activeElement.dataset.at") == "1 1"
    keyboard.press("Space")
    assert (~shown.mask()).nonzero().tolist() == [[1, 1]]
    assert "may not see" in shown.cell(1, 1).locator(".who").inner_text()
    assert shown.agrees()
    keyboard.press("Enter")
    assert shown.mask().all() and shown.agrees()
    keyboard.press("Tab")  # the grid is one stop
    assert not page.evaluate("document.activeElement.dataset.at")
    assert not visited.problems


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_mask_is_painted_by_dragging(painter, theme, width):
    visited, shown = painter(theme=theme, width=width)
    shown.press("none")
    mouse = visited.page.mouse
    shown.cell(2, 0).scroll_into_view_if_needed()

    def centre(query, key):
        box = shown.cell(query, key).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    mouse.move(*centre(2, 0))
    mouse.down()
    mouse.move(*centre(2, 2), steps=8)
    mouse.up()
    assert (~shown.mask()).nonzero().tolist() == [[2, 0], [2, 1], [2, 2]]
    assert shown.agrees()
    mouse.move(*centre(0, 0))  # nothing is held now
    assert (~shown.mask()).sum() == 3
    shown.cell(2, 1).click()
    assert bool(shown.mask()[2, 1]) and shown.agrees()
    assert not visited.sideways()
    box = shown.root.evaluate("root => [root.scrollWidth, root.clientWidth]")
    assert box[0] <= box[1], "the table does not fit its frame"
    assert not visited.barriers("color-contrast", "label-content-name-mismatch", "button-name")
    assert not visited.problems
