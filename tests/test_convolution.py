import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from transformer_lit.convolution import (
    ConvolutionByHeads,
    Quadratic,
    VisionTransformer,
    grid_offsets,
    patches,
)
from transformer_lit.encoder import Encoder
from transformer_lit.multi_head import MultiHeadAttention

# Sizes are different primes: a swapped axis cannot fit.
BATCH, C_IN, C_OUT, HEIGHT, WIDTH = 2, 3, 5, 7, 11


def convolution(k=3, c_in=C_IN, c_out=C_OUT, **kwargs):
    return nn.Conv2d(c_in, c_out, k, **{"padding": k // 2} | kwargs)


def images(channels=C_IN, height=HEIGHT, width=WIDTH):
    return torch.randn(BATCH, channels, height, width)


def heads_for(conv, **kwargs):
    return ConvolutionByHeads(conv, **{"height": HEIGHT, "width": WIDTH} | kwargs)


def vision(**kwargs):
    sizes = {"image": (4, 6), "size": 2, "channels": C_IN, "n_classes": 5, "d_model": 14}
    return VisionTransformer(**sizes | {"n_layers": 2, "n_heads": 7, "d_ff": 11} | kwargs)


# ---- hand-computed values


def test_offsets_on_a_grid_of_two_by_two_by_hand():
    found = grid_offsets(2, 2)
    assert found[0].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert found[2].tolist() == [[-1, 0], [-1, 1], [0, 0], [0, 1]]


def test_scores_of_a_head_that_looks_right_by_hand():
    head = Quadratic(torch.tensor([[0.0, 1.0]]), sharpness=2.0, height=1, width=3)
    q = torch.zeros(1, 1, 3, 1)
    assert head.bias(q, q)[0, 0].tolist() == [[-2, 0, -2], [-8, -2, 0], [-18, -8, -2]]


def test_a_difference_of_neighbours_by_hand():
    conv = convolution(c_in=1, c_out=1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()[0, 0, 1] = torch.tensor([-1.0, 0, 1])
    x = torch.tensor([[1.0, 2, 4]])[None, None]
    found = ConvolutionByHeads(conv, height=1, width=3)(x)
    assert_close(found[0, 0, 0], torch.tensor([2.0, 3.0, -2.0]))


def test_patches_by_hand():
    x = torch.arange(8).view(1, 1, 2, 4).float()
    assert patches(x, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


# ---- properties


def test_each_head_looks_at_its_cell_and_nowhere_else():
    heads = heads_for(convolution())
    x = torch.randn(1, (HEIGHT + 2) * (WIDTH + 2), heads.attention.out_proj.in_features)
    _, weights = heads.attention(x, need_weights=True)
    pixel = 3 * (WIDTH + 2) + 5
    looked = weights[0, :, pixel].argmax(-1)
    expected = [pixel + r * (WIDTH + 2) + c for r in (-1, 0, 1) for c in (-1, 0, 1)]
    assert looked.tolist() == expected
    assert_close(weights[0, :, pixel].amax(-1), torch.ones(9))


def test_a_small_sharpness_gives_another_function():
    conv, x = convolution(), images()
    assert (heads_for(conv, sharpness=1.0)(x) - conv(x)).abs().max() > 0.01
    assert (heads_for(conv, sharpness=20.0)(x) - conv(x)).abs().max() < 1e-5


def test_patches_keep_every_number_once():
    x = torch.arange(BATCH * C_IN * 6 * 10).view(BATCH, C_IN, 6, 10).float()
    found = patches(x, 2)
    assert found.shape == (BATCH, 15, C_IN * 4)
    assert torch.equal(found.flatten(1).sort().values, x.flatten(1))


def test_a_vision_transformer_sees_places():
    model, x = vision(), images(height=4, width=6)
    moved = x.roll(2, dims=-1)  # the same patches in another order
    assert (model(x) - model(moved)).abs().max() > 1e-3
    with torch.no_grad():
        model.places.table.zero_()
    assert_close(model(x), model(moved))


# ---- agreement with PyTorch


@pytest.mark.parametrize(
    ("k", "c_in", "c_out"), [(1, 3, 5), (3, 3, 5), (5, 2, 3), (3, 1, 23), (3, 5, 2), (7, 1, 2)]
)
def test_heads_compute_the_convolution_borders_included(k, c_in, c_out):
    conv, x = convolution(k, c_in, c_out), images(c_in)
    assert_close(heads_for(conv)(x), conv(x), atol=1e-5, rtol=0)


def test_images_of_one_pixel_and_smaller_than_the_kernel():
    conv = convolution(5)
    for height, width in ((1, 1), (2, 3)):
        x = images(height=height, width=width)
        found = heads_for(conv, height=height, width=width)(x)
        assert_close(found, conv(x), atol=1e-5, rtol=0)


def test_it_works_without_a_bias_and_in_double_precision():
    conv, x = convolution(bias=False).double(), images().double()
    assert_close(heads_for(conv, sharpness=60.0)(x), conv(x), atol=1e-12, rtol=0)


def test_the_heads_do_not_share_weights_with_the_convolution():
    conv, x = convolution(), images()
    heads, before = heads_for(conv), conv(x)
    with torch.no_grad():
        conv.weight.zero_()
    assert_close(heads(x), before, atol=1e-5, rtol=0)


def test_a_linear_layer_on_patches_is_a_convolution_with_strides():
    x, linear = images(height=4, width=6), nn.Linear(C_IN * 4, C_OUT)
    kernel = linear.weight.view(C_OUT, C_IN, 2, 2)
    expected = F.conv2d(x, kernel, linear.bias, stride=2).flatten(2).transpose(1, 2)
    assert_close(linear(patches(x, 2)), expected)


def test_a_vision_transformer_is_an_encoder_on_patches():
    model, x = vision(), images(height=4, width=6)
    encoder = Encoder(n_layers=2, d_model=14, n_heads=7, d_ff=11)
    encoder.load_state_dict(model.encoder.state_dict())
    tokens = model.way_in(patches(x, 2))
    tokens = torch.cat([model.summary.vector.expand(BATCH, 1, -1), tokens], 1)
    y, _ = encoder(tokens + model.places.table)
    assert_close(model(x), model.task_head(y[:, 0]))


def test_without_the_ring_the_border_is_repeated_instead_of_zero():
    conv, x = convolution(5), images()
    heads = heads_for(conv)
    centers = heads.attention.position.centers.data
    heads.ring = 0
    heads.attention.position = Quadratic(centers, sharpness=50.0, height=HEIGHT, width=WIDTH)
    repeated = F.pad(x, (2,) * 4, mode="replicate")
    assert_close(heads(x), F.conv2d(repeated, conv.weight, conv.bias), atol=1e-5, rtol=0)
    assert (heads(x) - conv(x)).abs().max() > 0.01


# ---- gradients


def test_gradients_of_the_images_are_those_of_the_convolution():
    conv = convolution()
    x, grad = images().requires_grad_(), torch.randn(BATCH, C_OUT, HEIGHT, WIDTH)
    [expected] = torch.autograd.grad(conv(x), x, grad)
    [found] = torch.autograd.grad(heads_for(conv)(x), x, grad)
    assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_centers_and_sharpness_can_be_learned():
    position = Quadratic(torch.randn(3, 2), sharpness=0.5, height=2, width=5)
    attention = MultiHeadAttention(d_model=6, n_heads=3, position=position)
    attention(torch.randn(BATCH, 10, 6))[0].square().sum().backward()
    assert position.centers.grad.abs().min() > 0 and position.sharpness.grad.abs().min() > 0


def test_a_whole_vision_transformer_learns():
    model, x = vision(), images(height=4, width=6)
    F.cross_entropy(model(x), torch.tensor([0, 3])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# ---- bad input


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 3, 4, padding=2),
        nn.Conv2d(2, 3, (3, 5), padding=(1, 2)),
        nn.Conv2d(2, 3, 3, padding=1, stride=2),
        nn.Conv2d(2, 3, 3, padding=2, dilation=2),
        nn.Conv2d(2, 4, 3, padding=1, groups=2),
        nn.Conv2d(2, 3, 3),
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_a_convolution_of_another_kind_is_refused(conv):
    with pytest.raises(ValueError, match=r"odd square kernel, .*Conv2d"):
        heads_for(conv)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 1 and whole, got 0 and 3"):
        grid_offsets(0, 3)
    with pytest.raises(ValueError, match="at least 1 and whole, got 7 and -1"):
        heads_for(convolution(), width=-1)
    with pytest.raises(ValueError, match="must be positive, got 2 and 0"):
        Quadratic(torch.zeros(2, 2), sharpness=0.0, height=2, width=2)
    with pytest.raises(ValueError, match="at least one center"):
        Quadratic(torch.zeros(0, 2), sharpness=1.0, height=2, width=2)
    with pytest.raises(ValueError, match="sharpness must be positive"):
        heads_for(convolution(), sharpness=-1.0)


@pytest.mark.parametrize(
    "shape", [{"channels": 2}, {"height": 5}, {"height": WIDTH, "width": HEIGHT}]
)
def test_images_of_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(3, 7, 11\), got"):
        heads_for(convolution())(images(**shape))
    with pytest.raises(ValueError, match=r"must be \(3, 4, 6\), got"):
        vision()(images(**shape))


def test_patches_that_do_not_fit_are_refused():
    for size in (0, 2, 7):
        with pytest.raises(ValueError, match=f"image of 7 by 11, got {size}"):
            patches(images(), size)


def test_attention_of_other_sizes_is_refused():
    position = Quadratic(torch.zeros(2, 2), sharpness=1.0, height=2, width=2)
    attention = MultiHeadAttention(d_model=6, n_heads=3, position=position)
    with pytest.raises(ValueError, match="for 2 heads and 4 pixels, the attention has 3 heads"):
        attention(torch.randn(1, 4, 6))


# ---- broken variants


@pytest.mark.parametrize(
    "breakage",
    [
        lambda heads: heads.attention.position.centers.data.neg_(),  # the kernel turned around
        lambda heads: heads.attention.position.centers.data.copy_(
            heads.attention.position.centers.data.flip(1)
        ),  # rows and columns swapped
        lambda heads: heads.attention.v_proj.bias.data.fill_(1.0),  # the ring is no zero any more
    ],
)
def test_a_broken_construction_is_caught(breakage):
    conv, x = convolution(), images()
    heads = heads_for(conv)
    breakage(heads)
    assert (heads(x) - conv(x)).abs().max() > 0.01
