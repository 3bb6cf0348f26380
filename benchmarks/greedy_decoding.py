"""Time greedy decoding with a cache: ours against ``generate`` of Hugging Face's Marian.

    python benchmarks/greedy_decoding.py

Both read the source and write as many symbols as it has, one at a time. The stop token is made too
unlikely to be written, so that neither ends before.
"""

import torch
from torch import Tensor

from measure import arguments, in_turns, table, versions
from models import TINY, Marian, Sizes, ours
from transformer_lit.decoding import greedy
from transformer_lit.encoder_decoder import STOP_ID, EncoderDecoder

BATCHES = (1, 16)


def models(s: Sizes) -> tuple[EncoderDecoder, Marian]:
    """Make both, so that they never stop by themselves."""
    mine, theirs = ours(s).eval(), Marian(s).eval()
    with torch.no_grad():
        mine.output.bias[STOP_ID] = theirs.model.final_logits_bias[0, STOP_ID] = -1e9
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
    """Measure, and print the tables."""
    given = arguments("Time greedy decoding of ours and of Hugging Face's Marian.", rounds=15)
    sizes = TINY if given.tiny else Sizes()
    torch.manual_seed(0)
    mine, theirs = models(sizes)
    learned = {
        name: sum(p.numel() for p in model.parameters() if p.requires_grad)
        for name, model in (("ours", mine), ("Hugging Face generate", theirs))
    }
    for batch in BATCHES:
        source = torch.randint(STOP_ID + 1, sizes.vocab_size, (batch, sizes.seq))
        runs = {
            "ours": lambda source=source: write_ours(mine, source, sizes.seq),
            "Hugging Face generate": lambda source=source: write_theirs(theirs, source, sizes.seq),
        }
        assert all(write().shape == source.shape for write in runs.values())
        times = in_turns(runs, given.rounds)
        print(table(f"Greedy decoding, batch of {batch}, {sizes}", times, learned) + "\n")
    print(versions("torch", "transformers"))


if __name__ == "__main__":
    main()
