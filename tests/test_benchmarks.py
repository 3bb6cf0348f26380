"""The benchmarks compare the same task, and print their tables. No time is asserted."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import greedy_decoding
import measure
import models
import training_step
from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID

ROOT = Path(__file__).parents[1]
SIZES = models.Sizes(vocab_size=31, d_model=24, n_heads=3, n_layers=2, d_ff=37, seq=7, dropout=0.0)


def test_ratios_compare_within_a_round():
    times = {"ours": [1.0, 2.0, 4.0], "other": [2.0, 4.0, 8.0], "busy": [1.0, 6.0, 8.0]}
    assert measure.ratios(times, "ours") == (1, 1, 1)
    assert measure.ratios(times, "other") == (2, 2, 2)
    assert measure.ratios(times, "busy") == (2, 1.5, 2.5)


def test_runs_take_turns_and_the_first_round_does_not_count():
    called = []
    names = "abc"
    runs = {name: lambda name=name: called.append(name) for name in names}
    times = measure.in_turns(runs, rounds=5)
    assert all(len(measured) == 5 for measured in times.values())
    assert [sorted(called[i : i + 3]) for i in range(0, 18, 3)] == [list(names)] * 6


def test_the_table_names_ratios_and_parameters():
    table = measure.table("A", {"ours": [1.0, 1.0], "other": [1.5, 1.5]}, {"ours": 7, "other": 1e3})
    assert "| ours | 7 | 1.00 | 1.00 to 1.00 |" in table
    assert table.startswith("A; 2 rounds\n\n|") and "| 1.50 | 1.50 to 1.50 |" in table


def learned(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_models_learn_as_many_numbers_but_for_the_differences_that_the_readme_states():
    d, n, vocab_size = SIZES.d_model, SIZES.n_layers, SIZES.vocab_size
    sizes = {name: learned(make(SIZES)) for name, make in models.MODELS.items()}
    assert sizes["torch.nn.Transformer"] == sizes["ours"]
    assert sizes["ours"] - sizes["Hugging Face Marian"] == 2 * 2 * d + vocab_size
    attentions, norms = 3 * n, 5 * n
    biases = attentions * 4 * d + norms * d + vocab_size
    assert sizes["ours"] - sizes["x-transformers"] == biases + 2 * 2 * d - 2


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_trains_and_cannot_see_the_future(name):
    torch.manual_seed(0)
    model = models.MODELS[name](SIZES)
    source, target, labels = training_step.batch(SIZES)
    before = [p.clone() for p in model.parameters() if p.requires_grad]
    training_step.step(model, source, target, labels)()
    after = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in after)
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) == len(after)
    model.eval()
    other = torch.cat([target[:, :4], labels[:, 4:]], 1)
    with torch.no_grad():
        logits, changed = model(source, target), model(source, other)
    assert logits.shape == (training_step.BATCH, SIZES.seq, SIZES.vocab_size)
    assert_close(logits[:, :4], changed[:, :4])
    assert not torch.allclose(logits[:, 4:], changed[:, 4:])


def test_labels_are_the_targets_one_place_on():
    source, target, labels = training_step.batch(SIZES)
    assert source.shape == target.shape == labels.shape == (training_step.BATCH, SIZES.seq)
    assert (target[:, 0] == BEGIN_ID).all() and torch.equal(target[:, 1:], labels[:, :-1])
    assert min(source.min(), labels.min()) > STOP_ID


def marian_names(ours: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Our weights under Marian's names."""
    table = (
        (r"^source_embedding\.weight", "model.encoder.embed_tokens.weight"),
        (r"^target_embedding\.weight", "model.decoder.embed_tokens.weight"),
        (r"^encoder\.blocks\.(\d+)\.attention\.", r"model.encoder.layers.\1.self_attn."),
        (
            r"^encoder\.blocks\.(\d+)\.attention_norm",
            r"model.encoder.layers.\1.self_attn_layer_norm",
        ),
        (r"^encoder\.blocks\.(\d+)\.", r"model.encoder.layers.\1."),
        (r"^decoder\.(\d+)\.self_attention\.", r"model.decoder.layers.\1.self_attn."),
        (r"^decoder\.(\d+)\.cross_attention\.", r"model.decoder.layers.\1.encoder_attn."),
        (r"^decoder\.(\d+)\.self_norm", r"model.decoder.layers.\1.self_attn_layer_norm"),
        (r"^decoder\.(\d+)\.cross_norm", r"model.decoder.layers.\1.encoder_attn_layer_norm"),
        (r"^decoder\.(\d+)\.", r"model.decoder.layers.\1."),
        (r"feed_forward_norm", "final_layer_norm"),
        (r"feed_forward\.widen", "fc1"),
        (r"feed_forward\.narrow", "fc2"),
        (r"norm\.gain", "norm.weight"),
    )
    state = {}
    for name, value in ours.named_parameters():
        if name.startswith(("encoder.norm", "norm", "output")):
            continue
        for pattern, replacement in table:
            name = re.sub(pattern, replacement, name)
        state[name] = value.detach()
    return state


def same_as_marian() -> tuple[torch.nn.Module, torch.nn.Module]:
    """Both models of the decoding benchmark, with the same weights and places."""
    torch.manual_seed(0)
    ours, marian = greedy_decoding.models(SIZES)
    missing, unexpected = marian.model.load_state_dict(marian_names(ours), strict=False)
    assert unexpected == []
    assert all(re.search("embed_positions|shared|lm_head|final_logits", name) for name in missing)
    sines = marian.model.model.encoder.embed_positions.weight  # first all sines, then all cosines
    ours.places.table.copy_(sines[: len(ours.places.table)])
    # A norm without gain and bias leaves what a norm has made as it is, so ours at the end of each
    # stack, which Marian has not, change nothing.
    return ours, marian


def test_ours_is_marian_once_the_weights_are_copied():
    ours, marian = same_as_marian()
    source, target, _ = training_step.batch(SIZES)
    with torch.no_grad():
        logits, theirs = ours(source, target), marian(source, target)
    assert_close(logits, theirs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("batch", greedy_decoding.BATCHES)
def test_ours_writes_what_marian_writes(batch):
    ours, marian = same_as_marian()
    source = torch.randint(STOP_ID + 1, SIZES.vocab_size, (batch, SIZES.seq))
    # Marian may write padding and the begin token, ours never does.
    marian.model.final_logits_bias[0, :STOP_ID] = -1e9
    written = greedy_decoding.write_ours(ours, source, SIZES.seq)
    assert torch.equal(written, greedy_decoding.write_theirs(marian, source, SIZES.seq))
    assert written.shape == (batch, SIZES.seq)


@pytest.mark.parametrize(
    "script, rows",
    [
        ("training_step", list(models.MODELS)),
        ("greedy_decoding", ["ours", "Hugging Face generate"] * 2),
        ("pronouncing", ["greedy", "beam of 5"]),
    ],
)
def test_the_script_prints_its_table(script, rows):
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--tiny", "--rounds", "2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = re.findall(r"^\| ([^|]+?) \|.* \d[\d.]* to \d[\d.]* \|$", result.stdout, re.M)
    assert found == rows
    assert f"torch {torch.__version__}" in result.stdout and "threads" in result.stdout


def test_too_few_rounds_are_refused():
    command = [sys.executable, ROOT / "benchmarks" / "training_step.py", "--rounds", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and "must be at least 2, got 1" in result.stderr
