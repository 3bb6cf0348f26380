"""Every explorable by the keyboard alone, wide and narrow, light and dark, without a kernel.

And what a screen reader says of each move. tests/test_jupyterlab.py moves them with a kernel.
"""

import json
import re

import pytest

from tests.browser import ROOT
from tests.explorables import classes, make
from tests.test_site import saved_page

ROLES = "button|checkbox|combobox|radio|slider|spinbutton|textbox"
# How many times the Tab key stops in the explorable: once in a group of radio buttons.
STOPS = """root => {
    const all = [...root.querySelectorAll("button, input, select, summary, [tabindex]")];
    const stops = all.filter(one => one.tabIndex >= 0 && !one.disabled && one.checkVisibility());
    return new Set(stops.map(one => one.type === "radio" ? one.name : one)).size;
}"""
# What has the focus within the explorable, and the key that moves it: at its end the other way.
FOCUSED = """() => {
    const at = document.activeElement;
    if (!at.closest(".explorable")) return null;
    const last = at.matches("select") ? at.selectedIndex > 0 : at.value === at.max;
    const keys = {
        "radio": "ArrowDown", "checkbox": "Space", "select-one": last ? "ArrowUp" : "ArrowDown",
        "range": last ? "ArrowLeft" : "ArrowRight", "number": last ? "ArrowDown" : "ArrowUp",
    };
    const acts = at.matches("button, summary") ? "Enter" : null;
    return [`${at.type ?? at.localName} ${at.className}`, keys[at.type] ?? acts];
}"""
# What is said of a move: the result, and the new state of a control that has two.
TOLD = """() => {
    const at = document.activeElement;
    const state = at.type === "checkbox" ? at.checked : at.parentElement.open;
    const results = [...document.querySelectorAll(".explorable [role=status]")];
    return [at.ariaPressed, state ?? null, ...results.map(result => result.textContent)];
}"""


def test_each_stands_on_a_page_of_the_book():
    shown = set()
    for path in (ROOT / "book").glob("*.ipynb"):
        saved = json.loads(path.read_text())["metadata"].get("widgets", {})
        for states in saved.values():
            shown |= {model["state"].get("_anywidget_id") for model in states["state"].values()}
    assert shown - {None} == {f"{kind.__module__}.{name}" for name, kind in classes().items()}


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
@pytest.mark.parametrize("name", sorted(classes()))
def test_the_keyboard_is_enough_and_the_result_is_told(visit, tmp_path, name, theme, width):
    visited = visit(saved_page(tmp_path, {"a": make(name).get_state()}, ["a"]), width=width)
    page, root = visited.page, visited.page.locator(".explorable")
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    assert not re.findall(rf"""- '?(?:{ROLES})(?! "[^"]).*""", root.aria_snapshot())

    for _ in range(root.evaluate(STOPS)):
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUSED)
    page.keyboard.press("Tab")
    assert not page.evaluate(FOCUSED)

    page.keyboard.press("Tab")
    moved = 0
    while focused := page.evaluate(FOCUSED):
        control, key = focused
        if key:
            told = page.evaluate(TOLD)
            page.keyboard.press(key)
            assert page.evaluate(TOLD) != told, control
            assert page.evaluate(FOCUSED), control
            moved += 1
        page.keyboard.press("Tab")
    assert moved
    assert not visited.sideways()
    assert not visited.barriers("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")
    assert not visited.problems
