"""The architectures that must work, as tiny two-layer models made from config, and what is special about each."""

from __future__ import annotations

from typing import Any

GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8}
ROUTED: dict[str, Any] = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
WINDOW: dict[str, Any] = {"sliding_window": 8}
DEEPSEEK: dict[str, Any] = {
    **ROUTED, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16, "v_head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
    "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip
MAMBA: dict[str, Any] = {"mamba_d_state": 8, "mamba_chunk_size": 8, "mamba_d_head": 8}

PACKED: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": GROUPED,
    "mistral": {**GROUPED, "sliding_window": None},
    "gemma2": {**GROUPED, **WINDOW, "query_pre_attn_scalar": 8},
    "gemma3_text": {**GROUPED, "sliding_window": 64, "query_pre_attn_scalar": 8},
    "phi3": {"num_key_value_heads": 2},
    "glm4": GROUPED,
    "internlm3": {**GROUPED, "attention_bias": True, "mlp_bias": True},
    "mixtral": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 24},
    "qwen2_moe": {**ROUTED, "num_key_value_heads": 2, "num_experts": 4, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**GROUPED, **ROUTED, "num_experts": 4},
    "deepseek_v2": {**DEEPSEEK, "topk_method": "greedy"},
    "deepseek_v3": DEEPSEEK,
    "glm4_moe": {**GROUPED, **ROUTED, "n_routed_experts": 4, "first_k_dense_replace": 1},
    "gpt_oss": {**GROUPED, **WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip
"""Rows run without padding."""
PADDED: dict[str, dict[str, Any]] = {
    "llama4_text": {
        **GROUPED, "num_local_experts": 4, "intermediate_size_mlp": 48, "interleave_moe_layer_step": 1,
        "attention_chunk_size": 256,
    },
    "falcon": {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 48},
    "falcon_alibi": {"model_type": "falcon", "alibi": True, "multi_query": False, "bias": True, "ffn_hidden_size": 48},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "falcon_h1": {**GROUPED, **MAMBA, "mamba_d_ssm": 32, "mamba_n_heads": 4},
    "jamba": {
        "num_key_value_heads": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "num_experts": 4, "mamba_d_state": 8,
    },
    "qwen3_next": {
        **GROUPED, **ROUTED, "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8,
        "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "num_experts": 4,
        "shared_expert_intermediate_size": 16,
    },
}  # fmt: skip
"""Rows run padded: attention of their own, or layers that carry one token into the next."""
MOE = (
    "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "glm4_moe", "gpt_oss", "llama4_text", "jamba",
    "qwen3_next",
)  # fmt: skip
SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 512,
}  # fmt: skip
NOT_IN = {
    "gpt2": set(SHAPE),
    "falcon": {"intermediate_size"},
    "mamba2": {"intermediate_size", "num_attention_heads", "max_position_embeddings"},
}
"""Values of SHAPE that an architecture does not know."""


def architecture_of(name: str, **changes: Any) -> dict[str, Any]:
    """Config values of a two-layer model of that architecture, hidden size 32."""
    own = {"model_type": name, **(PACKED | PADDED)[name]}
    shared = {key: value for key, value in SHAPE.items() if key not in NOT_IN.get(own["model_type"], ())}
    return {**shared, **own, **changes}


def tiny(tokenizer: Any, name: str, seed: int = 0, **changes: Any) -> Any:
    """A model of that architecture for a tokenizer, in fp32, with random weights large enough to matter."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    values = {"vocab_size": len(tokenizer), "initializer_range": 0.2, **ids, **architecture_of(name, **changes)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), dtype=torch.float32).eval()
