"""The measures of TOFU (arXiv 2401.06121) and MUSE (2407.06460), in the shape that open-unlearning writes.

    probability      P(a | q)^(1/|a|)
    ROUGE-L          longest common subsequence of words: TOFU takes its recall, MUSE its F1
    truth ratio      R = exp(−mean L̄(wrong answers)) / exp(−L̄(paraphrased right answer))
    forget quality   p of a two-sample Kolmogorov-Smirnov test of R on forget rows, this model against the retrained one
    model utility    harmonic mean of probability, ROUGE-L and max(0, 1 − R) over each set of rows to keep
    Min-k            mean log-probability of the least likely 40 % of an answer's tokens

A measure of rows is `{"agg_value": mean, "value_by_index": {"0": {...}}}`, one of sets `{"agg_value": number}`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from headwater.core.errors import DataError
from headwater.data.rows import Row, with_response
from headwater.evaluation.forgetting_metrics import extraction_strength
from headwater.evaluation.membership import CHANCE, membership_auc, priv_leak
from headwater.models.generate import generate_responses
from headwater.models.losses import all_logits, token_losses
from headwater.models.reader import Reader
from headwater.unlearning.sequences import collate_rows, measure_losses

PARAPHRASED, PERTURBED = "paraphrased_answer", "perturbed_answer"
NEW_TOKENS = 64
LEAST_LIKELY = 0.4
Measure = dict[str, Any]


@dataclass(frozen=True)
class RougeL:
    """Recall of the right answer's words, and F1, of the longest common subsequence."""

    recall: float
    f1: float


def rouge_l(answer: str, right: str) -> RougeL:
    """ROUGE-L of two texts by their lower-case words."""
    found, wanted = (re.findall(r"\w+", text.lower()) for text in (answer, right))
    if not found or not wanted:
        return RougeL(float(found == wanted), float(found == wanted))
    lengths = [0] * (len(wanted) + 1)
    for word in found:
        before = 0
        for j, other in enumerate(wanted, 1):
            above = lengths[j]
            lengths[j] = before + 1 if word == other else max(lengths[j], lengths[j - 1])
            before = above
    common = lengths[-1]
    return RougeL(common / len(wanted), 2 * common / (len(found) + len(wanted)))


@dataclass(frozen=True)
class Subject:
    """A reader with which rows are measured; every method gives one measure of open-unlearning's shape."""

    reader: Reader

    def probability(self, rows: Sequence[Row]) -> Measure:
        """Mean over rows of P(answer | question)^(1/tokens)."""
        return _by_row([{"prob": math.exp(-loss), "avg_loss": loss} for loss in self._losses(rows)], "prob")

    def rouge(self, rows: Sequence[Row], kind: str) -> Measure:
        """ROUGE-L of greedy answers; `kind` is `rougeL_recall` or `rougeL_f1`."""
        questions = [self.reader.tokenization.question(replace(row, said=None)) for row in rows]
        answers = generate_responses(self.reader.loaded, questions, max_new_tokens=NEW_TOKENS)
        triples = zip((row.prompt or "" for row in rows), (row.response or "" for row in rows), answers, strict=True)
        return _rouge(list(triples), kind)

    def verbatim(self, rows: Sequence[Row]) -> Measure:
        """ROUGE-L F1 of the second half of each row's target tokens, continued greedily from all that precedes it."""
        decode, begun, right = self.reader.loaded.tokenizer.decode, [], []
        for row in self.reader.tokenize(list(rows)):
            places = np.flatnonzero(row.response)
            middle = int(places[len(places) // 2])
            begun.append(row.ids[:middle].tolist())
            right.append(decode(row.ids[middle:].tolist(), skip_special_tokens=True))
        answers = generate_responses(self.reader.loaded, begun, max_new_tokens=NEW_TOKENS)
        return _rouge(list(zip(map(decode, begun), right, answers, strict=True)), "rougeL_f1")

    def truth_ratio(self, rows: Sequence[Row], *, forget: bool) -> Measure:
        """R of each row; the aggregate is mean min(R, 1/R) of forget rows, mean max(0, 1 − R) of others."""
        right = self._losses([with_response(row, _paraphrased(row)) for row in rows])
        wrong_rows = [(i, with_response(row, text)) for i, row in enumerate(rows) for text in _perturbed(row)]
        losses = np.array(self._losses([row for _, row in wrong_rows]))
        places = np.array([i for i, _ in wrong_rows])
        wrong = [float(losses[places == i].mean()) for i in range(len(rows))]
        ratios = np.exp(np.clip(np.array(right) - np.array(wrong), -50, 50))
        scores = np.minimum(ratios, 1 / ratios) if forget else np.maximum(0, 1 - ratios)
        made = _by_row([{"score": float(ratio)} for ratio in ratios], "score")
        return {**made, "agg_value": float(scores.mean())}

    def extraction(self, rows: Sequence[Row]) -> Measure:
        """Extraction strength."""
        tokens = self.reader.tokenize(list(rows))
        return _by_row([{"score": extraction_strength(self.reader.loaded, row)} for row in tokens], "score")

    def min_k(self, rows: Sequence[Row], share: float = LEAST_LIKELY) -> Measure:
        """The negative mean log-probability of the least likely tokens of each row, as a loss: low is remembered."""
        scores = []
        for row in self.reader.tokenize(list(rows)):
            batch = collate_rows([row], self.reader.loaded.device)
            response = batch["response"]
            logits = all_logits(self.reader.loaded.model, batch["input_ids"])
            losses = token_losses(logits[response], batch["targets"][response]).detach().sort(descending=True).values
            scores.append({"score": float(losses[: max(1, round(share * len(losses)))].mean())})
        return _by_row(scores, "score")

    def _losses(self, rows: Sequence[Row]) -> list[float]:
        tokens = self.reader.tokenize([replace(row, hotwords=(), said=None) for row in rows])
        found: list[float] = measure_losses(self.reader.loaded.model, tokens, self.reader.loaded.device)[1].tolist()
        return found


def tofu_measures(
    subject: Subject, forget: Sequence[Row], kept: dict[str, Sequence[Row]], reference: dict[str, Measure] | None
) -> dict[str, Measure]:
    """TOFU's measures of a model; `kept` are sets of rows to keep by their prefix (`retain`, `wf`).

    `reference` are the measures of the retrained model; without it there is no forget quality.
    """
    found = {
        "forget_Q_A_Prob": subject.probability(forget),
        "forget_Q_A_ROUGE": subject.rouge(forget, "rougeL_recall"),
        "forget_truth_ratio": subject.truth_ratio(forget, forget=True),
        "extraction_strength": subject.extraction(forget),
    }
    utility = []
    for name, rows in kept.items():
        parts = {
            f"{name}_Q_A_Prob": subject.probability(rows),
            f"{name}_Q_A_ROUGE": subject.rouge(rows, "rougeL_recall"),
            f"{name}_Truth_Ratio": subject.truth_ratio(rows, forget=False),
        }
        found |= parts
        utility += [part["agg_value"] for part in parts.values()]
    found["model_utility"] = {"agg_value": harmonic_mean(utility)}
    if reference is not None:
        mine, theirs = (_scores(m["forget_truth_ratio"]) for m in (found, reference))
        found["forget_quality"] = {"agg_value": float(stats.ks_2samp(mine, theirs).pvalue)}
    return found


def muse_measures(
    subject: Subject,
    forget: Sequence[Row],
    retain: Sequence[Row],
    held_out: Sequence[Row],
    reference: dict[str, Measure] | None,
) -> dict[str, Measure]:
    """MUSE's measures of a model: verbatim and knowledge memorisation, and privacy leakage.

    Verbatim memorisation continues the first half of each forget row's answer; knowledge memorisation asks its
    question. PrivLeak compares forget rows with held-out rows of their kind by Min-k.
    """
    inside, outside = subject.min_k(forget), subject.min_k(held_out)
    auc = membership_auc(_scores(inside), _scores(outside))
    other = CHANCE if reference is None else 1 - reference["mia_min_k"]["agg_value"]
    return {
        "forget_verbmem_ROUGE": subject.verbatim(forget),
        "forget_knowmem_ROUGE": subject.rouge(forget, "rougeL_f1"),
        "retain_knowmem_ROUGE": subject.rouge(retain, "rougeL_f1"),
        "extraction_strength": subject.extraction(forget),
        "mia_min_k": {"agg_value": 1 - auc, "forget": inside, "holdout": outside},
        "privleak": {"agg_value": priv_leak(auc, other)},
    }


def harmonic_mean(values: Sequence[float]) -> float:
    """n / Σ 1/x; 0 if a value is 0."""
    return len(values) / sum(1 / value for value in values) if all(value > 0 for value in values) else 0.0


def summary(measures: dict[str, Measure]) -> dict[str, float]:
    """The aggregate of every measure, by name in order."""
    return {name: measures[name]["agg_value"] for name in sorted(measures)}


def _rouge(triples: Sequence[tuple[str, str, str]], kind: str) -> Measure:
    """The measure of (what was asked, the right answer, the model's answer), aggregated by `kind`."""
    values = []
    for asked, right, answer in triples:
        found = rouge_l(answer, right)
        scores = {"rougeL_recall": found.recall, "rougeL_f1": found.f1}
        values.append({**scores, "input": asked, "ground_truth": right, "generation": answer})
    return _by_row(values, kind)


def _by_row(values: Sequence[Measure], key: str) -> Measure:
    mean = float(np.mean([value[key] for value in values]))
    return {"agg_value": mean, "value_by_index": {str(i): value for i, value in enumerate(values)}}


def _scores(measure: Measure) -> list[float]:
    return [value["score"] for value in measure["value_by_index"].values()]


def _paraphrased(row: Row) -> str:
    return str(row.metadata.get(PARAPHRASED) or row.response)


def _perturbed(row: Row) -> list[str]:
    found = row.metadata.get(PERTURBED)
    texts = [found] if isinstance(found, str) else list(found or ())
    if not texts:
        what = f"no wrong answers in the column '{PERTURBED}'"
        raise DataError(what, where=row.where, remedy=f"give each row a list of wrong answers as '{PERTURBED}'")
    return [str(text) for text in texts]
