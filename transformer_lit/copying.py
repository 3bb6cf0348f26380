"""Copying: a decoder that writes words of its vocabulary, or repeats words of its source.

Chapter: https://transformer-lit.github.io/transformer_lit/book/16-copying.html
Paper: See et al. 2017, section 2.2, https://aclanthology.org/P17-1099/ (the pointer-generator);
    Vinyals et al. 2015, section 2.3, https://arxiv.org/abs/1506.03134 (attention that points).
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lit.encoder_decoder import (
    BEGIN,
    PAD_ID,
    STOP,
    EncoderDecoder,
    Memory,
    PaddingMask,
    Settings,
    State,
)
from transformer_lit.vocabulary import PAD, UNKNOWN, Vocabulary

UNKNOWN_ID = 3


def word_vocabulary(words: Iterable[str]) -> Vocabulary:
    """Number words for source and target: padding 0, begin 1, stop 2, unknown 3, then the words."""
    return Vocabulary(words, specials=(PAD, BEGIN, STOP, UNKNOWN))


class ExtendedVocabulary:
    """A vocabulary for one source: the words everybody knows, then the source's own unknown words.

    The first unknown word of the source gets the id ``len(vocabulary)``, the second the next one.

    Raises:
        ValueError: if the vocabulary is not one of ``word_vocabulary``, or the source has no words.
    """

    def __init__(self, vocabulary: Vocabulary, source: Sequence[str]):
        if vocabulary.symbols[: UNKNOWN_ID + 1] != (PAD, BEGIN, STOP, UNKNOWN):
            raise ValueError(
                "the vocabulary must begin with padding, begin, stop and unknown, "
                f"got {vocabulary.symbols[: UNKNOWN_ID + 1]}"
            )
        if len(source) == 0:
            raise ValueError("a source needs at least one word, got none")
        own = dict.fromkeys(word for word in source if word not in vocabulary)
        self.vocabulary, self.own = vocabulary, tuple(own)
        self._ids = {word: len(vocabulary) + i for i, word in enumerate(self.own)}

    def encode(self, words: Iterable[str]) -> Int[Tensor, "seq"]:
        """Turn words into ids; a word neither known nor in the source becomes ``UNKNOWN_ID``.

        Raises:
            ValueError: if there are no words.
        """
        words = list(words)
        ids = zip(words, self.vocabulary.encode(words).tolist(), strict=True)
        return torch.tensor([self._ids.get(word, known) for word, known in ids])

    def decode(self, tokens: Int[Tensor, "seq"] | Sequence[int]) -> list[str]:
        """Turn ids back into words, padding left out.

        Raises:
            ValueError: if the ids are no row of integers, or one is neither of the vocabulary nor
                of this source.
        """
        if isinstance(tokens, Tensor) and (tokens.ndim != 1 or not _is_whole(tokens)):
            raise ValueError(
                f"ids must be integers (seq,), got {tokens.dtype} of shape {tuple(tokens.shape)}"
            )
        symbols = self.vocabulary.symbols + self.own
        outside = [int(i) for i in tokens if not 0 <= int(i) < len(symbols)]
        if outside:
            raise ValueError(f"ids {outside} are not among the {len(symbols)} of this source")
        return [symbols[int(i)] for i in tokens if int(i) != PAD_ID]


def count_words(source: Int[Tensor, "batch source"], vocab_size: int) -> int:
    """Return how many words a batch can write: the vocabulary and the sources' own words.

    Raises:
        ValueError: if the source is not ids ``(batch, source)``, a row of it is nothing but
            padding, an id is negative or beyond what a source of this length can number, or
            ``vocab_size`` is no whole number above 0.
    """
    if vocab_size < 1 or vocab_size % 1:
        raise ValueError(f"vocab_size must be at least 1 and whole, got {vocab_size}")
    if source.ndim != 2 or not _is_whole(source):
        raise ValueError(
            f"source must be ids (batch, source), got {source.dtype} of shape {tuple(source.shape)}"
        )
    nothing = (source == PAD_ID).all(1).nonzero().flatten().tolist()
    if source.numel() == 0 or nothing:
        raise ValueError(
            f"nothing to copy: source {tuple(source.shape)}, only padding in rows {nothing}"
        )
    low, high = (int(end) for end in source.aminmax())
    most = vocab_size + source.shape[1]
    if not 0 <= low <= high < most:
        raise ValueError(
            f"a vocabulary of {vocab_size} and sources of {source.shape[1]} words have ids in "
            f"0 .. {most - 1}, got ids from {low} to {high}"
        )
    return max(vocab_size, high + 1)


def mixture(
    logits: Float[Tensor, "batch seq vocab_size"],
    gate: Float[Tensor, "batch seq"],
    scores: Float[Tensor, "batch seq source"],
    source: Int[Tensor, "batch source"],
) -> Float[Tensor, "batch seq n_words"]:
    """Mix writing and copying: ``log(p_gen * P_vocab(w) + (1 - p_gen) * sum of a_i where w is)``.

    It stays in logarithms and at least in single precision, so that no small probability is
    rounded to zero. A word that can neither be written nor copied has -inf.

    Args:
        logits: of the words in the vocabulary.
        gate: the logit of ``p_gen``.
        scores: of the places of the source, before their softmax.
        source: the ids there, some of them beyond the vocabulary.

    Raises:
        ValueError: as ``count_words``, or if logits, gate and scores are no real numbers or do not
            belong together.
    """
    beyond = count_words(source, logits.shape[-1]) - logits.shape[-1]
    (batch, n_source), given = source.shape, (logits, gate, scores)
    together = logits.ndim == 3 and logits.shape[:2] == gate.shape == scores.shape[:2]
    if not together or (len(logits), *scores.shape[2:]) != (batch, n_source):
        shapes = ", ".join(str(tuple(x.shape)) for x in (*given, source))
        raise ValueError(f"logits, gate, scores and source do not belong together: {shapes}")
    if not all(x.is_floating_point() for x in given):
        dtypes = ", ".join(str(x.dtype) for x in given)
        raise ValueError(f"logits, gate and scores must be real numbers, got {dtypes}")
    single = torch.promote_types(logits.dtype, torch.float32)
    logits, gate, scores = logits.to(single), gate.to(single)[..., None], scores.to(single)
    scores = scores.masked_fill((source == PAD_ID)[:, None], -torch.inf)
    write = F.pad(F.logsigmoid(gate) + logits.log_softmax(-1), (0, beyond), value=-torch.inf)
    copy = F.logsigmoid(-gate) + scores.log_softmax(-1)
    place = source[:, None].expand_as(copy)
    # Each word's parts are added relative to the largest of them, which becomes exp(0) = 1.
    largest = write.detach().scatter_reduce(-1, place, copy.detach(), "amax")
    possible = largest != -torch.inf  # NaN stays NaN
    largest = largest.masked_fill(~possible, 0)
    total = (write - largest).exp()
    total = total.scatter_add(-1, place, (copy - largest.gather(-1, place)).exp())
    log_probs = largest + total.masked_fill(~possible, 1).log()
    return log_probs.masked_fill(~possible, -torch.inf)


class CopyState(State):
    """What a decoder keeps between two steps, and the words of the source."""

    def __init__(self, state: State, source: Int[Tensor, "batch source"]):
        super().__init__(state.memory, state.memory_mask, state.caches[0].max_len)
        self.source = source

    def select(self, rows: Int[Tensor, "rows"]) -> None:
        """Keep these sequences of the batch, in this order; one may be kept several times."""
        super().select(rows)
        self.source = self.source[rows]


class PointerGenerator(EncoderDecoder):
    """An encoder-decoder with one vocabulary of words, which can repeat any word of its source.

    Ids beyond the vocabulary are those of an ``ExtendedVocabulary``. Encoder and decoder read them
    as ``UNKNOWN_ID``. ``forward`` and ``step`` return log-probabilities of all words; ``decode``
    returns the vectors that they are made of.

    The paper's gate reads three vectors, the mixed source, the decoder's state and its input: here
    they are parts of one sum, the vector behind the last block. The paper points with the one
    attention it has: here there are many, and pointing gets another, over the last block's keys.

    Raises:
        ValueError: if source and target are not of one size, or the vocabulary has no words.
    """

    def __init__(self, settings: Settings):
        sizes = settings.source_size, settings.target_size
        if sizes[0] != sizes[1] or sizes[0] <= UNKNOWN_ID + 1:
            raise ValueError(
                f"source and target must share a vocabulary of more than {UNKNOWN_ID + 1}, "
                f"got sizes {sizes[0]} and {sizes[1]}"
            )
        super().__init__(settings)
        self.source_embedding = self.target_embedding
        self.write, self.output = self.output, nn.Identity()  # type: ignore[assignment]
        self.gate = nn.Linear(settings.d_model, 1)
        self.point = nn.Linear(settings.d_model, settings.d_model)

    def forward(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq n_words"]:
        """Give each word the log-probability that it comes next, at all places of the target.

        Raises:
            ValueError: as ``EncoderDecoder.forward`` and ``count_words``, or if a target has an id
                beyond the vocabulary that is not in its source.
        """
        return mixture(*self.parts(source, target), source)

    def parts(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch seq"]
    ) -> tuple[
        Float[Tensor, "batch seq vocab_size"],
        Float[Tensor, "batch seq"],
        Float[Tensor, "batch seq source"],
    ]:
        """Return what is mixed: the logits of words, the logit of p_gen, the scores of places.

        Raises:
            ValueError: as ``forward``.
        """
        memory, mask = self.encode(source)
        vectors = self.decode(self.known(target), memory, mask)
        foreign = (target >= self.settings.source_size) & ~(
            target[:, :, None] == source[:, None]
        ).any(-1)
        if foreign.any():
            raise ValueError(f"ids {target[foreign].tolist()} of targets are not in their sources")
        return self._parts(vectors, memory)

    def encode(self, source: Int[Tensor, "batch source"]) -> tuple[list[Memory], PaddingMask]:
        """Read the source; words beyond the vocabulary are read as unknown.

        Raises:
            ValueError: as ``EncoderDecoder.encode`` and ``count_words``.
        """
        count_words(source, self.settings.source_size)
        return super().encode(self.known(source))

    def start(self, source: Int[Tensor, "batch source"], max_len: int | None = None) -> CopyState:
        """Read the source, and make ready to write up to ``max_len`` words one at a time.

        Raises:
            ValueError: as ``EncoderDecoder.start`` and ``count_words``.
        """
        return CopyState(super().start(source, max_len), source)

    def step(  # type: ignore[override]
        self, tokens: Int[Tensor, "batch"], state: CopyState
    ) -> Float[Tensor, "batch n_words"]:
        """Take the newest word of each target, and give the log-probabilities of the next.

        Raises:
            ValueError: as ``EncoderDecoder.step``.
        """
        vectors = self._advance(self.known(tokens), state)[:, None]
        return mixture(*self._parts(vectors, state.memory), state.source)[:, 0]

    def known(self, tokens: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Turn the ids beyond the vocabulary into ``UNKNOWN_ID``."""
        return tokens.masked_fill(tokens >= self.settings.source_size, UNKNOWN_ID)

    def _parts(self, vectors: Tensor, memory: Sequence[Memory]) -> tuple[Tensor, Tensor, Tensor]:
        keys = memory[-1][0].transpose(1, 2).flatten(2)  # (batch, source, d_model)
        scores = self.point(vectors) @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5
        return self.write(vectors), self.gate(vectors)[..., 0], scores


def _is_whole(x: Tensor) -> bool:
    return not x.is_floating_point() and x.dtype != torch.bool
