"""What tools/lighthouse.py makes of Lighthouse's reports; it itself runs by `make lighthouse`."""

import pytest

from tests.browser import load_tool

tool = load_tool("lighthouse")


def run(performance=0.96, seo=1, lcp=1234.5):
    """A report, with what is read of it."""
    scores = {"performance": performance, "accessibility": 1, "best-practices": 1, "seo": seo}
    metrics = {
        "largest-contentful-paint": {"numericValue": lcp, "score": 0.5, "displayValue": "1.2 s"},
        "total-blocking-time": {"numericValue": 49.6, "score": 0.95, "displayValue": "50 ms"},
        "cumulative-layout-shift": {"numericValue": 0.01234, "score": 1},
        "total-byte-weight": {"numericValue": 216_000, "score": None},
    }
    audits = metrics | {"canonical": {"score": 0, "title": "No canonical link"}}
    for name, audit in audits.items():
        audit["id"] = name
    listed = {"performance": [*metrics], "seo": ["canonical"]}
    categories = {
        name: {"score": score, "auditRefs": [{"id": audit} for audit in listed.get(name, ())]}
        for name, score in scores.items()
    }
    return {"categories": categories, "audits": audits}


def test_a_row_has_the_medians():
    runs = [run(performance=0.99, lcp=900), run(performance=0.9), run(performance=0.951, lcp=5000)]
    assert tool.medians(runs) == ["95", "100", "100", "100", "1.23", "49.6", "0.0123", "216"]


def test_one_slow_run_of_three_is_no_shortfall():
    assert tool.shortfalls([run(performance=0.5), run(), run()]) == []


def test_a_shortfall_names_what_took_the_points():
    assert tool.shortfalls([run(performance=0.5, seo=0.9), run(performance=0.94), run()]) == [
        "performance 94 < 95: largest-contentful-paint (1.2 s)"
    ]
    assert tool.shortfalls([run(seo=0.9)]) == ["seo 90 < 100: canonical (No canonical link)"]


def test_a_category_without_a_score_has_none_of_the_points():
    assert tool.score(run(seo=None), "seo") == 0


def test_pages_are_chosen_by_how_their_names_begin(tmp_path):
    (tmp_path / "book").mkdir()
    for name in ("index", "book/04-four", "book/10-ten", "book/notation"):
        (tmp_path / f"{name}.html").touch()
    chapters = ["book/04-four.html", "book/10-ten.html"]
    assert tool.choose(tmp_path, []) == ["index.html", *chapters]
    assert tool.choose(tmp_path, ["not", "04"]) == ["book/notation.html", "book/04-four.html"]
    with pytest.raises(SystemExit, match=r"No page begins with '11'.*index, 04-four, 10-ten, not"):
        tool.choose(tmp_path, ["11"])
