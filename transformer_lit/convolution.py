"""Convolution: each pixel takes from fixed steps away, and attention with positions can do it too.

Chapter: https://transformer-lit.github.io/transformer_lit/book/18-convolution.html
Paper: Cordonnier et al. 2020, section 3, https://arxiv.org/abs/1911.03584 (heads as a kernel);
    Dosovitskiy et al. 2021, section 3.1, https://arxiv.org/abs/2010.11929 (patches as a sequence).
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lit.encoder import Encoder, SummaryToken
from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.positions import LearnedPositions
from transformer_lit.relative_positions import Bias, Keys, Queries, RelativePosition

Images = Float[Tensor, "batch channel height width"]


def grid_offsets(height: int, width: int) -> Int[Tensor, "query key 2"]:
    """Count the rows and columns from each pixel to each other, the pixels taken row by row.

    Raises:
        ValueError: if a size is no whole number above 0.
    """
    if any(size < 1 or size % 1 for size in (height, width)):
        raise ValueError(f"height and width must be at least 1 and whole, got {height} and {width}")
    place = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1
    ).flatten(0, 1)
    return place[None] - place[:, None]


class Quadratic(RelativePosition):
    """Lower each score by the squared distance from where a head looks: ``-a |offset - center|²``.

    Args:
        centers: the rows and columns from a pixel to where each head looks.
        sharpness: the factor ``a`` of all heads at first; like the centers it can be learned.
        height: rows of the grid.
        width: columns of the grid.

    Raises:
        ValueError: if there is no head, centers are not finite ``(heads, 2)``, ``sharpness`` is not
            positive and finite, or a size is below 1.
    """

    steps: Tensor

    def __init__(
        self, centers: Float[Tensor, "heads 2"], *, sharpness: float, height: int, width: int
    ):
        super().__init__()
        if centers.ndim != 2 or centers.shape[1] != 2 or not centers.isfinite().all():
            raise ValueError(f"centers must be (heads, 2) and finite, got {centers.tolist()}")
        if not centers.is_floating_point():
            raise ValueError(f"centers must be real numbers, got {centers.dtype}")
        if len(centers) < 1 or not 0 < sharpness < torch.inf:
            raise ValueError(
                "there must be at least one center, and sharpness must be positive, "
                f"got {len(centers)} and {sharpness}"
            )
        steps = grid_offsets(height, width).to(centers.dtype)
        self.register_buffer("steps", steps, persistent=False)
        self.centers = nn.Parameter(centers.clone())
        self.sharpness = nn.Parameter(torch.full_like(centers[:, 0], sharpness))

    def bias(self, q: Queries, k: Keys) -> Bias:
        """Score pixels by place alone.

        Raises:
            ValueError: if there is not one center for each head, or not one query and one key
                for each pixel, alike in width and dtype.
        """
        n_heads, n_pixels = len(self.centers), len(self.steps)
        if q.ndim != 4 or q.shape != k.shape or q.dtype != k.dtype or not q.is_floating_point():
            raise ValueError(
                "queries and keys must be real numbers (batch, heads, pixels, d_head), alike, got "
                f"{tuple(q.shape)} of {q.dtype} and {tuple(k.shape)} of {k.dtype}"
            )
        if q.shape[1:3] != (n_heads, n_pixels):
            raise ValueError(
                f"this position is for {n_heads} heads and {n_pixels} pixels, the attention has "
                f"{q.shape[1]} heads and {q.shape[2]} queries"
            )
        miss = self.steps - self.centers[:, None, None]
        return -(self.sharpness[:, None, None] * miss.square().sum(-1))[None]


class ConvolutionByHeads(nn.Module):
    """The function of a convolution, computed by multi-head attention: one head per kernel cell.

    Like the paper, it puts a ring of zeros around the image, so that a head that looks beyond the
    border finds a zero there. Vectors are as wide as all heads together; the channels come first,
    and zeros fill the rest.

    Args:
        conv: the convolution, with an odd square kernel, stride 1 and zeros around the image.
        height: rows of an image.
        width: columns of an image.
        sharpness: how strongly each head is bound to its cell; the others get about
            ``exp(-sharpness)`` of its weight.

    Raises:
        ValueError: if the convolution is of another kind, ``sharpness`` is not positive and finite,
            or a size is below 1.
    """

    def __init__(self, conv: nn.Conv2d, *, height: int, width: int, sharpness: float = 50.0):
        super().__init__()
        k = conv.kernel_size[0]
        settings = (conv.kernel_size, conv.stride, conv.dilation, conv.padding, conv.groups)
        wanted = ((k, k), (1, 1), (1, 1), (k // 2, k // 2), 1)
        if k % 2 == 0 or settings != wanted or conv.padding_mode != "zeros":
            raise ValueError(
                "the convolution must have an odd square kernel, stride 1, dilation 1, one group "
                f"and zeros around the image that keep its size, got {conv}"
            )
        if any(size < 1 or size % 1 for size in (height, width)):
            raise ValueError(
                f"height and width must be at least 1 and whole, got {height} and {width}"
            )
        self.ring, self.c_in, self.c_out = k // 2, conv.in_channels, conv.out_channels
        self.image = (self.c_in, height, width)
        centers = grid_offsets(k, k)[k * k // 2].to(conv.weight)  # steps from the kernel's middle
        grid = {"height": height + 2 * self.ring, "width": width + 2 * self.ring}
        d_head = max(self.c_in, -(-self.c_out // k**2))  # so that all output channels fit
        self.attention = MultiHeadAttention(
            d_model=k**2 * d_head,
            n_heads=k**2,
            position=Quadratic(centers, sharpness=sharpness, **grid),
        ).to(conv.weight)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):  # no content in the scores
            for parameter in self.attention.get_submodule(name).parameters():
                nn.init.zeros_(parameter)
        with torch.no_grad():
            for head, cell in enumerate(conv.weight.flatten(2).unbind(-1)):
                own = slice(head * d_head, head * d_head + self.c_in)
                self.attention.v_proj.weight[own, : self.c_in] = torch.eye(self.c_in)
                self.attention.out_proj.weight[: self.c_out, own] = cell
            if conv.bias is not None:
                self.attention.out_proj.bias[: self.c_out] = conv.bias

    def forward(self, images: Images) -> Float[Tensor, "batch channel_out height width"]:
        """Convolve the images.

        Raises:
            ValueError: if there are no images, or they have other sizes, channels or another dtype
                than were announced.
        """
        _check_images(images, self.image, self.attention.q_proj.weight.dtype)
        ring, (height, width) = self.ring, images.shape[2:]
        x = rearrange(F.pad(images, (ring,) * 4), "b c h w -> b (h w) c")
        y, _ = self.attention(F.pad(x, (0, self.attention.out_proj.in_features - self.c_in)))
        y = rearrange(y, "b (h w) c -> b c h w", h=height + 2 * ring)
        return y[:, : self.c_out, ring : ring + height, ring : ring + width]


def patches(images: Images, size: int) -> Float[Tensor, "batch patch numbers"]:
    """Cut images into squares, row by row, and write each as one vector.

    Raises:
        ValueError: if the images are not ``(batch, channel, height, width)`` or hold no real
            numbers, or ``size`` is below 1 or does not divide height and width.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "images must be real numbers (batch, channel, height, width), "
            f"got {images.dtype} of shape {tuple(images.shape)}"
        )
    height, width = images.shape[2:]
    if size < 1 or height % size or width % size:
        raise ValueError(f"size must divide the image of {height} by {width}, got {size}")
    return rearrange(images, "b c (h i) (w j) -> b (h w) (c i j)", i=size, j=size)


class VisionTransformer(nn.Module):
    """An encoder that reads an image as a sequence of patches, and answers from a summary token.

    The paper's feed-forward networks have GELU where our encoder has ReLU.

    Args:
        image: height and width of the images.
        size: height and width of a patch.
        channels: numbers per pixel.
        n_classes: how many answers there are.
        d_model: the width of the vectors.
        sizes: the other sizes of the ``Encoder``.

    Raises:
        ValueError: if ``size`` does not divide the image, one of the numbers is below 1, or the
            encoder refuses its sizes.
    """

    def __init__(
        self,
        *,
        image: tuple[int, int],
        size: int,
        channels: int,
        n_classes: int,
        d_model: int,
        **sizes: Any,
    ):
        super().__init__()
        if len(image) != 2 or any(n < 1 or n % 1 for n in (*image, channels, n_classes, d_model)):
            raise ValueError(
                "image must be height and width, and they, channels, n_classes and d_model at "
                f"least 1 and whole, got {image}, {channels}, {n_classes} and {d_model}"
            )
        self.image, self.size = (channels, *image), size
        n_patches = patches(torch.zeros(1, *self.image), size).shape[1]
        self.way_in = nn.Linear(channels * size**2, d_model)
        self.summary = SummaryToken(d_model=d_model)
        self.places = LearnedPositions(d_model=d_model, max_len=n_patches + 1)
        self.encoder = Encoder(d_model=d_model, **sizes)
        self.task_head = nn.Linear(d_model, n_classes)

    def forward(self, images: Images) -> Float[Tensor, "batch n_classes"]:
        """Score the classes.

        Raises:
            ValueError: if there are no images, or they have other sizes, channels or another dtype
                than were announced.
        """
        _check_images(images, self.image, self.way_in.weight.dtype)
        x = self.way_in(patches(images, self.size))
        x, _ = self.summary(x, torch.full(x.shape[:1], x.shape[1], device=x.device))
        y, _ = self.encoder(self.places(x))
        return self.task_head(y[:, 0])


def _check_images(images: Tensor, expected: tuple[int, int, int], dtype: torch.dtype) -> None:
    if images.ndim != 4 or images.shape[1:] != expected or len(images) == 0:
        raise ValueError(
            f"channels, height and width must be {expected}, got images {tuple(images.shape)}"
        )
    if images.dtype != dtype and not torch.is_autocast_enabled(images.device.type):
        raise ValueError(f"images are {images.dtype}, the layer {dtype}: convert one of them")
