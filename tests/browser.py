"""Fixtures for tests of the built site: `site` builds and serves it, `visit` opens pages.

On a machine without Chromium the tests that visit pages are skipped, and say so; where the
variable CI is set, a missing browser is a failure.
"""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from playwright import sync_api

ROOT = pathlib.Path(__file__).resolve().parent.parent
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
SWITCHES = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
SWITCHES += " disable-component-update disable-sync"
QUIET = [f"--{switch}" for switch in SWITCHES.split()]


@dataclasses.dataclass(frozen=True)
class Site:
    """The built site: its folder, and the address under which it is served during the tests."""

    folder: pathlib.Path
    address: str


@dataclasses.dataclass
class Visit:
    """An open page (Playwright's), and what went wrong on it so far."""

    page: sync_api.Page
    own: tuple[str, ...]
    problems: list[str] = dataclasses.field(default_factory=list)
    answered: list[sync_api.Request] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        say = self.problems.append
        self.page.on("console", lambda m: say(f"console: {m.text}") if m.type == "error" else None)
        self.page.on("pageerror", lambda error: say(f"script: {error}"))
        self.page.on("requestfinished", lambda request: self.answered.append(request))
        self.page.on("requestfailed", lambda r: say(f"failed: {r.url} {r.failure}"))
        self.page.on("response", lambda r: say(f"{r.status}: {r.url}") if r.status >= 400 else None)
        self.page.on(
            "request", lambda r: None if r.url.startswith(self.own) else say(f"asks {r.url}")
        )

    def resize(self, width: int) -> None:
        """Make the window this wide and let the page settle."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")

    def overweight(self, limit: int) -> list[str]:
        """The five heaviest parts, if all that was fetched so far has more bytes than this."""
        fetched = [request for request in self.answered if request.url.startswith("http")]
        parts = {request.url: request.sizes()["responseBodySize"] for request in fetched}
        if sum(parts.values()) <= limit:
            return []
        heaviest = sorted(parts, key=parts.get, reverse=True)[:5]
        return [f"{parts[url] / 1000:.0f} kB: {url}" for url in heaviest]

    def sideways(self) -> list[str]:
        """The parts of the page that are wider than their room, so that they scroll."""
        return self.page.evaluate(
            """[...document.querySelectorAll("html, body, .bd-main, .bd-article, .explorable")]
               .filter(part => part.scrollWidth > part.clientWidth + 1)
               .map(part => `${part.localName}: ${part.scrollWidth} in ${part.clientWidth} px`)"""
        )

    def barriers(self, *rules: str) -> list[str]:
        """What axe-core finds that keeps people out, by all of its rules or by these."""
        self.page.add_script_tag(path=AXE)
        options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
        found = self.page.evaluate("options => axe.run(document, options)", options)
        return [
            f"{rule['id']}: {node['target']} {node['html'][:120]}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]


def load_tool(name="site"):
    """A module of tools/ by another name: that of tools/site.py the standard library has taken."""
    spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """The site, built if anything changed since the last time, with warnings as errors."""
    command = [sys.executable, str(ROOT / "tools" / "site.py"), "--if-stale"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        pytest.fail(f"the site was not built\n{built.stdout}{built.stderr}", pytrace=False)
    folder = ROOT / "_build" / "html"
    listening, address = load_tool().server(folder)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield Site(folder, address)
    listening.shutdown()
    listening.server_close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[sync_api.Browser]:
    """A browser for one module: while it runs, asyncio counts as running in this thread."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if found is None:
        missing = "no Chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(missing, pytrace=False) if os.environ.get("CI") else pytest.skip(missing)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: sync_api.Browser, site: Site) -> Iterator[Callable[..., Visit]]:
    """`visit("book/notation.html", theme="dark", width=390)` opens a page and returns a Visit."""
    with contextlib.ExitStack() as opened:

        def open_page(path: str = "", *, theme: str = "light", width: int = 1280) -> Visit:
            context = chromium.new_context(
                viewport={"width": width, "height": 900}, color_scheme=theme
            )
            opened.callback(context.close)
            address = path if path.startswith("file:") else site.address + path
            own = (site.address, "blob:", "data:", "file:")
            visited = Visit(context.new_page(), own)
            visited.page.goto(address)
            # What is out of sight has no text and no size before it comes near; tests look at all.
            visited.page.add_style_tag(content="* { content-visibility: visible !important }")
            visited.page.wait_for_function(
                """[...document.querySelectorAll("script[type$='widget-view+json']")].every(view =>
                   view.nextElementSibling?.matches("[data-ready], [role=alert]"))"""
            )
            visited.page.evaluate("document.fonts.ready.then(() => true)")
            return visited

        yield open_page
