"""Relative positions: attention that sees how far apart two symbols stand, not where they stand.

Chapter: https://transformer-lit.github.io/transformer_lit/book/07-how-far-apart.html
Paper: Shaw et al. 2018, section 3, https://arxiv.org/abs/1803.02155 (clipped distances);
    Dai et al. 2019, section 3.3 and appendix B, https://arxiv.org/abs/1901.02860 (Transformer-XL);
    Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683 (T5's buckets);
    Su et al. 2021, section 3, https://arxiv.org/abs/2104.09864 (RoPE);
    Press et al. 2022, section 3, https://arxiv.org/abs/2108.12409 (ALiBi).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

Queries = Float[Tensor, "batch heads query d_head"]
Keys = Float[Tensor, "batch heads key d_head"]
Bias = Float[Tensor, "#batch heads query key"]


def offsets(n_query: int, n_key: int) -> Int[Tensor, "query key"]:
    """Count the steps from each query to each key: place of the key minus place of the query.

    Keys stand at ``0 .. n_key - 1``; queries, where they are fewer, at the last of these places.

    Raises:
        ValueError: unless ``n_query`` is at least 1 and at most ``n_key``, both whole numbers.
    """
    if not 1 <= n_query <= n_key or n_query % 1 or n_key % 1:
        raise ValueError(f"there must be 1 to {n_key} queries for {n_key} keys, got {n_query}")
    return torch.arange(n_key) - torch.arange(n_key - n_query, n_key)[:, None]


class RelativePosition(nn.Module):
    """What ``MultiHeadAttention`` takes as ``position``: three hooks, each doing nothing.

    A method overrides those it needs. ``needs_weights`` says that ``extra`` has to be called, which
    only the explicit form of attention can do.
    """

    needs_weights = False

    def rotate(self, q: Queries, k: Keys) -> tuple[Queries, Keys]:
        """Change queries and keys before they are compared."""
        return q, k

    def bias(self, q: Queries, k: Keys) -> Bias | None:
        """Give what is added to the scores, which are divided by ``sqrt(d_head)`` already."""
        return None

    def extra(self, weights: Bias) -> Queries | None:
        """Give what is added to the output of the heads."""
        return None


class Shaw(RelativePosition):
    """One learned vector per distance for the keys, one for the values, shared by all heads.

    Beyond ``clip`` steps all distances count as ``clip``.

    Args:
        d_head: the width of a head.
        clip: the largest distance told apart.
        values: also add vectors to the values, as the paper does; they need the weights, so the
            fused kernel can't be used with them.

    Raises:
        ValueError: if ``d_head`` or ``clip`` is below 1.
    """

    def __init__(self, *, d_head: int, clip: int, values: bool = True):
        super().__init__()
        if min(d_head, clip) < 1:
            raise ValueError(f"d_head and clip must be at least 1, got {d_head} and {clip}")
        self.clip, self.needs_weights = clip, values
        self.keys = nn.Parameter(torch.randn(2 * clip + 1, d_head) * d_head**-0.5)
        self.values = nn.Parameter(torch.randn(2 * clip + 1, d_head) * d_head**-0.5)
        self.values.requires_grad_(values)

    def rows(self, n_query: int, n_key: int) -> Int[Tensor, "query key"]:
        """Say which row of the tables belongs to each query and key."""
        return offsets(n_query, n_key).clamp(-self.clip, self.clip) + self.clip

    def bias(self, q: Queries, k: Keys) -> Bias:
        """Compare each query with the vector of its distance to each key.

        Raises:
            ValueError: if the heads are not as wide as those this was made for, or queries and keys
                do not belong together.
        """
        _check_width(q, self.keys.shape[1])
        _check_heads(q, k, q.shape[1])
        # All 2 clip + 1 products first, then picked out: a vector for each query and key
        # would take d_head times as much memory.
        products = q @ self.keys.T * q.shape[-1] ** -0.5
        rows = self.rows(q.shape[-2], k.shape[-2]).to(q.device)
        return products.gather(-1, rows.expand(*q.shape[:-1], -1))

    def extra(self, weights: Bias) -> Queries | None:
        """Mix the values' vectors with the weights.

        Raises:
            ValueError: if the weights are not ``(batch, heads, query, key)``, or of another dtype
                than the vectors (autocast may mix them).
        """
        if not self.needs_weights:
            return None
        dtype, mixed = self.values.dtype, torch.is_autocast_enabled(weights.device.type)
        if weights.ndim != 4 or (weights.dtype != dtype and not mixed):
            raise ValueError(
                f"weights must be {dtype} (batch, heads, query, key), "
                f"got {weights.dtype} of shape {tuple(weights.shape)}"
            )
        rows = self.rows(*weights.shape[-2:]).to(weights.device).expand(weights.shape)
        per_row = weights.new_zeros(*weights.shape[:-1], len(self.values))
        return per_row.scatter_add(-1, rows, weights) @ self.values


class TransformerXL(RelativePosition):
    """Compare queries with projected sinusoids of the distance, and two biases with keys and those.

    ``u`` says which keys matter whatever the query, ``v`` which distances do.

    Raises:
        ValueError: if a size is below 1, or ``n_heads * d_head`` is odd.
    """

    def __init__(self, *, n_heads: int, d_head: int):
        super().__init__()
        width = n_heads * d_head
        if min(n_heads, d_head) < 1 or width % 2:
            raise ValueError(
                "n_heads and d_head must be at least 1 and their product even, "
                f"got {n_heads} and {d_head}"
            )
        self.proj = nn.Linear(width, width, bias=False)
        self.u = nn.Parameter(torch.zeros(n_heads, 1, d_head))
        self.v = nn.Parameter(torch.zeros(n_heads, 1, d_head))

    def bias(self, q: Queries, k: Keys) -> Bias:
        """Add up the paper's terms (b), (c) and (d); term (a) is the usual product.

        Raises:
            ValueError: if number or width of the heads are not those this was made for, or queries
                and keys do not belong together.
        """
        _check_heads(q, k, len(self.u))
        _check_width(q, self.u.shape[-1])
        n_query, n_key = q.shape[-2], k.shape[-2]
        # R is a function of query minus key; columns run from the first key to the furthest ahead.
        distances = torch.arange(n_key - 1, -n_query, -1, device=q.device)
        angles = _angles(distances, self.proj.in_features)
        r = self.proj(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(q.dtype))
        r = rearrange(r, "distance (heads d) -> heads distance d", heads=len(self.u))
        places = shift((q + self.v) @ r.transpose(-2, -1))
        return (self.u @ k.transpose(-2, -1) + places) * q.shape[-1] ** -0.5


def shift(
    x: Float[Tensor, "*batch query distances"],
) -> Float[Tensor, "*batch query key"]:
    """Move row ``i`` from the end by ``i`` columns, so that columns of distances become keys.

    With ``n`` queries and ``m`` keys there are ``n + m - 1`` distances; the last row holds those of
    the last query from column 0 on, the row before it from column 1 on. One zero in front of each
    row, and the rows read as one long line with its first ``n`` numbers left out, are shifted.
    """
    n, width = x.shape[-2:]
    line = F.pad(x, (1, 0)).flatten(-2)[..., n:]
    return line.unflatten(-1, (n, width))[..., : width - n + 1]


class T5(RelativePosition):
    """One learned number per head and bucket of distances, all 0 at first; far buckets are wide.

    The paper does not divide scores by ``sqrt(d_head)``; the attention that calls this does. There
    all layers share one table, here each attention has its own.

    Args:
        n_heads: how many heads.
        causal: whether no query may see what comes after it; then all buckets look back. Otherwise
            half of them look ahead.
        n_buckets: how many buckets; half of a direction's hold one distance each, the rest widen
            up to ``max_distance``, and the last takes all beyond.
        max_distance: where the last bucket starts at the latest.

    Raises:
        ValueError: if ``n_heads`` is below 1, a direction has fewer than two buckets or half a
            bucket, or ``max_distance`` lies within the buckets of one distance.
    """

    def __init__(self, *, n_heads: int, causal: bool, n_buckets: int = 32, max_distance: int = 128):
        super().__init__()
        if n_heads < 1:
            raise ValueError(f"n_heads must be at least 1, got {n_heads}")
        buckets(torch.zeros(1, dtype=torch.long), n_buckets, max_distance, causal=causal)
        self.causal, self.max_distance = causal, max_distance
        self.table = nn.Parameter(torch.zeros(n_buckets, n_heads))

    def bias(self, q: Queries, k: Keys) -> Bias:
        """Look up the number of each query's and key's bucket.

        Raises:
            ValueError: if there are not as many heads as this was made for, or queries and keys do
                not belong together.
        """
        _check_heads(q, k, self.table.shape[1])
        steps = offsets(q.shape[-2], k.shape[-2]).to(q.device)
        rows = buckets(steps, len(self.table), self.max_distance, causal=self.causal)
        return rearrange(F.embedding(rows, self.table), "query key heads -> 1 heads query key")


def buckets(
    offset: Int[Tensor, "*shape"], n_buckets: int, max_distance: int, *, causal: bool
) -> Int[Tensor, "*shape"]:
    """Sort distances into T5's buckets: near ones each into its own, far ones by their logarithm.

    Raises:
        ValueError: if the distances are no integers, a direction has fewer than two buckets or half
            a bucket, or ``max_distance`` lies within the buckets of one distance.
    """
    if offset.is_floating_point() or offset.dtype == torch.bool:
        raise ValueError(f"offset must be integers, got {offset.dtype}")
    n = n_buckets if causal else n_buckets // 2
    if n < 2 or n_buckets % (1 if causal else 2):
        raise ValueError(
            f"n_buckets must be at least 2, both ways even and at least 4, "
            f"got {n_buckets} with causal={causal}"
        )
    near = n // 2
    if not max_distance > near:
        raise ValueError(f"max_distance must be above {near}, got {max_distance}")
    distance = (-offset).clamp(min=0) if causal else offset.abs()
    # In single precision, as T5 has it: at the edge of a bucket the last bit decides.
    far = (distance.clamp(min=1).float() / near).log() / math.log(max_distance / near) * (n - near)
    row = torch.where(distance < near, distance, (near + far.long()).clamp(max=n - 1))
    return row if causal else row + n * (offset > 0)


class RoPE(RelativePosition):
    """Turn each pair of a query's and a key's numbers by an angle that grows with its place.

    Args:
        d_head: the width of a head.
        layout: which numbers are a pair: ``"interleaved"`` takes ``2i`` and ``2i + 1`` (the paper,
            GPT-J), ``"half-split"`` takes ``i`` and ``i + d_head / 2`` (GPT-NeoX, Llama in
            ``transformers``). Weights learned with one are wrong with the other, so there is no
            default; ``to_half_split`` converts them.

    Raises:
        ValueError: if ``d_head`` is not even and at least 2, or the layout is neither of the two.
    """

    def __init__(self, *, d_head: int, layout: str):
        super().__init__()
        if d_head < 2 or d_head % 2:
            raise ValueError(f"d_head must be even and at least 2, got {d_head}")
        if layout not in ("interleaved", "half-split"):
            raise ValueError(f"layout must be 'interleaved' or 'half-split', got {layout!r}")
        self.d_head, self.layout = d_head, layout

    def rotate(self, q: Queries, k: Keys) -> tuple[Queries, Keys]:
        """Turn queries and keys, each by the angles of its place.

        Raises:
            ValueError: if the heads are not as wide as those this was made for, or queries and keys
                do not belong together.
        """
        _check_width(q, self.d_head)
        _check_heads(q, k, q.shape[1])
        place = torch.arange(k.shape[-2], device=k.device)
        return self._turn(q, place[k.shape[-2] - q.shape[-2] :]), self._turn(k, place)

    def turn(
        self, x: Float[Tensor, "*batch seq d_head"], place: Int[Tensor, "seq"]
    ) -> Float[Tensor, "*batch seq d_head"]:
        """Turn pair ``i`` of each vector by ``place * 10000 ** (-2i / d_head)`` radians.

        Raises:
            ValueError: if ``x`` is not ``d_head`` wide or holds no real numbers, there is not one
                place for each of its vectors, or a place is negative or no integer.
        """
        _check_width(x, self.d_head)
        whole = not place.is_floating_point() and place.dtype != torch.bool
        if place.shape != x.shape[-2:-1] or not whole or bool((place < 0).any()):
            raise ValueError(
                f"there must be {x.shape[-2]} places, none of them negative, "
                f"got {place.tolist()} of {place.dtype}"
            )
        return self._turn(x, place)

    def _turn(self, x: Tensor, place: Tensor) -> Tensor:
        angles = _angles(place, self.d_head)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        pair = -1 if self.layout == "interleaved" else -2
        a, b = x.unflatten(-1, (-1, 2) if pair == -1 else (2, -1)).unbind(pair)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=pair).flatten(-2)


def to_half_split(d_head: int) -> Int[Tensor, "d_head"]:
    """Give the order that turns interleaved pairs into half-split ones: ``0 2 4 … 1 3 5 …``.

    Raises:
        ValueError: if ``d_head`` is not even and at least 2.
    """
    if d_head < 2 or d_head % 2:
        raise ValueError(f"d_head must be even and at least 2, got {d_head}")
    return torch.arange(d_head).view(-1, 2).T.flatten()


class ALiBi(RelativePosition):
    """Lower each score by the distance times the head's slope. Nothing is learned.

    The paper looks back only; here keys ahead are lowered in the same way, should a mask let them.

    Raises:
        ValueError: if ``n_heads`` is below 1.
    """

    slopes: Tensor

    def __init__(self, *, n_heads: int):
        super().__init__()
        self.register_buffer("slopes", slopes(n_heads), persistent=False)

    def bias(self, q: Queries, k: Keys) -> Bias:
        """Multiply distances by slopes.

        Raises:
            ValueError: if there are not as many heads as this was made for, or queries and keys do
                not belong together.
        """
        _check_heads(q, k, len(self.slopes))
        distance = offsets(q.shape[-2], k.shape[-2]).abs().to(q)
        return -self.slopes[None, :, None, None].to(q) * distance


def slopes(n_heads: int) -> Float[Tensor, "n_heads"]:
    """Give ALiBi's slopes: ``2 ** (-8 / n)``, its square, its cube, … for ``n`` heads.

    That is for powers of two. For other ``n_heads``: the slopes of the power below, then every
    other one of the power above, as the authors' code has it.

    Raises:
        ValueError: if ``n_heads`` is no whole number above 0.
    """
    if n_heads < 1 or n_heads % 1:
        raise ValueError(f"n_heads must be at least 1 and whole, got {n_heads}")
    below = 2 ** int(math.log2(n_heads))
    first = 2.0 ** (-8 / below * torch.arange(1, below + 1))
    between = 2.0 ** (-4 / below * torch.arange(1, 2 * below, 2))
    return torch.cat([first, between])[:n_heads]


def _angles(place: Tensor, width: int) -> Float[Tensor, "seq pairs"]:
    # In double precision: at place 10,000 an angle in single precision is off by 1e-3.
    pair = torch.arange(0, width, 2, dtype=torch.float64, device=place.device)
    return place[:, None].double() * 10_000.0 ** (-pair / width)


def _check_heads(q: Tensor, k: Tensor, n_heads: int) -> None:
    alike = q.ndim == k.ndim == 4 and q.shape[:2] == k.shape[:2] and q.shape[3] == k.shape[3]
    if not alike or q.dtype != k.dtype or not 1 <= q.shape[2] <= k.shape[2]:
        raise ValueError(
            "queries and keys must agree in batch, heads, width and dtype, with at least one query "
            f"and a key for each, got {tuple(q.shape)} of {q.dtype} and {tuple(k.shape)} of "
            f"{k.dtype}"
        )
    if q.shape[1] != n_heads:
        raise ValueError(f"this position is for {n_heads} heads, the attention has {q.shape[1]}")


def _check_width(q: Tensor, d_head: int) -> None:
    if not q.is_floating_point():
        raise ValueError(f"queries and keys must be real numbers, got {q.dtype}")
    if q.shape[-1] != d_head:
        raise ValueError(
            f"this position is for heads {d_head} wide, the attention's are {q.shape[-1]}"
        )
