"""Hold pages of the built site to Lighthouse's scores.

    python tools/lighthouse.py             the first page and every chapter, three times each
    python tools/lighthouse.py index 04    these pages
    python tools/lighthouse.py --runs 1    each page once

Lighthouse comes from npm, into _build/lighthouse, and the browser is the Chromium of this machine.
It loads a page as a phone would, which is its default: a processor four times slower than this
one, 1.6 Mbit/s, 150 ms there and back. The pages come from `make serve`'s server, which is like the
site's host in what the scores depend on: the path of the site, text compressed with gzip,
connections kept. It is unlike it in one thing, which costs points if anything: the host speaks
HTTP/2.

Printed is a table in Markdown with the medians of all runs. When a page is below one of `TARGETS`,
the exit status is 1, and the audits that took the points are named. The reports lie in
_build/lighthouse/reports. On a machine that is busy with other things the first score is too low.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = "13.5.0"
TARGETS = {"performance": 95, "accessibility": 100, "best-practices": 100, "seo": 100}
METRICS = {
    "LCP (s)": ("largest-contentful-paint", 1000),
    "TBT (ms)": ("total-blocking-time", 1),
    "CLS": ("cumulative-layout-shift", 1),
    "weight (kB)": ("total-byte-weight", 1000),
}
BROWSERS = ("chromium", "google-chrome", "chrome")
SWITCHES = "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-sync"
SWITCHES += " disable-background-networking disable-component-update"


def load_site_tool() -> object:
    """tools/site.py, by a name that the standard library has not taken."""
    path = pathlib.Path(__file__).parent / "site.py"
    spec = importlib.util.spec_from_file_location("site_tool", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def install(folder: pathlib.Path, node: pathlib.Path, npm: pathlib.Path) -> pathlib.Path:
    """Have npm fetch Lighthouse unless it is there, and return its command."""
    package = folder / "node_modules" / "lighthouse"
    manifest = package / "package.json"
    if not manifest.exists() or json.loads(manifest.read_text())["version"] != VERSION:
        print(f"Fetching Lighthouse {VERSION} with npm", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        wanted = ["--prefix", folder, f"lighthouse@{VERSION}"]
        subprocess.run([node, npm, "install", *quiet, *wanted], check=True)
    return package / "cli" / "index.js"


def choose(folder: pathlib.Path, wanted: list[str]) -> list[str]:
    """The pages to load: those whose names begin so, or the first one and every chapter.

    Raises:
        SystemExit: no page has such a name.
    """
    built = {path.stem: path.relative_to(folder).as_posix() for path in folder.glob("book/*.html")}
    built = {"index": "index.html"} | dict(sorted(built.items()))
    if not wanted:
        return [page for name, page in built.items() if name == "index" or name[:2].isdigit()]
    chosen = []
    for name in wanted:
        found = [page for stem, page in built.items() if stem.startswith(name)]
        if not found:
            sys.exit(f"No page begins with {name!r}. There are: {', '.join(built)}")
        chosen += found
    return chosen


def report(command: list[object], address: str, base: pathlib.Path) -> dict:
    """Load a page once and return Lighthouse's report.

    Raises:
        SystemExit: Lighthouse failed, or could not load the page.
    """
    switches = " ".join(f"--{switch}" for switch in SWITCHES.split())
    asked = [f"--chrome-flags={switches}", f"--only-categories={','.join(TARGETS)}"]
    asked += ["--output=json", "--output=html", f"--output-path={base}"]
    asked += ["--quiet", "--no-enable-error-reporting"]
    ran = subprocess.run([*command, address, *asked], capture_output=True, text=True)
    written = base.with_name(f"{base.name}.report.json")
    if ran.returncode or not written.exists():
        sys.exit(f"Lighthouse failed on {address}:\n{ran.stdout}{ran.stderr}")
    return json.loads(written.read_text(encoding="utf-8"))


def score(run: dict, category: str) -> int:
    """A category's score from 0 to 100, as Lighthouse prints it."""
    return round(100 * (run["categories"][category]["score"] or 0))


def medians(runs: list[dict]) -> list[str]:
    """The cells of a page's row: its scores, then its metrics."""
    cells = [str(statistics.median_low(score(run, name) for run in runs)) for name in TARGETS]
    for audit, unit in METRICS.values():
        values = [run["audits"][audit]["numericValue"] / unit for run in runs]
        cells.append(f"{statistics.median(values):.3g}")
    return cells


def shortfalls(runs: list[dict]) -> list[str]:
    """Each category whose median is below its target, with the audits that took the points."""
    said = []
    for category, target in TARGETS.items():
        middle = sorted(runs, key=lambda run: score(run, category))[(len(runs) - 1) // 2]
        if score(middle, category) >= target:
            continue
        listed = [audit["id"] for audit in middle["categories"][category]["auditRefs"]]
        audits = [middle["audits"][name] for name in listed]
        lost = [audit for audit in audits if audit["score"] is not None and audit["score"] < 0.9]
        names = [f"{audit['id']} ({audit.get('displayValue') or audit['title']})" for audit in lost]
        said.append(f"{category} {score(middle, category)} < {target}: {', '.join(names)}")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="as a page's name begins: 04")
    parser.add_argument("--runs", type=int, default=3, help="how often each page is loaded")
    arguments = parser.parse_args()
    tool = load_site_tool()
    folder, work = ROOT / "_build" / "html", ROOT / "_build" / "lighthouse"
    pages = choose(folder, arguments.pages)
    command = [tool.NODE, install(work, tool.NODE, tool.NPM)]
    browser = os.environ.get("CHROME_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(
            f"There is no Chromium here for Lighthouse ({', '.join(BROWSERS)}).\n"
            "On Debian and Ubuntu: apt-get install chromium\nOr name yours in CHROME_PATH."
        )
    os.environ["CHROME_PATH"] = browser
    reports = work / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    listening, address = tool.server(folder)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    heads = ["page", *TARGETS, *METRICS]
    print(f"| {' | '.join(heads)} |\n|---|{'--:|' * (len(heads) - 1)}", flush=True)
    short = []
    for page in pages:
        name = pathlib.PurePosixPath(page).stem
        bases = [reports / f"{name}-{i}" for i in range(1, arguments.runs + 1)]
        runs = [report(command, address + page, base) for base in bases]
        print(f"| {' | '.join([name, *medians(runs)])} |", flush=True)
        short += [f"{name}: {line}" for line in shortfalls(runs)]
    listening.shutdown()
    if short:
        sys.exit("\n" + "\n".join(short))


if __name__ == "__main__":
    main()
