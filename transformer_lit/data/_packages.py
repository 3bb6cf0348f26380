"""Where an installed package keeps a data file, found without importing the package."""

from importlib.util import find_spec
from pathlib import Path

INSTALL = 'pip install "transformer-lit[data]"'


def data_file(package: str, *parts: str) -> Path:
    """Return the path of a file inside an installed package, none of whose code is run.

    Raises:
        ImportError: if the package is not installed.
        FileNotFoundError: if this release of the package has no such file.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"this data set comes inside the package {package}: {INSTALL}")
    path = Path(spec.submodule_search_locations[0], *parts)
    if not path.is_file():
        raise FileNotFoundError(f"the installed {package} has no data file {'/'.join(parts)}")
    return path


def check_part(part: str, parts: tuple[str, ...]) -> None:
    """Raise ValueError if `part` is none of the parts a data set is divided into."""
    if part not in parts:
        raise ValueError(f"no part {part!r}: expected one of {', '.join(parts)}")
