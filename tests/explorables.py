"""One explorable of each class, for what is tested of all of them."""

import importlib
import inspect
import pkgutil

from transformer_lit import explorables
from transformer_lit.checkpoints import load_pronouncer

# The arguments of each class, as they are typed into a notebook.
ARGUMENTS = {
    "ALiBiExplorable": "head=2",
    "AtOnceExplorable": "load_pronouncer()",
    "AttentionExplorable": "['a', 'b', 'c'], [[2, 0.5], [1.5, 1], [0, 1.5]]",
    "DecodingExplorable": "load_pronouncer(), ['cat', 'dog']",
    "HeadsExplorable": "'shortcake', head=2",
    "MaskingExplorable": "'abc', [[0, 1, 2]] * 3, mask=[[1] * 3, [1] * 3, [0] * 3], length=2",
    "PositionsExplorable": "place=5",
    "RoPEExplorable": "[1, 0, 1, 0], [0, 1, 0, 1]",
}


def classes() -> dict[str, type[explorables.Explorable]]:
    """Every class of explorables there is, by name."""
    found = {}
    for file in pkgutil.iter_modules(explorables.__path__):
        module = importlib.import_module(f"{explorables.__name__}.{file.name}")
        for name, value in vars(module).items():
            own = inspect.isclass(value) and value.__module__ == module.__name__
            if own and issubclass(value, explorables.Explorable):
                found[name] = value
    return found


def make(name: str) -> explorables.Explorable:
    """The explorable of this name, made with its arguments above."""
    known = {"load_pronouncer": load_pronouncer, name: classes()[name]}
    return eval(f"{name}({ARGUMENTS[name]})", known)
