"""Show a module's source in a chapter: in the book, in Jupyter and in Colab alike."""

import inspect
from collections.abc import Callable
from types import ModuleType

from IPython.display import Markdown


def source(*things: ModuleType | type | Callable) -> Markdown:
    """Return the source of modules, classes or functions as one highlighted block."""
    code = "\n\n".join(inspect.getsource(thing).rstrip() for thing in things)
    return Markdown(f"```python\n{code}\n```")
