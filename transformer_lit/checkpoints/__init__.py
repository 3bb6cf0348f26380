"""Trained weights that come with the book, each with its recipe and its scores.

`pronouncer.safetensors` holds the weights in half precision, `pronouncer.json` the settings of the
model, the recipe it was trained by, what it scored, and the weights' SHA-256 digest.
"""

import json
from collections.abc import Sequence
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

    def check(self, word: str) -> None:
        """Refuse what the model cannot read.

        Raises:
            ValueError: if the word is empty, longer than the model can read, or has a letter that
                the model does not know.
        """
        longest = self.model.settings.max_len
        if not word:
            raise ValueError("an empty word has no pronunciation")
        unknown = [letter for letter in dict.fromkeys(word) if letter.lower() not in self.letters]
        if unknown:
            raise ValueError(
                f"{word!r}: unknown letter {', '.join(map(repr, unknown))}; "
                "the pronouncer knows a to z and the apostrophe"
            )
        if len(word) > longest:
            raise ValueError(f"{word!r} has {len(word)} letters, the model reads {longest}")

    def encode(self, words: Sequence[str]) -> Int[Tensor, "batch source"]:
        """Turn words into a padded batch of ids; capital letters count as small ones.

        Raises:
            ValueError: if there are no words, or one is refused by ``check``.
        """
        for word in words:
            self.check(word)
        device = next(self.model.parameters()).device
        return pad([self.letters.encode(word.lower()) for word in words]).values.to(device)

    def pronounce(
        self, words: Sequence[str], *, n_beams: int = 1, at_once: int = 256
    ) -> list[Hypothesis]:
        """Read words aloud: the best hypothesis for each, its tokens ids of ``phonemes``.

        Words of about the same length are read together, so that there is little padding.

        Args:
            words: as many as you like.
            n_beams: how many beginnings are kept; with 1 the likeliest phoneme is taken each time.
            at_once: how many beginnings are worked on at the same time.

        Raises:
            ValueError: as ``encode``, or if ``n_beams`` or ``at_once`` is below 1.
        """
        if any(number < 1 or number % 1 for number in (n_beams, at_once)):
            raise ValueError(
                f"n_beams and at_once must be at least 1 and whole, got {n_beams} and {at_once}"
            )
        if len(words) == 0:
            raise ValueError("there are no words to read")
        for word in words:
            self.check(word)
        order = sorted(range(len(words)), key=lambda i: len(words[i]))
        answers: dict[int, Hypothesis] = {}
        max_len, size = self.model.settings.max_len, max(1, at_once // n_beams)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            source = self.encode([words[i] for i in rows])
            if n_beams == 1:
                found = greedy(self.model, source, max_len=max_len)
            else:
                beams = beam(self.model, source, n_beams=n_beams, max_len=max_len)
                found = [hypotheses[0] for hypotheses in beams]
            answers |= zip(rows, found, strict=True)
        return [answers[i] for i in range(len(words))]


def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    """Return the pronouncer's letters and phonemes."""
    return Vocabulary(LETTERS, specials=(PAD,)), target_vocabulary(PHONEMES)


def load_pronouncer(path: Path = PRONOUNCER) -> Pronouncer:
    """Load trained weights, on the CPU in single precision, ready to write.

    Raises:
        FileNotFoundError: if the weights, or the .json beside them, are missing.
        ValueError: if the weights are damaged, are not those that the .json was written for, or
            belong to another architecture, or the .json does not say which.
    """
    about_file = path.with_suffix(".json")
    for file in (path, about_file):
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing: install the package again, or train the pronouncer with "
                "experiments/train_pronouncer.py"
            )
    letters, phonemes = vocabularies()
    try:
        about = json.loads(about_file.read_text("utf-8"))
        recorded, settings = str(about["sha256"]), Settings(**about["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{about_file} does not describe a pronouncer: {error!r}") from error
    content = path.read_bytes()
    digest = sha256(content).hexdigest()
    if digest != recorded:
        raise ValueError(
            f"{path} is not the file that {about_file.name} describes, or it is damaged: "
            f"SHA-256 {digest[:12]}... instead of {recorded[:12]}..."
        )
    sizes, known = (settings.source_size, settings.target_size), (len(letters), len(phonemes))
    if sizes != known:
        raise ValueError(
            f"{path} belongs to another architecture: it reads and writes {sizes[0]} and "
            f"{sizes[1]} symbols, there are {known[0]} letters and {known[1]} phonemes"
        )
    try:
        tensors = {name: value.float() for name, value in load(content).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    model = EncoderDecoder(settings)
    expected = {name: value.shape for name, value in weights(model).items()}
    found = {name: value.shape for name, value in tensors.items()}
    if found != expected:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise ValueError(
            f"{path} belongs to another architecture than {about_file.name} describes: "
            f"{len(wrong)} tensors are missing, too many or of another shape, {wrong[0]} the first"
        )
    model.load_state_dict(tensors, strict=False)  # a tied table is there once, not twice
    return Pronouncer(model.eval(), letters, phonemes, about)
