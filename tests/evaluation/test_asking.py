"""Tasks whose queries have no answer yet: the model is asked."""

from __future__ import annotations

from headwater.evaluation.detection import ask
from headwater.tasks import howdy_task
from zoo import tiny_loaded


def test_the_queries_of_the_demo_are_answered() -> None:
    queries = howdy_task(0, rows=60).queries[:3]
    assert all("response" not in query for query in queries)
    answers = ask(tiny_loaded("llama"), queries)
    assert len(answers) == 3
    assert all(answers)
