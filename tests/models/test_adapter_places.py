"""Adapters that need more than their base as it is: a longer vocabulary, another base, or another folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from headwater.core.errors import ModelError
from headwater.models.load import load_model
from zoo import VOCAB, tiny_tokenizer, zoo

IDS = torch.arange(5, 25)[None]


def lora(**changes: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**({"task_type": "CAUSAL_LM", "r": 3, "target_modules": ["q_proj"]} | changes))


def save(folder: Path, config: Any, *, kind: str = "llama", rows: int = VOCAB, name: str = "default") -> torch.Tensor:
    """A base in `base/` and an adapter with values of its own in `adapter/`; the logits of both at `IDS`."""
    base = zoo()[kind]()
    base.save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    if rows != VOCAB:
        base.resize_token_embeddings(rows, mean_resizing=False)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = peft.get_peft_model(base, config, adapter_name=name).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder / "adapter")
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


def load(folder: Path, **options: Any) -> Any:
    return load_model(str(folder / "base"), adapter=str(folder / "adapter"), **options)


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_a_grown_vocabulary_has_the_same_fingerprint_each_time(kind: str, tmp_path: Path) -> None:
    tables = ["embed_tokens", "lm_head"] if kind == "llama" else ["embed_tokens"]
    logits = save(tmp_path, lora(modules_to_save=tables), kind=kind, rows=VOCAB + 8)
    first = load(tmp_path)
    torch.rand(3)  # another state of the random numbers
    assert load(tmp_path).fingerprint == first.fingerprint
    if kind == "llama":
        torch.testing.assert_close(first.model(IDS).logits, logits)


def test_an_adapter_in_a_folder_inside_is_named(tmp_path: Path) -> None:
    logits = save(tmp_path, lora(), name="mine")
    with pytest.raises(ModelError, match=r"no adapter_config.json .*give .*adapter/mine"):
        load(tmp_path)
    inside = load_model(str(tmp_path / "base"), adapter=str(tmp_path / "adapter" / "mine"))
    torch.testing.assert_close(inside.model(IDS).logits, logits)
