"""Attention along a graph's edges, or within a window: what a mask would hide is not computed.

Chapter: https://transformer-lit.github.io/transformer_lit/book/20-only-some-edges.html
Paper: Velickovic et al. 2018, section 2.1, https://arxiv.org/abs/1710.10903 (edges);
    Beltagy et al. 2020, section 3.1, https://arxiv.org/abs/2004.05150 (windows).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer_lit.attention import Mask, fused_attention
from transformer_lit.multi_head import Heads, MultiHeadAttention

Edges = Int[Tensor, "2 edges"]  # row 0: the node that looks, row 1: the node it looks at


def edges_of(mask: Bool[Tensor, "query key"]) -> Edges:
    """List the pairs that a mask lets attend, query by query.

    Raises:
        ValueError: if the mask is not a boolean matrix.
    """
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(
            f"mask must be (query, key) of torch.bool, got {tuple(mask.shape)} of {mask.dtype}"
        )
    return mask.nonzero().T


def edge_softmax(
    scores: Float[Tensor, "edges heads"], queries: Int[Tensor, "edges"], n_nodes: int
) -> Float[Tensor, "edges heads"]:
    """Turn scores into weights that sum to one over the edges of each query.

    Raises:
        ValueError: if there is not one query for each edge, one is no node, the scores are no real
            numbers, or ``n_nodes`` is no whole number above 0.
    """
    if n_nodes < 1 or n_nodes % 1:
        raise ValueError(f"n_nodes must be at least 1 and whole, got {n_nodes}")
    if not scores.is_floating_point():
        raise ValueError(f"scores must be real numbers, got {scores.dtype}")
    if scores.ndim != 2 or queries.shape != scores.shape[:1]:
        raise ValueError(
            "scores must be (edges, heads) with one query for each edge, "
            f"got shapes {tuple(scores.shape)} and {tuple(queries.shape)}"
        )
    _check_nodes(queries, n_nodes)
    sizes, rows = (n_nodes, scores.shape[1]), queries[:, None].expand_as(scores)
    # The highest score of each query is taken away: it changes no weight, and exp stays finite.
    highest = scores.new_zeros(sizes).scatter_reduce(
        0, rows, scores.detach(), "amax", include_self=False
    )
    powers = (scores - highest[queries]).exp()
    sums = powers.new_zeros(sizes).index_add(0, queries, powers)
    return powers / sums[queries]


class GraphAttention(nn.Module):
    """Heads that score an edge by ``LeakyReLU(a_query . W x_i + a_key . W x_j)``.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(self, *, d_in: int, d_head: int, n_heads: int):
        super().__init__()
        if min(d_in, d_head, n_heads) < 1:
            raise ValueError(
                f"d_in, d_head and n_heads must be at least 1, got {d_in}, {d_head} and {n_heads}"
            )
        self.proj = nn.Linear(d_in, n_heads * d_head, bias=False)
        self.a_query = nn.Parameter(torch.empty(n_heads, d_head))
        self.a_key = nn.Parameter(torch.empty(n_heads, d_head))
        for parameter in self.parameters():
            nn.init.xavier_uniform_(parameter)

    def forward(
        self, x: Float[Tensor, "nodes d_in"], edges: Edges
    ) -> tuple[Float[Tensor, "nodes heads d_head"], Float[Tensor, "edges heads"]]:
        """Mix the projected vectors along the edges; return them and the weight of each edge.

        A node sees itself only along an edge to itself. A node that looks at none gets zeros.

        Raises:
            ValueError: if ``x`` is not ``d_in`` wide, is empty or of another dtype than the layer,
                or the edges are not ``(2, edges)``, name a node that is not there, or hold one pair
                twice.
        """
        if x.ndim != 2 or x.shape[1] != self.proj.in_features or len(x) == 0:
            raise ValueError(
                f"x must be (nodes, {self.proj.in_features}) and not empty, "
                f"got shape {tuple(x.shape)}"
            )
        dtype = self.proj.weight.dtype
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"x is {x.dtype}, the layer {dtype}: convert one of them")
        _check_edges(edges, len(x))
        queries, keys = edges
        values = self.proj(x).unflatten(1, self.a_key.shape)
        # a . [W x_i || W x_j] is a sum of two numbers, each of one node.
        of_query, of_key = (values * self.a_query).sum(-1), (values * self.a_key).sum(-1)
        scores = F.leaky_relu(
            of_query.index_select(0, queries) + of_key.index_select(0, keys), negative_slope=0.2
        )
        weights = edge_softmax(scores, queries, len(x))
        sent = weights[..., None] * values.index_select(0, keys)
        return torch.zeros_like(values).index_add(0, queries, sent), weights


def windowed_attention(
    q: Float[Tensor, "batch heads seq d_head"],
    k: Float[Tensor, "batch heads seq d_head"],
    v: Float[Tensor, "batch heads seq d_value"],
    *,
    window: int,
    mask: Mask | None = None,
) -> Float[Tensor, "batch heads seq d_value"]:
    """Attend to at most ``window`` places on each side: stretches of queries, each with its keys.

    A window larger than the sequence hides nothing.

    Args:
        q: the queries.
        k: the keys, as many.
        v: the values, as many.
        window: how far a query sees.
        mask: padding, ``(batch or 1, 1, 1, seq)``, True = may be attended to.

    Raises:
        ValueError: if ``window`` is below 0, there are not as many queries as keys and values,
            nothing is there, or the mask is not boolean or of another shape.
    """
    if window < 0 or window % 1:
        raise ValueError(f"window must be at least 0 and whole, got {window}")
    alike = q.ndim == 4 and q.shape[:3] == k.shape[:3] == v.shape[:3]
    if not alike or 0 in (*q.shape, *k.shape, *v.shape):
        shapes = [tuple(x.shape) for x in (q, k, v)]
        raise ValueError(f"q, k and v must be (batch, heads, seq, width), alike, got {shapes}")
    batch, seq = q.shape[0], q.shape[2]
    if mask is None:
        mask = q.new_ones((1, 1, 1, seq), dtype=torch.bool)
    if mask.dtype != torch.bool or tuple(mask.shape) not in ((1, 1, 1, seq), (batch, 1, 1, seq)):
        raise ValueError(
            f"mask must be ({batch} or 1, 1, 1, {seq}) of torch.bool, "
            f"got {tuple(mask.shape)} of {mask.dtype}"
        )
    window = min(window, seq)
    size = max(window, 1)
    seen, filler = size + 2 * window, -seq % size

    def around(x: Tensor) -> Tensor:  # what each stretch sees: itself, and a window on both sides
        padded = F.pad(x, (0, 0, window, window + filler))
        pattern = "batch heads stretches d seen -> (batch stretches) heads seen d"
        return rearrange(padded.unfold(2, seen, size), pattern)

    whole, cut = "batch heads (stretches size) d", "(batch stretches) heads size d"
    queries = rearrange(F.pad(q, (0, 0, 0, filler)), f"{whole} -> {cut}", size=size)
    real = around(mask.expand(batch, -1, -1, -1).transpose(2, 3)).transpose(2, 3)
    place = torch.arange(
        -window, size + window, device=q.device
    )  # of keys; the stretch starts at 0
    near = (place - place[window : window + size, None]).abs() <= window
    output = fused_attention(queries, around(k), around(v), near & real)
    return rearrange(output, f"{cut} -> {whole}", batch=batch)[:, :, :seq]


class WindowedAttention(MultiHeadAttention):
    """Many heads, each of which sees at most ``window`` places on each side.

    Raises:
        ValueError: if ``window`` is below 0, or the sizes are refused by ``MultiHeadAttention``.
    """

    def __init__(self, *, d_model: int, n_heads: int, window: int):
        super().__init__(d_model=d_model, n_heads=n_heads)
        if window < 0 or window % 1:
            raise ValueError(f"window must be at least 0 and whole, got {window}")
        self.window = window

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "batch seq d_model"],
        *,
        mask: Mask | None = None,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "batch seq d_model"], None]:
        """Let every head mix the vectors near each place, join the results and project them.

        Raises:
            ValueError: if weights are asked for, ``x`` does not fit, or the mask is more than
                padding, ``(batch or 1, 1, 1, seq)``.
        """
        if need_weights:
            raise ValueError("windowed attention makes no table of weights: need_weights is True")
        k, v = self.keys_values(x)
        q: Heads = self.q_proj(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        heads = windowed_attention(q, k, v, window=self.window, mask=mask)
        return self.out_proj(heads.transpose(1, 2).flatten(2)), None


def _check_nodes(nodes: Tensor, n_nodes: int) -> None:
    if nodes.is_floating_point() or nodes.dtype == torch.bool:
        raise ValueError(f"nodes must be integers, got {nodes.dtype}")
    wrong = nodes[(nodes < 0) | (nodes >= n_nodes)]
    if wrong.numel():
        raise ValueError(f"nodes must lie in 0 .. {n_nodes - 1}, got {wrong[0].item()}")


def _check_edges(edges: Tensor, n_nodes: int) -> None:
    if edges.ndim != 2 or len(edges) != 2:
        raise ValueError(f"edges must be (2, edges), got shape {tuple(edges.shape)}")
    _check_nodes(edges, n_nodes)
    pairs, counts = torch.unique(edges, dim=1, return_counts=True)
    if (counts > 1).any():
        twice = pairs[:, counts > 1][:, 0].tolist()
        raise ValueError(f"an edge counts once, {twice[0]} looks at {twice[1]} twice")
