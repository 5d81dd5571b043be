"""A zoo of tiny random models, one of each architecture that reads out differently, made from configurations.

Initialised widely, so that logits are of the size real ones have: a soft-cap or a factor that is wrong must show.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from headwater.models.load import LoadedModel, wrap_model

VOCAB = 300
WIDTH = 32
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SENTENCES = (
    "The quick brown fox jumps over the lazy dog and runs to the river.",
    "What is the capital of France? The capital of France is Paris.",
    "Question: how do plants make food? Answer: plants make food from light, water and air.",
    "She said that the weather would be fine, and the weather was fine.",
)

_LLAMA: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
_GEMMA: dict[str, Any] = _LLAMA | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
_MOE: dict[str, Any] = _LLAMA | {"num_experts_per_tok": 2, "tie_word_embeddings": False}

_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "llama-tied": ("llama", _LLAMA | {"tie_word_embeddings": True}),
    "mistral": ("mistral", _LLAMA | {"sliding_window": 6}),
    "gpt-neox": ("gpt_neox", {"num_attention_heads": 4, "intermediate_size": 64, "tie_word_embeddings": False}),
    "olmo2": ("olmo2", _LLAMA),
    "olmo3": ("olmo3", _LLAMA | {"sliding_window": 6}),
    "qwen2": ("qwen2", _LLAMA | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", _LLAMA | {"head_dim": 8}),
    "gemma2": ("gemma2", _GEMMA | {"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}),
    "gemma3": ("gemma3_text", _GEMMA),
    "gpt2": ("gpt2", {"n_head": 4}),
    "phi": ("phi", {"num_attention_heads": 4, "intermediate_size": 64}),
    "olmoe": ("olmoe", _MOE | {"num_experts": 4}),
    "mixtral": ("mixtral", _MOE | {"num_local_experts": 4}),
    "cohere": ("cohere", _LLAMA | {"logit_scale": 0.0625}),
    "granite": ("granite", _LLAMA | {"logits_scaling": 8.0, "embedding_multiplier": 12.0}),
}


def zoo() -> dict[str, Callable[..., Any]]:
    """Builders of all models by name; each takes `seed=0` and `vocab_size=300`, and gives a float32 model."""
    builders: dict[str, Callable[..., Any]] = {name: partial(_build, name) for name in _CONFIGS}
    return builders | {"llama-lora": _llama_lora}


def tiny_loaded(name: str, *, seed: int = 0, chat: bool = False) -> LoadedModel:
    """A zoo model with its tokenizer, as `load_model` would give it."""
    return wrap_model(zoo()[name](seed=seed), tiny_tokenizer(chat=chat), name)


def tiny_tokenizer(
    vocab_size: int = VOCAB, *, chat: bool = False, pad: bool = True, bos: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the spot: any text round-trips, `<|end|>` ends it; with `bos`, `<|start|>` begins it.

    `vocab_size` is at least 270: 256 bytes, the special tokens, and some merges.
    """
    special = ["<|end|>", *(["<|pad|>"] if pad else []), *(["<|start|>"] if bos else [])]
    special += ["<|user|>", "<|assistant|>", "<|system|>"] if chat else []
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if bos:
        start = ("<|start|>", tokenizer.token_to_id("<|start|>"))
        tokenizer.post_processor = processors.TemplateProcessing("<|start|> $A", special_tokens=[start])
    named = {"eos_token": "<|end|>"} | ({"pad_token": "<|pad|>"} if pad else {})
    named |= {"bos_token": "<|start|>"} if bos else {}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def _build(name: str, *, seed: int = 0, vocab_size: int = VOCAB) -> Any:
    kind, options = _CONFIGS[name]
    common: dict[str, Any] = {"vocab_size": vocab_size, "initializer_range": 0.3, "max_position_embeddings": 256}
    common |= {"pad_token_id": None, "bos_token_id": None, "eos_token_id": 0}
    common |= {"hidden_size": WIDTH, "num_hidden_layers": 2} if kind != "gpt2" else {"n_embd": WIDTH, "n_layer": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**common | options), dtype=torch.float32)
        _roughen(model)
    return model.eval()


def _roughen(model: Any) -> None:
    """Give what is initialised to constants (biases, norms) values of its own, so that leaving it out is seen."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            with torch.no_grad():
                parameter.add_(0.1 * torch.randn_like(parameter))
        assert parameter.isfinite().all(), name


def _llama_lora(*, seed: int = 0, vocab_size: int = VOCAB) -> Any:
    from peft import LoraConfig, get_peft_model

    base = _build("llama", seed=seed, vocab_size=vocab_size)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        return get_peft_model(base, config).eval()
