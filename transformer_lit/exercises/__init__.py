"""The checks behind the exercises, one file per chapter, named after its floor.

A check takes the reader's answer and returns a ``Verdict``, which prints as one line: not yet,
a hint that names the mistake, or correct.
"""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple


class Verdict(NamedTuple):
    """The result of a check; true when the answer is right."""

    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.message


class Mistake(Exception):
    """A wrong answer, with a hint that names what is wrong with it."""


def exercise(check: Callable[..., None]) -> Callable[..., Verdict]:
    """Turn a check that raises ``Mistake`` into one that returns a ``Verdict``.

    The answer is a function, or a value. An answer of ``None`` or ``...``, or a function that
    returns one of them or raises ``NotImplementedError``, has not been written yet.
    """

    class Unwritten(Exception):
        pass

    def finished(value):
        if value is None or value is ...:
            raise Unwritten
        return value

    @wraps(check)
    def verdict(answer) -> Verdict:
        def watched(*args, **kwargs):
            try:
                return finished(answer(*args, **kwargs))
            except (Unwritten, NotImplementedError):
                raise
            except Exception as error:
                raise Mistake(f"your answer raised {type(error).__name__}: {error}") from error

        try:
            finished(answer)
            check(watched if callable(answer) else answer)
        except (Unwritten, NotImplementedError):
            todo = "let the function return" if callable(answer) else "fill in"
            return Verdict(False, f"Not yet: {todo} the answer and run the cell again.")
        except Mistake as mistake:
            return Verdict(False, f"Not quite: {mistake}")
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            return Verdict(False, f"Not quite: your answer cannot be checked. {what}")
        return Verdict(True, "Correct.")

    return verdict
