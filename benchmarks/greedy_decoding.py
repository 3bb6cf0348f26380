"""Time greedy decoding with a cache: ours against ``generate`` of Hugging Face's Marian.

    python benchmarks/greedy_decoding.py

Both read the source and write as many symbols as it has, one at a time. The stop token is made too
unlikely to be written, so that neither ends before.
"""

from dataclasses import asdict

import torch
from torch import Tensor

from measure import arguments, compare, in_turns, report
from models import TINY, Marian, Sizes, ours, parameters
from transformer_lit.decoding import greedy
from transformer_lit.encoder_decoder import STOP_ID, EncoderDecoder

BATCHES = (1, 16)
THEIRS = "Hugging Face generate"


def never_stops(model: EncoderDecoder) -> EncoderDecoder:
    """Make the stop token too unlikely to be written."""
    with torch.no_grad():
        model.output.bias[STOP_ID] = -1e9
    return model


def models(s: Sizes) -> tuple[EncoderDecoder, Marian]:
    """Make both, so that they never stop by themselves."""
    mine, theirs = never_stops(ours(s).eval()), Marian(s).eval()
    theirs.model.final_logits_bias[0, STOP_ID] = -1e9
    return mine, theirs


def write_ours(model: EncoderDecoder, source: Tensor, n: int) -> Tensor:
    """Write ``n`` symbols for each source."""
    return torch.stack([best.tokens for best in greedy(model, source, max_len=n)])


def write_theirs(model: Marian, source: Tensor, n: int) -> Tensor:
    """Write ``n`` symbols for each source."""
    written = model.model.generate(
        source,
        attention_mask=torch.ones_like(source),
        max_new_tokens=n,
        num_beams=1,
        do_sample=False,
        use_cache=True,
    )
    return written[:, 1:]  # without the begin token


def main():
    """Measure, print the table and save it."""
    given = arguments("Time greedy decoding of ours and of Hugging Face's Marian.", rounds=15)
    sizes = TINY if given.tiny else Sizes()
    torch.manual_seed(0)
    mine, theirs = models(sizes)
    learned = {"ours": parameters(mine), THEIRS: parameters(theirs)}
    rows = []
    for batch in BATCHES:
        source = torch.randint(STOP_ID + 1, sizes.vocab_size, (batch, sizes.seq))
        runs = {
            "ours": lambda source=source: write_ours(mine, source, sizes.seq),
            THEIRS: lambda source=source: write_theirs(theirs, source, sizes.seq),
        }
        assert all(write().shape == source.shape for write in runs.values())
        times = in_turns(runs, given.rounds)
        where, more = {"batch": batch}, {"parameters": learned}
        rows += compare(times, [THEIRS], where=where, more=more)
    shown = {name: size for name, size in asdict(sizes).items() if name != "dropout"}
    report(given, "greedy_decoding", rows, sizes=shown, packages=["transformers"])


if __name__ == "__main__":
    main()
