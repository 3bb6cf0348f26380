"""Break the floors of the ladder in one place at a time, and see whether their tests notice.

    python tools/mutants.py              the mutants without a verdict, and those that survived
    python tools/mutants.py window       all mutants of this floor

A mutant is the code with one thing changed: a `<` that is `<=`, an argument left out. It is killed
when a test of its own floor fails: for `window` one of `tests/test_window.py`, or a row of `window`
in the table of bad input. Otherwise it survived.

The tool is mutmut, whose settings stand in pyproject.toml. What it made and found so far lies in
`mutants/`: a run that was stopped goes on from there, and `mutmut browse` shows it.

The result is `tests/mutants.md`. Behind each survivor stands a sentence, written by hand, that says
why no test can or should kill it. The exit status is 1 if one has none, or if a floor has less than
90 % of its mutants killed.
"""

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "tests" / "mutants.md"
STATS = ROOT / "mutants" / "mutmut-stats.json"
ENOUGH = 0.9
UNEXPLAINED = "?"
KILLED = {"killed", "timeout"}
BAD_INPUT = "tests/test_bad_input.py::test_bad_input_is_refused_by_name"

INTRODUCTION = """\
# Mutants

`make mutants` changes the floors of chapters 01 to 16 in one place at a time, with
[mutmut](https://mutmut.readthedocs.io), and runs the tests of the floor: for `window` those of
`tests/test_window.py`, its rows in `tests/test_bad_input.py`, and no other. A mutant is killed when
one of them fails. Left out are the messages of errors, annotations, and what stands outside of
functions. The tool writes this page; only the sentence behind each survivor is written by hand.
"""
ROW = re.compile(r"\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \| [\d.]+ % \|")
SURVIVOR = re.compile(r"- `([\w.]+)`: `(.*?)` → `(.*?)`\. (.+)")


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test noticed: the function it is in, the line before and after, and why."""

    place: str
    before: str
    after: str
    why: str = UNEXPLAINED

    def __str__(self) -> str:
        return f"- `{self.place}`: `{self.before}` → `{self.after}`. {self.why}"


@dataclass(frozen=True)
class Floor:
    """How many mutants a floor has, and which of them survived."""

    mutants: int
    survivors: tuple[Survivor, ...]

    @property
    def share(self) -> float:
        """The part of the mutants that was killed."""
        return 1 - len(self.survivors) / self.mutants


def read(text: str) -> dict[str, Floor]:
    """Read a report, the inverse of `write`."""
    survivors: dict[str, list[Survivor]] = {}
    for line in text.splitlines():
        if line.startswith("## "):
            found = survivors.setdefault(line.strip("#` "), [])
        elif match := SURVIVOR.fullmatch(line):
            found.append(Survivor(*match.groups()))
    return {
        name: Floor(int(mutants), tuple(survivors.get(name, ())))
        for name, mutants, *_ in ROW.findall(text)
    }


def write(floors: dict[str, Floor]) -> str:
    """Write the report: a table of all floors, and each floor's survivors."""
    table = ["| floor | mutants | killed | survived | share |", "|---|---|---|---|---|"]
    for name, floor in floors.items():
        lived = len(floor.survivors)
        counts = f"{floor.mutants} | {floor.mutants - lived} | {lived} | {floor.share:.1%}"
        table.append(f"| `{name}` | {counts.replace('%', ' %')} |")
    lists = [
        "\n".join([f"\n## `{name}`\n", *map(str, floor.survivors)])
        for name, floor in floors.items()
        if floor.survivors
    ]
    return "\n".join([INTRODUCTION, *table, *lists]) + "\n"


def explained(found: Iterable[Survivor], old: Iterable[Survivor]) -> tuple[Survivor, ...]:
    """Give the survivors that were found the sentences of a report written before."""
    why = {(s.place, s.before, s.after): s.why for s in old}
    return tuple(
        Survivor(s.place, s.before, s.after, why.get((s.place, s.before, s.after), UNEXPLAINED))
        for s in found
    )


def complaints(floors: dict[str, Floor]) -> list[str]:
    """Name what is wrong with a report."""
    wrong = [
        f"{name}: {floor.share:.1%} of the mutants are killed, {ENOUGH:.0%} are asked for"
        for name, floor in floors.items()
        if floor.share < ENOUGH
    ]
    return wrong + [
        f"{name}: say in tests/mutants.md why this one survived: {survivor}"
        for name, floor in floors.items()
        for survivor in floor.survivors
        if survivor.why == UNEXPLAINED
    ]


# ---- mutmut, and what it does differently here


def prepare_mutmut() -> None:
    """Let only a floor's own tests count, quick ones first, and mutate decorated functions too."""
    import libcst as cst
    from jaxtyping import install_import_hook
    from mutmut.mutation import file_mutation, trampoline
    from mutmut.runners.harness import BadTestExecutionCommandsException, PytestRunner
    from mutmut.state import state

    # pytest's --jaxtyping-packages refuses to be given twice in one process.
    install_import_hook("transformer_lit", "beartype.beartype")

    record = trampoline.record_trampoline_hit
    run_tests = PytestRunner.run_tests
    skips = file_mutation.MutationVisitor._skip_node_and_children
    arrange = file_mutation.function_trampoline_arrangement

    def record_own(name: str, caller: str | None = None) -> None:
        floor = name.split(".")[1]
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        if test.startswith((f"tests/test_{floor}.py::", BAD_INPUT + f"[{floor}.")):
            record(name, caller)

    def run_quick_first(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        tests = sorted(tests, key=lambda test: state().duration_by_test[test])
        try:
            return run_tests(self, mutant_name=mutant_name, tests=tests)
        except BadTestExecutionCommandsException:
            return 4  # suspicious; raised, it would count as a timeout, and so as killed

    def wraps_plainly(node: cst.CSTNode) -> bool:
        if not isinstance(node, cst.FunctionDef) or not node.decorators:
            return False
        names = {getattr(decorator.decorator, "value", None) for decorator in node.decorators}
        return not names & {"classmethod", "staticmethod"}  # mutmut itself copes with these two

    def skips_no_decorator(self, node: cst.CSTNode) -> bool:
        return skips(self, node.with_changes(decorators=[]) if wraps_plainly(node) else node)

    def arrange_below_decorators(function: cst.FunctionDef, *rest, **named):
        if not wraps_plainly(function):
            return arrange(function, *rest, **named)
        bare = function.with_changes(decorators=[])
        declared, (switch, *copies), assigned, names = arrange(bare, *rest, **named)
        switch = switch.with_changes(decorators=[*function.decorators, *switch.decorators])
        return declared, [switch, *copies], assigned, names

    trampoline.record_trampoline_hit = record_own
    PytestRunner.run_tests = run_quick_first
    file_mutation.MutationVisitor._skip_node_and_children = skips_no_decorator
    file_mutation.function_trampoline_arrangement = arrange_below_decorators


def verdicts(path: Path) -> dict[str, str]:
    """The verdict of each mutant of a file; those not tested yet have ``not checked``."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.stats import status_by_exit_code

    data = SourceFileMutationData(path=path)
    data.load()
    return {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items()}


def survivor(name: str, path: Path) -> Survivor:
    """Describe a mutant by the lines that mutmut's diff takes away and adds."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.utils.format_utils import orig_function_and_class_names_from_key

    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    before, after = (" ".join(ln[1:].strip() for ln in lines if ln[0] == sign) for sign in "-+")
    function, owner = orig_function_and_class_names_from_key(name)
    return Survivor(f"{owner}.{function}" if owner else function, before, after)


def main(floors: list[str]) -> int:
    os.chdir(ROOT)
    prepare_mutmut()
    import mutmut.__main__ as mutmut
    from mutmut.configuration import config
    from mutmut.stats import status_by_exit_code

    paths = {Path(path).stem: Path(path) for path in config().only_mutate}
    if unknown := [name for name in floors if name not in paths]:
        print(f"no such floor: {', '.join(unknown)}; there are {', '.join(paths)}")
        return 2
    if STATS.exists() and STATS.stat().st_mtime < max(p.stat().st_mtime for p in paths.values()):
        STATS.unlink()  # mutmut would know of no test that runs a function added since
    if not floors:  # a test may have been written for what survived
        mutmut._reset_mutant_results(lambda _, code: status_by_exit_code[code] not in KILLED)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    mutmut._run([f"transformer_lit.{name}.*" for name in floors], cores)

    old = read(REPORT.read_text(encoding="utf-8")) if REPORT.exists() else {}
    report = {}
    for name, path in paths.items():
        found = verdicts(path)
        if "not checked" not in found.values():
            lived = [survivor(mutant, path) for mutant, was in found.items() if was not in KILLED]
            known = old[name].survivors if name in old else ()
            report[name] = Floor(len(found), explained(lived, known))
        elif name in old:
            report[name] = old[name]
    REPORT.write_text(write(report), encoding="utf-8")
    wrong = complaints({name: report[name] for name in floors or report})
    print("\n".join(wrong) or "tests/mutants.md is complete")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
