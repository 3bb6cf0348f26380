"""A trained BERT read by our own encoder: its pieces of words, its parts and its names for them.

Chapter: https://transformer-lit.github.io/transformer_lit/book/21-a-real-encoder.html
Paper: Devlin et al. 2019, section 3, https://arxiv.org/abs/1810.04805 (BERT);
    Wu et al. 2016, section 4.1, https://arxiv.org/abs/1609.08144 (pieces of words);
    Hendrycks and Gimpel 2016, section 2, https://arxiv.org/abs/1606.08415 (GELU);
    Reimers and Gurevych 2019, section 3, https://aclanthology.org/D19-1410/ (the mean, compared).
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lit.block import FeedForward, LayerNorm
from transformer_lit.embedding import Embedding
from transformer_lit.encoder import Encoder, mean_pool
from transformer_lit.masking import padding_mask
from transformer_lit.positions import LearnedPositions
from transformer_lit.vocabulary import Vocabulary, pad

EPS = 1e-12  # BERT's, in every norm

# Our names on the left, those of the file on the right; {i} is a block's number. Each linear layer
# has two tensors, `weight` and `bias`, under the same names on both sides.
TENSORS = {
    "embedding.weight": "embeddings.word_embeddings.weight",
    "positions.table": "embeddings.position_embeddings.weight",
    "segments.weight": "embeddings.token_type_embeddings.weight",
}
NORMS = {
    "norm": "embeddings.LayerNorm",
    "encoder.blocks.{i}.attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "encoder.blocks.{i}.feed_forward_norm": "encoder.layer.{i}.output.LayerNorm",
}
LINEAR = {
    "encoder.blocks.{i}.attention.q_proj": "encoder.layer.{i}.attention.self.query",
    "encoder.blocks.{i}.attention.k_proj": "encoder.layer.{i}.attention.self.key",
    "encoder.blocks.{i}.attention.v_proj": "encoder.layer.{i}.attention.self.value",
    "encoder.blocks.{i}.attention.out_proj": "encoder.layer.{i}.attention.output.dense",
    "encoder.blocks.{i}.feed_forward.widen": "encoder.layer.{i}.intermediate.dense",
    "encoder.blocks.{i}.feed_forward.narrow": "encoder.layer.{i}.output.dense",
}
# A list of the numbers 0 to 511, and a layer for another task that the mean does not pass through.
UNUSED = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}


@dataclass(frozen=True)
class Settings:
    """The sizes of a BERT encoder; those of all-MiniLM-L6-v2 if nothing else is said."""

    vocab_size: int = 30_522
    max_len: int = 512
    d_model: int = 384
    n_heads: int = 12
    n_layers: int = 6
    d_ff: int = 1536


class WordPiece:
    """Cut text into the longest pieces that the vocabulary knows; ``##`` marks a word's inside.

    Raises:
        ValueError: if one of the pieces ``[UNK]``, ``[CLS]`` and ``[SEP]`` is missing, or the
            first piece is not ``[PAD]``.
    """

    def __init__(self, pieces: Sequence[str]):
        missing = [piece for piece in ("[UNK]", "[CLS]", "[SEP]") if piece not in pieces]
        if missing or pieces[0] != "[PAD]":
            raise ValueError(
                f"the first piece must be [PAD]; missing: {missing or '[PAD]'}, got {pieces[:1]}"
            )
        self.vocabulary = Vocabulary(pieces[1:], specials=pieces[:1])

    def cut(self, word: str) -> list[str]:
        """Take the longest piece that fits, again and again; ``[UNK]`` if at some place none does.

        A word of more than 100 letters is ``[UNK]`` too, as in BERT.
        """
        pieces, start = [], 0
        while start < len(word) <= 100:
            ends = range(len(word), start, -1)
            candidates = (("##" if start else "") + word[start:end] for end in ends)
            piece = next((piece for piece in candidates if piece in self.vocabulary), None)
            if piece is None:
                return ["[UNK]"]
            pieces.append(piece)
            start += len(piece) - (2 if start else 0)
        return pieces or ["[UNK]"]

    def pieces(self, text: str) -> list[str]:
        """Turn text into the pieces of its words, between ``[CLS]`` and ``[SEP]``."""
        return ["[CLS]", *(piece for word in words(text) for piece in self.cut(word)), "[SEP]"]


def words(text: str) -> list[str]:
    """Split text into words as BERT does: lower case, no accents, punctuation marks alone."""
    letters = []
    for letter in unicodedata.normalize("NFD", text):  # NFD: é becomes e and its accent
        kind = unicodedata.category(letter)
        if letter in "\t\n\r" or kind[0] == "Z":
            letters.append(" ")
        elif kind[0] == "C" or kind == "Mn" or letter == "\ufffd":
            continue  # control characters, accents, and the sign for what could not be read
        elif kind[0] == "P" or letter in "$+<=>^`|~" or _is_chinese(letter):
            letters.append(f" {letter} ")
        else:
            letters.append(letter.lower())
    return "".join(letters).split()


def _is_chinese(letter: str) -> bool:
    name = unicodedata.name(letter, "")
    return name.startswith(("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH"))


class GeluFeedForward(FeedForward):
    """The network of chapter 09, bent smoothly: ``x`` times the probability that noise is below it.

    Raises:
        ValueError: if a size is below 1, or ``dropout`` is not in [0, 1).
    """

    def forward(self, x: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
        """Change each vector by itself.

        Raises:
            ValueError: as ``FeedForward.forward``.
        """
        self._check(x)
        return self.narrow(self.dropout(F.gelu(self.widen(x))))


class BertEncoder(nn.Module):
    """BERT's encoder, built of the parts of chapters 02, 06, 09 and 10.

    Raises:
        ValueError: if a part refuses its sizes.
    """

    def __init__(self, settings: Settings):
        super().__init__()
        d_model, d_ff = settings.d_model, settings.d_ff
        self.embedding = Embedding(vocab_size=settings.vocab_size, d_model=d_model)
        self.positions = LearnedPositions(d_model=d_model, max_len=settings.max_len)
        self.segments = Embedding(vocab_size=2, d_model=d_model)
        self.norm = LayerNorm(d_model=d_model, eps=EPS)
        self.encoder = Encoder(
            n_layers=settings.n_layers,
            d_model=d_model,
            n_heads=settings.n_heads,
            d_ff=d_ff,
            norm_first=False,
        )
        self.encoder.norm = nn.Identity()  # each block ends in a norm already
        for block in self.encoder.blocks:
            block.feed_forward = GeluFeedForward(d_model=d_model, d_ff=d_ff)
            block.attention_norm.eps = block.feed_forward_norm.eps = EPS  # type: ignore[union-attr]

    def forward(
        self, tokens: Int[Tensor, "batch seq"], lengths: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """Return a vector for each piece; all pieces belong to the first of BERT's two segments.

        Raises:
            ValueError: if the tokens are not ``(batch, seq)`` with one length for each row, one is
                not in the vocabulary, there are more than ``max_len``, or a length does not fit.
        """
        if tokens.ndim != 2 or tokens.numel() == 0 or lengths.shape != tokens.shape[:1]:
            raise ValueError(
                "tokens must be (batch, seq), not empty, with one length for each row, "
                f"got shapes {tuple(tokens.shape)} and {tuple(lengths.shape)}"
            )
        x = self.positions(self.embedding(tokens)) + self.segments(torch.zeros_like(tokens))
        return self.encoder(self.norm(x), mask=padding_mask(lengths, tokens.shape[1]))[0]


def names(n_layers: int) -> dict[str, str]:
    """Give each of our parameters the name of its tensor in a file of BERT's.

    Raises:
        ValueError: if ``n_layers`` is below 1.
    """
    if n_layers < 1:
        raise ValueError(f"n_layers must be at least 1, got {n_layers}")
    found = dict(TENSORS)
    for ours, theirs in NORMS.items():
        found |= {f"{ours}.gain": f"{theirs}.weight", f"{ours}.bias": f"{theirs}.bias"}
    for ours, theirs in LINEAR.items():
        found |= {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}
    layers = range(n_layers)
    return {o.format(i=i): t.format(i=i) for o, t in found.items() for i in layers}


def load_weights(model: BertEncoder, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a file into ``model``, each to the parameter of its name.

    Raises:
        ValueError: if tensors are missing, are too many or have another shape; it names them.
            Nothing has been copied then.
    """
    table = names(len(model.encoder.blocks))
    shapes = {table[name]: tuple(value.shape) for name, value in model.named_parameters()}
    found = {name: tuple(value.shape) for name, value in tensors.items() if name not in UNUSED}
    wrong = [f"{name} is missing" for name in shapes if name not in found]
    wrong += [f"{name} is not in the table of names" for name in found if name not in shapes]
    wrong += [
        f"{name} has shape {found[name]} instead of {shape}"
        for name, shape in shapes.items()
        if found.get(name, shape) != shape
    ]
    if wrong:
        rest = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError("these weights do not fit: " + "; ".join(wrong[:5]) + rest)
    model.load_state_dict({ours: tensors[theirs] for ours, theirs in table.items()})


@torch.no_grad()
def embed(
    model: BertEncoder, tokenizer: WordPiece, texts: Sequence[str], *, at_once: int = 16
) -> Float[Tensor, "batch d_model"]:
    """Make one vector of length 1 for each text: the mean over its pieces, divided by its length.

    Texts of about the same length are read together, so that there is little padding.

    Raises:
        ValueError: if there is no text, ``at_once`` is below 1, or a text has more pieces than
            the model has places.
    """
    if len(texts) == 0 or at_once < 1:
        raise ValueError(f"there must be texts and at_once >= 1, got {len(texts)} and {at_once}")
    ids = [tokenizer.vocabulary.encode(tokenizer.pieces(text)) for text in texts]
    max_len = len(model.positions.table)
    for text, tokens in zip(texts, ids, strict=True):
        if len(tokens) > max_len:
            raise ValueError(f"{text[:40]!r}... has {len(tokens)} pieces, the limit is {max_len}")
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found = torch.empty(len(ids), model.embedding.weight.shape[1])
    for start in range(0, len(order), at_once):
        rows = order[start : start + at_once]
        tokens, lengths = pad([ids[i] for i in rows])
        found[rows] = F.normalize(mean_pool(model(tokens, lengths), lengths), dim=-1)
    return found
