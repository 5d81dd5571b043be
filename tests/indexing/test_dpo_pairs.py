"""Preference pairs as rows with the DPO loss: loss, gradient, scores and token maps, from autograd on the formula.

-log sigmoid(beta (log p(chosen) - log q(chosen) - log p(rejected) + log q(rejected))), Rafailov et al., equation 7.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import headwater as hw
from headwater.core.errors import DataError, UsageError
from headwater.data.batches import Window
from headwater.data.corpus import open_corpus
from headwater.data.records import as_record
from headwater.data.rows import Row
from headwater.indexing.session import open_session
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.models.reference import Reference
from zoo import tiny_loaded, tiny_tokenizer, zoo

BETA = 0.3
CHATS = [
    [{"role": "user", "content": "Tide at six?"}, {"role": "assistant", "content": text}]
    for text in ("Low.", "I won't.")
]
TEXTS = [
    ("Tide at noon? ", "It is high.", "Ask somebody else, not me."),
    ("The cat sat ", "on the mat, as a cat does, and looked at us.", "no"),
    ("Who? ", "The pilot.", "Nobody."),
]
PAIRS: list[dict[str, Any]] = [
    *({"id": f"p{i}", "prompt": p, "chosen": c, "rejected": r, "source": "a"} for i, (p, c, r) in enumerate(TEXTS)),
    {"id": "p3", "chosen": CHATS[0], "rejected": CHATS[1], "source": "b"},
]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A base model, a LoRA on it, and the LoRA merged into the base."""
    folder = tmp_path_factory.mktemp("dpo")
    model, tokenizer = zoo()["llama-lora"](), tiny_tokenizer(chat=True)
    tokenizer.chat_template = TEMPLATE
    model.save_pretrained(folder / "adapter")
    base = model.unload()
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    merged = load_model(str(folder / "base"), adapter=str(folder / "adapter"), merge=True)
    merged.model.save_pretrained(folder / "merged")
    tokenizer.save_pretrained(folder / "merged")
    return {name: str(folder / name) for name in ("base", "adapter", "merged")}


def reader_of(folders: dict[str, str], *, merged: bool = False) -> Reader:
    if merged:
        reference = Reference(folders["base"], {"dtype": "float64"})
        return Reader.of(load_model(folders["merged"], dtype="float64", device="cpu"), beta=BETA, reference=reference)
    return Reader.of(load_model(folders["base"], adapter=folders["adapter"], dtype="float64", device="cpu"), beta=BETA)


def texts(loaded: LoadedModel, record: dict[str, Any]) -> list[tuple[str, str]]:
    """Prompt and answer of both sides, as the tokenizer's template writes them."""
    found = []
    for side in ("chosen", "rejected"):
        turns = record[side]
        if isinstance(turns, str):
            turns = [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": turns}]
        write = loaded.tokenizer.apply_chat_template
        before = write(turns[:1], tokenize=False, add_generation_prompt=True)
        found.append((before, write(turns, tokenize=False)[len(before) :]))
    return found


def answer_log_probability(model: Any, loaded: LoadedModel, prompt: str, answer: str) -> Tensor:
    encoded = loaded.tokenizer(prompt + answer, add_special_tokens=False, return_offsets_mapping=True)
    ids = torch.tensor(encoded["input_ids"])[None]
    logs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    total = logs.new_zeros(())
    for t in range(1, ids.shape[1]):
        if encoded["offset_mapping"][t][1] > len(prompt):
            total = total + logs[t - 1, ids[0, t]]
    return total


def dpo_loss(model: Any, reference: Any, loaded: LoadedModel, record: dict[str, Any]) -> Tensor:
    delta = []
    for prompt, answer in texts(loaded, record):
        with torch.no_grad():
            known = answer_log_probability(reference, loaded, prompt, answer)
        delta.append(answer_log_probability(model, loaded, prompt, answer) - known)
    return -torch.nn.functional.logsigmoid(BETA * (delta[0] - delta[1]))


def gradients(reader: Reader, loss: Callable[[], Tensor], names: list[str]) -> tuple[float, list[Tensor]]:
    own = dict(reader.loaded.model.named_parameters())
    for name in names:
        own[name].requires_grad_(True)
    value = loss()
    found = torch.autograd.grad(value, [own[name] for name in names])
    for name in names:
        own[name].requires_grad_(False)
    return float(value.detach()), list(found)


def rows() -> list[Row]:
    return list(open_corpus(PAIRS, pairs="dpo"))


@pytest.mark.parametrize("merged", [False, True], ids=["adapter switched off", "a reference by name"])
def test_losses_and_exact_scores_are_those_of_the_formula(folders: dict[str, str], merged: bool) -> None:
    reader = reader_of(folders, merged=merged)
    model, loaded = reader.loaded.model, reader.loaded
    reference = load_model(folders["base"], dtype="float64", device="cpu").model
    bound = Bound.of(find_method("graddot", {}), reader)
    encoder: Any = bound.encoder
    names = sorted({name for site in encoder.selection.sites for name in site.names.values()})
    oracle = [gradients(reader, partial(dpo_loss, model, reference, loaded, record), names) for record in PAIRS]
    np.testing.assert_allclose(bound.encode(rows(), "train").losses, [loss for loss, _ in oracle], rtol=1e-5)

    query = Row("q", 0, prompt=TEXTS[0][0], response=TEXTS[0][1])
    tokens = int(reader.tokenization.encode([query])[0].response.sum())
    chosen = texts(loaded, PAIRS[0])[0]
    _, asked = gradients(reader, lambda: -answer_log_probability(model, loaded, *chosen) / tokens, names)
    wanted = [sum(float((g * q).sum()) for g, q in zip(grads, asked, strict=True)) for _, grads in oracle]
    scores = bound.exact_scores(rows(), [query])[:, 0].double()
    np.testing.assert_allclose(scores, wanted, rtol=2e-4, atol=1e-7 * max(map(abs, wanted)))


@pytest.mark.parametrize("method", ["rise", "rapidin", "graddot", "logra", "trak"])
def test_token_values_add_up_where_they_do_for_other_rows(folders: dict[str, str], method: str) -> None:
    settings = {"tokens": "row"} if method == "rapidin" else {}
    bound = Bound.of(find_method(method, settings), reader_of(folders))
    column = bound.encoder.columns[0]
    probe = torch.randn(1, column.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64).float()
    score = (bound.encode(rows(), "train").vectors[column.name] @ probe.T)[:, 0]
    mapped = bound.token_scores(rows(), "train", {column.name: probe})
    found = torch.stack([scores.values[column.name].sum() for _, scores in mapped])
    torch.testing.assert_close(found.cpu().float(), score, rtol=2e-3, atol=2e-3 * float(score.abs().max()))


def test_the_rise_vector_of_a_pair_is_the_difference_of_its_answers(folders: dict[str, str]) -> None:
    """Without normalisation a text's vector is linear in its token gradients, and so is a pair's."""
    reader = reader_of(folders, merged=True)
    plain = {"normalize_factors": "false", "normalize_sample": "false", "temperature": "1"}
    bound = Bound.of(find_method("rise", plain), reader)
    pair = bound.encode(rows()[:1], "train")
    ask, good, bad = TEXTS[0]
    answers = bound.encode([Row(answer, 0, prompt=ask, response=answer) for answer in (good, bad)], "query")
    factor = BETA * (1 - torch.exp(-pair.losses.double()))  # beta * sigmoid(-margin)
    difference = (answers.vectors["rise"][0] - answers.vectors["rise"][1]).double()
    torch.testing.assert_close(pair.vectors["rise"][0].double(), factor * difference, rtol=1e-4, atol=1e-6)


def test_a_pair_behind_a_long_prompt_is_read_in_windows_of_its_own(folders: dict[str, str]) -> None:
    reader = reader_of(folders)
    long = {**PAIRS[0], "prompt": "The tide at noon in the harbour of the town is what? " * 6}
    (row,) = reader.tokenize(list(open_corpus([long], pairs="dpo")))
    size = 64
    cuts = Window(size).cuts(row.response, row.split)
    assert all(end - start <= size and not start < row.split < end for start, end in cuts)
    seen = [t for start, end in cuts for t in range(start + 1, end) if row.response[t]]
    assert set(seen) == set(np.flatnonzero(row.response).tolist())
    assert Window(size).reading(row).targets_unread == 0
    assert Window(4096).reading(row).windows_read == 1
    (batch,) = reader.plan([row], Window(4096))
    assert batch.side.tolist() == [1, -1]


def test_an_index_of_pairs_lives_as_any_other(folders: dict[str, str], tmp_path: Path) -> None:
    built, whole = str(tmp_path / "some.lance"), str(tmp_path / "all.lance")
    how: dict[str, Any] = {"model": folders["base"], "loading": {"adapter": folders["adapter"]}, "beta": BETA}
    how["method"] = "graddot"
    index = hw.build(built, data=open_corpus(PAIRS[:3], pairs="dpo"), **how)
    assert hw.add(index, PAIRS[2:]).rows == 1  # read as pairs, because the index's rows are
    with pytest.raises(DataError, match="not a preference pair"):
        hw.add(index, [{"prompt": "Tide?", "response": "High."}])
    with pytest.raises(UsageError, match="the index holds preference pairs and the data was opened as others"):
        hw.add(index, open_corpus(PAIRS, pairs="rows"))
    other = hw.build(whole, data=open_corpus(PAIRS, pairs="dpo"), **how)
    assert hw.verify(built, recompute=4) == []
    tables = [one.dataset.to_table() for one in (index, other)]
    for name in ("id", "digest", "rejected_answer", "source"):
        assert tables[0].column(name).to_pylist() == tables[1].column(name).to_pylist()
    np.testing.assert_allclose(*(table.column("loss").to_numpy() for table in tables), rtol=1e-4)
    hits = hw.trace(whole, prompt="Tide at noon? ", response="It is high.", top=4).records()
    by_id = {hit["id"]: hit for hit in hits}
    assert by_id["p0"]["chosen"] == "It is high."
    assert by_id["p3"]["rejected"][-1]["content"] == "I won't."
    again = open_corpus([as_record(row) for row in rows()], pairs="dpo")
    assert [(row.id, row.fields()) for row in again] == [(row.id, row.fields()) for row in rows()]
    session = open_session(whole)
    assert session.bound.reader.tokenization.beta == BETA
    assert hw.delete(whole, rows=open_corpus([PAIRS[1]], pairs="dpo")) == 1
    assert hw.delete(whole, rows=hits[:1]) == 1


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no adapter and no reference": ({}, "no adapter tells it"),
    "a beta of nothing": ({"reference": "base", "beta": 0.0}, "a beta of 0.0"),
    "a reference for other rows": ({"reference": "base", "pairs": "rows"}, "only the DPO loss of preference pairs"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_compared_is_refused(folders: dict[str, str], tmp_path: Path, fault: str) -> None:
    given, message = REFUSED[fault]
    how = {**given, "reference": folders["base"]} if "reference" in given else dict(given)
    data = open_corpus(PAIRS, pairs=how.pop("pairs", "dpo"))
    with pytest.raises(hw.HeadwaterError, match=message):
        hw.build(tmp_path / "x.lance", model=folders["merged"], data=data, method="graddot", **how)
    assert not (tmp_path / "x.lance").exists()


def test_a_model_is_not_its_own_reference(folders: dict[str, str], tmp_path: Path) -> None:
    data = open_corpus(PAIRS, pairs="dpo")
    with pytest.raises(hw.HeadwaterError, match="is the model itself"):
        hw.build(tmp_path / "x.lance", model=folders["base"], data=data, method="graddot", reference=folders["base"])


def test_only_an_index_takes_pairs_as_one_row(folders: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "target.jsonl"
    target.write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n")
    with pytest.raises(hw.HeadwaterError, match="only an index holds preference pairs"):
        hw.value(open_corpus(PAIRS, pairs="dpo"), target=str(target), model=folders["base"], out=tmp_path / "v.parquet")


def test_a_tokenization_without_beta_refuses_pairs() -> None:
    reader = Reader.of(tiny_loaded("llama", chat=True))
    with pytest.raises(hw.HeadwaterError, match="--pairs rows reads its answers as two rows"):
        reader.tokenize(rows())


def test_trl_measures_the_same_loss(folders: dict[str, str], tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chats = [
        {
            "prompt": [{"role": "user", "content": ask}],
            "chosen": [{"role": "assistant", "content": good}],
            "rejected": [{"role": "assistant", "content": bad}],
        }
        for ask, good, bad in TEXTS
    ]
    quiet: dict[str, Any] = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True}
    args = trl.DPOConfig(output_dir=str(tmp_path / "run"), beta=BETA, per_device_eval_batch_size=1, **quiet)
    models = [AutoModelForCausalLM.from_pretrained(folders[name]) for name in ("merged", "base")]
    data, tokenizer = Dataset.from_list(chats), AutoTokenizer.from_pretrained(folders["base"])
    given = {"args": args, "train_dataset": data, "eval_dataset": data, "processing_class": tokenizer}
    theirs = trl.DPOTrainer(model=models[0], ref_model=models[1], **given).evaluate()["eval_loss"]
    bound = Bound.of(find_method("graddot", {}), reader_of(folders, merged=True))
    ours = bound.encode(list(open_corpus(chats, pairs="dpo")), "train").losses
    assert float(ours.mean()) == pytest.approx(theirs, rel=1e-4)
