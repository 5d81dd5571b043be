"""TOFU's and MUSE's measures by hand and by slow oracles, the stand-in, and the files that open-unlearning writes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from headwater.core.errors import DataError, UsageError
from headwater.data.rows import Row
from headwater.evaluation.known_metrics import Subject, harmonic_mean, muse_measures, rouge_l, tofu_measures
from headwater.evaluation.membership import membership_auc, priv_leak
from headwater.evaluation.protocol import ProtocolSettings, run_protocol
from headwater.models.reader import Reader
from headwater.tasks.authors import authors_task
from headwater.training.tiny import task_rows
from zoo import tiny_loaded

ROWS = task_rows(authors_task(0, authors=10, forget=2, world=6).rows)


@pytest.fixture(scope="module")
def subject():
    return Subject(Reader.of(tiny_loaded("llama"), max_tokens=200))


def longest_common(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return longest_common(a[:-1], b[:-1]) + 1
    return max(longest_common(a[:-1], b), longest_common(a, b[:-1]))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("the cat sat on the mat", "the cat is on a mat"),
        ("a b c d", "d c b a"),
        ("b a b a", "a b a"),
        ("", "x"),
        ("X!", "x"),
    ],
)
def test_rouge_l_is_the_longest_common_subsequence(answer, right):
    a, b = tuple(answer.lower().replace("!", "").split()), tuple(right.split())
    common = longest_common(a, b)
    found = rouge_l(answer, right)
    assert found.recall == pytest.approx(common / len(b))
    assert found.f1 == pytest.approx(2 * common / (len(a) + len(b)))


def test_the_membership_auc_is_the_share_of_pairs():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 9, 14).astype(float), rng.integers(2, 12, 9).astype(float)
    pairs = [(a < b) + 0.5 * (a == b) for a in inside for b in outside]
    assert membership_auc(inside, outside) == pytest.approx(np.mean(pairs))
    assert membership_auc([1, 2], [3, 4]) == 1
    assert (priv_leak(1.0), priv_leak(0.5), priv_leak(0.0)) == (-100, 0, 100)
    assert priv_leak(0.8, 0.6) == pytest.approx(100 * ((1 - 0.8) - (1 - 0.6)) / (1 - 0.6)), "MUSE's, of 1 - AUC"
    with pytest.raises(DataError, match="no rows to compare"):
        membership_auc([1.0], [])


def test_the_authors_are_of_three_groups_and_their_wrong_answers_are_wrong():
    task = authors_task(0, authors=20, forget=2)
    names = [{row["author"] for row in group} for group in (task.forget, task.retain, task.held_out)]
    assert [len(group) for group in names] == [2, 18, 2]
    assert not set.intersection(*names)
    assert not names[0] & names[2]
    for row in task.rows:
        assert row["response"] not in row["perturbed_answer"]
        assert "{" not in row["prompt"] + row["response"] + row["paraphrased_answer"]
    assert all(row["paraphrased_answer"] not in row["perturbed_answer"] for row in (*task.forget, *task.retain))
    assert authors_task(0, authors=20, forget=2) == task
    assert authors_task(1, authors=20, forget=2) != task


def loss_of(subject, prompt: Row, answer: str) -> float:
    """The mean loss that the model itself reports for an answer."""
    (tokens,) = subject.reader.tokenize([replace(prompt, response=answer)])
    ids = torch.from_numpy(tokens.ids)[None]
    labels = torch.where(torch.from_numpy(tokens.response)[None], ids, -100)
    return float(subject.reader.loaded.model(input_ids=ids, labels=labels).loss)


def test_tofu_measures_agree_with_the_models_own_losses(subject):
    forget, retain = ROWS[:3], ROWS[12:16]
    found = tofu_measures(subject, forget, {"retain": retain}, None)
    for i, row in enumerate(forget):
        right = loss_of(subject, row, row.metadata["paraphrased_answer"])
        wrong = np.mean([loss_of(subject, row, text) for text in row.metadata["perturbed_answer"]])
        ratio = found["forget_truth_ratio"]["value_by_index"][str(i)]["score"]
        assert ratio == pytest.approx(math.exp(right - wrong), rel=1e-4)
        probability = found["forget_Q_A_Prob"]["value_by_index"][str(i)]["prob"]
        assert probability == pytest.approx(math.exp(-loss_of(subject, row, row.response)), rel=1e-4)
    ratios = [v["score"] for v in found["forget_truth_ratio"]["value_by_index"].values()]
    assert found["forget_truth_ratio"]["agg_value"] == pytest.approx(np.mean([min(r, 1 / r) for r in ratios]))
    kept = [v["score"] for v in found["retain_Truth_Ratio"]["value_by_index"].values()]
    assert found["retain_Truth_Ratio"]["agg_value"] == pytest.approx(np.mean([max(0, 1 - r) for r in kept]))
    parts = [found[f"retain_{name}"]["agg_value"] for name in ("Q_A_Prob", "Q_A_ROUGE", "Truth_Ratio")]
    utility = found["model_utility"]["agg_value"]
    assert utility == (pytest.approx(stats.hmean(parts)) if all(parts) else 0)
    again = tofu_measures(subject, forget, {"retain": retain}, found)
    assert again["forget_quality"]["agg_value"] == pytest.approx(1), "a model has its own quality"
    with pytest.raises(DataError, match="perturbed_answer"):
        tofu_measures(subject, [replace(forget[0], metadata={})], {"retain": retain}, None)


def test_muse_measures(subject):
    found = muse_measures(subject, ROWS[:4], ROWS[12:16], ROWS[20:24], None)
    inside, outside = (
        [v["score"] for v in found["mia_min_k"][kind]["value_by_index"].values()] for kind in ("forget", "holdout")
    )
    assert found["privleak"]["agg_value"] == pytest.approx(priv_leak(membership_auc(inside, outside)))
    again = muse_measures(subject, ROWS[:4], ROWS[12:16], ROWS[20:24], found)
    assert again["privleak"]["agg_value"] == pytest.approx(0), "a model leaks as much as itself"
    (tokens,) = subject.reader.tokenize(ROWS[:1])
    whole = found["forget_verbmem_ROUGE"]["value_by_index"]["0"]
    decode = subject.reader.loaded.tokenizer.decode
    assert whole["input"] + whole["ground_truth"] == decode(tokens.ids.tolist()).replace("<|end|>", "")
    losses = sorted(token_loss(subject, tokens), reverse=True)
    least = losses[: max(1, round(0.4 * len(losses)))]
    assert inside[0] == pytest.approx(np.mean(least), rel=1e-4)


def token_loss(subject, tokens) -> list[float]:
    ids = torch.from_numpy(tokens.ids)[None]
    logp = torch.log_softmax(subject.reader.loaded.model(input_ids=ids).logits[0].float(), -1)
    return [-float(logp[t - 1, ids[0, t]]) for t in np.flatnonzero(tokens.response)]


def test_the_harmonic_mean():
    assert harmonic_mean([0.2, 0.9, 0.5]) == pytest.approx(stats.hmean([0.2, 0.9, 0.5]))
    assert harmonic_mean([0.2, 0.0]) == 0


def test_any_model_and_rows_and_the_files_of_open_unlearning(tmp_path):
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(tmp_path / "m")
    loaded.tokenizer.save_pretrained(tmp_path / "m")
    for name, rows in {"forget": ROWS[:3], "retain": ROWS[12:15], "held": ROWS[20:23]}.items():
        records = [{"id": r.id, "question": r.prompt, "answer": r.response, **r.metadata} for r in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    at = {name: str(tmp_path / f"{name}.jsonl") for name in ("forget", "retain")}
    given = ProtocolSettings(model=str(tmp_path / "m"), retrained=str(tmp_path / "m"), **at)
    result = run_protocol(given, tmp_path / "out")
    assert [line.method for line in result.lines] == ["retrained", "after unlearning"]
    assert result.lines[1].metrics["forget_quality"].value == pytest.approx(1)
    logs = json.loads((tmp_path / "out/tofu-after-unlearning/TOFU_EVAL.json").read_text())
    assert list(logs) == sorted(logs)
    assert set(logs["forget_truth_ratio"]) == {"agg_value", "value_by_index"}
    assert set(logs["forget_truth_ratio"]["value_by_index"]) == {"0", "1", "2"}
    brief = json.loads((tmp_path / "out/tofu-after-unlearning/TOFU_SUMMARY.json").read_text())
    assert brief == {name: logs[name]["agg_value"] for name in logs}
    with pytest.raises(UsageError, match="--held-out is missing"):
        run_protocol(replace(given, shape="muse"), tmp_path / "out")
    muse = run_protocol(replace(given, shape="muse", held_out=str(tmp_path / "held.jsonl")), tmp_path / "out")
    assert muse.lines[1].metrics["privleak"].value == pytest.approx(0)
    with pytest.raises(UsageError, match="did you mean 'tofu'"):
        run_protocol(replace(given, shape="tofo"), tmp_path / "out")
