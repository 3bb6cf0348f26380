"""Bad input: each public function of the package refuses it by name, or has a documented result.

CALLS has one valid call for each. A bad one has another value in the place of one argument: of
another rank, size or dtype, negative, zero, NaN, empty and so on. Functions are called as users
call them, without the shape checks that other tests switch on. The same checks tell here what the
signature refuses: a shape or a dtype that it allows is not bad.
"""

import dataclasses
import fnmatch
import importlib
import inspect
import math
import pkgutil
import re

import pytest
import torch
import traitlets
from jaxtyping import TypeCheckError, config
from torch import Tensor, nn

import transformer_lit
from tests.bad_input import CALLS, NAMED, RESULTS, UNTRIED, Made
from transformer_lit.exercises import Verdict

MODULES = [
    found.name.removeprefix("transformer_lit.")
    for found in pkgutil.walk_packages(transformer_lit.__path__, "transformer_lit.")
    if not any(part.startswith("_") for part in found.name.split("."))
]
TAUGHT = [name for name in MODULES if not name.startswith("exercises")]  # those: see the end


def public(module: str) -> dict[str, object]:
    """The functions, classes and methods that a module defines for others, by name."""
    found = {}
    whole = importlib.import_module(f"transformer_lit.{module}")
    for name, value in vars(whole).items():
        own = getattr(value, "__module__", None) == whole.__name__ and callable(value)
        if name.startswith("_") or not own:
            continue
        if not is_record(value):
            found[f"{module}.{name}"] = value
        if inspect.isclass(value):
            for inner, what in vars(value).items():
                called = inspect.isfunction(what) or isinstance(what, classmethod | staticmethod)
                if called and (inner in ("__call__", "__contains__") or inner[0] != "_"):
                    found[f"{module}.{name}.{inner}"] = getattr(value, inner)
    return {name: what for name, what in found.items() if takes(what) - {"self"}}


def is_record(value: object) -> bool:
    """A plain record holds what it is given: whoever reads it looks at what is in it."""
    if hasattr(value, "_fields"):
        return True
    return dataclasses.is_dataclass(value) and not hasattr(value, "__post_init__")


def takes(what) -> set[str]:
    """The names of a function's arguments."""
    arguments = inspect.signature(what).parameters.values()
    return {one.name for one in arguments if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}


PUBLIC = {name: what for module in TAUGHT for name, what in public(module).items()}


def untried(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in UNTRIED)


def unchecked(what, *given, **named):
    """Call a function as users do, without the shape checks."""
    config.update("jaxtyping_disable", True)
    try:
        return what(*given, **named)
    finally:
        config.update("jaxtyping_disable", False)


# ---- what may be bad about a value ------------------------------------------------------------


def bad(value) -> dict[str, object]:
    """Values that stand where `value` should, each under the name of what is bad about it."""
    if isinstance(value, bool | None | Made | nn.Module):
        return {}
    if isinstance(value, int):
        return {"negative": -1, "zero": 0, "fraction": value + 0.5, "nan": math.nan}
    if isinstance(value, float):
        return {"negative": -1.0, "zero": 0.0, "nan": math.nan, "infinite": math.inf}
    if isinstance(value, str):
        return {"empty": "", "nonsense": "nonsense"}
    if isinstance(value, Tensor):
        return bad_tensors(value)
    if isinstance(value, dict):
        return {"empty": {}}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields") and len(value):
        first = {f"first {what}": one for what, one in bad(value[0]).items()}
        inside = {what: type(value)([one, *value[1:]]) for what, one in first.items()}
        return {"empty": type(value)()} | inside
    if dataclasses.is_dataclass(value):
        return {
            f"{field.name} {what}": unchecked(dataclasses.replace, value, **{field.name: one})
            for field in dataclasses.fields(value)
            for what, one in bad(getattr(value, field.name)).items()
        }
    return {}


def bad_tensors(value: Tensor) -> dict[str, Tensor]:
    found = {"rank above": value[None]}
    for axis in range(-value.ndim, 0):
        found[f"axis {axis} longer"] = torch.cat([value, value.narrow(axis, 0, 1)], axis)
        found[f"axis {axis} empty"] = value.narrow(axis, 0, 0)
        if value.shape[axis] > 1:
            found[f"axis {axis} single"] = value.narrow(axis, 0, 1)  # would broadcast
    if value.ndim:
        found["rank below"] = value[0]
    for dtype in (torch.float32, torch.float64, torch.int64, torch.bool):
        if dtype != value.dtype:
            found[f"dtype {dtype}".replace("torch.", "")] = value.to(dtype)
    if value.is_floating_point():
        found["nan"] = with_one(value, math.nan)
    elif value.dtype == torch.int64:
        found |= {"negative": with_one(value, -1), "huge": with_one(value, 10**6)}
    return found


def with_one(value: Tensor, one: float) -> Tensor:
    value = value.clone()
    value.view(-1)[-1] = one
    return value


# ---- what becomes of it -----------------------------------------------------------------------


def says(message: str, argument: str, what: str, value, others: set[str]) -> bool:
    """Whether a message names the argument, and what was given for it."""
    if isinstance(value, tuple | list) and what.startswith("first "):
        return says(message, argument, what.removeprefix("first "), value[0], others)
    if dataclasses.is_dataclass(value):
        argument, _, what = what.partition(" ")
        value = getattr(value, argument)
    # Of two shapes that do not fit each other, either may be the wrong one.
    meant = others if isinstance(value, Tensor) else {argument}
    words = [word for one in meant for word in (one, *NAMED.get(one, ()))]
    if not any(re.search(rf"\b{re.escape(word)}", message) for word in words):
        return False
    if isinstance(value, Tensor):
        if "dtype" in what:
            return str(value.dtype) in message
        if what in ("negative", "huge", "nan"):
            return any(text in message for text in ("-1", "1000000", "nan"))
        shape = tuple(value.shape)
        return any(str(size) in message for size in (shape, shape[:-2], *shape, value.tolist()))
    if isinstance(value, tuple | list | dict) or value == "":
        return any(
            text in message for text in ("no ", "none", "nothing", "empty", " 0", "[0", repr(value))
        )
    return str(value) in message


def holds_nan(result) -> bool:
    if isinstance(result, Tensor):
        return bool(result.isnan().any())
    if isinstance(result, float):
        return math.isnan(result)
    if isinstance(result, dict):
        return any(map(holds_nan, result.values()))
    if isinstance(result, list | tuple):
        return any(map(holds_nan, result))
    return False


def call(name: str, arguments: dict, *, checked: bool):
    """Call a function, as users do or with the shape checks."""
    arguments = {key: one.value if isinstance(one, Made) else one for key, one in arguments.items()}
    torch.manual_seed(0)
    return PUBLIC[name](**arguments) if checked else unchecked(PUBLIC[name], **arguments)


def is_allowed(name: str, arguments: dict) -> bool:
    """Whether the shapes and types in the signature allow a call."""
    try:
        call(name, arguments, checked=True)
    except TypeCheckError:
        return False
    except Exception:
        return True
    return True


def of_shape(what: str) -> bool:
    return any(word in what for word in ("axis", "rank", "dtype"))


def complaint(name: str, argument: str, what: str, value) -> str | None:
    """What is wrong with the answer to one bad value, or nothing."""
    case = f"{name} {argument} {what}"
    if any(fnmatch.fnmatchcase(case, one) for one in RESULTS):
        return None

    def arguments():
        return {**CALLS[name](), argument: value}

    try:
        result = call(name, arguments(), checked=False)
    except (ValueError, TypeError, traitlets.TraitError) as error:
        assert not isinstance(error, TypeCheckError), "the shape checks are on"
        if isinstance(error, traitlets.TraitError) and not name.startswith("explorables."):
            return f"{case}: {error!r}"
        if says(str(error), argument, what, value, takes(PUBLIC[name])):
            return None
        # A size that is no whole number may be refused by PyTorch or Python, by its type.
        if what.endswith(("fraction", "nan")) and isinstance(error, TypeError):
            return None if re.search(r"float|\bint", str(error)) else f"{case}: {error!r}"[:250]
        return f"{case}: names not both argument and value: {error!r}"[:250]
    except Exception as error:
        return f"{case}: {error!r}"[:250]
    if holds_nan(result):
        return None if what.endswith(("nan", "infinite")) else f"{case}: NaN from finite input"
    if of_shape(what) and is_allowed(name, arguments()):
        return None
    return f"{case}: taken, and gives {result!r}"[:250].replace("\n", " ")


# ---- the tests --------------------------------------------------------------------------------


def test_the_table_has_every_public_function_and_nothing_else():
    wanted = {name for name in PUBLIC if not untried(name)}
    assert {"attention.dot_product_scores", "attention.SelfAttention.forward"} <= wanted
    assert {"multi_head.SeparateHeads.split", "training.Recipe", "data.reports.draw"} <= wanted
    assert sorted(set(CALLS) - wanted) == [], "no such function, or it needs no row"
    assert sorted(wanted - set(CALLS)) == [], "a row is missing"
    assert all(any(fnmatch.fnmatchcase(name, one) for name in PUBLIC) for one in UNTRIED)


@pytest.mark.parametrize("name", CALLS)
def test_bad_input_is_refused_by_name(name):
    arguments = CALLS[name]()
    assert takes(PUBLIC[name]) <= set(arguments), "the row gives each argument, by name"
    assert not holds_nan(call(name, arguments, checked=True))
    complaints = [
        complaint(name, argument, what, value)
        for argument, given in arguments.items()
        for what, value in bad(given).items()
    ]
    complaints = [one for one in complaints if one]
    assert not complaints, "\n".join(["", *complaints])


def test_every_documented_result_belongs_to_a_case():
    cases = {
        f"{name} {argument} {what}"
        for name, row in CALLS.items()
        for argument, given in row().items()
        for what in bad(given)
    }
    assert [one for one in RESULTS if not fnmatch.filter(cases, one)] == []


# ---- checks of exercises: an answer is anything, and gets a verdict ---------------------------

CHECKS = {
    f"{module}.{name}": check
    for module in MODULES
    if module.startswith("exercises.")
    for name, check in vars(importlib.import_module(f"transformer_lit.{module}")).items()
    if name[0] != "_"
    and hasattr(check, "__wrapped__")
    and check.__module__ == f"transformer_lit.{module}"
}
ANSWERS = (math.nan, -1, 0, 2.5, "", [], {}, object(), torch.tensor(math.nan), torch.empty(0))


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_has_a_verdict_on_any_answer(name):
    for answer in ANSWERS:
        for given in (answer, lambda *some, answer=answer, **more: answer):
            verdict = unchecked(CHECKS[name], given)
            assert isinstance(verdict, Verdict), f"{name} of {given!r}"
    assert not unchecked(CHECKS[name], math.nan)
