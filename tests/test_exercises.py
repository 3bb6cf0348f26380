"""Each exercise of each chapter: the stub is not yet, right answers pass, mistakes get their hints.

The exercises are found in the notebooks, their checks in `transformer_lit.exercises`, the answers
in `tests.exercises`.
"""

import ast
import inspect
import pkgutil
import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import nbformat
import pytest

from transformer_lit import exercises

BOOK = Path(__file__).parent.parent / "book"
CHAPTERS = sorted(path.stem for path in BOOK.glob("[0-9]*.ipynb"))
FLOORS = [module.name for module in pkgutil.iter_modules(exercises.__path__)]


def checks(floor):
    """The public functions of a module of checks, by name."""
    module = import_module(f"transformer_lit.exercises.{floor}")
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


CHECKS = {f"{floor}.{name}": check for floor in FLOORS for name, check in checks(floor).items()}


def answers(kind):
    """Checks and the answers of one kind, RIGHT or WRONG, that are kept for them."""
    there = {}
    for floor in FLOORS:
        there |= getattr(import_module(f"tests.exercises.{floor}"), kind)
    return there


RIGHT, WRONG = answers("RIGHT"), answers("WRONG")


def cases(kept):
    """A test case for each answer, named after its check."""
    return [
        pytest.param(CHECKS[name], answer, id=f"{name}-{number}")
        for name in CHECKS
        for number, answer in enumerate(kept.get(CHECKS[name], []))
    ]


every_check = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)


@pytest.mark.parametrize(("check", "answer"), cases(RIGHT))
def test_a_right_answer_passes(check, answer):
    verdict = check(answer)
    assert verdict and str(verdict) == "Correct."


@pytest.mark.parametrize(("check", "answer"), cases(WRONG))
def test_a_wrong_answer_gets_the_hint_that_names_the_mistake(check, answer):
    answer, hint = answer
    verdict = check(answer)
    assert not verdict
    assert str(verdict).startswith("Not quite: ") and hint in str(verdict)


@every_check
def test_a_right_answer_and_three_mistakes_are_kept_for_each_check(check):
    assert len(RIGHT.get(check, [])) >= 1
    assert len({hint for _, hint in WRONG.get(check, [])}) >= 3


# ---- in the chapters --------------------------------------------------------------------------

MARKER = re.compile(r"^:::\{(exercise|solution)-(start|end)\} *(?:.*\n:label: *)?(\S*)", re.M)


def code_exercises():
    """Chapter, label, code cells before the solution, code cells of the solution.

    Exercises without code, such as proofs, are left out.
    """
    for chapter in CHAPTERS:
        cells = {}
        where = None
        for cell in nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells:
            if cell.cell_type == "code" and where:
                cells.setdefault(where, []).append(cell)
            elif cell.cell_type == "markdown":
                for kind, end, label in MARKER.findall(cell.source):
                    where = (kind, label) if end == "start" else None
        for kind, label in cells:
            if kind == "exercise":
                yield chapter, label, cells[kind, label], cells.get(("solution", label), [])


EXERCISES = list(code_exercises())
every_exercise = pytest.mark.parametrize(
    ("chapter", "label", "stub", "solution"), EXERCISES, ids=[label for _, label, *_ in EXERCISES]
)


def floor_of(chapter):
    [floor] = set(
        re.findall(
            r"^from transformer_lit\.exercises import (\w+) as check$",
            "\n".join(
                cell.source for cell in nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells
            ),
            re.M,
        )
    )
    return floor


def check_of(chapter, stub):
    """Name of the check that is called in the last line of a stub."""
    [cell] = stub
    called = re.fullmatch(r"check\.(\w+)\(\w+\)", cell.source.splitlines()[-1])
    assert called, f"the stub does not end in a check: {cell.source}"
    return f"{floor_of(chapter)}.{called[1]}"


def shown(cell):
    return [output.data.get("text/plain", "") for output in cell.outputs if "data" in output]


def test_every_check_belongs_to_one_exercise_and_every_exercise_has_its_check():
    used = Counter(check_of(chapter, stub) for chapter, _, stub, _ in EXERCISES)
    assert used == Counter(CHECKS.keys())
    assert {chapter for chapter, *_ in EXERCISES} == set(CHAPTERS)


@every_exercise
def test_the_stub_is_not_yet(chapter, label, stub, solution):
    name = check_of(chapter, stub)
    floor = name.split(".")[0]
    names = vars(import_module(f"transformer_lit.{floor}")) | {
        "check": import_module(f"transformer_lit.exercises.{floor}")
    }
    *lines, last = ast.parse(stub[0].source).body
    exec(compile(ast.Module(lines, []), label, "exec"), names)
    verdict = eval(compile(ast.Expression(last.value), label, "eval"), names)
    assert not verdict and str(verdict).startswith("Not yet: ")
    assert shown(stub[0])[-1].startswith("Not yet: "), "the reader sees another verdict"


@every_exercise
def test_the_solution_was_executed_and_passed(chapter, label, stub, solution):
    [cell] = solution
    name = check_of(chapter, stub).split(".")[1]
    assert f"check.{name}(" in cell.source and re.search(r"^assert ", cell.source, re.M)
    asserted = f"assert check.{name}(" in cell.source
    assert asserted or shown(cell)[-1:] == ["Correct."]
    assert cell.execution_count and all(output.output_type != "error" for output in cell.outputs)


# ---- verdicts ---------------------------------------------------------------------------------


@exercises.exercise
def two(answer):
    """Check for the number 2, or a function that returns it."""
    found = answer() if callable(answer) else answer
    if float(found) != 2:
        raise exercises.Mistake(f"it is two, got {found}.")


def raising(error):
    def answer():
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (2, "Correct."),
        (lambda: 2, "Correct."),
        (3, "Not quite: it is two, got 3."),
        (..., "Not yet: fill in the answer and run the cell again."),
        (None, "Not yet: fill in the answer and run the cell again."),
        (lambda: None, "Not yet: let the function return the answer and run the cell again."),
        (lambda: ..., "Not yet: let the function return the answer and run the cell again."),
        (
            raising(NotImplementedError),
            "Not yet: let the function return the answer and run the cell again.",
        ),
        (raising(KeyError("k")), "Not quite: your answer raised KeyError: 'k'"),
        (
            lambda: "two",
            "Not quite: your answer cannot be checked. "
            "ValueError: could not convert string to float: 'two'",
        ),
    ],
)
def test_a_verdict_says_whose_fault_it_is(answer, message):
    verdict = two(answer)
    assert str(verdict) == message and bool(verdict) == (message == "Correct.")
