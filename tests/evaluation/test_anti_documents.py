"""Tables with and without anti-documents: the same scores, of all rows or of all but the anti-documents."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score

from headwater.core.scores import Scores
from headwater.data.rows import Row
from headwater.evaluation.detection import score_groups, with_anti_documents
from headwater.evaluation.own import MeasuredTask
from headwater.evaluation.result import Cost
from headwater.evaluation.stage import Scored, Stage

IDS = tuple(f"r{i}" for i in range(40))


def test_a_table_leaves_its_rows_out_and_its_twin_keeps_them():
    values = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    positives, anti = frozenset(IDS[:5]), frozenset(IDS[5:12])
    values[5:12] += 2

    class Fixed(Stage):
        def score(self, label, queries):
            scores = Scores(IDS, tuple(q.id for q in queries), values, label)
            return Scored(scores, Cost())

    queries = (Row("a", 0, prompt="x", response="y"), Row("b", 1, prompt="x", response="z"))
    stage = object.__new__(Fixed)
    group = MeasuredTask("task", stage, queries, {"a": positives, "b": positives}, anti)
    plain, twin = with_anti_documents([group])
    assert (plain.name, twin.name) == ("task", "task, with anti-documents")
    for measured, left in ((plain, anti), (twin, frozenset())):
        (line,) = score_groups("any", [measured])
        kept = [i for i, name in enumerate(IDS) if name not in left]
        labels = [IDS[i] in positives for i in kept]
        expected = np.mean([average_precision_score(labels, values[kept, q]) for q in range(2)])
        assert np.isclose(line.metrics["AP"].value, expected)
    assert score_groups("any", [plain])[0].metrics["AP"].value > score_groups("any", [twin])[0].metrics["AP"].value
    assert with_anti_documents([twin]) == [twin]
