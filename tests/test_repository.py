"""The files around the book agree with one another and hold nothing that should not be there."""

import ast
import contextlib
import io
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "transformer_lit"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
SITE = PROJECT["urls"]["Documentation"]
GUIDES = ["README.md", "CONTRIBUTING.md", "STYLE.md", "CHANGELOG.md"]
MODULES = sorted(PACKAGE.rglob("*.py"))

modules = pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE).with_suffix(""))
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def requirements() -> list[str]:
    """Everything the package and its extras ask for, without what they ask of themselves."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [line for lines in lists for line in lines if not line.startswith(PROJECT["name"])]


def tracked() -> list[Path]:
    """The files of this repository: those git knows, and those it would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this copy of the tree is no git repository")
    paths = [ROOT / name for name in listing.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


# ---- versions ---------------------------------------------------------------------------------


def test_conda_gets_the_requirements_of_pyproject():
    python, pip, listed = yaml.safe_load(read("environment.yml"))["dependencies"]
    assert python == f"python{PROJECT['requires-python']}" and pip == "pip"
    *wanted, itself = listed["pip"]
    assert wanted == requirements()
    assert itself == "--editable ."


def constraints() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_constraints_are_names_and_versions_and_nothing_else():
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9][\w.-]*==[0-9][0-9A-Za-z.]*", line), line
    names = [canonicalize_name(line.split("==")[0]) for line in lines]
    assert len(set(names)) == len(names)
    assert not {"pip", canonicalize_name(PROJECT["name"])} & set(names)


@pytest.mark.parametrize("line", requirements())
def test_constraints_satisfy_every_requirement(line):
    requirement = Requirement(line)
    pinned = {canonicalize_name(name): version for name, version in constraints().items()}
    version = pinned[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), version


def test_the_package_pins_nothing_that_colab_brings():
    colab = {"torch": "2.11.0", "numpy": "2.1.0", "anywidget": "0.9.0"}
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert "==" not in str(requirement.specifier), requirement
        if requirement.name in colab:
            assert requirement.specifier.contains(colab[requirement.name]), requirement
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.13")
    assert "ipywidgets" not in {Requirement(line).name for line in PROJECT["dependencies"]}


def test_the_citation_is_valid_and_of_this_version():
    tool = Path(sys.executable).parent / "check-jsonschema"
    command = [tool, "--builtin-schema", "vendor.citation-file-format", ROOT / "CITATION.cff"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == PROJECT["version"]
    assert citation["url"] == SITE


# ---- addresses and links ----------------------------------------------------------------------


def test_the_repository_has_one_address():
    assert yaml.safe_load(read("_config.yml"))["repository"]["url"] == REPOSITORY
    assert yaml.safe_load(read("CITATION.cff"))["repository-code"] == REPOSITORY
    assert f"git clone {REPOSITORY}\n" in read("README.md")
    assert f"git clone {REPOSITORY}\n" in read("index.md")


def test_every_file_that_names_the_repository_or_the_site_names_this_one():
    owner, name = REPOSITORY.split("/")[-2:]
    pattern = re.compile(rf"https://(?:github\.com/[\w.-]+/{name}|[\w.-]+\.github\.io/{name})\b")
    found = set()
    for path in tracked():
        if path.suffix in {".md", ".py", ".yml", ".toml", ".cff", ".ipynb", ".js", ".json"}:
            found |= set(pattern.findall(path.read_text(encoding="utf-8")))
    assert found <= {REPOSITORY, SITE}
    assert f"https://{owner}.github.io/{name}" == SITE


@pytest.mark.parametrize("name", [*GUIDES, "index.md"])
def test_links_inside_the_repository_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)]+)\)", read(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = ROOT / path if path else ROOT / name
        assert there.exists(), f"{name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in {title.lower().replace(" ", "-") for title in titles}, target


def test_the_readme_lists_every_chapter_with_its_source_and_its_address_in_colab():
    chapters = sorted((ROOT / "book").glob("[0-9][0-9]-*.md"))
    assert chapters
    rows = re.findall(
        r"^\| (\d\d) \| \[(.*)\]\((.*)\) \| \[.*\]\((.*)\) \|$", read("README.md"), re.M
    )
    colab = REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github")
    assert rows == [
        (
            path.name[:2],
            re.search(r"^# (.*)$", path.read_text(encoding="utf-8"), re.M)[1],
            f"book/{path.name}",
            f"{colab}/blob/main/book/{path.stem}.ipynb",
        )
        for path in chapters
    ]


def test_the_readme_has_a_line_for_every_folder():
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if path.parent != ROOT}
    assert set(re.findall(r"^\| \[(\S+)/\]\(\1\) \|", read("README.md"), re.M)) == folders


def test_the_readme_takes_no_picture_from_another_host():
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", read("README.md"))
    assert pictures
    for text, address in pictures:
        assert text.endswith("."), "the alternative text is no sentence"
        assert not re.match(r"[a-z]+:", address)
    assert "<img" not in read("README.md")


def test_the_example_of_the_readme_prints_what_it_says():
    (code,) = re.findall(r"^```python\n(.*?)^```$", read("README.md"), re.M | re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue().splitlines() == re.findall(r"^print.*  # (.*)$", code, re.M)
    assert printed.getvalue()


def test_the_readme_counts_the_words_of_the_dictionary():
    from transformer_lit.data import pronunciations

    thousands = int(re.search(r"the (\d+),000 words", read("README.md"))[1])
    assert abs(len(pronunciations.load()) / 1000 - thousands) < 1


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "index.md"])
def test_every_make_target_in_the_text_is_there(name):
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    fenced = re.findall(r"^make (?:PYTHON=\S+ )?([a-z-]+)", read(name), re.M)
    inline = re.findall(r"`make (?:PYTHON=\S+ )?([a-z-]+)", read(name))
    assert fenced + inline
    assert set(fenced + inline) <= targets


def test_make_alone_lists_the_targets():
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    names = re.findall(r"^make ([a-z-]+) +\w", listed, re.M)
    wanted = "help book pdf serve test test-notebooks colab notebooks lighthouse bench mutants"
    assert names == [*wanted.split(), "lint", "audit", "clean"]


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("no-such-python", "No no-such-python here. The book needs Python 3.11 or newer"),
        ("./old-python", "This is Python 3.9.2. The book needs 3.11 or newer"),
        (
            "./bare-python",
            "This Python has no venv. On Debian and Ubuntu: apt install python3-venv",
        ),
    ],
)
def test_make_says_which_python_it_needs(tmp_path, python, message):
    def fake(name: str, prelude: str) -> None:
        script = tmp_path / name
        script.write_text(f"#!{sys.executable}\nimport sys\n{prelude}\nexec(sys.argv[2])\n")
        script.chmod(0o755)

    fake("old-python", "sys.version_info = (3, 9, 2)\nsys.version = '3.9.2 (main)'")
    fake("bare-python", "sys.modules['ensurepip'] = None")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(read(name))
    result = subprocess.run(
        ["make", "book", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / ".venv").exists()


# ---- what should not be there -----------------------------------------------------------------

MACHINE_PATH = re.compile(r"(?<![\w.~/:-])/(?:work|root|home|Users)/[\w.-]+")


def test_no_file_holds_a_path_of_somebodys_machine():
    assert MACHINE_PATH.search("in " + "/home" + "/ada/book") is not None
    assert MACHINE_PATH.search("https://example.org/home" + "/page") is None
    found = []
    for path in tracked():
        with contextlib.suppress(UnicodeDecodeError):
            hits = MACHINE_PATH.findall(path.read_text(encoding="utf-8"))
            found += [(path.relative_to(ROOT).as_posix(), hit) for hit in hits]
    assert found == []


def unsafe_loads(code: str) -> list[str]:
    """Calls and imports that could run what a file of data says."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += {name.split(".")[0] for name in names} & {
                "pickle",
                "joblib",
                "dill",
                "marshal",
            }
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            unsafe_torch = name == "torch.load" and given.get("weights_only") != "True"
            if unsafe_torch or given.get("allow_pickle", "False") != "False":
                found.append(name)
    return found


def test_an_unsafe_load_would_be_seen():
    assert unsafe_loads("import pickle") == ["pickle"]
    assert unsafe_loads("def f():\n    from pickle import load") == ["pickle"]
    assert unsafe_loads("torch.load('x')") == ["torch.load"]
    assert unsafe_loads("torch.load('x', weights_only=False)") == ["torch.load"]
    assert unsafe_loads("torch.load('x', weights_only=True)") == []
    assert unsafe_loads("np.load('x', allow_pickle=True)") == ["np.load"]
    assert unsafe_loads("np.load('x')") == []


@modules
def test_the_package_loads_nothing_that_could_run_code(path):
    assert unsafe_loads(path.read_text(encoding="utf-8")) == []


@modules
def test_annotations_are_evaluated(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            assert "annotations" not in {alias.name for alias in node.names}, (
                "jaxtyping's shapes are not checked in strings"
            )


def silent_skips(code: str) -> list[int]:
    """Lines that skip a test, or expect it to fail, without a reason."""
    nodes = list(ast.walk(ast.parse(code)))
    explained = {
        node.func
        for node in nodes
        if isinstance(node, ast.Call)
        and (
            any(keyword.arg == "reason" for keyword in node.keywords)
            or (node.args and ast.unparse(node.func).endswith((".skip", "pytest.xfail")))
        )
    }
    return [
        node.lineno
        for node in nodes
        if isinstance(node, ast.Attribute)
        and re.fullmatch(r"pytest\.(mark\.)?(skip|skipif|xfail)", ast.unparse(node))
        and node not in explained
    ]


def test_a_silent_skip_would_be_seen():
    assert silent_skips("@pytest.mark.skip\ndef f(): pass") == [1]
    assert silent_skips("@pytest.mark.skipif(x)\ndef f(): pass") == [1]
    assert silent_skips("\npytest.skip()") == [2]
    assert silent_skips("pytestmark = pytest.mark.xfail()") == [1]
    assert silent_skips("pytest.skip('no browser here')") == []
    assert silent_skips("@pytest.mark.skipif(x, reason='slow')\ndef f(): pass") == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_no_test_is_skipped_without_a_reason(path):
    assert silent_skips(path.read_text(encoding="utf-8")) == []
