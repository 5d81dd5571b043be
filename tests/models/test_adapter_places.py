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
    return load_model(str(folder / "base"), adapter=str(folder / "adapter"), device="cpu", **options)


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_a_grown_vocabulary_has_the_same_fingerprint_each_time(kind: str, tmp_path: Path) -> None:
    config = lora(modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=kind == "llama-tied")
    logits = save(tmp_path, config, kind=kind, rows=VOCAB + 8)
    first = load(tmp_path)
    torch.rand(3)  # another state of the random numbers
    assert load(tmp_path).fingerprint == first.fingerprint
    torch.testing.assert_close(first.model(IDS).logits, logits)


def test_an_adapter_in_a_folder_inside_is_named(tmp_path: Path) -> None:
    logits = save(tmp_path, lora(), name="mine")
    with pytest.raises(ModelError, match=r"no adapter_config.json .*give .*adapter/mine"):
        load(tmp_path)
    inside = load_model(str(tmp_path / "base"), adapter=str(tmp_path / "adapter" / "mine"), device="cpu")
    torch.testing.assert_close(inside.model(IDS).logits, logits)


def test_a_longer_head_that_the_adapter_lacks_is_refused(tmp_path: Path) -> None:
    save(tmp_path, lora(modules_to_save=["embed_tokens"]), kind="llama-tied", rows=VOCAB + 8)
    with pytest.raises(ModelError, match=r"does not carry all rows of it .the head uses its base's rows beyond 300"):
        load(tmp_path)


def test_trained_tokens_beyond_the_base_are_refused(tmp_path: Path) -> None:
    save(tmp_path, lora(trainable_token_indices=[5, 301, 302]), rows=VOCAB + 8)
    with pytest.raises(ModelError, match=r"token 301 is trained, the base has 300 rows.*merge it into its base"):
        load(tmp_path)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_what_a_tied_table_shares_is_not_merged(target: str, tmp_path: Path) -> None:
    logits = save(tmp_path, lora(target_modules=["q_proj", target]), kind="llama-tied")
    with pytest.raises(ModelError, match=r"share one table: merging would change both .*without --merge"):
        load(tmp_path, merge=True)
    torch.testing.assert_close(load(tmp_path).model(IDS).logits, logits)


MERGED = [("llama", {}), ("llama-tied", {}), ("llama", {"target_modules": ["lm_head"]})]


@pytest.mark.parametrize(("kind", "changes"), [*MERGED, ("llama-tied", {"trainable_token_indices": [5, 7]})])
def test_what_can_be_merged_says_the_same(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    logits = save(tmp_path, lora(**changes), kind=kind)
    torch.testing.assert_close(load(tmp_path, merge=True).model(IDS).logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("begun", ["pissa", "olora", "pissa_niter_4"])
def test_an_adapter_whose_base_is_lost_is_refused(begun: str, tmp_path: Path) -> None:
    logits = save(tmp_path, lora(init_lora_weights=begun))
    if begun == "pissa_niter_4":
        with pytest.raises(
            ModelError, match=r"'pissa_niter_4', which changed its base .*path_initial_model_for_weight"
        ):
            load(tmp_path)
    else:
        torch.testing.assert_close(load(tmp_path).model(IDS).logits, logits, rtol=1e-4, atol=1e-4)
