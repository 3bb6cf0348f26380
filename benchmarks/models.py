"""The same encoder-decoder four times: ours, PyTorch's, x-transformers' and Marian of Hugging Face.

All have post-norm blocks with ReLU, sinusoids added to scaled embeddings, an output layer tied to
the target embedding, fused attention, and the same dropout: behind the embeddings, behind each part
of a block and inside its feed-forward network, none on the weights of attention, which the fused
kernels cannot drop. What differs in spite of that is in README.md. Each is called as
``model(source, target)`` and gives logits.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel
from transformers.utils import logging
from x_transformers import Decoder, Encoder, TransformerWrapper

from transformer_lit.encoder_decoder import BEGIN_ID, PAD_ID, STOP_ID, EncoderDecoder, Settings
from transformer_lit.positions import sinusoids

logging.set_verbosity_error()


@dataclass(frozen=True)
class Sizes:
    """What is compared; the defaults are the sizes that README.md names."""

    vocab_size: int = 8000
    d_model: int = 256
    n_heads: int = 8
    n_layers: int = 3
    d_ff: int = 1024
    seq: int = 64  # of source and target
    dropout: float = 0.1


TINY = Sizes(vocab_size=23, d_model=16, n_heads=2, n_layers=2, d_ff=32, seq=5)


def ours(s: Sizes) -> EncoderDecoder:
    """Make the model of chapter 11."""
    sizes = asdict(s)
    vocab_size, seq = sizes.pop("vocab_size"), sizes.pop("seq")
    return EncoderDecoder(
        Settings(vocab_size, vocab_size, max_len=seq + 1, norm_first=False, **sizes)
    )


class TorchTransformer(nn.Module):
    """``nn.Transformer``, with the embeddings, places and output layer that it lacks."""

    def __init__(self, s: Sizes):
        super().__init__()
        self.source_embedding = nn.Embedding(s.vocab_size, s.d_model)
        self.target_embedding = nn.Embedding(s.vocab_size, s.d_model)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=s.d_model**-0.5)
        self.register_buffer("places", sinusoids(s.seq + 1, s.d_model), persistent=False)
        self.transformer = nn.Transformer(
            s.d_model, s.n_heads, s.n_layers, s.n_layers, s.d_ff, s.dropout, batch_first=True
        )
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
        self.output = nn.Linear(s.d_model, s.vocab_size)
        self.output.weight = self.target_embedding.weight
        self.dropout = nn.Dropout(s.dropout)
        self.scale = math.sqrt(s.d_model)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Score what comes next at each place of the target."""
        hidden, n = source == PAD_ID, target.shape[1]
        future = torch.ones(n, n, dtype=torch.bool, device=target.device).triu(1)
        x = self.transformer(
            self._embed(self.source_embedding, source),
            self._embed(self.target_embedding, target),
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
            tgt_mask=future,
            tgt_is_causal=True,
        )
        return self.output(x)

    def _embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        return self.dropout(embedding(tokens) * self.scale + self.places[: tokens.shape[1]])


class XTransformer(nn.Module):
    """The two stacks of x-transformers, with its flash attention."""

    def __init__(self, s: Sizes):
        super().__init__()
        stack = {
            "dim": s.d_model,
            "depth": s.n_layers,
            "heads": s.n_heads,
            "attn_dim_head": s.d_model // s.n_heads,
            "attn_flash": True,
            "attn_sublayer_dropout": s.dropout,
            "ff_mult": s.d_ff / s.d_model,
            "ff_custom_activation": nn.ReLU(),
            "ff_dropout": s.dropout,
            "ff_sublayer_dropout": s.dropout,
            "pre_norm": False,
        }
        wrapper = {
            "num_tokens": s.vocab_size,
            "max_seq_len": s.seq + 1,
            "scaled_sinu_pos_emb": True,
            "emb_dropout": s.dropout,
        }
        self.encoder = TransformerWrapper(
            attn_layers=Encoder(**stack), return_only_embed=True, **wrapper
        )
        self.decoder = TransformerWrapper(
            attn_layers=Decoder(cross_attend=True, **stack), tie_embedding=True, **wrapper
        )

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Score what comes next at each place of the target."""
        real = source != PAD_ID
        memory = self.encoder(source, mask=real, return_embeddings=True)
        return self.decoder(target, context=memory, context_mask=real)


class Marian(nn.Module):
    """Hugging Face's Marian, a translator: post-norm, sinusoids, one table per side."""

    def __init__(self, s: Sizes):
        super().__init__()
        config = MarianConfig(
            vocab_size=s.vocab_size,
            d_model=s.d_model,
            encoder_layers=s.n_layers,
            decoder_layers=s.n_layers,
            encoder_attention_heads=s.n_heads,
            decoder_attention_heads=s.n_heads,
            encoder_ffn_dim=s.d_ff,
            decoder_ffn_dim=s.d_ff,
            dropout=s.dropout,
            activation_dropout=s.dropout,
            activation_function="relu",
            max_position_embeddings=s.seq + 1,
            scale_embedding=True,
            share_encoder_decoder_embeddings=False,
            pad_token_id=PAD_ID,
            decoder_start_token_id=BEGIN_ID,
            eos_token_id=STOP_ID,
            forced_eos_token_id=None,
            attn_implementation="sdpa",
        )
        self.model = MarianMTModel(config)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Score what comes next at each place of the target."""
        return self.model(
            input_ids=source,
            attention_mask=(source != PAD_ID).long(),
            decoder_input_ids=target,
            use_cache=False,
        ).logits


MODELS = {
    "ours": ours,
    "torch.nn.Transformer": TorchTransformer,
    "x-transformers": XTransformer,
    "Hugging Face Marian": Marian,
}


def parameters(model: nn.Module) -> int:
    """Count the numbers that a model learns."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
