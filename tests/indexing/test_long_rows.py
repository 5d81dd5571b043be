"""Long rows: read behind their whole prompt, or in windows that are counted and kept; the limits of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from headwater.core.errors import DataError, UsageError
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.index.info import describe
from headwater.index.store import Index
from headwater.indexing.build import build
from headwater.indexing.maintain import add
from headwater.indexing.session import open_session
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.limits import positions_of
from headwater.models.load import LoadedModel, wrap_model
from headwater.models.reader import Reader
from oracles.gradient_oracles import row_gradients

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
WORDS = [f"w{i}" for i in range(60)]


def one_word_a_token(*extra: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<end>", "?", *WORDS, *extra])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="?", pad_token="?")


def small_model(kind: str = "gpt2", *, seed: int = 0, **options: Any) -> Any:
    common = {"vocab_size": 62, "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[kind](**common | options)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def gpt2(positions: int) -> LoadedModel:
    return wrap_model(small_model(n_positions=positions, n_embd=16, n_layer=1, n_head=2), one_word_a_token())


def words(count: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, count).tolist())


def row(name: str, prompt: int, response: int) -> dict[str, str]:
    return {"id": name, "prompt": words(prompt, seed=prompt), "response": words(response, seed=response + 1)}


def built(out: Path, rows: list[dict[str, str]], loaded: LoadedModel, method: str = "graddot", **how: Any) -> Index:
    settings = {"sketch": "identity"} if method == "graddot" else {"preset": "small"}
    settings |= how.pop("settings", {})
    reader = Reader.of(loaded, template="{prompt} {response}", **how)
    return build(out, open_corpus(rows), Bound.of(find_method(method, settings), reader))


def stored(index: Index) -> dict[str, dict[str, Any]]:
    return {cells["id"]: cells for cells in index.dataset.to_table().to_pylist()}


def test_a_response_is_read_behind_its_whole_prompt(tmp_path: Path) -> None:
    llama = small_model("llama", max_position_embeddings=1024, num_attention_heads=2, **SMALL)
    loaded = wrap_model(llama, one_word_a_token())
    index = built(tmp_path / "a.lance", [row("short", 3, 4), row("long", 700, 5)], loaded)
    reader = Reader.of(loaded, template="{prompt} {response}")
    corpus = list(open_corpus([row("short", 3, 4), row("long", 700, 5)]))
    for tokens in reader.tokenize(corpus):
        oracle = row_gradients(loaded.model, tokens)
        true = np.concatenate([oracle[name].flatten().double().numpy() for name, _ in loaded.model.named_parameters()])
        cells = stored(index)[tokens.row.id]
        have = np.asarray(cells["gradient"], dtype=np.float64)
        assert true @ have / np.linalg.norm(true) / np.linalg.norm(have) > 0.9999
        assert cells["windows_read"] == 1
        assert cells["targets_without_beginning"] == 0


@pytest.mark.parametrize("method", ["graddot", "rise"])
def test_a_response_beyond_the_positions_has_as_much_prompt_as_fits(tmp_path: Path, method: str) -> None:
    loaded = gpt2(32)
    index = built(tmp_path / "a.lance", [row("fits", 10, 5), row("late", 90, 6)], loaded, method)
    cells = stored(index)
    (tokens,) = Reader.of(loaded, template="{prompt} {response}").tokenize(list(open_corpus([row("late", 90, 6)])))
    kept = torch.from_numpy(tokens.ids[-32:])[None]  # the response, its end, and the 25 tokens before them
    logits = loaded.model(input_ids=kept).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, kept[0, 1:], reduction="none")
    assert cells["late"]["loss"] == pytest.approx(float(losses[-7:].mean()), rel=1e-4)
    assert [cells["late"][n] for n in ("tokens", "tokens_cut", "windows_read", "targets_unread")] == [97, 0, 1, 0]
    assert cells["late"]["targets_without_beginning"] == 7
    assert cells["fits"]["targets_without_beginning"] == 0
    reading = describe(index)["reading"]
    assert (reading["rows_without_beginning"], reading["targets_without_beginning"]) == (1, 7)
    assert (reading["rows_cut"], reading["rows_in_windows"]) == (0, 0)


def test_what_is_cut_and_read_in_windows_is_kept(tmp_path: Path) -> None:
    rows = [{"id": "whole", "text": words(20)}, {"id": "windows", "text": words(99)}, {"id": "cut", "text": words(150)}]
    index = built(tmp_path / "a.lance", rows, gpt2(40), max_tokens=110)
    cells = stored(index)
    names = ("tokens", "tokens_cut", "windows_read", "targets_unread", "targets_without_beginning")
    assert [cells["whole"][n] for n in names] == [21, 0, 1, 0, 0]
    assert [cells["windows"][n] for n in names] == [100, 0, 4, 0, 60]
    assert [cells["cut"][n] for n in names] == [110, 41, 5, 41, 70]
    assert describe(index)["reading"] == {
        **{"rows_cut": 1, "tokens_cut": 41, "targets_unread": 41, "rows_in_windows": 2},
        **{"rows_without_beginning": 2, "targets_without_beginning": 130},
    }
    session = open_session(index, gpt2(40))
    add(session, open_corpus([{"id": "more", "text": words(101, seed=5)}]))
    assert describe(index)["reading"]["rows_in_windows"] == 3


def test_an_index_keeps_the_windows_it_was_built_with(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "text": words(40, seed=i)} for i in range(2)]
    index = built(tmp_path / "a.lance", rows, gpt2(64), settings={"window": 16, "overlap": 0})
    session = open_session(index, gpt2(64))
    add(session, open_corpus([{"id": "more", "text": words(40, seed=9)}]))
    cells = stored(index)
    assert {c["windows_read"] for c in cells.values()} == {3}
    assert {c["targets_unread"] for c in cells.values()} == {2}  # first in a window that shares no token


def test_windows_longer_than_the_positions_are_refused() -> None:
    reader = Reader.of(gpt2(32))
    with pytest.raises(UsageError, match=r"window=64: windows of 64 tokens, but the model has 32 positions"):
        reader.require_windows({"window": 64})
    reader.require_windows({"window": 32, "query_window": 0})
    reader.require_windows({"buckets": 65_536})


def test_positions_are_those_the_model_runs_with() -> None:
    mpt = small_model("mpt", d_model=16, n_heads=2, n_layers=1, max_seq_len=40)
    opt = {"ffn_dim": 16, "word_embed_proj_dim": 16, "hidden_size": 16, "num_hidden_layers": 1}
    behind_padding = {"is_decoder": True, "pad_token_id": 1}
    models_by_limit = {
        24: small_model(n_positions=24, n_embd=16, n_layer=1, n_head=2),
        40: mpt,
        48: small_model("opt", max_position_embeddings=48, num_attention_heads=2, **opt),
        # RoBERTa's positions begin behind its padding row
        30: small_model("roberta", max_position_embeddings=32, num_attention_heads=2, **SMALL | behind_padding),
    }
    for limit, model in models_by_limit.items():
        assert positions_of(model) == limit
        ids = torch.full((1, limit), 5)
        assert model(input_ids=ids).logits.shape[1] == limit
    mamba = small_model("mamba", hidden_size=16, num_hidden_layers=1, state_size=4)
    assert positions_of(mamba) is None


def test_a_token_beyond_the_embedding_is_named_with_its_row() -> None:
    loaded = wrap_model(small_model(n_positions=32, n_embd=16, n_layer=1, n_head=2), one_word_a_token())
    grown = one_word_a_token("new")
    reader = Reader.of(wrap_model(loaded.model, loaded.tokenizer), template="{prompt} {response}")
    reader = Reader(reader.loaded, type(reader.tokenization)(grown, reader.tokenization.template, vocabulary=62))
    rows = [Row("a", 0, prompt="w1", response="w2", place="d:1"), Row("b", 1, prompt="w1", response="new", place="d:2")]
    with pytest.raises(DataError) as caught:
        reader.tokenize(rows)
    assert str(caught.value).startswith("d:2: token 62 ('new') is beyond the model's embedding, which has 62 rows")
