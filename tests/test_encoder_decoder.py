import copy

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.testing import assert_close

from transformer_lit.encoder_decoder import (
    BEGIN,
    BEGIN_ID,
    PAD_ID,
    STOP,
    STOP_ID,
    Cache,
    DecoderBlock,
    EncoderDecoder,
    OneByOne,
    Settings,
    target_vocabulary,
)
from transformer_lit.masking import causal_mask, forbidden
from transformer_lit.relative_positions import T5, ALiBi, RoPE, Shaw
from transformer_lit.vocabulary import PAD

BATCH, SOURCE, SEQ, HEADS, D_HEAD, D_FF, LAYERS = 3, 7, 5, 2, 6, 11, 3
D_MODEL, SOURCE_SIZE, TARGET_SIZE, MAX_LEN = HEADS * D_HEAD, 17, 19, 13
LENGTHS = (7, 4, 1)


def settings(**changes) -> Settings:
    sizes = {"d_model": D_MODEL, "n_heads": HEADS, "n_layers": LAYERS, "d_ff": D_FF}
    return Settings(
        SOURCE_SIZE, TARGET_SIZE, **sizes | {"dropout": 0.0, "max_len": MAX_LEN} | changes
    )


def transformer(position=None, **changes) -> EncoderDecoder:
    return EncoderDecoder(settings(**changes), position=position)


def ids() -> tuple[torch.Tensor, torch.Tensor]:
    """Sources of unequal lengths, and targets, the last of which is padded."""
    source = torch.randint(1, SOURCE_SIZE, (BATCH, SOURCE))
    for row, length in enumerate(LENGTHS):
        source[row, length:] = PAD_ID
    target = torch.randint(3, TARGET_SIZE, (BATCH, SEQ))
    target[:, 0], target[2, 3], target[2, 4:] = BEGIN_ID, STOP_ID, PAD_ID
    return source, target


def stepped(model, source, target) -> torch.Tensor:
    state = model.start(source)
    return torch.stack([model.step(newest, state) for newest in target.T], dim=1)


# ---- by hand


def test_the_special_symbols_have_their_ids():
    vocabulary = target_vocabulary("ab")
    assert vocabulary.symbols == (PAD, BEGIN, STOP, "a", "b")
    assert [vocabulary.id_of(s) for s in (PAD, BEGIN, STOP)] == [PAD_ID, BEGIN_ID, STOP_ID]


def test_cross_attention_by_hand():
    """One head of width 2: weights 1/2, 1/3, 1/6 over the values (6, 0), (0, 6), (6, 6).

    Its projections copy, the norm leaves (1, -1) as it is, and the other parts add nothing.
    """
    block = DecoderBlock(d_model=2, n_heads=1, d_ff=1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.cross_norm.gain.fill_(1)
        for proj in (block.cross_attention.q_proj, block.cross_attention.out_proj):
            proj.weight.copy_(torch.eye(2))
    keys = torch.tensor([3.0, 2.0, 1.0]).log()[:, None] * torch.tensor([2**0.5, 0.0])
    values = torch.tensor([[6.0, 0.0], [0.0, 6.0], [6.0, 6.0]])
    x, weights = block(
        torch.tensor([[[1.0, -1.0]]]),
        (keys[None, None], values[None, None]),
        mask=causal_mask(1),
        memory_mask=torch.ones(1, 1, 1, 3, dtype=torch.bool),
        need_weights=True,
    )
    assert_close(weights[0, 0, 0], torch.tensor([1 / 2, 1 / 3, 1 / 6]), atol=1e-4, rtol=0)
    assert_close(x[0, 0], torch.tensor([1.0 + 4, -1.0 + 3]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_is_three_parts_each_with_its_norm(norm_first):
    block = DecoderBlock(d_model=D_MODEL, n_heads=HEADS, d_ff=D_FF, norm_first=norm_first)
    x, y = torch.randn(BATCH, SEQ, D_MODEL), torch.randn(BATCH, SOURCE, D_MODEL)
    real = torch.arange(SOURCE) < torch.tensor(LENGTHS)[:, None, None, None]

    def attend(layer, asking, asked, mask):
        def split(x):
            return rearrange(x, "b n (h d) -> b h n d", h=HEADS)

        q, k, v = (
            split(layer.q_proj(asking)),
            split(layer.k_proj(asked)),
            split(layer.v_proj(asked)),
        )
        scores = (q @ k.transpose(-2, -1) / D_HEAD**0.5).masked_fill(~mask, -torch.inf)
        return layer.out_proj(rearrange(scores.softmax(-1) @ v, "b h n d -> b n (h d)"))

    expected = x
    for norm, part in (
        (block.self_norm, lambda x: attend(block.self_attention, x, x, causal_mask(SEQ))),
        (block.cross_norm, lambda x: attend(block.cross_attention, x, y, real)),
        (block.feed_forward_norm, block.feed_forward),
    ):
        if norm_first:
            expected = expected + part(norm(expected))
        else:
            expected = norm(expected + part(expected))
    memory = block.cross_attention.keys_values(y)
    found, weights = block(x, memory, mask=causal_mask(SEQ), memory_mask=real)
    assert_close(found, expected)
    assert weights is None


def test_tables_start_small_and_are_scaled_up():
    """So vectors begin with entries of size 1, and so do logits of the shared table."""
    for table in (transformer().source_embedding, transformer().target_embedding):
        everything = torch.arange(len(table.weight))
        assert_close(table(everything), table.weight * D_MODEL**0.5)
        assert 0.8 < table(everything).std() < 1.25


def test_parameters_are_counted():
    attention, norm = 4 * (D_MODEL**2 + D_MODEL), 2 * D_MODEL
    network = 2 * D_MODEL * D_FF + D_FF + D_MODEL
    tables = (SOURCE_SIZE + TARGET_SIZE) * D_MODEL + TARGET_SIZE  # the output layer: a bias only
    expected = LAYERS * (3 * attention + 2 * network + 5 * norm) + 2 * norm + tables
    assert sum(parameter.numel() for parameter in transformer().parameters()) == expected


# ---- properties


@pytest.mark.parametrize("cut", range(1, SEQ))
def test_the_past_does_not_change_to_the_bit_when_the_future_does(cut):
    model, (source, target) = transformer(), ids()
    other = target.clone()
    other[:, cut:] = (other[:, cut:] + 5) % TARGET_SIZE
    before, after = model(source, target), model(source, other)
    assert torch.equal(before[:, :cut], after[:, :cut])
    assert (before[:, cut:] != after[:, cut:]).any(-1).all()


def test_every_place_sees_the_whole_source():
    model, (source, target) = transformer(), ids()
    other = source.clone()
    other[0, -1] = (other[0, -1] + 1) % SOURCE_SIZE or 1
    before, after = model(source, target), model(other, target)
    assert (before[0] != after[0]).any(-1).all() and torch.equal(before[1:], after[1:])


@pytest.mark.parametrize("more", [1, 5])
def test_padding_of_the_source_changes_nothing(more):
    model, (source, target) = transformer(), ids()
    longer = nn.functional.pad(source, (0, more))
    assert_close(model(longer, target), model(source, target), atol=1e-5, rtol=0)
    for weights in model.attention(longer, target):
        assert (weights[..., SOURCE:] == 0).all()


def test_a_sequence_alone_and_one_in_a_batch_agree():
    model, (source, target) = transformer(), ids()
    together = model(source, target)
    for row, length in enumerate(LENGTHS):
        alone = model(source[row : row + 1, :length], target[row : row + 1])
        assert_close(alone[0], together[row], atol=1e-5, rtol=0)


def test_with_the_memory_hidden_the_output_does_not_depend_on_the_source():
    model, (source, target) = transformer(), ids()
    outputs = []
    for read in (source, torch.where(source == PAD_ID, PAD_ID, source % (SOURCE_SIZE - 1) + 1)):
        memory, mask = model.encode(read)
        outputs.append(model.decode(target, memory, torch.zeros_like(mask)))
        assert not torch.equal(model.decode(target, memory, mask), outputs[-1])
    assert torch.equal(*outputs)


def test_the_weights_of_the_cross_attention_sum_to_one_and_leave_padding_out():
    model, (source, target) = transformer(), ids()
    found = model.attention(source, target)
    assert len(found) == LAYERS
    real = (source != PAD_ID)[:, None, None]
    for weights in found:
        assert weights.shape == (BATCH, HEADS, SEQ, SOURCE)
        assert_close(weights.sum(-1), torch.ones(BATCH, HEADS, SEQ))
        assert torch.equal(weights > 0, real.expand_as(weights))


def test_dropout_acts_in_training_only():
    model, (source, target) = transformer(dropout=0.5), ids()
    assert not torch.equal(model(source, target), model(source, target))
    model.eval()
    assert torch.equal(model(source, target), model(source, target))


def test_every_dropout_has_the_share_of_the_settings():
    parts = transformer(dropout=0.3).modules()
    shares = [part.p for part in parts if isinstance(part, nn.Dropout)]
    assert shares == [0.3] * (2 * LAYERS + 2 * LAYERS + 1)


@pytest.mark.parametrize("name", ["dropout", "decoder.1.dropout", "decoder.1.feed_forward.dropout"])
def test_each_dropout_acts_with_a_cache_as_without(name):
    """It is replaced by one that always drops the same features."""

    class DropLast(nn.Module):
        def forward(self, x):
            return torch.cat([2 * x[..., :-3], 0 * x[..., -3:]], dim=-1)

    model, (source, target) = transformer(), ids()
    undropped = model(source, target)
    model.set_submodule(name, DropLast())
    found = model(source, target)
    assert (found - undropped).abs().max() > 0.1
    assert_close(stepped(model, source, target), found, atol=1e-5, rtol=0)


def test_every_self_attention_has_a_position_of_its_own():
    made = []

    def position():
        made.append(ALiBi(n_heads=HEADS))
        return made[-1]

    model = transformer(position)
    looks = [*(block.attention for block in model.encoder.blocks),
             *(block.self_attention for block in model.decoder)]  # fmt: skip
    assert [look.position for look in looks] == made and len(set(made)) == 2 * LAYERS
    assert all(block.cross_attention.position is None for block in model.decoder)


def kept(call) -> set[int]:
    """The sizes of what is kept for the gradient."""
    sizes = set()

    def keep(x):
        sizes.add(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        call()
    return sizes


def test_weights_are_kept_only_when_asked_for():
    model, (source, target) = transformer(), ids()
    source = source[:1].expand(BATCH, -1)  # without padding
    state, of_one_place = model.start(source), BATCH * HEADS * SOURCE
    assert SEQ * of_one_place in kept(lambda: model.attention(source, target))
    assert SEQ * of_one_place not in kept(lambda: model(source, target))
    assert of_one_place not in kept(lambda: model.step(target[:, 0], state))


# ---- the cache

POSITIONS = {
    "sinusoids": None,
    "Shaw": lambda: Shaw(d_head=D_HEAD, clip=3),
    "T5": lambda: T5(n_heads=HEADS, causal=False),
    "RoPE": lambda: RoPE(d_head=D_HEAD, layout="interleaved"),
    "ALiBi": lambda: ALiBi(n_heads=HEADS),
}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("norm_first", [True, False])
def test_with_a_cache_and_without_the_logits_are_the_same_at_every_step(position, norm_first):
    model, (source, target) = transformer(POSITIONS[position], norm_first=norm_first), ids()
    with torch.no_grad():
        assert_close(stepped(model, source, target), model(source, target), atol=1e-5, rtol=0)


def test_in_bfloat16_the_cache_agrees_within_its_precision():
    model, (source, target) = transformer(), ids()
    coarse = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        found, whole, exact = stepped(coarse, source, target), coarse(source, target), None
        exact = model(source, target)
    assert found.dtype == torch.bfloat16
    scale = exact.abs().max()
    assert (found - whole).abs().max() < 0.05 * scale
    assert (found - exact).abs().max() < 0.05 * scale


def test_where_only_parameters_are_in_bfloat16_logits_are_too():
    """The sinusoids are none, and stay in single precision."""
    model, (source, target) = transformer(), ids()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    assert model.places.table.dtype == torch.float32
    for logits in (model(source, target), stepped(model, source, target)):
        assert logits.dtype == torch.bfloat16


def test_one_place_is_room_enough_for_one_symbol():
    model, (source, target) = transformer(max_len=1), ids()
    source, target = source[:, :1], target[:, :1]
    assert_close(stepped(model, source, target), model(source, target), atol=1e-5, rtol=0)


def test_weights_are_copied_for_several_rows_only():
    block = transformer().decoder[0]
    weight = block.self_attention.out_proj.weight
    one, several = (OneByOne(block, n_rows).self_out[1] for n_rows in (1, BATCH))
    assert torch.equal(one, weight.T) and torch.equal(several, weight.T)
    assert one.data_ptr() == weight.data_ptr() and several.data_ptr() != weight.data_ptr()
    assert several.is_contiguous()


def test_the_past_is_neither_moved_nor_written_again():
    model, (source, target) = transformer(), ids()
    with torch.no_grad():
        state, places, kept = model.start(source, SEQ), set(), []
        for step, newest in enumerate(target.T, start=1):
            model.step(newest, state)
            assert state.length == step
            for cache in state.caches:
                assert cache.keys.shape == (BATCH, HEADS, SEQ, D_HEAD)
            places.add(tuple((c.keys.data_ptr(), c.values.data_ptr()) for c in state.caches))
            kept.append([(c.keys[:, :, :step].clone(), c.values[:, :, :step].clone())
                         for c in state.caches])  # fmt: skip
    assert len(places) == 1
    for step, old in enumerate(kept, start=1):
        for cache, (keys, values) in zip(state.caches, old, strict=True):
            assert torch.equal(cache.keys[:, :, :step], keys)
            assert torch.equal(cache.values[:, :, :step], values)


def test_a_step_makes_the_keys_of_one_place():
    model, (source, target) = transformer(), ids()
    made = []

    class Counting(Cache):
        def extend(self, new):
            made.append([part.shape for part in new])
            return super().extend(new)

    with torch.no_grad():
        state = model.start(source)
        state.caches[0] = Counting(MAX_LEN)
        for newest in target.T:
            model.step(newest, state)
    assert made == [[(BATCH, HEADS, 1, D_HEAD)] * 2] * SEQ


def test_a_cache_gives_back_all_it_was_given():
    cache, parts = Cache(MAX_LEN), torch.randn(2, BATCH, HEADS, SEQ, D_HEAD)
    assert cache.keys is None and cache.values is None
    for part in parts.split([2, 1, 2], dim=3):
        keys, values = cache.extend((part[0], part[1]))
    assert torch.equal(keys, parts[0]) and torch.equal(values, parts[1])


@pytest.mark.parametrize("when", [0, 2])
def test_selected_rows_go_on_as_if_they_had_been_there_from_the_start(when):
    model, (source, target) = transformer(), ids()
    rows = torch.tensor([2, 0, 0, 1, 2])
    with torch.no_grad():
        state = model.start(source)
        for newest in target[:, :when].T:
            model.step(newest, state)
        state.select(rows)
        found = [model.step(newest, state) for newest in target[rows][:, when:].T]
        expected = model(source[rows], target[rows])[:, when:]
    assert_close(torch.stack(found, 1), expected, atol=1e-5, rtol=0)


def test_rows_kept_twice_part_ways():
    model, (source, target) = transformer(), ids()
    with torch.no_grad():
        state = model.start(source[:1])
        model.step(target[:1, 0], state)
        state.select(torch.tensor([0, 0]))
        model.step(torch.tensor([5, 8]), state)
        found = model.step(torch.tensor([7, 7]), state)
    for row, second in enumerate((5, 8)):
        expected = model(source[:1], torch.tensor([[BEGIN_ID, second, 7]]))[0, -1]
        assert_close(found[row], expected, atol=1e-5, rtol=0)


# ---- agreement with PyTorch


@torch.no_grad()
def copy_attention(ours, theirs):
    three = ours.q_proj, ours.k_proj, ours.v_proj
    theirs.in_proj_weight.copy_(torch.cat([proj.weight for proj in three]))
    theirs.in_proj_bias.copy_(torch.cat([proj.bias for proj in three]))
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


@torch.no_grad()
def copy_block(ours, theirs, attentions, norms):
    for our_name, their_name in attentions.items():
        copy_attention(ours.get_submodule(our_name), theirs.get_submodule(their_name))
    theirs.linear1.load_state_dict(ours.feed_forward.widen.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.narrow.state_dict())
    for number, name in enumerate(norms, start=1):
        copy_norm(ours.get_submodule(name), theirs.get_submodule(f"norm{number}"))


@torch.no_grad()
def copy_norm(ours, theirs):
    ours.gain.uniform_(0.5, 1.5)  # so that one norm left out or swapped is seen
    ours.bias.uniform_(-0.5, 0.5)
    theirs.weight.copy_(ours.gain)
    theirs.bias.copy_(ours.bias)


@pytest.mark.filterwarnings("ignore:.*nested_tensor.*")
@pytest.mark.parametrize("norm_first", [True, False])
def test_it_is_pytorchs_transformer(norm_first):
    model, (source, target) = transformer(norm_first=norm_first), ids()
    theirs = nn.Transformer(
        D_MODEL, HEADS, LAYERS, LAYERS, D_FF, dropout=0, batch_first=True, norm_first=norm_first
    )
    for ours, other in zip(model.encoder.blocks, theirs.encoder.layers, strict=True):
        copy_block(ours, other, {"attention": "self_attn"}, ("attention_norm", "feed_forward_norm"))
    for ours, other in zip(model.decoder, theirs.decoder.layers, strict=True):
        names = {"self_attention": "self_attn", "cross_attention": "multihead_attn"}
        copy_block(ours, other, names, ("self_norm", "cross_norm", "feed_forward_norm"))
    copy_norm(model.encoder.norm, theirs.encoder.norm)
    copy_norm(model.norm, theirs.decoder.norm)
    hidden = source == PAD_ID
    vectors = theirs(
        model.places(model.source_embedding(source)),
        model.places(model.target_embedding(target)),
        tgt_mask=forbidden(causal_mask(SEQ))[0, 0],
        src_key_padding_mask=hidden,
        memory_key_padding_mask=hidden,
    )
    assert_close(model(source, target), model.output(vectors), atol=1e-5, rtol=0)


# ---- gradients


@pytest.mark.parametrize("norm_first", [True, False])
def test_gradients_are_finite_and_reach_every_parameter(norm_first):
    model, (source, target) = transformer(norm_first=norm_first), ids()
    logits = model(source, target[:, :-1])
    loss = nn.functional.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=PAD_ID)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("k_proj.bias"):  # the same for all keys: the softmax does not feel it
            assert parameter.grad.abs().max() > 0, name


def test_the_loss_of_the_past_has_no_gradient_in_the_future():
    model, (source, target) = transformer(), ids()
    found = {}
    model.target_embedding.register_forward_hook(
        lambda module, args, output: found.update(x=output) or output.retain_grad()
    )
    model(source, target)[:, 2].sum().backward()
    gradient = found["x"].grad.abs().amax((0, 2))
    assert (gradient[:3] > 0).all() and (gradient[3:] == 0).all()


# ---- bad input


@pytest.mark.parametrize("shape", [(0, SOURCE), (BATCH, 0), (SOURCE,)])
def test_an_empty_source_is_refused(unchecked_shapes, shape):
    empty = torch.ones(shape, dtype=torch.long)
    for use in (transformer().encode, transformer().start):
        with pytest.raises(
            ValueError, match=r"source must be \(batch, source\) and not empty, got"
        ):
            use(empty)


def test_a_source_of_padding_only_is_refused_with_its_rows():
    source, target = ids()
    source[1] = PAD_ID
    with pytest.raises(ValueError, match=r"rows \[1\] of the source are nothing but padding"):
        transformer()(source, target)


def test_a_target_without_begin_token_is_refused_with_its_rows():
    model, (source, target) = transformer(), ids()
    target[0, 0], target[2, 0] = 7, STOP_ID
    message = r"begin with BEGIN_ID = 1; rows \[0, 2\] begin with \[7, 2\]"
    for use in (model, model.attention):
        with pytest.raises(ValueError, match=message):
            use(source, target)
    with pytest.raises(ValueError, match=message):
        model.step(target[:, 0], model.start(source))


@pytest.mark.parametrize("shape", [(BATCH, 0), (BATCH,)])
def test_an_empty_target_is_refused(unchecked_shapes, shape):
    source, _ = ids()
    with pytest.raises(ValueError, match=r"target must be \(batch, seq\) and not empty, got"):
        transformer()(source, torch.ones(shape, dtype=torch.long))


def test_what_is_longer_than_the_places_is_refused():
    model, (source, target) = transformer(max_len=6), ids()
    message = "a sequence of 7 symbols is longer than max_len = 6"
    with pytest.raises(ValueError, match=message):
        model(source, target)  # the source has 7
    longer = nn.functional.pad(target, (0, 2), value=5)
    with pytest.raises(ValueError, match=message):
        model(source[1:2, :4], longer[1:2])


@pytest.mark.parametrize("max_len", [0, -1, MAX_LEN + 1])
def test_room_for_nothing_or_too_much_is_refused(max_len):
    source, _ = ids()
    with pytest.raises(ValueError, match=rf"max_len must lie in 1 \.\. 13, got {max_len}"):
        transformer().start(source, max_len)


def test_a_model_for_no_places_is_refused():
    with pytest.raises(ValueError, match="max_len must be at least 1 and whole, got 0"):
        transformer(max_len=0)


def test_a_full_cache_is_refused():
    model, (source, target) = transformer(), ids()
    state = model.start(source, 2)
    with torch.no_grad():
        for newest in target[:, :2].T:
            model.step(newest, state)
        with pytest.raises(ValueError, match="room for max_len = 2 places, got 3"):
            model.step(target[:, 2], state)


@pytest.mark.parametrize("number", [1, BATCH - 1, BATCH + 1])
def test_not_one_target_for_each_source_is_refused(unchecked_shapes, number):
    model, (source, _) = transformer(), ids()
    message = f"{number} targets for {BATCH} sources"
    with pytest.raises(ValueError, match=message):
        model.step(torch.full((number,), BEGIN_ID), model.start(source))
    with pytest.raises(ValueError, match=message):
        model(source, torch.full((number, 2), BEGIN_ID))


def test_what_a_model_of_another_depth_has_read_is_refused():
    model, (source, target) = transformer(), ids()
    for n_layers in (LAYERS - 1, LAYERS + 1):
        other = transformer(n_layers=n_layers)
        with pytest.raises(ValueError, match=f"for {n_layers} blocks, the decoder has {LAYERS}"):
            model.decode(target, *other.encode(source))
        with pytest.raises(ValueError, match=f"for {n_layers} blocks, the decoder has {LAYERS}"):
            model.step(target[:, 0], other.start(source))


@pytest.mark.parametrize("looks", ["self_attention", "cross_attention"])
@pytest.mark.parametrize("proj", ["q_proj", "k_proj"])
def test_nan_in_the_weights_is_not_hidden_at_any_step(looks, proj):
    """Without padding: there PyTorch's kernel for the CPU would turn it into zeros."""
    model, (source, target) = transformer(), ids()
    source = source[:1].expand(BATCH, -1)
    with torch.no_grad():
        model.get_parameter(f"decoder.0.{looks}.{proj}.bias")[0] = torch.nan
        assert stepped(model, source, target).isnan().all()


def test_nan_in_the_memory_of_one_sequence_reaches_its_logits_and_no_others():
    model, (source, target) = transformer(), ids()
    with torch.no_grad():
        state = model.start(source[:1].expand(BATCH, -1))
        state.memory[0][0][1] = torch.nan
        for newest in target.T:
            broken = model.step(newest, state).isnan()
            assert broken[1].all() and not broken[[0, 2]].any()


def test_symbols_outside_the_tables_are_refused():
    model, (source, target) = transformer(), ids()
    target[0, 1] = TARGET_SIZE
    with pytest.raises(ValueError, match=r"ids must lie in 0 \.\. 18"):
        model(source, target)


# ---- broken on purpose


def test_a_forgotten_causal_mask_is_caught(monkeypatch):
    model, (source, target) = transformer(), ids()
    everything = torch.ones(1, 1, SEQ, SEQ, dtype=torch.bool)
    monkeypatch.setattr("transformer_lit.encoder_decoder.causal_mask", lambda seq: everything)
    other = target.clone()
    other[:, -1] = 5
    with torch.no_grad():
        assert not torch.equal(model(source, target)[:, 0], model(source, other)[:, 0])
        assert (stepped(model, source, target) - model(source, target)).abs().max() > 1e-3


def test_a_forgotten_mask_of_the_memory_is_caught():
    model, (source, target) = transformer(), ids()
    memory, mask = model.encode(source)
    forgotten = model.decode(target, memory, torch.ones_like(mask))
    difference = (forgotten - model(source, target)).abs().amax((1, 2))
    assert difference[0] < 1e-5 and (difference[1:] > 1e-3).all()


def test_a_cache_that_does_not_advance_is_caught():
    class Stuck(Cache):
        def extend(self, new):
            written, self.length = self.length, 0  # writes over what is there
            found = super().extend(new)
            self.length = written + 1
            return found

    model, (source, target) = transformer(), ids()
    with torch.no_grad():
        state = model.start(source)
        state.caches = [Stuck(MAX_LEN) for _ in state.caches]
        found = [model.step(newest, state) for newest in target.T]
        expected = model(source, target)
    assert_close(found[0], expected[:, 0], atol=1e-5, rtol=0)
    assert all((found[n] - expected[:, n]).abs().max() > 1e-3 for n in range(1, SEQ))


def test_queries_and_memory_swapped_are_caught(unchecked_shapes):
    """Keys and values from the decoder would have as many places as the target."""
    block, x = transformer().decoder[0], torch.randn(BATCH, SEQ, D_MODEL)
    with pytest.raises(ValueError, match="mask"):
        block(
            x,
            block.cross_attention.keys_values(x),
            mask=causal_mask(SEQ),
            memory_mask=torch.ones(BATCH, 1, 1, SOURCE, dtype=torch.bool),
        )
