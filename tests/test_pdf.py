"""The whole book in one PDF: tools/pdf.py."""

import shutil

import bs4
import pytest

from tests.browser import ROOT, load_tool

tool = load_tool("pdf")

SITE = "https://example.org/site/"
ONE = """<html><head><title>The book</title><link rel="stylesheet" href="_static/a.css?v=1"></head>
<body><nav>no</nav><article id="top"><h1 id="t">One<a class="headerlink" href="#t">#</a></h1>
<a href="book/two.html#part">inside</a> <a href="#t">here</a> <a href="search.html">outside</a>
<a href="https://example.com/">elsewhere</a> <a href="book/two.html">page</a>
<img src="_images/a.svg"><script>x</script><button>no</button></article></body></html>"""
TWO = """<html><head><link rel="stylesheet" href="../_static/a.css?v=1"></head><body><article>
<details><summary id="s">Show</summary><p id="part" aria-labelledby="s t">folded</p></details>
<div class="solution toggle-hidden">solved</div><img src="../_images/b.svg">
<a href="../index.html">up</a> <a href="other.html#x">other</a></article></body></html>"""


@pytest.fixture
def joined(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "index.html").write_text(ONE)
    (tmp_path / "book" / "two.html").write_text(TWO)
    text = tool.join(tmp_path, ["index.html", "book/two.html"], "../html/", SITE)
    return bs4.BeautifulSoup(text, "html.parser")


def test_links_lead_to_the_page_inside_and_only_else_out(joined):
    found = {link.get_text(): link["href"] for link in joined.select("a")}
    assert found == {
        "inside": "#book-two--part", "here": "#index--t", "page": "#book-two", "up": "#index",
        "outside": f"{SITE}search.html", "other": f"{SITE}book/other.html#x",
        "elsewhere": "https://example.com/",
    }  # fmt: skip
    ids = [element["id"] for element in joined.select("[id]")]
    assert len(set(ids)) == len(ids)
    assert all(link[1:] in ids for link in found.values() if link.startswith("#"))
    assert joined.select_one("p[aria-labelledby]")["aria-labelledby"] == "book-two--s book-two--t"


def test_figures_and_styles_are_those_of_the_site(joined):
    images = [image["src"] for image in joined.select("img")]
    assert images == ["../html/_images/a.svg", "../html/_images/b.svg"]
    styles = [link["href"] for link in joined.select("link")]
    assert styles == ["../html/_static/a.css?v=1"]
    assert joined.title.get_text() == "The book"


def test_what_cannot_be_used_on_paper_is_gone_and_what_was_folded_is_open(joined):
    assert not joined.select("script, button, nav, .headerlink")
    assert all("open" in folded.attrs for folded in joined.select("details"))
    assert joined.select_one(".solution")["class"] == ["solution"]


def test_the_order_is_that_of_the_contents():
    pages = tool.order(ROOT)
    assert pages[:2] == ["index.html", "book/01-symbols-as-vectors.html"]
    assert pages[-1] == "book/references.html" and len(set(pages)) == len(pages)


def test_without_a_browser_one_learns_what_is_missing(tmp_path, monkeypatch):
    shutil.copy(ROOT / "_config.yml", tmp_path)
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").write_text(ONE)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"no Chromium here[^$]*book\.html with the browser"):
        tool.main(tmp_path, ["index.html"])
    assert (tmp_path / "_build" / "pdf" / "book.html").exists()


def test_a_browser_that_fails_is_named(tmp_path):
    with pytest.raises(SystemExit, match="false printed nothing"):
        tool.print_page(shutil.which("false"), tmp_path / "a.html", tmp_path / "a.pdf")


def test_the_whole_book_has_no_link_that_leads_nowhere(site):
    text = tool.join(site.folder, tool.order(ROOT), "../html/", SITE)
    page = bs4.BeautifulSoup(text, "html.parser")
    ids = [element["id"] for element in page.select("[id]")]
    assert len(set(ids)) == len(ids)
    lost = {link["href"] for link in page.select('a[href^="#"]') if link["href"][1:] not in ids}
    assert not lost
    for image in page.select("img"):
        assert (site.folder / image["src"].removeprefix("../html/")).exists(), image
    on_screen = [(site.folder / name).read_text(encoding="utf-8") for name in tool.order(ROOT)]
    moving = sum(html.count("widget-view+json") for html in on_screen)
    assert len(page.select(".print-only")) == moving > 5


def test_pages_are_printed_with_their_outline(chromium, site, tmp_path):
    shutil.copy(ROOT / "_config.yml", tmp_path)
    (tmp_path / "_build").mkdir()
    (tmp_path / "_build" / "html").symlink_to(site.folder)
    pages = ["index.html", "book/04-self-attention.html"]
    printed = tool.main(tmp_path, pages).read_bytes()
    assert printed.startswith(b"%PDF")
    assert b"/Outlines" in printed and b"/StructTreeRoot" in printed
    assert 10 < printed.count(b"/Type /Page\n") < 60
