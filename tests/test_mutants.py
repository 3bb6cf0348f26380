"""What is known of the mutants of the floors: tests/mutants.md, and tools/mutants.py, its tool."""

import ast
import tomllib

import pytest
import torch

from tests.browser import ROOT, load_tool
from transformer_lit import LADDER

tool = load_tool("mutants")

FLOORS = LADDER[:16]
TEXT = (ROOT / "tests" / "mutants.md").read_text(encoding="utf-8")
REPORT = tool.read(TEXT)
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]

floors = pytest.mark.parametrize("name", FLOORS)
A = tool.Survivor("Window.forward", "if width < 1:", "if width <= 1:", "Both refuse it.")
B = tool.Survivor("windows", "return x or y", "return x and y")


def test_the_floors_of_the_first_sixteen_chapters_are_mutated_and_their_tests_run():
    assert SETTINGS["only_mutate"] == [f"transformer_lit/{name}.py" for name in FLOORS]
    tests = SETTINGS["pytest_add_cli_args_test_selection"]
    assert tests == [*(f"tests/test_{name}.py" for name in FLOORS), tool.BAD_INPUT]
    assert tuple(REPORT) == FLOORS


@floors
def test_nine_of_ten_mutants_are_killed_and_each_other_is_explained(name):
    assert tool.complaints({name: REPORT[name]}) == []


@floors
def test_the_survivors_are_those_of_the_code_as_it_stands(name):
    """A line that was changed since needs a new `make mutants ONLY=...`."""
    code = (ROOT / "transformer_lit" / f"{name}.py").read_text(encoding="utf-8")
    defined = {getattr(node, "name", None) for node in ast.walk(ast.parse(code))}
    for survivor in REPORT[name].survivors:
        assert " ".join(survivor.before.split()) in " ".join(code.split()), survivor
        assert defined.issuperset(survivor.place.split(".")), survivor


def test_the_report_is_as_the_tool_writes_it():
    assert tool.write(REPORT) == TEXT


def test_a_report_by_hand():
    report = {"window": tool.Floor(40, (A, B)), "masking": tool.Floor(7, ())}
    text = tool.write(report)
    assert "| `window` | 40 | 38 | 2 | 95.0 % |\n| `masking` | 7 | 7 | 0 | 100.0 % |\n" in text
    assert "\n\n## `window`\n\n- `Window.forward`: `if width < 1:` → `if width <= 1:`. Both" in text
    assert "## `masking`" not in text
    assert tool.read(text) == report


def test_a_sentence_is_kept_while_its_mutant_survives():
    found = [tool.Survivor(s.place, s.before, s.after) for s in (B, A)]
    assert tool.explained(found, [A]) == (B, A)


def test_a_floor_below_nine_in_ten_and_a_survivor_without_a_sentence_are_named():
    assert tool.complaints({"window": tool.Floor(10, (A,))}) == []
    few, unexplained = tool.complaints({"window": tool.Floor(19, (A, B))})
    assert few.startswith("window: 89.5% of the mutants are killed")
    assert unexplained.startswith("window: say") and "`return x and y`" in unexplained


# ---- what the tool changes about mutmut

SAMPLE = """
import contextlib
import torch

class Square:
    @property
    def area(self):
        return 3 * 3

@torch.no_grad()
def doubled(x):
    return x * 2

@contextlib.contextmanager
def open_then_closed(log):
    log.append("open")
    yield
    log.append("closed")
"""


@pytest.fixture
def mutated(monkeypatch):
    """The names of the sample's mutants, and a function that gives the sample with one of them."""
    mutation = pytest.importorskip("mutmut.mutation")
    from mutmut.mutation import file_mutation, trampoline
    from mutmut.runners.harness import PytestRunner

    for owner, name in [
        (trampoline, "record_trampoline_hit"),
        (PytestRunner, "run_tests"),
        (file_mutation, "function_trampoline_arrangement"),
        (file_mutation.MutationVisitor, "_skip_node_and_children"),
    ]:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # to be put back afterwards
    monkeypatch.setattr("jaxtyping.install_import_hook", lambda *_: None)
    tool.prepare_mutmut()
    made = mutation.file_mutation.mutate_file_contents("sample.py", SAMPLE)

    def sample(name: str) -> dict:
        monkeypatch.setenv("MUTANT_UNDER_TEST", name and f"sample.{name}")
        space = {"__name__": "sample"}
        exec(made.code, space)
        return space

    return made.mutant_names, sample


def results(space: dict) -> list:
    log, x = [], torch.tensor(5.0, requires_grad=True)
    try:
        with space["open_then_closed"](log):
            log.append("inside")
        y = space["doubled"](x)
        return [space["Square"]().area, y.item(), y.requires_grad, *log]
    except (AttributeError, TypeError) as error:
        return [str(error)]


def test_what_stands_below_a_decorator_is_mutated_too(mutated):
    names, sample = mutated
    right = [9, 10.0, False, "open", "inside", "closed"]
    assert results(sample("")) == right
    functions = {name.partition("__mutmut")[0] for name in names}
    assert functions == {"xǁSquareǁarea", "x_doubled", "x_open_then_closed"}
    for name in names:
        assert results(sample(name)) != right, name


def test_only_the_tests_of_its_own_floor_count(mutated, monkeypatch):
    from mutmut.mutation import trampoline
    from mutmut.state import MutmutState

    state, counted = MutmutState(), []
    monkeypatch.setattr("mutmut.stats.state", lambda: state)
    tests = [f"tests/test_{floor}.py::test_x" for floor in ("window", "encoder", "encoder_decoder")]
    tests += [f"{tool.BAD_INPUT}[{floor}.f]" for floor in ("encoder", "encoder_decoder")]
    for test in tests:
        monkeypatch.setenv("PYTEST_CURRENT_TEST", f"{test} (call)")
        trampoline.record_trampoline_hit("transformer_lit.encoder.x_f")
        counted.append(len(state._stats))
        state._stats.clear()
    assert counted == [0, 1, 0, 1, 0]
