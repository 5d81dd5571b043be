"""A tiny random model of any family of causal language models, made from its configuration.

Run:  python benchmarks/tiny_families.py llama      prints the configuration
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

_SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "text_vocab_size"), 320),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "dim_model", "emb_dim", "embedding_size"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "input_embedding_size", "output_embedding_size", "lru_width"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "linear_num_key_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("linear_num_value_heads", "mamba_n_heads", "mamba_num_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "n_inner", "d_ff", "ffn_dim", "ffn_hidden_size", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "dim_ff", "moe_intermediate_size", "shared_expert_intermediate_size"), 64),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size", "intermediate_size_mlp"), 64),
    **dict.fromkeys(("expert_ffn_hidden_size", "dense_intermediate_size", "feed_forward_size", "dff"), 64),
    **dict.fromkeys(("prefix_dense_intermediate_size", "moe_latent_size", "mamba_d_ssm"), 64),
    **dict.fromkeys(("head_dim", "attention_head_dim", "kv_channels", "linear_key_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("linear_value_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "query_pre_attn_scalar"), 8),
    **dict.fromkeys(
        ("dim_head", "swa_head_dim", "global_head_dim", "mamba_d_state", "state_size", "ssm_state_size"), 8
    ),
    **dict.fromkeys(("ssm_state_size", "rotary_dim", "index_head_dim", "hidden_size_per_layer_input", "dt_rank"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "time_step_rank", "mamba_dt_rank", "laurel_rank"), 16),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts", "mamba_n_groups"), 1),
    **dict.fromkeys(("n_groups", "first_k_dense_replace", "num_dense_layers", "zero_expert_num"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_target_positions", "max_seq_len"), 64),
    **dict.fromkeys(("sliding_window", "attention_window_size", "chunk_size", "mamba_chunk_size"), 16),
    **{"pad_token_id": 1, "bos_token_id": 2},
    **{"eos_token_id": 0, "initializer_range": 0.3, "init_std": 0.3, "num_nextn_predict_layers": 0},
    **{"index_topk": 8, "index_n_heads": 2, "num_memory_blocks": 1, "expand": 2, "num_codebooks": 2},
}
"""Values for whichever of these fields a configuration has."""

EXTRA: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1, "expert_layer_period": 2},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "dots3_note": {"text_config": {"num_key_value_heads": 4}},
    "dots3_note_text": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "local"], "local_attn_chunk_length": 4},
    "zaya": {"num_experts_per_tok": 1},
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "dbrx": {"attn_config": {"rope_theta": 10_000.0, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "mamba2": {"num_heads": 8},
}
"""What some families need besides."""


def tiny_config(kind: str) -> Any:
    """The family's configuration with every known field small, in nested configurations too."""
    from transformers import CONFIG_MAPPING

    return _shrunk(CONFIG_MAPPING[kind], EXTRA.get(kind, {}))


def _shrunk(cls: Any, extra: Mapping[str, Any]) -> Any:
    default = cls()
    fields = {**default.to_dict(), **dict.fromkeys(getattr(cls, "attribute_map", {}))}
    lists = ("layer_types", "mlp_layer_types", "layers_block_type")
    fixed = {name for name in (*fields, *lists) if isinstance(getattr(cls, name, None), property)}
    small = {name: value for name, value in _SMALL.items() if name in fields and name not in fixed}
    mapped = getattr(cls, "attribute_map", {})
    small = {name: value for name, value in small.items() if mapped.get(name, name) not in small or name not in mapped}
    if "kv_lora_rank" in fields and "num_key_value_heads" in small:  # latent attention has one key for each head
        small["num_key_value_heads"] = small["num_attention_heads"]
    layers = extra.get("num_hidden_layers", small.get("num_hidden_layers", 2))
    for name in lists:
        listed = getattr(default, name, None)
        if isinstance(listed, (list, tuple)) and not {name, mapped.get(name, name)} & fixed:
            small[name] = _varied(list(listed), layers)
    for name, sub in (getattr(cls, "sub_configs", None) or {}).items():
        if isinstance(getattr(default, name, None), object) and hasattr(sub, "to_dict"):
            small[name] = _shrunk(sub, extra.get(name, {})).to_dict()
    return cls(**small | {k: v for k, v in extra.items() if k not in (getattr(cls, "sub_configs", None) or {})})


def _varied(listed: list[str], count: int) -> list[str]:
    """As many layers, each kind that the list has at least once if they fit."""
    kinds = list(dict.fromkeys(listed))
    return (kinds * count)[:count] if len(kinds) <= count else kinds[:count]


def build(kind: str, seed: int = 0) -> Any:
    """A tiny random model of the family in eval mode."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = tiny_config(kind)
    config.get_text_config().is_decoder = True
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.isfinite().all() or parameter.abs().max() > 1e3:  # left as allocated
                parameter.normal_(std=0.1)
            if parameter.ndim < 2 or not parameter.any():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


if __name__ == "__main__":
    print(tiny_config(sys.argv[1]))
