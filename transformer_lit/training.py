"""Training: each place of the target is a question with one right answer, all asked at once.

Chapter: https://transformer-lit.github.io/transformer_lit/book/12-teacher-forcing.html
Paper: Williams and Zipser 1989, section 3, https://doi.org/10.1162/neco.1989.1.2.270 (teacher
    forcing); Vaswani et al. 2017, section 5, https://arxiv.org/abs/1706.03762 (warm-up, smoothing);
    Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567 (label smoothing).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from tqdm import tqdm

from transformer_lit.encoder_decoder import PAD_ID
from transformer_lit.vocabulary import pad

Pair = tuple[Int[Tensor, "_"], Int[Tensor, "_"]]  # a source and a target, of any lengths


def teacher_forcing(
    target: Int[Tensor, "batch seq"],
) -> tuple[Int[Tensor, "batch shorter"], Int[Tensor, "batch shorter"]]:
    """Split targets into what the decoder is shown and what it should answer, one place apart.

    Raises:
        ValueError: if targets have fewer than two places, a begin token and one answer, or hold no
            integers.
    """
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"targets must be integers, got {target.dtype}")
    if target.ndim != 2 or target.shape[1] < 2:
        raise ValueError(
            f"targets must be (batch, seq) with at least 2 places, got shape {tuple(target.shape)}"
        )
    return target[:, :-1], target[:, 1:]


def sequence_loss(
    logits: Float[Tensor, "batch seq vocab_size"],
    labels: Int[Tensor, "batch seq"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Average the cross-entropy over all real places, in nats.

    With smoothing, that share of the right answer's probability is spread evenly over all classes
    that are possible at all: one with a logit of -inf would make the loss infinite.

    Args:
        logits: a score for each class at each place.
        labels: the right classes; 0 is padding and does not count.
        label_smoothing: the share that is spread, in [0, 1).

    Raises:
        ValueError: if shapes or dtypes do not fit, ``label_smoothing`` lies outside [0, 1), a
            label is no class, or all labels are padding.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need one label per place, got {tuple(labels.shape)}"
        )
    if not logits.is_floating_point() or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"logits must be real numbers, labels integers, got {logits.dtype} and {labels.dtype}"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    real = labels != PAD_ID
    if not real.any():
        raise ValueError("there is nothing to learn from: all labels are padding")
    # Half precision is too coarse for a sum over many classes.
    at_least_single = torch.promote_types(logits.dtype, torch.float32)
    logits, labels = logits[real].to(at_least_single), labels[real]
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[-1]:
        raise ValueError(
            f"labels must lie in 0 .. {logits.shape[-1] - 1}, "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    log_probs = logits.log_softmax(-1)
    loss = -log_probs.gather(-1, labels[:, None])[:, 0]
    if label_smoothing:
        possible = logits > -torch.inf
        even = -log_probs.masked_fill(~possible, 0).sum(-1) / possible.sum(-1)
        loss = (1 - label_smoothing) * loss + label_smoothing * even
    return loss.mean()


def inverse_sqrt(step: int, *, d_model: int, warmup: int) -> float:
    """Give the paper's learning rate at ``step`` = 1, 2, ...: up evenly, then down as 1 / sqrt.

    ``d_model ** -0.5 * min(step ** -0.5, step * warmup ** -1.5)``

    Raises:
        ValueError: if a number is below 1.
    """
    if not all(number >= 1 for number in (step, d_model, warmup)):
        raise ValueError(
            f"step, d_model and warmup must be at least 1, got {step}, {d_model} and {warmup}"
        )
    return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)


def up_and_down(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """Give a learning rate that rises evenly to ``peak``, then falls evenly to 0 at ``steps``.

    Raises:
        ValueError: unless 1 <= step <= steps, 1 <= warmup < steps and the peak is positive and
            finite.
    """
    if not (1 <= step <= steps and 1 <= warmup < steps and 0 < peak < torch.inf):
        raise ValueError(
            "1 <= step <= steps, 1 <= warmup < steps and peak > 0 must hold, "
            f"got step {step}, steps {steps}, warmup {warmup}, peak {peak}"
        )
    return peak * min(step / warmup, (steps - step) / (steps - warmup))


def bucketed(
    lengths: Sequence[int], batch_size: int, generator: torch.Generator
) -> list[Int[Tensor, "rows"]]:
    """Draw batches of sequences of about the same length, in random order: little padding.

    Each sequence is in one batch. Which of those of one length meet is drawn anew each time.

    Raises:
        ValueError: if there are no lengths, or ``batch_size`` is below 1.
    """
    if len(lengths) == 0 or batch_size < 1:
        raise ValueError(
            "there must be sequences and batch_size must be at least 1, "
            f"got {len(lengths)} and {batch_size}"
        )
    noise = torch.rand(len(lengths), generator=generator)
    batches = (torch.tensor(lengths) + noise).argsort().split(batch_size)
    order = torch.randperm(len(batches), generator=generator)
    return [batches[i] for i in order]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. A checkpoint goes on under the recipe that it was begun with only.

    Raises:
        ValueError: if a number makes no sense: no step, no rate, no patience, nothing to clip to,
            all of a label smoothed away, a negative decay, or half a step.
    """

    epochs: int
    batch_size: int = 256
    rate: float = 1e-3  # the highest
    warmup: int = 400  # steps
    label_smoothing: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0  # the longest gradient
    patience: int | None = None  # epochs without a better validation loss before it stops
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self):
        patience = 1 if self.patience is None else self.patience
        whole = (self.epochs, self.batch_size, self.warmup, patience)
        shares = 0 <= self.label_smoothing < 1 and 0 <= self.weight_decay < torch.inf
        above = 0 < self.rate < torch.inf and self.clip > 0
        if any(n < 1 or n % 1 for n in whole) or self.seed % 1 or not (shares and above):
            raise ValueError(
                "epochs, batch_size, warmup, patience must be at least 1, rate and clip above 0, "
                "label_smoothing in [0, 1), weight_decay not negative, the first four and the seed "
                f"whole, got {self}"
            )


def train(
    model: nn.Module,
    pairs: Sequence[Pair],
    recipe: Recipe,
    *,
    validation: Sequence[Pair] = (),
    checkpoint: Path | None = None,
    after_epoch: Callable[[nn.Module, dict], None] = lambda model, record: None,
    rank: int = 0,
    world: int = 1,
    progress: bool = True,
) -> list[dict]:
    """Train ``model(source, target)`` by teacher forcing; return one record per epoch.

    With a ``checkpoint`` the state is saved after each epoch, and a run that finds one goes on
    from there: all random numbers of an epoch come from the seed and its number, so the result is
    the same to the bit as without the break. With ``patience`` the best weights are put back.

    Args:
        model: takes ids (batch, source) and (batch, seq), gives logits (batch, seq, vocab_size).
        pairs: sources and targets; targets with their begin and stop tokens.
        recipe: the settings.
        validation: pairs whose loss is measured after each epoch, without smoothing.
        checkpoint: the file.
        after_epoch: called with the model and the epoch's record.
        rank: which of the processes this is, where several train together; the model is then
            a ``DistributedDataParallel``.
        world: how many they are. Each takes its share of every batch.
        progress: show a progress bar.

    Raises:
        ValueError: if there are no pairs, the warm-up is longer than the training, ``patience``
            is set without validation pairs, ``rank`` is not one of 0 .. ``world`` - 1, or the
            checkpoint belongs to another recipe, another model or other pairs, or is damaged. It
            stays as it is.
    """
    if rank not in range(world):
        raise ValueError(f"rank must lie in 0 .. world - 1, got rank {rank} and world {world}")
    if len(pairs) == 0:
        raise ValueError("there are no pairs to train on")
    if recipe.patience is not None and len(validation) == 0:
        raise ValueError("patience needs validation pairs to see when the loss gets no better")
    lengths = [len(source) for source, _ in pairs]
    per_epoch = -(-len(pairs) // recipe.batch_size)
    steps = recipe.epochs * per_epoch
    if steps <= recipe.warmup:
        raise ValueError(f"a warm-up of {recipe.warmup} steps does not fit into {steps} steps")
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
    )
    history: list[dict] = []
    best: dict[str, Tensor] = {}
    step = 0
    bare = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    if checkpoint is not None and checkpoint.exists():
        history, best = _resume(checkpoint, bare, optimizer, recipe, per_epoch)
        step = history[-1]["step"]
    bar = tqdm(total=steps, initial=step, unit="step", disable=not progress or rank > 0)
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        if _out_of_patience(history, recipe.patience):
            break
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
        torch.manual_seed((recipe.seed * 100_003 + epoch) * world + rank)  # for the dropout
        model.train()
        losses = []
        for rows in bucketed(lengths, recipe.batch_size, generator):
            step += 1
            rate = up_and_down(step, peak=recipe.rate, warmup=recipe.warmup, steps=steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            source, target = batch([pairs[i] for i in rows], model)
            shown, labels = teacher_forcing(target)
            # A process without a row of its own takes the last one along, and counts it nothing.
            mine = slice(min(rank, len(rows) - 1), None, world)
            with _precision(recipe, source.device):
                logits = model(source[mine], shown[mine])
            loss = sequence_loss(logits, labels[mine], label_smoothing=recipe.label_smoothing)
            # Processes average their gradients: each must count as many places as it has.
            counted = world * (rank < len(rows))
            share = counted * (labels[mine] != PAD_ID).sum() / (labels != PAD_ID).sum()
            optimizer.zero_grad()
            (loss * share).backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            losses.append((loss * share).detach())
            bar.update()
        mean = torch.stack(losses).mean()
        if distributed.is_initialized():  # each process has its share of the loss
            distributed.all_reduce(mean)
        record = {"epoch": epoch, "step": step, "loss": float(mean) / world}
        if len(validation):
            record["validation loss"] = validation_loss(bare, validation, recipe)
            if record["validation loss"] <= min(r["validation loss"] for r in [*history, record]):
                best = {name: value.clone() for name, value in weights(bare).items()}
        history.append(record)
        bar.set_postfix({key: f"{value:.3f}" for key, value in record.items() if "loss" in key})
        if checkpoint is not None and rank == 0:
            _save(checkpoint, bare, optimizer, recipe, history, best)
        after_epoch(bare, record)
    bar.close()
    if recipe.patience is not None:
        bare.load_state_dict(best, strict=False)
    return history


@torch.no_grad()
def validation_loss(model: nn.Module, pairs: Sequence[Pair], recipe: Recipe) -> float:
    """Average the loss of all places of ``pairs``, without dropout and smoothing, in nats.

    Raises:
        ValueError: if there are no pairs.
    """
    if len(pairs) == 0:
        raise ValueError("there are no pairs to measure the loss of")
    model.eval()
    total, places = 0.0, 0
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
    for start in range(0, len(order), recipe.batch_size):
        source, target = batch([pairs[i] for i in order[start : start + recipe.batch_size]], model)
        shown, labels = teacher_forcing(target)
        with _precision(recipe, source.device):
            logits = model(source, shown)
        real = int((labels != PAD_ID).sum())
        total += float(sequence_loss(logits, labels)) * real
        places += real
    return total / places


def batch(pairs: Sequence[Pair], model: nn.Module) -> tuple[Tensor, Tensor]:
    """Pad sources and targets, on the device of the model.

    Raises:
        ValueError: if there are no pairs, or ``pad`` refuses the sources or the targets.
    """
    if len(pairs) == 0:
        raise ValueError("there are no pairs to make a batch of")
    device = next(model.parameters()).device
    sources, targets = zip(*pairs, strict=True)
    return pad(sources).values.to(device), pad(targets).values.to(device)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return what a model has learned, by name; a table used in two places is there once."""
    state = model.state_dict()
    return {name: state[name] for name, _ in model.named_parameters()} | {
        name: value for name, value in model.named_buffers() if name in state
    }


def average(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Average the weights of several checkpoints of one run, as the paper does (section 6.1).

    Raises:
        ValueError: if there are none, or they have not the same names.
    """
    if len(states) == 0 or any(state.keys() != states[0].keys() for state in states):
        raise ValueError(f"there must be states with the same names, got {len(states)}")
    return {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }


def _precision(recipe: Recipe, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16)


def _out_of_patience(history: list[dict], patience: int | None) -> bool:
    if patience is None or not history:
        return False
    losses = [record["validation loss"] for record in history]
    return len(losses) - 1 - losses.index(min(losses)) >= patience


def _save(path, model, optimizer, recipe, history, best) -> None:
    tensors = {f"model.{name}": value for name, value in weights(model).items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    names = [name for name, _ in model.named_parameters()]
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{names[i]}.{key}": value for key, value in state.items()}
    about = {"recipe": json.dumps(asdict(recipe)), "history": json.dumps(history)}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whoever stops the run while it writes finds the old file whole: a name changes in one step.
    half_written = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, half_written, about)
    half_written.replace(path)


def _resume(path, model, optimizer, recipe, per_epoch) -> tuple[list[dict], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        begun, history = (json.loads(about.get(key, "{}")) for key in ("recipe", "history"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to start anew") from error
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    if not begun or not history or not {name.partition(".")[0] for name in tensors} <= parts.keys():
        raise ValueError(f"{path} is no checkpoint of a training run")
    changed = {
        key: (begun.get(key), value)
        for key, value in asdict(recipe).items()
        if begun.get(key) != value
    }
    if changed:
        raise ValueError(
            f"{path} was begun with another recipe: "
            + ", ".join(f"{key} {old} instead of {new}" for key, (old, new) in changed.items())
        )
    if history[-1]["step"] != len(history) * per_epoch:
        raise ValueError(
            f"{path} has {history[-1]['step']} steps in {len(history)} epochs, these pairs make "
            f"{per_epoch} an epoch: it was begun with others"
        )
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    shapes = {name: value.shape for name, value in weights(model).items()}
    if {name: value.shape for name, value in parts["model"].items()} != shapes:
        raise ValueError(f"{path} belongs to a model of another architecture")
    model.load_state_dict(parts["model"], strict=False)  # a tied table is there once, not twice
    names = [name for name, _ in model.named_parameters()]
    states: dict[int, dict[str, Tensor]] = {i: {} for i in range(len(names))}
    for name, value in parts["optimizer"].items():
        parameter, _, key = name.rpartition(".")
        states[names.index(parameter)][key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    return history, parts["best"]
