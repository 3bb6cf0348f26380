"""Explorables: figures a reader can move, live in Jupyter and Colab, saved on the site.

One explorable is two files of the same name, `<name>.py` with a class of traits and `<name>.js`
with the drawing; a third, `<name>.css`, is optional. On the site there is no kernel:
`book/assets/explorables.js` draws the state saved in the notebook and keeps it in the page, so
everything that moves has to be computed in the .js file.
"""

import inspect
import pathlib
from typing import Any

import anywidget

BASE_CSS = pathlib.Path(__file__).with_name("base.css").read_text(encoding="utf-8")
BASE_JS = pathlib.Path(__file__).with_name("base.js").read_text(encoding="utf-8")


class Explorable(anywidget.AnyWidget):
    """An anywidget that takes its script and styles from the files beside its module.

    Its markup should stand in one element of class `explorable`, which gets the book's colours
    for light and dark (`base.css`), and in JupyterLab the keys that go from cell to cell
    elsewhere (`base.js`).
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read `<module>.js` and `<module>.css`, once: traitlets makes subclasses of its own."""
        if not hasattr(cls, "_esm"):
            source = pathlib.Path(inspect.getfile(cls))
            script, styles = source.with_suffix(".js"), source.with_suffix(".css")
            if not script.exists():
                raise ValueError(f"{cls.__name__} needs its script in {script}, which is missing")
            own = styles.read_text(encoding="utf-8") if styles.exists() else ""
            cls._esm = BASE_JS + script.read_text(encoding="utf-8")
            cls._css = BASE_CSS + own
        super().__init_subclass__(**kwargs)

    def __repr__(self) -> str:
        """The class and nothing that differs between two runs, as it is saved in notebooks."""
        return f"{type(self).__name__}()"
