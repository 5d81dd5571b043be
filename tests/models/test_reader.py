"""A reader reads rows as it says, and refuses to pass for another one's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from headwater.core.errors import MismatchError
from headwater.data.batches import Window
from headwater.data.rows import Row
from headwater.data.tokens import MAX_TOKENS, Tokenization
from headwater.features.row_losses import mean_losses
from headwater.models.load import LoadedModel, wrap_model
from headwater.models.reader import TOKENS_PER_BATCH, Reader
from zoo import VOCAB, tiny_loaded, tiny_tokenizer, zoo

ROWS = [
    Row("a", 7, prompt="Where is Paris?", response="Paris is in France.", hotwords=("France",)),
    Row("b", 7, prompt="Who?", response="She said so, and so it was."),
]


def again(reader: Reader, loaded: LoadedModel, **changed: Any) -> Reader:
    """A reader like this one, on another model; `changed` are fields of its tokenisation's fingerprint."""
    tokenization = {**reader.tokenization.fingerprint, **changed}
    return Reader.like(
        loaded, dict(reader.loaded.fingerprint), tokenization, reader.tokens_per_batch, where="the index 'i.lance'"
    )


def test_a_reader_has_the_tokenizers_own_template_and_the_usual_sizes() -> None:
    loaded = tiny_loaded("llama")
    reader = Reader.of(loaded)
    usual = Tokenization.of(loaded.tokenizer, None, MAX_TOKENS)
    assert reader == Reader(loaded, replace(usual, vocabulary=300), TOKENS_PER_BATCH)
    assert Reader.of(tiny_loaded("llama", chat=True)).tokenization.template.fingerprint["name"] == "chat"
    assert (
        Reader.of(tiny_loaded("llama", chat=True), template="plain").tokenization.template.fingerprint["name"]
        == "plain"
    )


def test_rows_are_numbered_as_given_and_hotwords_are_a_querys() -> None:
    reader = Reader.of(tiny_loaded("llama"))
    assert [row.row.ordinal for row in reader.tokenize(ROWS)] == [0, 1]
    (row, _), (query, _) = reader.tokenize(ROWS), reader.tokenize(ROWS, "query")
    assert 0 < query.response.sum() < row.response.sum()
    batches = reader.batches(ROWS, Window(64), "query")
    assert {row.row.ordinal: row.row.id for batch in batches for row in batch.rows} == {0: "a", 1: "b"}
    narrow = Reader.of(reader.loaded, tokens_per_batch=1).batches(ROWS, Window(64))
    assert [len(batch.rows) for batch in narrow] == [1, 1]


@pytest.mark.parametrize("template", [None, "Q: {prompt}\nA: {response}"])
def test_a_reader_like_another_reads_the_same(template: str | None) -> None:
    reader = Reader.of(tiny_loaded("llama"), template=template, max_tokens=25, tokens_per_batch=100)
    same = again(reader, tiny_loaded("llama"))
    assert same.tokenization.fingerprint == reader.tokenization.fingerprint
    assert (same.tokens_per_batch, same.tokenization.max_tokens) == (100, 25)
    assert [row.digest for row in same.tokenize(ROWS)] == [row.digest for row in reader.tokenize(ROWS)]
    assert [row.ids.tolist() for row in same.tokenize(ROWS)] == [row.ids.tolist() for row in reader.tokenize(ROWS)]


@pytest.mark.parametrize(("name", "seed"), [("llama", 1), ("gpt2", 0)])
def test_another_model_is_refused_by_its_fields(name: str, seed: int) -> None:
    with pytest.raises(MismatchError, match=r"not the one that the index 'i\.lance' was made with") as caught:
        again(Reader.of(tiny_loaded("llama")), tiny_loaded(name, seed=seed))
    assert "weights" in caught.value.fields
    assert caught.value.fields[0] in str(caught.value)
    assert f"'{name}'" in str(caught.value)


def test_another_tokenizer_is_refused_by_its_fields() -> None:
    reader = Reader.of(tiny_loaded("llama"))
    with pytest.raises(MismatchError, match=r"not the one that the index 'i\.lance' was made with") as caught:
        again(reader, wrap_model(zoo()["llama"](), tiny_tokenizer(290), "llama"))
    assert caught.value.fields == ("tokenizer",)


def test_a_chat_template_that_was_exchanged_is_refused_by_its_fields() -> None:
    """Behind the back of the model's fingerprint, which was taken when the model was wrapped."""
    reader, other = Reader.of(tiny_loaded("llama", chat=True)), tiny_loaded("llama", chat=True)
    other.tokenizer.chat_template = "> " + str(other.tokenizer.chat_template)
    with pytest.raises(MismatchError, match=r"reads rows differently from those of the index 'i\.lance'") as caught:
        again(reader, other)
    assert any(name.startswith("template") for name in caught.value.fields)


def test_a_template_that_has_changed_is_refused_by_its_fields() -> None:
    reader = Reader.of(tiny_loaded("llama"))
    changed = {**reader.tokenization.fingerprint["template"], "text": "as it was written once"}
    with pytest.raises(MismatchError) as caught:
        again(reader, reader.loaded, template=changed)
    assert any(name.startswith("template") for name in caught.value.fields)


def test_rows_on_both_sides_of_a_turning_length_do_not_share_a_batch() -> None:
    """Phi-3's LongRoPE reads a whole batch by its longest sequence, so a short row would change beside a long one."""
    factors = [1.0] * 4
    longrope = {
        **{"rope_type": "longrope", "original_max_position_embeddings": 32, "rope_theta": 10000.0},
        **{"short_factor": factors, "long_factor": [4.0 * f for f in factors], "factor": 4.0},
    }
    sizes = {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
    sizes |= {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Phi3Config(
        vocab_size=VOCAB,
        rope_parameters=longrope,
        max_position_embeddings=128,
        original_max_position_embeddings=32,
        **sizes,
    )
    torch.manual_seed(0)
    reader = Reader.of(wrap_model(Phi3ForCausalLM(config).eval(), tiny_tokenizer(), "phi3"))
    rows = [Row(str(n), i, text="x" * n) for i, n in enumerate((19, 59, 32, 31))]  # and the end token
    batches = reader.batches(rows, Window())
    lengths = sorted(sorted(len(row.ids) for row in batch.rows) for batch in batches)
    assert lengths == [[20, 32], [33, 60]]
    together = mean_losses(reader.loaded, batches, len(rows))
    alone = [mean_losses(reader.loaded, reader.batches([row], Window()), 1)[0] for row in rows]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-6)
