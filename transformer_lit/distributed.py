"""Many machines: three ways to share the work of one training step, and what each has to send.

Chapter: https://transformer-lit.github.io/transformer_lit/book/22-many-machines.html
Paper: Li et al. 2020, section 3, https://arxiv.org/abs/2006.15704 (data parallel);
    Rajbhandari et al. 2020, section 5, https://arxiv.org/abs/1910.02054 and
    Zhao et al. 2023, section 3, https://arxiv.org/abs/2304.11277 (sharded);
    Shoeybi et al. 2019, section 3, https://arxiv.org/abs/1909.08053 (tensor parallel);
    Patarasuk and Yuan 2009, section 3, https://doi.org/10.1016/j.jpdc.2008.09.002 (the ring).
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Int
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from transformer_lit.encoder_decoder import PAD_ID, EncoderDecoder, Settings
from transformer_lit.training import Pair, Recipe, batch, sequence_loss, teacher_forcing, train
from transformer_lit.vocabulary import pad

ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER = "all-reduce", "all-gather", "reduce-scatter"
TRIPS = {ALL_REDUCE: 2, ALL_GATHER: 1, REDUCE_SCATTER: 1}  # how often around the ring
Message = tuple[str, int | float]  # one of the three, and the bytes that it is about
# With one meeting place for all lives, those started again may find the addresses of the dead:
# https://github.com/pytorch/pytorch/issues/135712
FRESH = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
ALONE, DATA, SHARDED, TENSOR = "alone", "data parallel", "sharded", "tensor parallel"


# ---- three ways to spread a model


def data_parallel(model: EncoderDecoder) -> nn.Module:
    """Each process holds the whole model and takes some rows; gradients are averaged."""
    # The sinusoids never change: there is no need to send them in each step.
    return DistributedDataParallel(model, broadcast_buffers=False)


def units(model: EncoderDecoder) -> list[nn.Module]:
    """List the parts that a sharded model puts together one at a time, when they are needed.

    What is left belongs to the whole: embeddings, norms, and the cross-attention, which makes its
    keys and values before its block is called.
    """
    parts = [(block.self_attention, block.feed_forward) for block in model.decoder]
    return [*model.encoder.blocks, *(part for pair in parts for part in pair)]


def sharded(model: EncoderDecoder) -> nn.Module:
    """Each process holds a piece of each parameter and takes some rows (PyTorch's FSDP2)."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for unit in units(model):
        fully_shard(unit, mesh=mesh)
    return fully_shard(model, mesh=mesh)  # type: ignore[return-value]


def tensor_parallel(model: EncoderDecoder) -> nn.Module:
    """Each process holds some heads and some hidden units, and takes all rows.

    Raises:
        ValueError: if the processes cannot share heads and hidden units evenly.
    """
    world, settings = distributed.get_world_size(), model.settings
    if settings.n_heads % world or settings.d_ff % world:
        raise ValueError(
            f"{world} processes cannot share {settings.n_heads} heads and d_ff = {settings.d_ff}"
        )
    styles: dict[str, ParallelStyle] = {f"{name}_proj": ColwiseParallel() for name in "qkv"}
    # The network changes its hidden units in place, which only a DTensor as a whole allows.
    styles |= {"widen": ColwiseParallel(use_local_output=False)}
    styles |= {"out_proj": RowwiseParallel(), "narrow": RowwiseParallel()}
    plan = {}
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if last in styles:
            plan[name] = styles[last]
        elif last.endswith("attention"):
            module.n_heads //= world
    return parallelize_module(model, init_device_mesh("cpu", (world,)), plan)


WAYS = {DATA: data_parallel, SHARDED: sharded, TENSOR: tensor_parallel}


# ---- what is sent


class Traffic(TorchDispatchMode):
    """List the messages that are sent while this is open."""

    def __init__(self):
        super().__init__()
        self.messages: list[Message] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Look at an operation on its way to the kernel."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # let it become operations on pieces first
        if "c10d" in func.namespace:
            name = func._schema.name.replace("_", "")
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            for kind in TRIPS:
                if kind.replace("-", "") in name:
                    self.messages.append((kind, max(x.nbytes for x in tensors)))
        return func(*args, **(kwargs or {}))


def ring_bytes(messages: Sequence[Message], world: int) -> float:
    """Count the bytes that each process sends to its neighbour when messages go around a ring.

    Raises:
        ValueError: if there is no process, or a message is none of the three.
    """
    kinds = {kind for kind, _ in messages}
    if world < 1 or world % 1 or not kinds <= set(TRIPS):
        raise ValueError(
            f"world must be a whole number from 1 and messages of {', '.join(TRIPS)}, "
            f"got {world} and {', '.join(map(repr, kinds))}"
        )
    return sum(TRIPS[kind] * size for kind, size in messages) * (world - 1) / world


def predicted(
    model: EncoderDecoder, *, source_bytes: int, target_bytes: int, world: int
) -> dict[str, list[Message]]:
    """Say which messages one step sends, in each of the three ways.

    Args:
        model: the whole model, not yet spread.
        source_bytes: the size of the vectors of all places of the source.
        target_bytes: the same of the target.
        world: the number of processes.

    Raises:
        ValueError: if a number is not whole or below 1.
    """
    if any(n < 1 or n % 1 for n in (source_bytes, target_bytes, world)):
        raise ValueError(
            "source_bytes, target_bytes and world must be whole numbers from 1, "
            f"got {source_bytes}, {target_bytes} and {world}"
        )

    def padded(parameters) -> int:  # pieces are equally many rows, so the last may be part padding
        return sum(-(-len(p) // world) * world * p[0].nbytes for p in parameters)

    whole = sum(p.nbytes for p in model.parameters())
    parts = [padded(unit.parameters()) for unit in units(model)]
    rest = padded(model.parameters()) - sum(parts)
    gathers: list[Message] = [
        (ALL_GATHER, size) for size in (*parts, *parts, rest)
    ]  # forward, backward; once
    scatters: list[Message] = [(REDUCE_SCATTER, size) for size in (*parts, rest)]
    # Forward: one message behind each attention and each network. Backward: one before each, and
    # PyTorch sums what comes back from queries, keys and values one by one.
    layers = model.settings.n_layers
    in_encoder: Message = (ALL_REDUCE, source_bytes)  # and the keys and values made from it
    in_decoder: Message = (ALL_REDUCE, target_bytes)
    between = [in_encoder] * (6 + 2) * layers + [in_decoder] * (4 + 2 + 2) * layers
    return {DATA: [(ALL_REDUCE, whole)], SHARDED: gathers + scatters, TENSOR: between}


def sent_bytes() -> int:
    """Ask the system how many bytes this process has sent over TCP; 0 where it doesn't tell."""
    total = 0
    for file in Path("/proc/self/fd").iterdir() if sys.platform == "linux" else ():
        try:
            if not file.is_socket():
                continue
            with socket.socket(fileno=os.dup(int(file.name))) as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
        except OSError:
            continue  # no TCP, or closed in the meantime
        if len(info) == 208:
            total += struct.unpack_from("Q", info, 200)[0]  # tcpi_bytes_sent
    return total


# ---- a model of the cost


@dataclass(frozen=True)
class Machine:
    """What one process can do, in a second; the latency is what a message costs at each stop.

    Raises:
        ValueError: if a number is not above 0 and finite; the latency may be 0.
    """

    operations: float
    bandwidth: float  # bytes
    latency: float  # seconds

    def __post_init__(self):
        speeds = (self.operations, self.bandwidth)
        if not all(0 < n < torch.inf for n in speeds) or not 0 <= self.latency < torch.inf:
            raise ValueError(
                f"operations and bandwidth must be above 0, latency not below, got {self}"
            )

    def seconds(self, messages: Sequence[Message], world: int) -> float:
        """Estimate how long messages take, one after another.

        Raises:
            ValueError: as ``ring_bytes``.
        """
        sent = ring_bytes(messages, world)
        stops = sum(TRIPS[kind] * (world - 1) for kind, _ in messages)
        return stops * self.latency + sent / self.bandwidth


def step_operations(n_parameters: float, n_places: float) -> float:
    """Estimate the additions and multiplications of a training step: 6 per parameter and place.

    Each weight is multiplied and added once on the way forward and twice on the way back.

    Raises:
        ValueError: if a number is not above 0 and finite.
    """
    if not (0 < n_parameters < torch.inf and 0 < n_places < torch.inf):
        raise ValueError(
            f"n_parameters and n_places must be above 0, got {n_parameters} and {n_places}"
        )
    return 6 * n_parameters * n_places


# ---- processes


def write_job(folder: Path, settings: Settings, recipe: Recipe, pairs: Sequence[Pair]) -> None:
    """Write what all processes have to know into a folder: they share nothing else.

    Raises:
        ValueError: if there are no pairs, or ``pad`` refuses the sources or the targets.
    """
    if len(pairs) == 0:
        raise ValueError("there are no pairs to write")
    for side in zip(*pairs, strict=True):
        pad(side)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{i}.{side}": ids for i, pair in enumerate(pairs) for side, ids in enumerate(pair)}
    about = {"settings": json.dumps(asdict(settings)), "recipe": json.dumps(asdict(recipe))}
    save_file(tensors, folder / "job.safetensors", about)


def read_job(folder: Path) -> tuple[Settings, Recipe, list[Pair]]:
    """Read what ``write_job`` wrote."""
    tensors = load_file(folder / "job.safetensors")
    about = metadata(folder / "job.safetensors")
    pairs = [(tensors[f"{i}.0"], tensors[f"{i}.1"]) for i in range(len(tensors) // 2)]
    return Settings(**about["settings"]), Recipe(**about["recipe"]), pairs


def metadata(path: Path) -> dict:
    """Read what a file says of its tensors."""
    with safe_open(path, "pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items()}
    if "messages" in about:
        about["messages"] = [tuple(message) for message in about["messages"]]  # JSON has lists only
    return about


def command(
    task: str,
    folder: Path,
    *options: str,
    n_processes: int,
    n_nodes: int = 1,
    endpoint: str = "localhost:0",
    restarts: int = 0,
) -> list[str]:
    """Write the line that starts a task; with several nodes, the same line on each of them.

    Args:
        task: a name in ``TASKS``.
        folder: that of the job; all nodes have to see it.
        options: what else the task takes.
        n_processes: processes on each node.
        n_nodes: machines.
        endpoint: the address of one of the nodes and a free port, where they meet.
        restarts: how often all processes are started again after one was lost.

    Raises:
        ValueError: if there is no such task, a number is not whole, or there is not at least one
            process and one node.
    """
    numbers = (n_processes, n_nodes, restarts + 1)
    if task not in TASKS or any(n < 1 or n % 1 for n in numbers):
        raise ValueError(
            f"task must be one of {', '.join(TASKS)}, n_processes and n_nodes at least 1, restarts "
            f"at least 0, got {task!r}, {n_processes}, {n_nodes} and {restarts}"
        )
    return [
        FRESH, "torchrun", f"--nnodes={n_nodes}", f"--nproc-per-node={n_processes}",
        "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", f"--rdzv-id={folder.name}",
        f"--max-restarts={restarts}", "-m", __spec__.name, task, str(folder), *options,
    ]  # fmt: skip


def start(line: list[str]) -> subprocess.Popen:
    """Run a line of ``command`` under this interpreter, with one thread for each process."""
    paths = os.pathsep.join(path for path in sys.path if path)
    variable, _, *arguments = line
    env = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        env={**os.environ, **env, **dict([variable.split("=")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def launch(task: str, folder: Path, *options: str, **how: Any) -> None:
    """Run a task on this machine and wait for its end; its results are in the folder.

    Raises:
        RuntimeError: if it failed, with the last hundred lines that it wrote.
    """
    running = start(command(task, folder, *options, **how))
    said, _ = running.communicate()
    if running.returncode:
        raise RuntimeError(f"{task} failed:\n" + "\n".join(said.splitlines()[-100:]))


def steps(
    way: str, folder: Path, n_steps: int = 3
) -> tuple[dict[str, Tensor], dict[str, int | list[Message]]]:
    """Train on all pairs of a job at once, alone or as one of several processes.

    All numbers are doubles, so that what differs between two ways is a mistake and no rounding.

    Returns:
        The gradients of the first step and the weights after the last, and what the last step
        sent: messages, bytes on the wire, and the parameters that this process holds.

    Raises:
        ValueError: if there is no such way, or not at least one step.
    """
    if way not in (ALONE, *WAYS) or n_steps < 1 or n_steps % 1:
        raise ValueError(
            f"way must be one of {', '.join((ALONE, *WAYS))} and n_steps at least 1, "
            f"got {way!r} and {n_steps}"
        )
    rank, world = (0, 1) if way == ALONE else (distributed.get_rank(), distributed.get_world_size())
    settings, recipe, pairs = read_job(folder)
    torch.manual_seed(recipe.seed)
    whole = EncoderDecoder(settings).double()
    source, target = batch(pairs, whole)
    model = whole if way == ALONE else WAYS[way](whole)
    rows = slice(None) if way in (ALONE, TENSOR) else slice(rank, None, world)
    optimizer = torch.optim.AdamW(whole.parameters(), lr=recipe.rate)
    results: dict[str, Tensor] = {}
    for step in range(n_steps):
        before = sent_bytes()
        with Traffic() as traffic:
            share_of_loss(model, source, target, rows).backward()
        if way != ALONE:
            distributed.barrier()  # until then some of it may be under way
        sent = sent_bytes() - before
        if step == 0:
            gradients = ((n, p.grad) for n, p in whole.named_parameters())
            results |= {f"gradient {n}": joined(g) for n, g in gradients if g is not None}
        optimizer.step()
        optimizer.zero_grad()
    results |= {f"weight {name}": joined(p) for name, p in whole.named_parameters()}
    held = sum(piece(parameter).numel() for parameter in whole.parameters())
    return results, {"messages": traffic.messages, "sent": sent, "held": held}


def share_of_loss(
    model: nn.Module,
    source: Int[Tensor, "batch source"],
    target: Int[Tensor, "batch seq"],
    rows: slice,
) -> Tensor:
    """Take the loss of some rows, times what they count for: shares average to the whole's loss.

    Raises:
        ValueError: if there is not one target for each source, or as the model and
            ``sequence_loss``.
    """
    if len(source) != len(target):
        raise ValueError(f"{len(target)} targets for {len(source)} sources")
    shown, labels = teacher_forcing(target)
    loss = sequence_loss(model(source[rows], shown[rows]), labels[rows])
    n_shares = 1 if rows.step is None else rows.step
    return loss * n_shares * (labels[rows] != PAD_ID).sum() / (labels != PAD_ID).sum()


def joined(value: Tensor) -> Tensor:
    """Put the pieces of all processes together."""
    value = value.detach()
    value = value.full_tensor() if isinstance(value, DTensor) else value
    return value.clone(memory_format=torch.contiguous_format)  # as it can be saved


def piece(value: Tensor) -> Tensor:
    """Take what this process holds."""
    return value.to_local() if isinstance(value, DTensor) else value


def send(kind: str, n_bytes: int) -> None:
    """Send one message of zeros."""
    world = distributed.get_world_size()
    part = torch.zeros(-(-n_bytes // 8 // world), dtype=torch.double)
    whole = torch.zeros(len(part) * world, dtype=torch.double)
    if kind == ALL_REDUCE:
        distributed.all_reduce(whole)
    elif kind == ALL_GATHER:
        distributed.all_gather_into_tensor(whole, part)
    else:
        distributed.reduce_scatter_tensor(part, whole)


def clock(messages: Sequence[Message], repeats: int = 7) -> tuple[float, int]:
    """Time messages sent one after another: the median in seconds, and the bytes on the wire."""
    times, before = [], 0
    for _ in range(repeats):
        distributed.barrier()
        before, begun = sent_bytes(), time.perf_counter()
        for kind, size in messages:
            send(kind, int(size))
        times.append(time.perf_counter() - begun)
    distributed.barrier()
    return median(times), sent_bytes() - before


# ---- tasks


def compare(folder: Path) -> None:
    """Take the same steps in each way, and write a file for each."""
    for way in WAYS:
        results, about = steps(way, folder)
        if distributed.get_rank() == 0:
            texts = {key: json.dumps(value) for key, value in about.items()}
            save_file(results, folder / f"{way}.safetensors", texts)


def measure(folder: Path, *sizes: str) -> None:
    """Time each kind of message at each size, and those of a step in each way."""
    found = {f"{kind} {n}": clock([(kind, int(n))]) for kind in TRIPS for n in sizes}
    for way in WAYS:
        found[way] = clock(metadata(folder / f"{way}.safetensors")["messages"])
    if distributed.get_rank() == 0:
        (folder / "measured.json").write_text(json.dumps(found))


def train_job(folder: Path, kill_at: str = "0") -> None:
    """Train as a job says, or go on from its checkpoint; write the losses.

    For each step that it begins, the last process adds its number to the file ``steps``: it has
    another one after a restart.

    Args:
        folder: the job's.
        kill_at: the step at which the last process kills itself, in its first life only, as a
            machine does that loses its power.
    """
    rank, world = distributed.get_rank(), distributed.get_world_size()
    settings, recipe, pairs = read_job(folder)
    torch.manual_seed(recipe.seed)
    model = EncoderDecoder(settings)
    first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
    calls = count(1)

    def step(*_) -> None:
        with (folder / "steps").open("a") as file:
            print(os.getpid(), file=file)
        if first_life and next(calls) == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    if rank == world - 1:
        model.register_forward_pre_hook(step)
    history = train(
        data_parallel(model), pairs, recipe, checkpoint=folder / "state.safetensors",
        rank=rank, world=world, progress=False,
    )  # fmt: skip
    if rank == 0:
        (folder / "history.json").write_text(json.dumps(history))


TASKS = {"compare": compare, "measure": measure, "train": train_job}


def main(task: str, folder: str, *options: str) -> None:
    """Do one process's part of a task."""
    distributed.init_process_group("gloo")
    try:
        TASKS[task](Path(folder), *options)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
