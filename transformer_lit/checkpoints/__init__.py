"""Trained weights that come with the book, each with its recipe and its scores.

`pronouncer.safetensors` holds the weights in half precision, `pronouncer.json` the settings of the
model, the recipe it was trained by, what it scored, and the weights' SHA-256 digest.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from transformer_lit.data.pronunciations import LETTERS, PHONEMES
from transformer_lit.decoding import Hypothesis, beam, greedy
from transformer_lit.encoder_decoder import EncoderDecoder, Settings, target_vocabulary
from transformer_lit.training import weights
from transformer_lit.vocabulary import PAD, Vocabulary, pad

PRONOUNCER = Path(__file__).with_name("pronouncer.safetensors")


@dataclass(frozen=True)
class Pronouncer:
    """A model that reads English words aloud: letters in, phonemes out.

    Args:
        model: the trained model.
        letters: the vocabulary of its source.
        phonemes: the vocabulary of its target.
        about: settings, recipe, versions, scores, as in `pronouncer.json`.
    """

    model: EncoderDecoder
    letters: Vocabulary
    phonemes: Vocabulary
    about: dict

    def encode(self, words: list[str]) -> Int[Tensor, "batch source"]:
        """Turn words into a padded batch of ids; capital letters count as small ones.

        Raises:
            ValueError: if there are no words, one is empty, is longer than the model can read, or
                has a letter that the model does not know.
        """
        longest = self.model.settings.max_len
        for word in words:
            if len(word) > longest:
                raise ValueError(f"{word!r} has {len(word)} letters, the model reads {longest}")
        device = next(self.model.parameters()).device
        return pad([self.letters.encode(word.lower()) for word in words]).values.to(device)

    def pronounce(self, words: list[str], *, n_beams: int = 1) -> list[Hypothesis]:
        """Read words aloud: the best hypothesis for each, its tokens ids of ``phonemes``.

        Raises:
            ValueError: as ``encode``, or if ``n_beams`` is below 1.
        """
        source, max_len = self.encode(words), self.model.settings.max_len
        if n_beams == 1:
            return greedy(self.model, source, max_len=max_len)
        return [best[0] for best in beam(self.model, source, n_beams=n_beams, max_len=max_len)]


def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    """Return the pronouncer's letters and phonemes."""
    return Vocabulary(LETTERS, specials=(PAD,)), target_vocabulary(PHONEMES)


def load_pronouncer(path: Path = PRONOUNCER) -> Pronouncer:
    """Load trained weights, on the CPU in single precision, ready to write.

    Raises:
        FileNotFoundError: if the weights, or the .json beside them, are missing.
        ValueError: if the weights are damaged, are not those that the .json was written for, or
            belong to another architecture.
    """
    about_file = path.with_suffix(".json")
    for file in (path, about_file):
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing: install the package again, or train the pronouncer with "
                "experiments/train_pronouncer.py"
            )
    about, content = json.loads(about_file.read_text("utf-8")), path.read_bytes()
    digest = sha256(content).hexdigest()
    if digest != about["sha256"]:
        raise ValueError(
            f"{path} is not the file that {about_file.name} describes: "
            f"SHA-256 {digest[:12]}... instead of {about['sha256'][:12]}..."
        )
    try:
        tensors = {name: value.float() for name, value in load(content).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    model = EncoderDecoder(Settings(**about["settings"]))
    expected = {name: value.shape for name, value in weights(model).items()}
    found = {name: value.shape for name, value in tensors.items()}
    if found != expected:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise ValueError(
            f"{path} belongs to another architecture: {len(wrong)} tensors are missing, too many "
            f"or of another shape, {wrong[0]} the first"
        )
    model.load_state_dict(tensors, strict=False)  # a tied table is there once, not twice
    letters, phonemes = vocabularies()
    return Pronouncer(model.eval(), letters, phonemes, about)
