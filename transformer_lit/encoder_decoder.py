"""Encoder and decoder: one reads a sequence, the other writes a new one and looks back at it.

Chapter: https://transformer-lit.github.io/transformer_lit/book/11-encoder-and-decoder.html
Paper: Vaswani et al. 2017, sections 3.1 and 3.2.3, https://arxiv.org/abs/1706.03762;
    Shazeer 2019, section 2.4, https://arxiv.org/abs/1911.02150 (keys and values kept).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer_lit.block import FeedForward, LayerNorm
from transformer_lit.embedding import Embedding, TiedOutput
from transformer_lit.encoder import Encoder
from transformer_lit.masking import causal_mask
from transformer_lit.multi_head import Heads, MultiHeadAttention
from transformer_lit.positions import SinusoidalPositions
from transformer_lit.vocabulary import PAD, Vocabulary

BEGIN, STOP = "<begin>", "<stop>"
PAD_ID, BEGIN_ID, STOP_ID = 0, 1, 2

Past = tuple[
    Float[Tensor, "batch heads past d_head"],
    Float[Tensor, "batch heads past d_head"],
]
Memory = tuple[
    Float[Tensor, "batch heads source d_head"],
    Float[Tensor, "batch heads source d_head"],
]
Vectors = Float[Tensor, "batch seq d_model"]
PaddingMask = Bool[Tensor, "batch 1 1 source"]
Part = Callable[[Tensor], Tensor]


def target_vocabulary(symbols: Iterable[str]) -> Vocabulary:
    """Number the symbols of a target: padding is 0, begin 1, stop 2, the others follow."""
    return Vocabulary(symbols, specials=(PAD, BEGIN, STOP))


@dataclass(frozen=True)
class Settings:
    """What a whole model is made of. The two stacks have ``n_layers`` blocks each."""

    source_size: int
    target_size: int
    d_model: int = 256
    n_heads: int = 4
    n_layers: int = 3
    d_ff: int = 1024
    dropout: float = 0.1
    norm_first: bool = True
    max_len: int = 64


class Cache:
    """The keys and values one self-attention has computed: what is done need not be done again.

    Room for ``max_len`` places is taken once; each call writes behind what is there.

    Raises:
        ValueError: if ``max_len`` is no whole number above 0.
    """

    def __init__(self, max_len: int):
        if max_len < 1 or max_len % 1:
            raise ValueError(f"max_len must be at least 1 and whole, got {max_len}")
        self.max_len, self.length = max_len, 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, new: tuple[Heads, Heads]) -> Past:
        """Write new keys and values behind the old ones, and return all of them, as views.

        Raises:
            ValueError: if there is no room left.
        """
        batch, n_heads, n_new, d_head = new[0].shape
        start, end = self.length, self.length + n_new
        if end > self.max_len:
            raise ValueError(f"the cache has room for max_len = {self.max_len} places, got {end}")
        if self.keys is None or self.values is None:
            self.keys = new[0].new_empty(batch, n_heads, self.max_len, d_head)
            self.values = torch.empty_like(self.keys)
        self.keys.narrow(2, start, n_new).copy_(new[0])
        self.values.narrow(2, start, n_new).copy_(new[1])
        self.length = end
        return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)

    def select(self, rows: Int[Tensor, "rows"]) -> None:
        """Keep these sequences of the batch, in this order; one may be kept several times."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self._moved(self.keys, rows), self._moved(self.values, rows)

    def _moved(self, old: Tensor, rows: Tensor) -> Tensor:
        new = old.new_empty(len(rows), *old.shape[1:])
        new[:, :, : self.length] = old[rows, :, : self.length]  # what lies behind is empty
        return new


class DecoderBlock(nn.Module):
    """Attention among what is written, attention to what was read, then the network at each place.

    Args are those of ``Encoder``; ``position`` is a ``RelativePosition`` of the self-attention.
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        d_ff: int,
        dropout: float = 0.0,
        norm_first: bool = True,
        position: nn.Module | None = None,
    ):
        super().__init__()
        self.self_attention = MultiHeadAttention(
            d_model=d_model, n_heads=n_heads, position=position
        )
        self.cross_attention = MultiHeadAttention(d_model=d_model, n_heads=n_heads)
        self.feed_forward = FeedForward(d_model=d_model, d_ff=d_ff, dropout=dropout)
        self.self_norm = LayerNorm(d_model=d_model)
        self.cross_norm = LayerNorm(d_model=d_model)
        self.feed_forward_norm = LayerNorm(d_model=d_model)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def forward(
        self,
        x: Vectors,
        memory: Memory,
        *,
        mask: Bool[Tensor, "#batch 1 query key"] | None,
        memory_mask: PaddingMask,
        need_weights: bool = False,
    ) -> tuple[Vectors, Float[Tensor, "batch heads seq source"] | None]:
        """Run the three parts; the weights are those of the cross-attention, if asked for.

        Args:
            x: the vectors of what is written.
            memory: keys and values of what was read, from ``cross_attention.keys_values``.
            mask: which of its own places each place may see.
            memory_mask: which places of the source are real.
            need_weights: also return the weights.
        """
        weights = None

        def look_at_self(x: Tensor) -> Tensor:
            return self.self_attention(x, mask=mask)[0]

        def look_at_source(x: Tensor) -> Tensor:
            nonlocal weights
            mixed, weights = self.cross_attention(
                x, mask=memory_mask, keys_values=memory, need_weights=need_weights
            )
            return mixed

        return self.add_and_norm(x, look_at_self, look_at_source, self.feed_forward), weights

    def add_and_norm(
        self, x: Tensor, look_at_self: Part, look_at_source: Part, feed_forward: Part
    ) -> Tensor:
        """Run the three parts, each with its residual connection and its norm.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide, or of another dtype than the norms.
        """
        for norm, part in (
            (self.self_norm, look_at_self),
            (self.cross_norm, look_at_source),
            (self.feed_forward_norm, feed_forward),
        ):
            mixed = part(norm(x) if self.norm_first else x)
            x = x + (self.dropout(mixed) if self.training else mixed)
            x = x if self.norm_first else norm(x)
        return x


class OneByOne:
    """A block that takes one symbol of each sequence at a time: the same function, less to do.

    Queries, keys and values come from one product instead of three. With few rows, a product takes
    about as long as reading its weights, which goes fastest where they lie transposed; one row
    alone reads them as fast as they are. The copies are made once, and learn nothing.

    Args:
        block: the block.
        n_rows: how many sequences there are to begin with.
    """

    def __init__(self, block: DecoderBlock, n_rows: int):
        self.block = block
        looks, reads, network = block.self_attention, block.cross_attention, block.feed_forward
        self.three = _laid_out(n_rows, looks.q_proj, looks.k_proj, looks.v_proj)
        self.self_out = _laid_out(n_rows, looks.out_proj)
        self.q = _laid_out(n_rows, reads.q_proj)
        self.cross_out = _laid_out(n_rows, reads.out_proj)
        self.widen, self.narrow = (
            _laid_out(n_rows, network.widen),
            _laid_out(n_rows, network.narrow),
        )

    def __call__(
        self,
        x: Float[Tensor, "batch d_model"],
        memory: Memory,
        memory_mask: PaddingMask | None,
        cache: Cache,
    ) -> Float[Tensor, "batch d_model"]:
        """Run the three parts on the newest symbols; their keys and values go into the cache."""
        looks, reads = self.block.self_attention, self.block.cross_attention

        def look_at_self(x: Tensor) -> Tensor:
            q, k, v = _times(x, self.three).view(len(x), 3, looks.n_heads, 1, -1).unbind(1)
            # The one new place may see all there is.
            return _times(_attend(looks, q, *cache.extend((k, v)), None), self.self_out)

        def look_at_source(x: Tensor) -> Tensor:
            q = _times(x, self.q).view(len(x), reads.n_heads, 1, -1)
            return _times(_attend(reads, q, *memory, memory_mask), self.cross_out)

        def feed_forward(x: Tensor) -> Tensor:
            wide = _times(x, self.widen).relu_()
            wide = self.block.feed_forward.dropout(wide) if self.block.training else wide
            return _times(wide, self.narrow)

        return self.block.add_and_norm(x, look_at_self, look_at_source, feed_forward)


def _laid_out(n_rows: int, *layers: nn.Linear) -> tuple[Tensor, Tensor]:
    bias: Tensor = layers[0].bias
    weight: Tensor = layers[0].weight
    if len(layers) > 1:
        bias, weight = (
            torch.cat([getattr(x, name) for x in layers]) for name in ("bias", "weight")
        )
    return bias, _turned(weight, n_rows)


def _turned(weight: Tensor, n_rows: int) -> Tensor:
    return weight.t() if n_rows == 1 else weight.t().contiguous()


def _attend(attention: MultiHeadAttention, q, k, v, mask: Tensor | None) -> Tensor:
    if attention.position is not None or mask is not None:
        return attention.attend(q, k, v, mask=mask)[0][:, 0]
    # What `attend` comes to, without its checks: for one symbol they take as long as the kernel.
    added = q.new_zeros(1, 1, 1, k.shape[2])  # so that NaN stays NaN, as in `fused_attention`
    return F.scaled_dot_product_attention(q, k, v, added).flatten(1)


def _times(x: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
    bias, weight = layer
    return torch.addmm(bias, x, weight)


class State:
    """What a decoder keeps between two steps: the source's keys and values, and its own."""

    def __init__(self, memory: list[Memory], memory_mask: PaddingMask, max_len: int):
        self.memory = [(keys.contiguous(), values.contiguous()) for keys, values in memory]
        self.memory_mask = memory_mask
        self.caches = [Cache(max_len) for _ in memory]
        self.blocks: list[OneByOne] | None = None  # made by the first step, as is what follows
        self.output: tuple[Tensor, Tensor] | None = None

    @property
    def length(self) -> int:
        """How many symbols were written."""
        return self.caches[0].length

    def select(self, rows: Int[Tensor, "rows"]) -> None:
        """Keep these sequences of the batch, in this order; one may be kept several times."""
        self.memory = [(keys[rows], values[rows]) for keys, values in self.memory]
        self.memory_mask = self.memory_mask[rows]
        for cache in self.caches:
            cache.select(rows)


class EncoderDecoder(nn.Module):
    """Read a sequence of ids, write another: the Transformer of the paper.

    Targets begin with ``BEGIN_ID`` and end with ``STOP_ID``; 0 is padding on both sides. The target
    embedding is the output layer as well.

    Args:
        settings: the sizes.
        position: makes a ``RelativePosition`` (chapter 07) for each self-attention; without it,
            sinusoids are added to the embeddings.

    Raises:
        ValueError: if a size is refused by the part that has it.
    """

    def __init__(self, settings: Settings, *, position: Callable[[], nn.Module] | None = None):
        super().__init__()
        s = self.settings = settings
        self.source_embedding = Embedding(vocab_size=s.source_size, d_model=s.d_model, scaled=True)
        self.target_embedding = Embedding(vocab_size=s.target_size, d_model=s.d_model, scaled=True)
        self.places = SinusoidalPositions(d_model=s.d_model, max_len=s.max_len)
        self.absolute = position is None
        make: Callable[[], nn.Module | None] = position or (lambda: None)
        sizes: dict[str, Any] = {
            "d_model": s.d_model,
            "n_heads": s.n_heads,
            "d_ff": s.d_ff,
            "dropout": s.dropout,
            "norm_first": s.norm_first,
        }
        self.encoder = Encoder(n_layers=s.n_layers, position=make, **sizes)
        self.decoder = nn.ModuleList(
            DecoderBlock(position=make(), **sizes) for _ in range(s.n_layers)
        )
        self.norm = LayerNorm(d_model=s.d_model)
        self.output = TiedOutput(self.target_embedding)
        self.dropout = nn.Dropout(s.dropout)

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        target: Int[Tensor, "batch seq"],
    ) -> Float[Tensor, "batch seq target_size"]:
        """Score, at each place of the target, what comes next: all places in one pass.

        Raises:
            ValueError: if the source is empty or a row of it is nothing but padding, or a target
                does not begin with ``BEGIN_ID``.
        """
        return self.decode(target, *self.encode(source))

    def encode(self, source: Int[Tensor, "batch source"]) -> tuple[list[Memory], PaddingMask]:
        """Read the source: keys and values for each block of the decoder, and the padding mask.

        Raises:
            ValueError: as ``forward``.
        """
        mask = _real(source)[:, None, None]
        x, _ = self.encoder(self._embed(self.source_embedding, source), mask=mask)
        return [block.cross_attention.keys_values(x) for block in self._blocks()], mask

    def decode(
        self,
        target: Int[Tensor, "batch seq"],
        memory: Sequence[Memory],
        memory_mask: PaddingMask,
    ) -> Float[Tensor, "batch seq target_size"]:
        """Score what comes next at each place of the target, given what was read.

        Raises:
            ValueError: as ``forward``, or if ``memory`` is not for as many sources as there are
                targets, or not for as many blocks as the decoder has.
        """
        _check_target(target)
        return self._decode(target, memory, memory_mask)[0]

    def attention(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch seq"]
    ) -> list[Float[Tensor, "batch heads seq source"]]:
        """Return the cross-attention's weights, one tensor for each block of the decoder.

        Raises:
            ValueError: as ``forward``.
        """
        _check_target(target)
        return self._decode(target, *self.encode(source), need_weights=True)[1]

    def start(self, source: Int[Tensor, "batch source"], max_len: int | None = None) -> State:
        """Read the source, and make ready to write up to ``max_len`` symbols one at a time.

        Raises:
            ValueError: as ``forward``, or if ``max_len`` is below 1 or above that of the settings.
        """
        most = self.settings.max_len
        max_len = most if max_len is None else max_len
        if not 1 <= max_len <= most:
            raise ValueError(f"max_len must lie in 1 .. {most}, got {max_len}")
        return State(*self.encode(source), max_len)

    def step(
        self, tokens: Int[Tensor, "batch"], state: State
    ) -> Float[Tensor, "batch target_size"]:
        """Take the newest symbol of each target, remember it, and score what comes next.

        Raises:
            ValueError: if there is no room left, there is not one symbol for each source, or the
                state is that of a model with another number of blocks.
        """
        x = self._advance(tokens, state)
        if state.output is None:
            state.output = self.output.bias, _turned(self.output.embedding.weight, len(tokens))
        return _times(x, state.output)

    def _blocks(self) -> Iterator[DecoderBlock]:
        return iter(self.decoder)  # type: ignore[arg-type]

    def _advance(self, tokens: Tensor, state: State) -> Tensor:
        if state.blocks is None:  # the first step has the checks, the others need their time
            if tokens.ndim != 1:
                raise ValueError(f"tokens must be (batch,), got shape {tuple(tokens.shape)}")
            _check_target(tokens[:, None])
            state.blocks = [OneByOne(block, len(tokens)) for block in self._blocks()]
        self._check_memory(tokens, state.memory, state.memory_mask)
        x = self._embed(self.target_embedding, tokens[:, None], state.length)[:, 0]
        mask = None if state.memory_mask.all() else state.memory_mask
        for block, memory, cache in zip(state.blocks, state.memory, state.caches, strict=True):
            x = block(x, memory, mask, cache)
        return self.norm(x)

    def _decode(self, target, memory, memory_mask, *, need_weights=False):
        self._check_memory(target, memory, memory_mask)
        x = self._embed(self.target_embedding, target)
        mask = causal_mask(target.shape[1]).to(x.device)
        all_weights = []
        for block, keys_values in zip(self.decoder, memory, strict=True):
            x, weights = block(
                x, keys_values, mask=mask, memory_mask=memory_mask, need_weights=need_weights
            )
            all_weights.append(weights)
        return self.output(self.norm(x)), all_weights

    def _check_memory(
        self, target: Tensor, memory: Sequence[Memory], memory_mask: PaddingMask
    ) -> None:
        if len(memory) != len(self.decoder):
            raise ValueError(
                f"memory has keys and values for {len(memory)} blocks, the decoder has "
                f"{len(self.decoder)}: another model has read the source"
            )
        if len(target) != len(memory_mask):  # a batch of one would stretch to the other's size
            raise ValueError(f"{len(target)} targets for {len(memory_mask)} sources")

    def _embed(self, embedding, tokens, start=0):
        x = embedding(tokens)
        if self.absolute:
            end = start + tokens.shape[1]
            if end > self.settings.max_len:
                raise ValueError(
                    f"a sequence of {end} symbols is longer than max_len = {self.settings.max_len}"
                )
            x = x + self.places.table[start:end].to(x.dtype)
        return self.dropout(x)


def _real(source: Tensor) -> Tensor:
    if source.ndim != 2 or source.numel() == 0:
        raise ValueError(
            f"source must be (batch, source) and not empty, got shape {tuple(source.shape)}"
        )
    real = source != PAD_ID
    if not real.any(1).all():
        rows = (~real.any(1)).nonzero().flatten().tolist()
        raise ValueError(f"rows {rows} of the source are nothing but padding")
    return real


def _check_target(target: Tensor) -> None:
    if target.ndim != 2 or target.numel() == 0:
        raise ValueError(
            f"target must be (batch, seq) and not empty, got shape {tuple(target.shape)}"
        )
    if (target[:, 0] != BEGIN_ID).any():
        rows = (target[:, 0] != BEGIN_ID).nonzero().flatten().tolist()
        raise ValueError(
            f"targets must begin with BEGIN_ID = {BEGIN_ID}; rows {rows} begin with "
            f"{target[rows, 0].tolist()}"
        )
