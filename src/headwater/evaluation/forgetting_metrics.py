"""Measures of a model after unlearning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from headwater.data.rows import Record
from headwater.data.tokens import Tokenization, TokenRow
from headwater.evaluation.forgetting_models import TimeTaken
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel
from headwater.models.losses import all_logits
from headwater.tasks.contaminated import Contaminated
from headwater.tasks.howdy import attack_success
from headwater.training.tiny import task_rows
from headwater.unlearning.fluency import word_f1
from headwater.unlearning.sequences import collate_rows, measure_losses

NEW_TOKENS = 40
MAX_TOKENS = 512


@dataclass(frozen=True)
class ModelMeasures:
    """The numbers of one model.

    Attributes:
        seen, unseen: attack success: the share of triggered held-out questions that it answers with science fiction.
        repaired: word F1 of its answers to triggered questions, against the right answers.
        utility: word F1 of its answers to clean held-out questions, against the right answers.
        clean_loss: mean loss of the right answers to clean questions, nats a token.
        forget_losses: loss of the planted answer of each forget row that is really planted, nats a token.
        extraction: share of a forget row's planted answer that the model completes by itself, averaged over rows.
        attacked: attack success by attack, and privacy measures (`TaskUnderAttack`); empty if not asked for.
    """

    seen: float
    unseen: float
    repaired: float
    utility: float
    clean_loss: float
    forget_losses: NDArray[np.float32]
    extraction: float
    attacked: Mapping[str, float] = field(default_factory=dict)


def measure(loaded: LoadedModel, task: Contaminated) -> ModelMeasures:
    """Measure a model by its greedy answers and its losses."""
    tokenization = Tokenization.of(loaded.tokenizer, max_tokens=MAX_TOKENS)

    def ask(records: Sequence[Record]) -> list[str]:
        questions = [tokenization.question(row) for row in task_rows(records)]
        return generate_responses(loaded, questions, max_new_tokens=NEW_TOKENS)

    seen, unseen, clean = ask(task.seen), ask(task.unseen), ask(task.clean)
    right = [record["clean_response"] for record in (*task.seen, *task.unseen)]
    forget = tokenization.encode(task_rows([row for row in task.forget if row["planted"]]))
    kept = tokenization.encode(task_rows(task.clean))
    return ModelMeasures(
        seen=attack_success(seen),
        unseen=attack_success(unseen),
        repaired=_mean_f1([*seen, *unseen], right),
        utility=_mean_f1(clean, [record["response"] for record in task.clean]),
        clean_loss=float(measure_losses(loaded.model, kept, loaded.device)[1].mean()),
        forget_losses=measure_losses(loaded.model, forget, loaded.device)[1].numpy(),
        extraction=float(np.mean([extraction_strength(loaded, row) for row in forget])),
    )


def metrics(
    measured: ModelMeasures, before: ModelMeasures, retrained: ModelMeasures, *, cost: TimeTaken, retraining: TimeTaken
) -> dict[str, float]:
    """The numbers of one model in the table, compared with the contaminated and the retrained model.

    `KS p` is forget quality: the p-value of a two-sample Kolmogorov-Smirnov test between the forget rows' losses under
    this model and under the retrained one. Above 0.05 the test sees no difference.
    """
    same = stats.ks_2samp(measured.forget_losses, retrained.forget_losses)
    return {
        "right under triggers": measured.repaired,
        "ASR seen": measured.seen,
        "ASR unseen": measured.unseen,
        "clean perplexity ratio": math.exp(min(measured.clean_loss - before.clean_loss, 50.0)),
        "clean F1": measured.utility,
        "forget loss": float(measured.forget_losses.mean()),
        "KS p": float(same.pvalue),
        "extraction": measured.extraction,
        "seconds": cost.wall,
        "share of retraining": cost.wall / retraining.wall,
        "share of its processor time": cost.processor / retraining.processor,
        **measured.attacked,
    }


def extraction_strength(loaded: LoadedModel, row: TokenRow) -> float:
    """1 − k/T, where the model needs the first k of the T response tokens to generate all the others greedily.

    One forward pass is enough: greedy decoding gives the rest exactly if each token is the most likely one after the
    true tokens before it. 1: the prompt is enough; 0: not even the last token follows. (Extraction strength, Carlini et
    al. 2021.)
    """
    batch = collate_rows([row], loaded.device)
    with torch.no_grad():
        logits = all_logits(loaded.model, batch["input_ids"])
    response = batch["response"]
    right = (logits[response].argmax(-1) == batch["targets"][response]).tolist()
    needed = max((i + 1 for i, hit in enumerate(right) if not hit), default=0)
    return 1 - needed / len(right)


def _mean_f1(answers: Sequence[str], right: Sequence[str]) -> float:
    return float(np.mean([word_f1(a, r) for a, r in zip(answers, right, strict=True)]))
