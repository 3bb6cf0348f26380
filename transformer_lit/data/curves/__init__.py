"""Curves that were measured once, by `experiments/`: what takes too long to run in a chapter.

Each file says how it was made (recipe, versions, seconds, kind of machine) beside what came out;
`experiments/README.md` has the command that makes it again.
"""

import json
from importlib.resources import files
from typing import Any


def load(name: str) -> dict[str, Any]:
    """Return what was measured under this name, for example ``load("extrapolation")``.

    Raises:
        ValueError: if there is no such file; the message lists those there are.
    """
    here = files(__name__)
    names = sorted(f.name.removesuffix(".json") for f in here.iterdir() if f.name.endswith(".json"))
    if name not in names:
        raise ValueError(f"no curves called {name!r}; there are {names}")
    return json.loads((here / f"{name}.json").read_text("utf-8"))
