"""What the experiments share: runs that are saved when done, files written whole, fixed draws."""

import contextlib
import json
import logging
import platform
import sys
import time

import torch
from tqdm import tqdm

from transformer_lit.training import Recipe


def make_missing(result_file, log_file, *, recipe, wanted, run, **more):
    """Make the runs of `wanted` that `result_file` does not hold yet.

    Each entry of `wanted` is a dict of settings; `run(**settings)` returns what it measured, as a
    dict. `more` is saved beside the recipe. Leaves with a message if the file holds runs of another
    recipe.
    """
    log_file.parent.mkdir(exist_ok=True)
    logging.basicConfig(filename=log_file, level=logging.INFO, format="%(asctime)s %(message)s")
    result = {
        "recipe": recipe,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": "2 cores of an x86-64 CPU, of which one was used",
        **more,
        "runs": [],
    }
    if result_file.exists():
        found = json.loads(result_file.read_text("utf-8"))
        if found["recipe"] != recipe:
            sys.exit(f"{result_file} was made with another recipe: delete it to start anew")
        result = found
    done = [{name: made[name] for name in wanted[0]} for made in result["runs"]]
    for settings in tqdm([settings for settings in wanted if settings not in done], unit="run"):
        start = time.process_time()
        made = {**settings, **run(**settings)}
        made["seconds"] = round(time.process_time() - start)
        result["runs"].append(made)
        write_whole(result_file, json.dumps(result, indent=1).encode() + b"\n")
        logging.info("%s", made)


def write_whole(path, content):
    """Write a file whole or not at all.

    Raises:
        OSError: it could not be written; what stood there before still does.
    """
    half_written = path.with_suffix(".part")
    try:
        half_written.write_bytes(content)
        half_written.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            half_written.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror}: the old file is as it was", path) from None


def some(things, count):
    """Draw ``count`` of them at random, the same ones every time."""
    order = torch.randperm(len(things), generator=torch.Generator().manual_seed(0))
    return [things[i] for i in order[:count]]


def to_train(found, seed):
    """The part of an experiment's recipe that ``train`` asks for."""
    return Recipe(
        epochs=found["epochs"],
        batch_size=found["batch"],
        rate=found["rate"],
        warmup=found["warmup"],
        label_smoothing=found["label smoothing"],
        seed=seed,
    )
