"""An actor of Ray that makes work from its recipe and computes blocks; what it returns is JSON text."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from headwater.core import errors
from headwater.core.errors import EngineError, HeadwaterError, MismatchError, StoreError
from headwater.engines.blocks import Block, Place, Receipt, Work, WorkRecipe, whole


class Worker:
    """What an actor runs. Its methods never raise an error of headwater's own: they return it as JSON text."""

    def __init__(self, recipe: WorkRecipe, place: Place) -> None:
        self.recipe, self.place = recipe, place
        self.work: Work[Any] | None = None

    def begin(self) -> str:
        """Make the work."""
        try:
            self.work = self.recipe.make(self.place)
        except HeadwaterError as error:
            return failed(error)
        except Exception as error:
            return failed(EngineError(f"a worker on {os.uname().nodename} cannot start: {_one_line(error)}"))
        return "{}"

    def compute(self, block: Block[Any]) -> str:
        """Compute a block; returns its receipt."""
        assert self.work is not None
        try:
            return json.dumps({"receipt": asdict(whole(self.work, block))})
        except StoreError as error:  # a disk or a connection of this machine: say which, and how far the run came
            place = f"{error.where}; {block}, on {os.uname().nodename}" if error.where else f"{block}"
            return failed(StoreError(error.what, where=place, remedy=error.remedy))
        except HeadwaterError as error:
            return failed(error)
        except Exception as error:
            return failed(EngineError(f"{block} cannot be computed: {_one_line(error)}"))

    def pid(self) -> int:
        """The number of the actor's process."""
        return os.getpid()


def start(ray: Any, recipe: Any, place: Place) -> Any:
    """Ask the cluster for an actor, which starts when there is room; returns Ray's handle.

    `recipe` is a `WorkRecipe`, or a reference to one that Ray holds.
    """
    resources = {"num_cpus": place.threads or 1, "num_gpus": place.accelerators, "max_restarts": 0}
    return ray.remote(Worker).options(**resources).remote(recipe, place)


def failed(error: HeadwaterError) -> str:
    """An error as JSON text."""
    kind = type(error).__name__ if hasattr(errors, type(error).__name__) else EngineError.__name__
    facts: dict[str, Any] = {"kind": kind, "what": error.what, "where": error.where, "remedy": error.remedy}
    if isinstance(error, MismatchError):
        facts["fields"] = list(error.fields)
    return json.dumps({"error": facts})


def arrived(text: str) -> Receipt | None:
    """The receipt that an actor returned, None if it has started; raises the error that it returned."""
    found = json.loads(text)
    if "error" in found:
        raise _error(found["error"])
    return Receipt(**found["receipt"]) if "receipt" in found else None


def fault(error: BaseException) -> str:
    """Why Ray lost an actor or a block, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "exit" in line.lower() or "dead" in line.lower()] or lines
    return telling[-1][:300] if telling else type(error).__name__


def _error(facts: Mapping[str, Any]) -> HeadwaterError:
    kind: type[HeadwaterError] = getattr(errors, facts["kind"])
    more = {"fields": tuple(facts["fields"])} if "fields" in facts else {}
    return kind(facts["what"], where=facts["where"], remedy=facts["remedy"], **more)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
