"""Files that run code when they are unpickled, given where the package expects weights."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from tests.pronouncers import describe, write_pronouncer
from transformer_lit.checkpoints import load_pronouncer, minilm
from transformer_lit.data import curves
from transformer_lit.distributed import read_job
from transformer_lit.encoder_decoder import EncoderDecoder, Settings
from transformer_lit.training import Recipe, train


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, sprung: Path):
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


def by_pickle(trap: Trap, path: Path) -> None:
    path.write_bytes(pickle.dumps({"model.w": trap}))


def by_torch(trap: Trap, path: Path) -> None:
    torch.save({"model.w": trap}, path)


def by_numpy(trap: Trap, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([trap], dtype=object), allow_pickle=True)


WRITERS = {
    by_pickle: lambda path: pickle.loads(path.read_bytes()),
    by_torch: lambda path: torch.load(path, weights_only=False),
    by_numpy: lambda path: np.load(path, allow_pickle=True),
}
writers = pytest.mark.parametrize("write", WRITERS)


@pytest.fixture
def trap(tmp_path):
    return Trap(tmp_path / "sprung")


@writers
def test_the_trap_springs_where_a_file_is_unpickled(write, trap, tmp_path):
    path = tmp_path / "x"
    write(trap, path)
    WRITERS[write](path)
    assert trap.sprung.exists()


@writers
def test_the_pronouncer_is_not_unpickled(write, trap, tmp_path):
    path = write_pronouncer(tmp_path / "x.safetensors")
    write(trap, path)
    describe(path)
    with pytest.raises(ValueError, match="is damaged"):
        load_pronouncer(path)
    assert not trap.sprung.exists()


@writers
def test_a_checkpoint_of_training_is_not_unpickled(write, trap, tmp_path):
    path = tmp_path / "run.safetensors"
    write(trap, path)
    small = Settings(5, 5, d_model=8, n_heads=2, n_layers=1, d_ff=13, max_len=16)
    pairs = [(torch.tensor([3, 4]), torch.tensor([1, 3, 2]))]
    with pytest.raises(ValueError, match="is damaged"):
        train(
            EncoderDecoder(small),
            pairs,
            Recipe(epochs=2, warmup=1),
            progress=False,
            checkpoint=path,
        )
    assert not trap.sprung.exists()


@writers
def test_the_weights_of_others_are_not_unpickled(write, trap, tmp_path):
    path = tmp_path / "model.safetensors"
    write(trap, path)
    tokenizer = b'{"model": {"vocab": {"a": 0}}}'
    with pytest.raises(ValueError, match="do not hold weights"):
        minilm.parse({"model.safetensors": path.read_bytes(), "tokenizer.json": tokenizer})
    assert not trap.sprung.exists()


@writers
def test_what_processes_hand_to_each_other_is_not_unpickled(write, trap, tmp_path):
    write(trap, tmp_path / "job.safetensors")
    with pytest.raises(SafetensorError):
        read_job(tmp_path)
    assert not trap.sprung.exists()


@writers
def test_stored_curves_are_not_unpickled(write, trap, tmp_path, monkeypatch):
    write(trap, tmp_path / "digits.json")
    monkeypatch.setattr(curves, "files", lambda _: tmp_path)
    with pytest.raises(ValueError):
        curves.load("digits")
    assert not trap.sprung.exists()
