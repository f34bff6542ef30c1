"""HuggingFace's Marian, the reference for the Transformer: a random one, and its weights in ours."""

import torch
from transformers import MarianConfig, MarianMTModel

from src.models import Transformer, TransformerConfig


def marian(ours: TransformerConfig, std=0.3, seed=0) -> MarianMTModel:
    """A random Marian of the same shape; its end token is 1, its start and padding token 0."""
    torch.manual_seed(seed)
    config = MarianConfig(
        vocab_size=ours.source_vocab_size or ours.vocab_size,
        decoder_vocab_size=ours.vocab_size,
        max_position_embeddings=ours.max_seq_len,
        d_model=ours.d_model,
        encoder_layers=ours.n_encoder_layers,
        decoder_layers=ours.n_decoder_layers,
        encoder_attention_heads=ours.n_heads,
        decoder_attention_heads=ours.n_heads,
        encoder_ffn_dim=ours.d_ff,
        decoder_ffn_dim=ours.d_ff,
        activation_function="relu",
        scale_embedding=True,
        share_encoder_decoder_embeddings=ours.tie_embeddings,
        tie_word_embeddings=ours.tie_embeddings,
        init_std=std,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
    )
    return MarianMTModel(config).eval()


def from_huggingface(theirs: MarianMTModel, ours: Transformer) -> None:
    """Copy Marian's weights.

    Its sines stand before its cosines and ours alternate, as in the paper: the residual stream is permuted. Our q, k
    and v stand head by head in one matrix.
    """
    heads, d_model, source = ours.config.n_heads, ours.config.d_model, theirs.state_dict()
    stream = torch.arange(d_model).view(2, -1).T.flatten()
    target = {}

    def stacked(prefix, names, part):
        parts = torch.stack([source[f"{prefix}.{name}_proj.{part}"] for name in names])  # (n, C, ...)
        by_head = parts.view(len(names), heads, -1, *parts.shape[2:]).transpose(0, 1)
        return by_head.reshape(len(names) * d_model, *parts.shape[2:])

    def attention(theirs_name, ours_name, groups):
        for names, to in groups:
            target[f"{ours_name}.{to}.weight"] = stacked(theirs_name, names, "weight")[:, stream]
            target[f"{ours_name}.{to}.bias"] = stacked(theirs_name, names, "bias")
        linear_out(f"{theirs_name}.out_proj", f"{ours_name}.out")
        norm(f"{theirs_name}_layer_norm", f"{ours_name}_norm")

    def linear_out(theirs_name, ours_name):
        target[f"{ours_name}.weight"] = source[f"{theirs_name}.weight"][stream]
        target[f"{ours_name}.bias"] = source[f"{theirs_name}.bias"][stream]

    def norm(theirs_name, ours_name):
        for part in ("weight", "bias"):
            target[f"{ours_name}.{part}"] = source[f"{theirs_name}.{part}"][stream]

    for side, n_layers in (("encoder", ours.config.n_encoder_layers), ("decoder", ours.config.n_decoder_layers)):
        for i in range(n_layers):
            a, b = f"model.{side}.layers.{i}", f"{side}.{i}"
            attention(f"{a}.self_attn", f"{b}.attention", [("qkv", "qkv")])
            if side == "decoder":
                attention(f"{a}.encoder_attn", f"{b}.cross_attention", [("q", "q"), ("kv", "kv")])
            target[f"{b}.feed_forward.up.weight"] = source[f"{a}.fc1.weight"][:, stream]
            target[f"{b}.feed_forward.up.bias"] = source[f"{a}.fc1.bias"]
            linear_out(f"{a}.fc2", f"{b}.feed_forward.down")
            norm(f"{a}.final_layer_norm", f"{b}.feed_forward_norm")
    target["source_embedding.weight"] = source["model.encoder.embed_tokens.weight"][:, stream]
    target["target_embedding.weight"] = source["model.decoder.embed_tokens.weight"][:, stream]
    target["head.weight"] = source["lm_head.weight"][:, stream]
    ours.load_state_dict(target)


def padded(lengths, width, vocab_size, seed=0):
    """Random ids (none of the special ones) and the attention mask of rows of these lengths."""
    ids = torch.randint(2, vocab_size, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask
