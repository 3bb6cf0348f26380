"""The ten questions: each is answered, and each answer leads to places that exist."""

import re
from pathlib import Path

import bs4
import pytest

TEXT = (Path(__file__).parents[1] / "book" / "questions.md").read_text("utf-8")
QUESTIONS = dict(re.findall(r"^## (.+)\n\n(.+)$", TEXT, re.MULTILINE))
LINK = re.compile(r"\[chapter (\d\d)\]\((\d\d)(\S+)\.ipynb#([^)\s]+)\)")


def test_there_are_ten_and_all_are_questions():
    assert len(QUESTIONS) == TEXT.count("\n## ") == 10
    assert all(question.endswith("?") for question in QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_is_one_paragraph_with_the_places_that_measured_it(question):
    answer = QUESTIONS[question]
    assert 60 <= len(re.sub(r"\(\S+\.ipynb\S+\)", "", answer).split()) <= 160
    found = LINK.findall(answer)
    assert len(found) >= 2 and len(found) == answer.count("](")
    assert all(named == number for named, number, _, _ in found)


def test_every_link_leads_to_a_section(site):
    sections = {}
    for _, number, name, anchor in LINK.findall(TEXT):
        page = site.folder / "book" / f"{number}{name}.html"
        if page not in sections:
            html = bs4.BeautifulSoup(page.read_text("utf-8"), "html.parser")
            sections[page] = {section.get("id") for section in html.select("section")}
        assert anchor in sections[page], f"{number}{name}#{anchor}"
