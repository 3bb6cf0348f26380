"""The reports: real names, made-up sentences, and a summary that follows from them."""

import pytest

from transformer_lit.data import reports
from transformer_lit.data.reports import PATTERNS, Report


def test_the_names_are_those_of_the_news():
    names = reports.names()
    assert len(names) == 131
    assert list(names.items())[:3] == [("Arafat", 53), ("Sharon", 18), ("Hollingworth", 12)]
    assert sum(count == 1 for count in names.values()) == 74
    assert list(names.values()) == sorted(names.values(), reverse=True)


def test_there_are_56_patterns_and_a_summary_names_nobody_who_was_not_there():
    assert len(PATTERNS) == len(set(PATTERNS)) == 9 * 6 + 2
    for source, summary in PATTERNS:
        roles = set("xyzv")
        assert roles & set(summary.split()) <= roles & set(source.split())
        assert "EVENT" not in source + summary


def test_no_name_is_a_word_of_the_patterns():
    words = {word for pattern in PATTERNS for half in pattern for word in half.split()}
    assert words.isdisjoint(reports.names())


def test_a_report_has_its_summary():
    among = dict.fromkeys(["Hooke", "Lew", "Ford", "Reid"], 1)
    drawn = reports.draw(500, among, seed=0)
    short = {report.source: report.summary for report in drawn}
    found = short["Hooke", "lost", "to", "Lew", "after", "a", "long", "match"]
    assert found == ("Lew", "beats", "Hooke")
    assert all(isinstance(report, Report) for report in drawn)


def test_names_are_drawn_by_their_numbers_and_differ_in_one_report():
    among = {"Hooke": 50, "Lew": 1, "Ford": 1, "Reid": 1, "Carr": 1, "Ward": 1}
    counts = dict.fromkeys(among, 0)
    for report in reports.draw(500, among, seed=0):
        there = [word for word in report.source if word in among]
        assert len(there) == len(set(there)) >= 1
        for name in there:
            counts[name] += 1
    assert counts["Hooke"] > 1.5 * max(counts[name] for name in among if name != "Hooke")
    assert min(counts.values()) > 0


def test_the_same_seed_draws_the_same_reports():
    among = reports.names()
    assert reports.draw(7, among, seed=3) == reports.draw(7, among, seed=3)
    assert reports.draw(7, among, seed=3) != reports.draw(7, among, seed=5)


@pytest.mark.parametrize(("n", "among"), [(-1, "abcd"), (3, "abc")])
def test_too_few_reports_or_names_are_refused(n, among):
    with pytest.raises(ValueError, match=f"got {n} and {len(among)}"):
        reports.draw(n, dict.fromkeys(among, 1), seed=0)
