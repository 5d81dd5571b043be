"""The engines by name, for the command line and configuration; everything else is given an engine as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headwater.core.errors import UsageError, unknown_name
from headwater.engines.blocks import Engine
from headwater.engines.local import Local
from headwater.engines.ray_pool import RayPool


@dataclass(frozen=True)
class EngineChoice:
    """What a user can choose about where blocks are computed; None where nothing was chosen.

    Attributes:
        name: one of `ENGINES`.
        address, workers, gpus_per_worker, cpus_per_worker: see `RayPool`.
    """

    name: str = "local"
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: int | None = None
    cpus_per_worker: int | None = None

    def open(self) -> Engine:
        """The engine; raises `UsageError` for an unknown name, or an option that the engine does not have."""
        if self.name not in ENGINES:
            raise unknown_name("engine", self.name, ENGINES, where="--engine")
        return ENGINES[self.name](self)


def _local(choice: EngineChoice) -> Engine:
    given = [name for name, value in vars(choice).items() if name != "name" and value is not None]
    if given:
        flag = f"--{given[0].replace('_', '-')}"
        raise UsageError("the local engine has one worker, in this process", where=flag, remedy="add --engine ray")
    return Local()


def _ray(choice: EngineChoice) -> Engine:
    return RayPool(choice.workers, choice.address, choice.gpus_per_worker, choice.cpus_per_worker or 1)


ENGINES: dict[str, Callable[[EngineChoice], Engine]] = {"local": _local, "ray": _ray}
"""Every engine by name."""
