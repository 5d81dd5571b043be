"""The evaluations by name, each with its settings and the function that runs it. A new evaluation is one line here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.core.errors import unknown_name
from headwater.evaluation import detection, forgetting, lasting, lds, protocol, removal, sanity, selection
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.own import Own
from headwater.evaluation.result import Result, environment


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: `settings` is a frozen dataclass of JSON values (tuples for lists), and `run` runs it."""

    settings: type[Any]
    run: Callable[[Any, Path, Listener], Result]


EVALUATIONS: dict[str, Evaluation] = {
    "detection": Evaluation(detection.DetectionSettings, detection.run_detection),
    "separation": Evaluation(detection.DetectionSettings, detection.run_separation),
    "forgetting": Evaluation(forgetting.ForgettingSettings, forgetting.run_forgetting),
    "lds": Evaluation(lds.LdsSettings, lds.run_lds),
    "lasting": Evaluation(lasting.LastingSettings, lasting.run_lasting),
    "protocol": Evaluation(protocol.ProtocolSettings, protocol.run_protocol),
    "removal": Evaluation(removal.RemovalSettings, removal.run_removal),
    "selection": Evaluation(selection.SelectionSettings, selection.run_selection),
    "sanity": Evaluation(sanity.SanitySettings, sanity.run_sanity),
}


def run_evaluation(name: str, settings: Mapping[str, Any], folder: Path, listener: Listener = SILENT) -> Result:
    """Run the evaluation called `name`, and note the environment and the time in its result.

    Models, indexes and banks are kept in `folder` and used again.

    Raises:
        UsageError: an unknown evaluation or setting.
    """
    if name not in EVALUATIONS:
        raise unknown_name("evaluation", name, EVALUATIONS)
    evaluation = EVALUATIONS[name]
    known = {f.name for f in dataclasses.fields(evaluation.settings)}
    for setting in settings:
        if setting not in known:
            raise unknown_name("setting", setting, known, where=name)
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    if given.get("own") is not None:
        given["own"] = Own.of(given["own"])
    start = time.perf_counter()
    result = evaluation.run(evaluation.settings(**given), folder, listener)
    return dataclasses.replace(result, about=environment(time.perf_counter() - start))
