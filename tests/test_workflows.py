"""The GitHub workflows: valid, free of known weaknesses, and about the same things as the book."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
CI_SCRIPT = ROOT / ".ci" / "run"

workflows = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a tool of this environment, its output joined."""
    command = [Path(sys.executable).parent / tool, *map(str, arguments)]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def load(path: Path) -> dict:
    """A workflow. YAML 1.1 reads its key `on` as true."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def test_there_are_three():
    assert [path.stem for path in WORKFLOWS] == ["ci", "colab", "pages"]


@pytest.mark.parametrize(
    "schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"]
)
def test_they_fit_their_schema(schema):
    result = run("check-jsonschema", "--builtin-schema", schema, *WORKFLOWS)
    assert result.returncode == 0, result.stdout


def test_a_broken_workflow_does_not_fit(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    result = run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", broken)
    assert result.returncode == 1


def test_zizmor_finds_nothing():
    result = run("zizmor", "--offline", "--pedantic", "--no-progress", WORKFLOWS[0].parent)
    assert result.returncode == 0, result.stdout


def test_zizmor_would_find_a_template_injection(tmp_path):
    broken = tmp_path / ".github" / "workflows" / "broken.yml"
    broken.parent.mkdir(parents=True)
    text = WORKFLOWS[0].read_text()
    assert "run: .ci/run" in text
    broken.write_text(text.replace("run: .ci/run", "run: echo ${{ github.head_ref }}"))
    result = run("zizmor", "--offline", "--no-progress", broken)
    assert result.returncode != 0 and "template-injection" in result.stdout


@workflows
def test_actions_are_pinned_by_commit_with_their_version_beside_it(path):
    lines = re.findall(r"uses: *(.*)", path.read_text(encoding="utf-8"))
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_is_of_one_commit_everywhere():
    pins = {}
    for path in WORKFLOWS:
        for step in steps(load(path)):
            if "uses" in step:
                name, commit = step["uses"].split("@")
                assert pins.setdefault(name, commit) == commit, name


@workflows
def test_rights_are_the_least(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    more = {
        name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job
    }
    assert (
        more
        == {
            "ci": {},
            "colab": {"report": {"actions": "read", "issues": "write"}},
            "pages": {"deploy": {"pages": "write", "id-token": "write"}},
        }[path.stem]
    )
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_ci_covers_every_python_from_the_oldest_allowed():
    jobs = load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    strict = [step["with"]["python-version"] for step in steps({"jobs": {"": jobs["strict"]}})[1:2]]
    assert strict + jobs["newest"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={strict[0]}"
    assert jobs["strict"]["steps"][-1]["run"] == ".ci/run"
    assert jobs["newest"]["steps"][-1]["run"] == "make test LAX=1"
    assert jobs["audit"]["steps"][-1]["run"] == "make audit"


def test_the_script_of_ci_can_be_run_and_runs_the_three_commands():
    assert os.access(CI_SCRIPT, os.X_OK)
    text = CI_SCRIPT.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text and "CI=true" in text
    assert re.findall(r"^make (\w+)", text, flags=re.MULTILINE) == ["book", "test", "colab"]
    subprocess.run(["bash", "-n", CI_SCRIPT], check=True)


def test_colab_runs_every_chapter_alone_in_an_empty_folder(tmp_path):
    jobs = load(ROOT / ".github" / "workflows" / "colab.yml")["jobs"]
    assert (
        jobs["run"]["container"]["image"] == "us-docker.pkg.dev/colab-images/public/runtime:latest"
    )
    script = jobs["run"]["steps"][-1]["run"]

    # The script itself, with an nbconvert that only says what it was given.
    fake = tmp_path / "bin" / "jupyter"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$PWD: $(ls): $*"\n')
    fake.chmod(0o755)
    book = tmp_path / "repository" / "book"
    book.mkdir(parents=True)
    for name in ("04-self-attention.ipynb", "05-many-heads.ipynb"):
        (book / name).write_text("{}")
    environment = {
        "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}",
        "NOTEBOOK": "04-self-attention.ipynb",
        "TMPDIR": str(tmp_path),
    }
    result = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder, files, arguments = result.stdout.strip().split(": ")
    assert Path(folder).parent == tmp_path
    assert files == "04-self-attention.ipynb", "not alone"
    assert "--execute" in arguments and arguments.endswith(" 04-self-attention.ipynb")


def test_a_failure_in_colab_opens_an_issue():
    report = load(ROOT / ".github" / "workflows" / "colab.yml")["jobs"]["report"]
    assert report["if"] == "failure()" and report["needs"] == "run"
    assert "gh issue create" in report["steps"][-1]["run"]
