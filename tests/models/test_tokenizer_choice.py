"""Which tokenizer is read: the named one, else the adapter's own, else the model's; and vocabularies that grew."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from headwater.core.errors import ModelError
from headwater.data.tokens import tokenizer_digest
from headwater.models.load import load_model
from zoo import CHAT_TEMPLATE, VOCAB, tiny_tokenizer, zoo

ADDED = ["<|turn|>", "<|over|>"]


def grown_tokenizer() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ADDED})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_base(folder: Path, name: str = "llama") -> str:
    zoo()[name]().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def save_adapter(folder: Path, base: str = "llama", *, rows: int | None = None, **config: Any) -> Any:
    """Train nothing, but give every trained tensor other values; the model that was saved."""
    model = zoo()[base]()
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    tuned = get_peft_model(
        model, LoraConfig(**({"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | config))
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    tuned.save_pretrained(folder, save_embedding_layers=rows is not None)
    return tuned.eval()


def test_the_adapters_tokenizer_is_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base, adapter = save_base(tmp_path / "base"), tmp_path / "adapter"
    save_adapter(adapter)
    plain = load_model(base, adapter=str(adapter))
    assert tokenizer_digest(plain.tokenizer) == tokenizer_digest(tiny_tokenizer())
    grown_tokenizer().save_pretrained(adapter)
    with caplog.at_level(logging.WARNING):
        loaded = load_model(base, adapter=str(adapter))
    assert loaded.tokenizer("<|turn|>")["input_ids"] == [VOCAB]
    assert loaded.tokenizer.chat_template == CHAT_TEMPLATE
    assert loaded.fingerprint["tokenizer"] != plain.fingerprint["tokenizer"]
    said = [record.getMessage() for record in caplog.records if record.name.startswith("headwater")]
    assert len(said) == 1
    assert all(words in said[0] for words in ("2 tokens more", "chat template", "--tokenizer"))
    assert load_model(base, adapter=str(adapter), tokenizer=base).fingerprint == plain.fingerprint
    merged = load_model(base, adapter=str(adapter), merge=True)
    assert merged.fingerprint["tokenizer"] == loaded.fingerprint["tokenizer"]


def test_the_same_tokenizer_beside_the_adapter_is_nothing_to_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = save_base(tmp_path / "base")
    save_adapter(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    load_model(base, adapter=str(tmp_path / "adapter"))
    assert not [record for record in caplog.records if record.name.startswith("headwater")]


def test_a_chat_template_alone_beside_the_adapter_is_used(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    save_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    loaded = load_model(base, adapter=str(tmp_path / "adapter"))
    assert loaded.tokenizer.chat_template == CHAT_TEMPLATE
    assert loaded.tokenizer.get_vocab() == tiny_tokenizer().get_vocab()


def test_a_model_without_tokenizer_needs_one_named(tmp_path: Path) -> None:
    zoo()["llama"]().save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelError, match=r"bare: there is no tokenizer .*--tokenizer"):
        load_model(str(tmp_path / "bare"))
    tiny_tokenizer().save_pretrained(tmp_path / "words")
    loaded = load_model(str(tmp_path / "bare"), tokenizer=str(tmp_path / "words"))
    assert loaded.tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
    save_adapter(tmp_path / "adapter")
    grown_tokenizer().save_pretrained(tmp_path / "adapter")
    assert load_model(str(tmp_path / "bare"), adapter=str(tmp_path / "adapter")).tokenizer.chat_template


@pytest.mark.parametrize("base", ["llama", "llama-tied"])
@pytest.mark.parametrize("trained", [True, False])
def test_a_vocabulary_that_grew_comes_with_the_adapter(tmp_path: Path, base: str, trained: bool) -> None:
    place = save_base(tmp_path / "base", base)
    tables = ["embed_tokens", "lm_head"] if base == "llama" else ["embed_tokens"]
    config = {"modules_to_save": tables, "ensure_weight_tying": base == "llama-tied"} if trained else {}
    tuned = save_adapter(tmp_path / "adapter", base, rows=VOCAB + 2, **config)
    grown_tokenizer().save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, VOCAB, 7, VOCAB + 1, 9]])
    for merge in (False, True):
        loaded = load_model(place, adapter=str(tmp_path / "adapter"), merge=merge, device="cpu")
        assert loaded.model.get_input_embeddings().weight.shape[0] == VOCAB + 2
        torch.testing.assert_close(loaded.model(ids).logits, tuned(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("base", "config"),
    [
        ("llama", {"trainable_token_indices": [VOCAB, VOCAB + 1]}),
        ("llama-tied", {"trainable_token_indices": [VOCAB, VOCAB + 1]}),
        ("llama-tied", {"target_modules": ["q_proj", "embed_tokens"]}),
        ("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    ],
)
def test_adapters_on_the_embedding_bring_the_rows_it_grew_by(tmp_path: Path, base: str, config: dict[str, Any]) -> None:
    place = save_base(tmp_path / "base", base)
    tuned = save_adapter(tmp_path / "adapter", base, rows=VOCAB + 2, **config)
    grown_tokenizer().save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, VOCAB, 7, VOCAB + 1, 9]])
    loaded = load_model(place, adapter=str(tmp_path / "adapter"), device="cpu")
    torch.testing.assert_close(loaded.model(ids).logits, tuned(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_vocabulary_that_grew_without_all_its_rows_is_refused(tmp_path: Path) -> None:
    place = save_base(tmp_path / "base")
    model = zoo()["llama"]()
    model.resize_token_embeddings(VOCAB + 2)
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(
        ModelError, match=r"another vocabulary.*embed_tokens: 302.*lm_head: none.*merge it into its base"
    ):
        load_model(place, adapter=str(tmp_path / "adapter"))
