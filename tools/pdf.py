"""Print the whole book into one file: `python tools/pdf.py`, after `python tools/site.py`.

The pages of the built site are put behind one another, in the order of _toc.yml, into one page:
_build/pdf/book.html. Links between them lead inside it, what was folded is open, and where a figure
moves on the site a line says at which address. Chromium prints that into _build/pdf/book.pdf.
"""

import os
import pathlib
import posixpath
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

import bs4
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "google-chrome", "chrome")
SWITCHES = "disable-gpu disable-quic no-first-run disable-background-networking"
SWITCHES += " disable-component-update disable-sync no-pdf-header-footer"
SWITCHES += " generate-pdf-document-outline"
REFERRING = ("id", "for", "aria-labelledby", "aria-describedby", "aria-controls")


def order(root: pathlib.Path) -> list[str]:
    """The pages in the order of the table of contents, as addresses inside the site."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [str(pathlib.PurePosixPath(file).with_suffix(".html")) for file in ["index", *files]]


def anchor(page: str, fragment: str = "") -> str:
    """The id that a page, or a place in it, has in the printed book."""
    name = page.removesuffix(".html").replace("/", "-")
    return f"{name}--{fragment}" if fragment else name


def moved(address: str, page: str, pages: list[str], folder: str, site: str) -> str:
    """Where an address of a page leads from the printed book.

    A page of the book becomes a place inside, a file beside it stays a file (`folder` leads there),
    and any other page of the site gets its full address.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme or parts.netloc:
        return address
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(page), parts.path))
    target = inside if parts.path else page
    if target in pages:
        return f"#{anchor(target, parts.fragment)}"
    base = folder if target.startswith(("_images", "_static")) else site
    return base + urllib.parse.urlunsplit(parts._replace(path=inside))


def join(folder: pathlib.Path, pages: list[str], up: str, site: str) -> str:
    """The articles of these pages in one; `up` leads from it to the folder of the site."""
    parsed = {p: bs4.BeautifulSoup((folder / p).read_text("utf-8"), "html.parser") for p in pages}
    sections = []
    for page, document in parsed.items():
        article = document.article
        gone = "script, button, .headerlink, .prev-next-area, .toggle-button, form"
        for element in article.select(gone):
            element.decompose()
        for element in article.select(".toggle-hidden"):
            element["class"].remove("toggle-hidden")
        for folded in article.select("details"):
            folded["open"] = ""
        for element in article.find_all(True):
            for name in REFERRING:
                if name in element.attrs:
                    element[name] = " ".join(anchor(page, one) for one in element[name].split())
            for name in ("href", "src"):
                if name in element.attrs:
                    element[name] = moved(element[name], page, pages, up, site)
        sections.append(f'<section class="printed" id="{anchor(page)}">{article}</section>')
    head = []
    for page, document in parsed.items():
        for link in document.select("head link[rel=stylesheet], head style"):
            if link.name == "link":
                link["href"] = moved(link["href"], page, pages, up, site)
            if str(link) not in head:
                head.append(str(link))
    title = parsed[pages[0]].title.get_text(strip=True)
    return (
        f'<!doctype html>\n<html lang="en" data-theme="light" data-mode="light"><head>'
        f'<meta charset="utf-8"><title>{title}</title>{"".join(head)}</head>'
        f'<body class="whole-book"><main class="bd-main"><div class="bd-content">'
        f"{''.join(sections)}</div></main></body></html>\n"
    )


def find_browser() -> str | None:
    """The first Chromium on the path."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def print_page(browser: str, page: pathlib.Path, target: pathlib.Path) -> None:
    """Have a browser print a page into a PDF.

    Raises:
        SystemExit: the browser failed, or wrote nothing.
    """
    target.unlink(missing_ok=True)
    switches = [f"--{switch}" for switch in SWITCHES.split()]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        switches.append("--no-sandbox")  # which Chromium asks of root
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", *switches, f"--user-data-dir={profile}"]
        command += [f"--print-to-pdf={target}", page.as_uri()]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode or not target.exists():
        sys.exit(f"{browser} printed nothing:\n{result.stderr.strip()}")


def main(root: pathlib.Path = ROOT, pages: list[str] | None = None) -> pathlib.Path:
    """Join and print the pages of the built site, all of them unless some are named."""
    site = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["html"]["baseurl"]
    folder, out = root / "_build" / "html", root / "_build" / "pdf"
    out.mkdir(parents=True, exist_ok=True)
    joined, printed = out / "book.html", out / "book.pdf"
    text = join(folder, pages or order(root), "../html/", site)
    joined.write_text(text, encoding="utf-8")
    browser = find_browser()
    if browser is None:
        sys.exit(
            f"There is no Chromium here to print the book with ({', '.join(BROWSERS)}).\n"
            "On Debian and Ubuntu: apt-get install chromium\n"
            f"Or print {joined} with the browser you have."
        )
    print_page(browser, joined, printed)
    print(f"The book is in {printed} ({printed.stat().st_size / 1e6:.1f} MB)")
    return printed


if __name__ == "__main__":
    main()
