"""The benchmarks compare the same task, print, save and show what they measured.

No test measures a time: what the page says is held against the stored results.
"""

import importlib.util
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import bs4
import pytest
import torch
from torch.testing import assert_close

import attention
import greedy_decoding
import growth
import import_time
import measure
import models
import training_step
from tests.browser import load_tool
from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID

ROOT = Path(__file__).parents[1]
SIZES = models.Sizes(vocab_size=31, d_model=24, n_heads=3, n_layers=2, d_ff=37, seq=7, dropout=0.0)
SCRIPTS = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()
)
tool = load_tool("sphinx_benchmarks")


# ---- measuring ----------------------------------------------------------------------------------


def test_ratios_compare_within_a_round():
    times = {"ours": [1.0, 2.0, 4.0], "other": [2.0, 4.0, 8.0], "busy": [1.0, 6.0, 8.0]}
    assert measure.ratios(times, "ours") == [1, 1, 1]
    assert measure.ratios(times, "other") == [2, 2, 2]
    assert measure.ratios(times, "busy") == [1, 3, 2]
    assert measure.ratios(times, "busy", base="other") == [0.5, 1.5, 1]


def test_the_spread_is_the_median_and_the_middle_half():
    assert measure.spread([9, 1, 4, 2, 3]) == {"median": 3, "low": 2, "high": 4}
    assert measure.spread([1 / 3, 2 / 3])["median"] == 0.5
    assert measure.spread([1 / 3, 1 / 3])["low"] == 0.3333


def test_runs_take_turns_and_the_first_round_does_not_count():
    called = []
    names = "abc"
    runs = {name: lambda name=name: called.append(name) for name in names}
    times = measure.in_turns(runs, rounds=5)
    assert all(len(measured) == 5 for measured in times.values())
    assert [sorted(called[i : i + 3]) for i in range(0, 18, 3)] == [list(names)] * 6


def test_a_row_has_time_and_ratio_and_the_quickest_of_the_others_is_marked():
    times = {"ours": [1.0, 1.0], "slow": [3.0, 5.0], "quick": [1.5, 1.5], "ours, bare": [1.0, 1.0]}
    more = {"parameters": dict.fromkeys(times, 7)}
    rows = measure.compare(times, ["slow", "quick"], where={"n": 5}, more=more)
    assert [row["implementation"] for row in rows] == list(times)
    assert [row.pop(measure.BEST, False) for row in rows] == [False, False, True, False]
    assert rows[1] == {
        "n": 5,
        "implementation": "slow",
        "parameters": 7,
        "milliseconds": {"median": 4000, "low": 3500, "high": 4500},
        "times as long as ours": {"median": 4, "low": 3.5, "high": 4.5},
    }


def test_a_table_writes_numbers_as_they_are_read_and_the_best_bold():
    spread = {"median": 1.234, "low": 0.5, "high": 12.34}
    rows = [
        {"name": "a", "count": 8000, "ratio": spread, "sizes": [1, 2]},
        {"name": "b", "count": 123.4, "ratio": spread, "sizes": [3], measure.BEST: True},
    ]
    assert measure.table(rows).splitlines() == [
        "| name | count | ratio | sizes |",
        "| --- | --- | --- | --- |",
        "| a | 8,000 | 1.23 (0.50 to 12.3) | 1 · 2 |",
        "| **b** | **123** | **1.23 (0.50 to 12.3)** | **3** |",
    ]


def test_exponents_are_those_of_powers():
    squared = {n: [3 * n**2, 5 * n**2] for n in (2, 4, 16)}
    assert growth.exponents(squared) == pytest.approx([2, 2])
    assert growth.exponents({1: [8.0, 1.0], 2: [8.0, 2.0]}) == pytest.approx([0, 1])


# ---- the same task ------------------------------------------------------------------------------


def test_models_learn_as_many_numbers_but_for_the_differences_that_the_readme_states():
    d, n, vocab_size = SIZES.d_model, SIZES.n_layers, SIZES.vocab_size
    sizes = {name: models.parameters(make(SIZES)) for name, make in models.MODELS.items()}
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


def test_the_layers_of_the_attention_benchmark_compute_the_same_forward_and_backward():
    layers = attention.layers()
    mine, (flash, torchs) = layers["ours"].layer, (layers[name] for name in attention.OTHERS)
    projections = mine.q_proj, mine.k_proj, mine.v_proj, mine.out_proj
    with torch.no_grad():
        for projection in projections:
            projection.bias.zero_()
        theirs = flash.to_q, flash.to_k, flash.to_v, flash.to_out
        for one, other in zip(projections, theirs, strict=True):
            other.weight.copy_(one.weight)
        torchs.layer.in_proj_weight.copy_(torch.cat([one.weight for one in projections[:3]]))
        torchs.layer.out_proj.weight.copy_(mine.out_proj.weight)
    for form in ("ours, with a mask", "ours, explicit"):
        layers[form].layer.load_state_dict(mine.state_dict())
    x = torch.randn(3, 7, attention.D_MODEL, requires_grad=True)
    changed = torch.cat([x[:, :4], torch.randn(3, 3, attention.D_MODEL)], 1)
    outputs = {name: layer(x) for name, layer in layers.items()}
    for name, layer in layers.items():
        assert_close(outputs[name], outputs["ours"])
        slopes = [torch.autograd.grad(outputs[one].square().sum(), x, retain_graph=True)[0]
                  for one in (name, "ours")]  # fmt: skip
        assert_close(*slopes)
        assert_close(layer(changed)[:, :4], outputs[name][:, :4])
        assert not torch.allclose(layer(changed)[:, 4:], outputs[name][:, 4:])


def test_what_grows_keeps_the_width_of_heads_and_the_shape_of_a_block():
    for size, values in growth.GROWN.items():
        for value in values:
            sizes = growth.sized(size, value)
            assert sizes.d_model == 32 * sizes.n_heads and sizes.d_ff == 4 * sizes.d_model
    assert growth.sized("n", 128).seq == 128 and growth.sized("n_layers", 8).n_layers == 8
    assert growth.sized("d_model", 64).d_model == 64 and growth.sized("n", 64) == growth.BASE


@pytest.mark.parametrize("line", [line for line in import_time.IMPORTS.values() if line != "pass"])
def test_what_is_imported_exists(line):
    assert importlib.util.find_spec(line.split()[1])


# ---- the scripts --------------------------------------------------------------------------------

LAYERS = ["x-transformers, flash", "torch.nn.MultiheadAttention", "ours, with a mask"]
LAYERS = ["ours", *LAYERS, "ours, explicit"]
METHODS = ["none", "sinusoidal", "learned", "Shaw", "T5", "RoPE", "ALiBi", "Transformer-XL"]


@pytest.mark.parametrize(
    "script, column, entries",
    [
        ("attention", "implementation", LAYERS * 2),
        ("greedy_decoding", "implementation", ["ours", "Hugging Face generate"] * 2),
        ("growth", "grows", ["n", "d_model", "n_layers"] * 2 + ["n", "d_model"]),
        ("import_time", "implementation", list(import_time.IMPORTS)),
        ("positions", "method", METHODS * 2),
        ("pronouncing", "decoding", ["greedy", "beam of 5"]),
        ("training_step", "implementation", list(models.MODELS)),
    ],
)
def test_a_script_prints_what_it_saves_and_with_it_versions_and_machine(
    script, column, entries, tmp_path
):
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--tiny", "--rounds", "2"]
    command += ["--save-in", tmp_path]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = measure.load(script, tmp_path)
    assert [row[column] for row in result["rows"]] == entries
    assert tool.text(script, result).startswith(run.stdout.strip())
    assert f"2 rounds; Python {platform.python_version()}, torch {version('torch')}" in run.stdout
    assert re.search(r"; .*\w.*, \d+ cores, \d+ threads$", run.stdout)
    saved = (tmp_path / f"{script}.json").read_text(encoding="utf-8")
    assert platform.node() not in saved and str(ROOT) not in saved


def given(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["script.py", *words])
    return measure.arguments("Try.", rounds=5)


def test_a_small_run_is_saved_only_when_asked(monkeypatch, tmp_path):
    assert given(monkeypatch).save_in == ROOT / "benchmarks" / "results"
    assert given(monkeypatch, "--tiny").save_in is None
    assert given(monkeypatch, "--tiny", "--save-in", str(tmp_path)).save_in == tmp_path


def test_too_few_rounds_are_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        given(monkeypatch, "--rounds", "1")
    assert "must be at least 2, got 1" in capsys.readouterr().err


def test_a_result_that_is_missing_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"swimming\.json.*benchmarks/swimming\.py"):
        measure.load("swimming", tmp_path)


# ---- the page -----------------------------------------------------------------------------------

PAGE = (ROOT / "book" / "measured.md").read_text(encoding="utf-8")


def test_every_script_is_run_described_and_shown():
    command = ["make", "--dry-run", "bench"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert sorted(re.findall(r"benchmarks/(\w+)\.py", lines)) == SCRIPTS
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)\.py`", readme, re.M)) == SCRIPTS
    assert sorted(re.findall(r"\{benchmark\} (\w+)", PAGE)) == SCRIPTS
    assert sorted(re.findall(r"\{benchmark-figure\} (\w+)", PAGE)) == sorted(tool.DRAWN)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_a_result_of_a_whole_run(script):
    result = measure.load(script)
    assert result["rounds"] >= 9 and measure.table(result["rows"])


class Directive:
    """As much of a directive as `load` asks for."""

    error = ValueError

    def __init__(self, name):
        self.arguments = [name]
        self.read = []
        self.state = self.document = self.settings = self.env = self

    def note_dependency(self, path):
        self.read.append(Path(path).name)


def test_a_result_that_is_missing_stops_the_build_and_one_that_changes_is_read_again():
    directive = Directive("swimming")
    with pytest.raises(ValueError, match=r"swimming\.json"):
        tool.load(directive)
    assert directive.read == ["swimming.json"]


def drawn(function, result):
    figure = tool.plt.figure()
    function(result, figure)
    tool.plt.close(figure)
    return [
        (line.get_label(), list(line.get_xdata()), list(line.get_ydata()))
        for ax in figure.axes
        for line in ax.get_lines()
    ]


def test_the_figures_draw_the_medians():
    times = {"ours": [1.0, 1.0], "other": [2.0, 4.0]}
    rows = [row for n in (8, 16) for row in measure.compare(times, ["other"], where={"n": n})]
    assert drawn(tool.draw_attention, {"rows": rows}) == [
        ("ours", [8, 16], [1000, 1000]),
        ("other", [8, 16], [3000, 3000]),
    ]
    row = {"grows": "n", "sizes": [8, 32], "milliseconds": [5, 20], "exponent": {"median": 1.0}}
    rows = [{"what": "a"} | row, {"what": "b"} | row | {"milliseconds": [2, 32]}]
    assert drawn(tool.draw_growth, {"rows": rows}) == [
        ("n: exponent 1.00", [1, 4], [1, 4]),
        ("n: exponent 1.00", [1, 4], [1, 16]),
    ]


def test_the_page_shows_the_numbers_of_the_files(site):
    html = (site.folder / "book" / "measured.html").read_text(encoding="utf-8")
    shown = bs4.BeautifulSoup(html, "html.parser").select(".benchmark")
    for script, part in zip(re.findall(r"\{benchmark\} (\w+)", PAGE), shown, strict=True):
        result = measure.load(script)
        lines = measure.table(result["rows"]).replace("**", "").splitlines()[2:]
        wanted = [text for line in lines for text in line.strip("| ").split(" | ")]
        assert [cell.get_text() for cell in part.select("tbody td")] == wanted
        conditions = f"{measure.conditions(result)}. python benchmarks/{script}.py"
        assert part.select("p")[-1].get_text() == conditions


def layers_measured():
    """The rows of the attention benchmark by length and name."""
    return {(row["n"], row["implementation"]): row for row in measure.load("attention")["rows"]}


@pytest.mark.parametrize("n", attention.LENGTHS)
def test_our_layer_keeps_up_with_the_quickest_and_takes_no_more_memory(n):
    flash = layers_measured()[n, attention.OTHERS[0]]
    assert flash["times as long as ours"]["median"] >= 0.95
    assert layers_measured()[n, "ours"]["MiB"] <= 1.2 * flash["MiB"]


def test_what_the_page_says_of_the_layers_holds():
    measured = layers_measured()
    for n, least, most in [(128, 0.95, 1.05), (256, 0.95, 1.05), (512, 0.95, 1.05),
                           (1024, 1.2, 2), (2048, 1.5, 3)]:  # fmt: skip
        ratio = measured[n, "ours, with a mask"]["times as long as ours"]["median"]
        assert least <= ratio <= most, n
    for name in attention.layers():
        times = [measured[n, name]["milliseconds"]["median"] for n in attention.LENGTHS]
        assert all(later > 2 * earlier for earlier, later in pairwise(times)), name
    longest = {name: measured[2048, name]["milliseconds"]["median"] for name in attention.layers()}
    assert max(longest, key=longest.get) == "ours, explicit"


def test_what_the_page_says_of_growth_holds():
    grown = {(row["what"], row["grows"]): row for row in measure.load("growth")["rows"]}
    few, *_, more, most = grown["attention layer", "n"]["milliseconds"]
    assert grown["attention layer", "n"]["sizes"] == [64, 128, 256, 512]
    assert grown["attention layer", "n"]["milliseconds"][1] < 2 * few and most > 2 * more
    for what in growth.RUNS:
        shared = []
        for size in growth.GROWN:
            if (what, size) in grown:
                row = grown[what, size]
                base = {"n": growth.BASE.seq}.get(size) or getattr(growth.BASE, size)
                shared.append(row["milliseconds"][row["sizes"].index(base)])
        assert max(shared) <= 1.25 * min(shared), what
    for what in ("training step", "greedy decoding"):
        row = grown[what, "n_layers"]
        (one, *_, eight), times = row["sizes"], row["milliseconds"]
        assert (one, eight) == (1, 8) and times[-1] < 8 * times[0]
