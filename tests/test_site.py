import base64
import functools
import importlib.util
import io
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.error
import urllib.parse
import urllib.request

import bs4
import pytest
import yaml
from fontTools import ttLib
from sphinxcontrib import katex

from tests.browser import ROOT, load_tool
from transformer_lit.explorables import Explorable

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
LISTED = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
CHAPTERS = [pathlib.Path(file).stem for file in LISTED if file.endswith(".ipynb")]
PAGES = ["index.html", "search.html", "genindex.html", "404.html"]
PAGES += [str(pathlib.Path(file).with_suffix(".html")) for file in LISTED]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


@functools.cache
def parse(path):
    return bs4.BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def anchors(path):
    return {element["id"] for element in parse(path).select("[id]")}


@pytest.fixture
def pages(site):
    """Every page that was built, parsed."""
    built = [path for path in site.folder.rglob("*.html") if "_static" not in path.parts]
    return {path: parse(path) for path in built}


# --- the list of pages and the addresses -----------------------------------------------------


def test_every_chapter_file_is_listed():
    written = {path.stem for path in (ROOT / "book").glob("[0-9][0-9]-*.md")}
    assert written == set(CHAPTERS)
    assert sorted(CHAPTERS) == CHAPTERS
    ladder = (ROOT / "index.md").read_text().partition(":::{ladder}")[2]
    assert re.findall(r"\(book/(\d\d-[^)]*)\.ipynb\)", ladder) == CHAPTERS


def test_every_listed_page_is_built_and_no_other(site, pages):
    assert {path.relative_to(site.folder).as_posix() for path in pages} == set(PAGES)


def test_the_repository_has_one_address():
    assert CONFIG["repository"]["url"] == REPOSITORY
    for name in CHAPTERS:
        cells = json.loads((ROOT / "book" / f"{name}.ipynb").read_text())["cells"]
        set_up = next("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        assert re.findall(r"git\+(\S+?)\"?$", set_up, re.MULTILINE) == [REPOSITORY], name


def test_katex_has_one_version():
    package = json.loads((ROOT / "package.json").read_text())
    assert package["dependencies"]["katex"] == katex.katex_version


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_opens_in_colab_on_binder_and_as_a_file(site, name):
    page = parse(site.folder / "book" / f"{name}.html")
    links = {link["href"] for link in page.select(".bd-header-article a[href]")}
    path = REPOSITORY.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{path}/blob/main/book/{name}.ipynb" in links
    binder = f"https://mybinder.org/v2/gh/{path}/main?urlpath=lab/tree/book/{name}.ipynb"
    assert binder in links
    assert f"../_sources/book/{name}.ipynb" in links
    served = site.folder / "_sources" / "book" / f"{name}.ipynb"
    assert served.read_bytes() == (ROOT / "book" / f"{name}.ipynb").read_bytes()


# --- what stands in the pages ----------------------------------------------------------------


def test_every_link_within_the_site_leads_somewhere(site, pages):
    lost = []
    for path, page in pages.items():
        for element in page.select("[href], [src]"):
            address = urllib.parse.urlsplit(element.get("href") or element.get("src") or "")
            if address.scheme or address.netloc or not (address.path or address.fragment):
                continue
            inside = urllib.parse.unquote(address.path)
            if inside.startswith("/"):  # the page for missing ones is shown at any depth
                target = site.folder / inside.removeprefix("/transformer_lit/")
            else:
                target = (path.parent / inside).resolve() if inside else path
            target = target / "index.html" if target.is_dir() else target
            anchor = urllib.parse.unquote(address.fragment)
            found = target.exists() and (
                not anchor or target.suffix != ".html" or anchor in anchors(target)
            )
            if not found:
                lost.append(f"{path.relative_to(site.folder)}: {urllib.parse.urlunsplit(address)}")
    assert not lost


def test_nothing_is_loaded_from_another_host(site, pages):
    loads = "script[src], img, iframe, source, video, audio, object, link[rel~=stylesheet], "
    loads += "link[rel~=icon], link[rel~=preload], link[rel~=preconnect]"
    for path, page in pages.items():
        for element in page.select(loads):
            for name in ("src", "href", "srcset", "data"):
                assert not re.match(r"(https?:)?//", element.get(name, "")), (path, element)
    for styles in site.folder.rglob("*.css"):
        text = styles.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", text), styles


def test_figures_have_words_for_those_who_cannot_see_them(pages):
    for path, page in pages.items():
        for image in page.select("article img"):
            alt = image.get("alt", "").strip()
            assert alt and not alt.endswith((".svg", ".png")), (path, image)
        for figure in page.select("article figure"):
            assert figure.figcaption and figure.figcaption.get_text(strip=True), (path, figure)


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_are_numbered_within_their_chapter(site, name):
    page = parse(site.folder / "book" / f"{name}.html")
    numbers = [number.get_text(strip=True) for number in page.select("figcaption .caption-number")]
    assert numbers == [f"Fig. {int(name[:2])}.{i}" for i in range(1, len(numbers) + 1)]
    assert len(numbers) == len(page.select("article figure")) > 0


def test_formulas_are_rendered(pages):
    assert sum(len(page.select(".katex")) for page in pages.values()) > 10
    for path, page in pages.items():
        assert not page.select(".katex-error"), path
        prose = bs4.BeautifulSoup(str(page.article or ""), "html.parser")
        for other in prose.select("pre, code, script, style, .katex"):
            other.decompose()
        assert not re.search(r"\\[(\[]|\$\$|\$[^$\n]+\$", prose.get_text()), path


def test_every_page_says_what_it_is(pages):
    for path, page in pages.items():
        assert page.html["lang"] == "en", path
        assert page.title.get_text(strip=True), path
        assert len(page.select("meta[name=viewport]")) == 1, path


def test_no_page_has_an_id_twice(pages):
    for path, page in pages.items():
        ids = [element["id"] for element in page.select("[id]")]
        assert len(set(ids)) == len(ids), path


def test_every_page_of_the_book_has_a_card_and_plain_words_for_it(site, pages):
    address = CONFIG["html"]["baseurl"]
    for path, page in pages.items():
        if page.select_one('meta[property="og:title"]') is None:  # the index, the search, 404
            assert path.name in ("genindex.html", "search.html", "404.html"), path
            continue
        said = page.select('meta[name=description], meta[property="og:description"]')
        said += page.select('meta[property="og:title"], meta[property="og:image:alt"]')
        assert len(said) == 4, path
        for meta in said:
            assert 3 < len(meta["content"]) <= 157, (path, meta)
            assert not re.search(r"[\\$`{}*]|\]\(|&#?\w+;|</", meta["content"]), (path, meta)
        card = page.select_one('meta[property="og:image"]')["content"]
        assert card.startswith(address), path
        image = site.folder / card.removeprefix(address)
        assert image.read_bytes().startswith(b"\x89PNG"), path
        assert image.stat().st_size < 100_000, path


def test_robots_find_every_page_of_the_book(site):
    address = CONFIG["html"]["baseurl"]
    assert f"Sitemap: {address}sitemap.xml\n" in (site.folder / "robots.txt").read_text()
    listed = re.findall(r"<loc>(.*?)</loc>", (site.folder / "sitemap.xml").read_text())
    wanted = set(PAGES) - {"search.html", "genindex.html", "404.html"}
    assert sorted(listed) == sorted(address + page for page in wanted)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_first_page_shows_the_chapters_without_lines_that_miss_them(visit, width, theme):
    visited = visit("index.html", theme=theme, width=width)
    items = visited.page.locator("ul.ladder > li").all()
    assert len(items) == len(CHAPTERS)
    boxes = [item.locator(".ladder-lines").bounding_box() for item in items]
    for item, box in zip(items, boxes, strict=True):
        whole = item.bounding_box()
        assert abs(box["height"] - whole["height"]) < 1, "a gap in the lines"
        assert whole["width"] - box["width"] > 200, "no room for the words"
    for upper, lower in itertools.pairwise(boxes):
        assert abs(upper["y"] + upper["height"] - lower["y"]) < 1, "a gap between two rows"


@pytest.mark.parametrize("width", [1280, 412])
def test_nothing_jumps_when_the_first_figure_is_drawn(visit, width):
    room = visit("index.html", width=width).page.locator(".explorable-room")
    drawn = room.bounding_box()["height"]
    room.evaluate("room => room.replaceChildren()")
    assert abs(drawn - room.bounding_box()["height"]) < 8


def test_the_first_screen_has_a_figure_that_moves(visit):
    visited = visit("index.html")
    visited.page.set_viewport_size({"width": 1280, "height": 800})
    figure = visited.page.locator(".explorable")
    box = figure.bounding_box()
    assert box["y"] + box["height"] < 800
    before = figure.inner_text()
    figure.get_by_role("combobox").select_option(index=3)
    assert figure.inner_text() != before
    assert not visited.problems


def test_no_page_leaves_anything_with_the_reader(visit):
    for path in ("index.html", "book/04-self-attention.html", "book/api.html"):
        visited = visit(path)
        assert visited.page.context.cookies() == [], path


# --- from a file, and on paper ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["index.html", "book/04-self-attention.html", "book/api.html"])
def test_the_site_works_from_a_folder(site, visit, path):
    visited = visit((site.folder / path).as_uri(), theme="dark")
    page = visited.page
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    if page.locator(".explorable").count():
        assert page.locator(".explorable-view[data-ready]").count()
    if page.locator(".katex").count():
        assert page.evaluate("document.fonts.check('16px KaTeX_Main')")
    page.locator(".bd-sidebar-primary a", has_text="Embeddings").click()
    page.wait_for_url("**/book/02-embeddings.html")
    assert not visited.problems


@pytest.mark.parametrize("path", ["index.html", "book/04-self-attention.html"])
def test_on_paper_a_page_has_its_words_alone(visit, path):
    visited = visit(path, theme="dark")
    page = visited.page
    page.emulate_media(media="print")
    for gone in (".bd-sidebar", ".bd-header-article", ".prev-next-area", "footer", ".explorable",
                 "article button", ".headerlink", "summary"):  # fmt: skip
        for element in page.locator(gone).all():
            assert not element.is_visible(), gone
    for shown in (".print-only a", "details pre", ".solution p", ".dropdown pre", "figure img"):
        for element in page.locator(shown).all():
            assert element.is_visible() and element.bounding_box()["height"] > 5, shown
    assert [title.is_visible() for title in page.locator("h1").all()].count(True) == 1
    assert page.locator(".print-only a").first.inner_text().endswith(path)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    visited.resize(640)  # about the width of a page of A4 between its margins
    wide = """[...document.querySelectorAll("article *")].filter(e => e.checkVisibility() &&
        !e.closest(".katex, svg") && e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => `${e.localName}.${e.className}`)"""
    assert page.evaluate(wide) == []


def test_finishing_twice_changes_nothing(site, pages):
    tool = load_tool()
    styles = parse(site.folder / "index.html").select_one("link[rel=stylesheet]")["href"]
    for path in pages:
        html = path.read_text(encoding="utf-8")
        assert "fontawesome.js" not in html
        assert tool.finish(html, styles.removeprefix("_static/")) == html, path


def test_rules_for_classes_that_no_page_names_are_dropped():
    sheet = """.here, ul.gone > li, a { color: red }
        .gone { color: blue } a:is(.here, .gone) { top: 0 } b:not(.gone) { left: 0 }
        @media print { .gone { color: blue } }
        @media screen { .here.gone, i.here { color: red } }
        @font-face { font-family: gone }"""
    tool = load_tool()
    kept = tool.used(tool.tinycss2.parse_stylesheet(sheet), {"here"})
    assert re.sub(r"\s", "", kept) == (
        ".here,a{color:red}a:is(.here,.gone){top:0}b:not(.gone){left:0}"
        "@mediascreen{i.here{color:red}}@font-face{font-family:gone}"
    )


def test_a_stylesheet_brings_along_what_it_imports(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.css").write_text('@import "../two.css";\nb { src: url(f.woff2) }')
    (tmp_path / "two.css").write_text("i { src: url('g.png'), url(data:x) }")
    text = load_tool().read_styles(tmp_path / "a" / "one.css", tmp_path)
    assert text == "i { src: url(g.png), url(data:x) }\nb { src: url(a/f.woff2) }"


def test_a_page_waits_for_one_stylesheet_and_no_script_but_a_short_one(site, pages):
    for path, page in pages.items():
        assert len(page.select("head > link[rel=stylesheet]")) == 1, path
        waits = [script["src"] for script in page.select("script[src]:not([defer], [type=module])")]
        assert all("documentation_options.js" in address for address in waits), (path, waits)


def test_every_icon_of_the_pages_is_in_the_stylesheet(site, pages):
    styles = (site.folder / "_static" / "book.css").read_text(encoding="utf-8")
    fonts = re.findall(r"url\(data:font/woff;base64,([^)]*)\)", styles)
    drawn = set()
    for font in fonts:
        drawn.update(ttLib.TTFont(io.BytesIO(base64.b64decode(font))).getBestCmap())
    named = {name for page in pages.values() for icon in page.select("i") for name in icon["class"]}
    icons = {name for name in named if name.startswith("fa-")} - {"fa-solid", "fa-brands", "fa-lg"}
    assert len(icons) > 10
    for name in icons:
        character = re.search(rf"\.{name}\b[^{{}}]*{{(?:content|--fa):\"(.)\"", styles)
        assert character and ord(character[1]) in drawn, name


def test_a_warning_stops_the_build(site, tmp_path):
    for name in ("_config.yml", "package.json"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copytree(ROOT / "book" / "assets", tmp_path / "book" / "assets")
    shutil.copy(ROOT / "book" / "references.bib", tmp_path / "book")
    shutil.copytree(ROOT / "_build" / "static", tmp_path / "_build" / "static")
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    (tmp_path / "_toc.yml").write_text("{format: jb-book, root: index}")
    (tmp_path / "index.md").write_text("# A book\n\nA [lost](lost.md) link.\n")
    code = "import pathlib, sys\nfrom tests.browser import load_tool\n"
    code += "load_tool().build(pathlib.Path(sys.argv[1]))"
    # In a process of its own: one that Sphinx leaves behind would keep a browser from closing.
    command = [sys.executable, "-c", code, str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode and "not built" in built.stderr and "lost" in built.stderr


def test_a_missing_page_is_answered_by_the_sites_own(site):
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(f"{site.address}book/no-such-page.html")
    assert answer.value.code == 404
    assert b"/transformer_lit/_static/" in answer.value.read()


# --- in a browser ----------------------------------------------------------------------------

# A moment after the window has changed, the theme lets the keyboard reach what scrolls.
REACHED = """[...document.querySelectorAll(".bd-article [tabindex='-1']")].every(
    part => part.scrollWidth <= part.clientWidth)"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_page_in_browser(visit, path, theme):
    visited = visit(path, theme=theme)
    assert not visited.overweight(600_000), path
    assert visited.page.evaluate("document.documentElement.dataset.theme") == theme
    for width in (1280, 390):
        visited.resize(width)
        visited.page.wait_for_function(REACHED)
        assert not visited.sideways(), width
        assert not visited.barriers(), width
    assert not visited.problems


def test_the_search_finds_a_word_of_the_book(visit):
    visited = visit("search.html?q=softmax")
    visited.page.wait_for_selector("#search-results li a")
    assert not visited.problems


# --- explorables on a page without a kernel --------------------------------------------------

COUNTER_PY = """
import traitlets
from transformer_lit.explorables import Explorable

class Counter(Explorable):
    count = traitlets.Int(3).tag(sync=True)
"""
COUNTER_JS = """
function render({ model, el }) {
  const button = document.createElement("button");
  const show = () => { button.textContent = `count: ${model.get("count")}`; };
  button.addEventListener("click", () => {
    model.set("count", model.get("count") + 1);
    model.save_changes();
    if (model.get("count") === 7) model.off("change:count", show);
  });
  model.on("change:count", show);
  show();
  el.classList.add("explorable");
  el.append(button);
}
export default { initialize({ model }) { model.set("count", model.get("count") + 1); }, render };
"""


@pytest.fixture
def counter(tmp_path, monkeypatch):
    """A small explorable of two files, as chapters have them."""
    (tmp_path / "counter.py").write_text(COUNTER_PY)
    (tmp_path / "counter.js").write_text(COUNTER_JS)
    spec = importlib.util.spec_from_file_location("counter", tmp_path / "counter.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "counter", module)
    spec.loader.exec_module(module)
    return module.Counter


def saved_page(tmp_path, widgets, views):
    """A page as myst-nb writes it, opened from a file."""
    state = {
        name: {"model_module": "anywidget", "model_name": "AnyModel", "state": widget}
        for name, widget in widgets.items()
    }
    shutil.copy(ROOT / "book" / "assets" / "explorables.js", tmp_path)
    kind = "application/vnd.jupyter.widget"
    document = ["<!doctype html><html lang='en'><head><title>Saved</title>"]
    saved = json.dumps({"state": state, "version_major": 2})
    document += [f"<script type='{kind}-state+json'>{saved}</script>"]
    document += ["<script defer src='explorables.js'></script></head><body>"]
    for name in views:
        view = json.dumps({"model_id": name, "version_major": 2})
        document += [f"<div><script type='{kind}-view+json'>{view}</script></div>"]
    (tmp_path / "saved.html").write_text("\n".join(document))
    return (tmp_path / "saved.html").as_uri()


def test_saved_views_share_their_state(visit, tmp_path, counter):
    address = saved_page(tmp_path, {"a": counter(count=4).get_state()}, ["a", "a"])
    visited = visit(address)
    first, second = visited.page.get_by_role("button").all()
    assert first.inner_text() == second.inner_text() == "count: 5"  # initialised once
    first.click()
    assert first.inner_text() == second.inner_text() == "count: 6"
    second.press("Enter")
    assert second.inner_text() == "count: 7"
    second.click()  # it switched its own listener off
    assert (first.inner_text(), second.inner_text()) == ("count: 8", "count: 7")
    assert visited.page.locator("style[data-explorable]").count() == 1
    assert not visited.problems


def test_a_broken_explorable_says_so_and_spares_the_others(visit, tmp_path, counter):
    broken = counter().get_state() | {"_esm": "export default { render() { throw Error('no') } }"}
    widgets = {"a": counter().get_state(), "b": broken}
    visited = visit(saved_page(tmp_path, widgets, ["b", "lost", "a"]))
    said = [alert.inner_text() for alert in visited.page.get_by_role("alert").all()]
    assert said == [
        "This figure could not be drawn: no",
        "This figure could not be drawn: no saved explorable with the id lost",
    ]
    assert visited.page.get_by_role("button").inner_text() == "count: 4"


def test_an_explorable_is_saved_the_same_every_time(counter):
    assert repr(counter()) == "Counter()"
    assert "--query" in counter().get_state()["_css"]


def test_an_explorable_without_its_script_is_refused():
    with pytest.raises(ValueError, match=r"Lonely needs its script in .*test_site\.js"):
        type("Lonely", (Explorable,), {"__module__": __name__})
