"""The engine of a Ray cluster: a pool of actors computes blocks in a bounded window, and this process commits them.

    blocks ─▶ window (2 a worker) ─▶ actors: prepare, compute, write ─▶ receipts as JSON ═ in order ═▶ commit

Every actor makes the work from its recipe, once. If an actor dies, another one starts in its place, and its block is
computed again; a block that several workers die of ends the run. Workers may join late or go: blocks go to those that
are ready.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headwater.core.errors import EngineError, HeadwaterError, UsageError
from headwater.core.progress import tell
from headwater.engines.actor import arrived, fault, start
from headwater.engines.blocks import Block, OnCommit, Place, Receipt, Work, commit

Item = TypeVar("Item")

TRIES = 3
"""A block is computed so many times before the run gives up; so is a worker started."""

BLOCKS_A_WORKER = 2
"""So many blocks a worker may be computed, or wait for an earlier one, at the same time."""

_CONNECT_SECONDS = 5.0
_WAIT_SECONDS = 60.0
_STORE_BYTES = 256 << 20
"""Shared memory of a cluster that starts here: only rows and receipts go through it."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayPool:
    """Compute blocks on actors of a Ray cluster.

    Attributes:
        workers: how many; None is one for each share of the cluster's GPUs, or without GPUs one for each node.
        address: of a running cluster (`host:port`, or `auto` for the one on this machine); None starts one here that
            ends with the run.
        gpus_per_worker: how many GPUs a worker gets; with several, its model is spread over them. None is one where
            there are GPUs.
        cpus_per_worker: how many CPUs, and threads, a worker gets.
    """

    workers: int | None = None
    address: str | None = None
    gpus_per_worker: int | None = None
    cpus_per_worker: int = 1

    @property
    def elsewhere(self) -> bool:
        """Blocks are computed in other processes."""
        return True

    def run(self, blocks: Iterable[Block[Item]], work: Work[Item], on_commit: OnCommit | None = None) -> None:
        """Compute and commit all blocks; see `Engine`.

        Raises:
            UsageError: Ray is not installed, or the cluster has fewer GPUs or CPUs than the workers ask for.
            EngineError: no cluster answers at the address, or workers die again and again.
        """
        recipe, blocks = work.recipe(), iter(blocks)
        first = next(blocks, None)
        if first is None:
            return
        blocks = itertools.chain([first], blocks)
        with self._cluster() as ray:
            workers, place = self._divide(ray)
            with contextlib.closing(_Pool(ray, ray.put(recipe), place, workers)) as pool:
                pool.run(blocks, lambda receipt: commit(work, receipt, on_commit))

    @contextlib.contextmanager
    def _cluster(self) -> Iterator[Any]:
        """Connect to the cluster, or start one; a connection that was there before stays."""
        ray = _import_ray()
        if ray.is_initialized():
            yield ray
            return
        quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
        if self.address is None:
            cpus = max((self.workers or 1) * self.cpus_per_worker, os.cpu_count() or 1)
            own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
            plain = {"worker_niceness": 0}  # Ray's 15 gives its workers what all others leave of the processor
            try:  # without an address Ray would join a cluster that is here
                ray.init(address="local", _system_config=plain, **own, **quiet)
            except Exception as error:
                what = f"Ray cannot start a cluster of its own here: {' '.join(str(error).split())[:300]}"
                remedy = "try again when the machine is less busy, or give --address of a cluster"
                raise EngineError(what, where="--engine ray", remedy=remedy) from error
        else:
            _require_reachable(self.address)
            try:
                ray.init(address=self.address, **quiet)
            except (Exception, SystemExit) as error:
                raise _unreachable(self.address, " ".join(str(error).split()) or "no answer") from error
        try:
            yield ray
        finally:
            ray.shutdown()

    def _divide(self, ray: Any) -> tuple[int, Place]:
        """How many workers there are, and what each of them gets."""
        has = ray.cluster_resources()
        gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 0))
        each = self.gpus_per_worker if self.gpus_per_worker is not None else min(gpus, 1)
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        workers = self.workers or (gpus // each if each and gpus >= each else nodes)
        for kind, wanted, there, flag in (
            ("GPUs", workers * each, gpus, "--gpus-per-worker"),
            ("CPUs", workers * self.cpus_per_worker, cpus, "--workers"),
        ):
            if wanted > there:
                what = f"{workers} workers ask for {wanted} {kind}, and the cluster has {there}"
                raise UsageError(what, where=flag, remedy="give fewer workers, or fewer of these to a worker")
        return workers, Place(each, self.cpus_per_worker)


@dataclass
class _Flight:
    """An actor, and the block it computes with the block's place in the order of commits; None while it starts.

    `began` is when it was given the block; `blocks`, `rows` and `seconds` count what it has computed.
    """

    number: int
    handle: Any
    at: int = -1
    block: Block[Any] | None = None
    began: float = 0.0
    blocks: int = 0
    rows: int = 0
    seconds: float = 0.0

    def count(self, receipt: Receipt) -> None:
        """Count a block that the actor has computed."""
        self.blocks += 1
        self.rows += receipt.rows
        self.seconds += time.monotonic() - self.began

    def __str__(self) -> str:
        rate = self.rows / self.seconds if self.seconds else 0.0
        blocks, rows = (f"{n:,} {name}{'s' * (n != 1)}" for n, name in ((self.blocks, "block"), (self.rows, "row")))
        return f"worker {self.number}: {blocks}, {rows}, {rate:,.3g} a second"


@dataclass
class _Pool:
    """The actors of one run, and the blocks between being drawn and being committed."""

    ray: Any
    recipe: Any
    """The work's `WorkRecipe`, or a reference to it in Ray's shared memory, which all actors read."""

    place: Place
    size: int
    started: int = 0
    idle: deque[_Flight] = field(default_factory=deque)
    flying: dict[Any, _Flight] = field(default_factory=dict)
    again: list[tuple[int, Block[Any]]] = field(default_factory=list)
    done: dict[int, Receipt] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    stop: tuple[int, HeadwaterError] | None = None
    """The first block that cannot be computed, by its place in the order, and why: those before it are still done."""

    def run(self, blocks: Iterable[Block[Any]], commit_one: Callable[[Receipt], None]) -> None:
        """Compute all blocks, and hand their receipts over in their order."""
        stream, drawn, next_commit = enumerate(blocks), 0, 0
        for _ in range(self.size):
            self._start()
        tell("starting workers", 0, self.size, "workers")
        exhausted = False
        while True:
            while next_commit in self.done:  # first, because every commit makes room for another block
                commit_one(self.done.pop(next_commit))
                next_commit += 1
            if self.stop is not None and next_commit >= self.stop[0]:
                raise self.stop[1]
            while self.idle and (self._again() or self._room(drawn - next_commit, exhausted)):
                found = self.again.pop(0) if self.again else next(stream, None)
                if found is None:
                    exhausted = True
                else:
                    drawn = max(drawn, found[0] + 1)
                    self._send(*found)
            if exhausted and next_commit == drawn:
                self._report()
                return
            self._land()

    def close(self) -> None:
        """End all actors."""
        for one in (*self.idle, *self.flying.values()):
            with contextlib.suppress(Exception):
                self.ray.kill(one.handle, no_restart=True)

    def _again(self) -> bool:
        """Whether a block is to be computed again; those behind a block that cannot be computed are not."""
        self.again = [one for one in self.again if self.stop is None or one[0] < self.stop[0]]
        return bool(self.again)

    def _room(self, between: int, exhausted: bool) -> bool:
        """Whether another block may be drawn, with so many `between` being drawn and being committed."""
        return not exhausted and self.stop is None and between < self.size * BLOCKS_A_WORKER

    def _start(self) -> None:
        self.started += 1
        actor = _Flight(self.started, start(self.ray, self.recipe, self.place))
        self.flying[actor.handle.begin.remote()] = actor

    def _report(self) -> None:
        for one in sorted((*self.idle, *self.flying.values()), key=lambda one: one.number):
            _log.info("%s", one)

    def _send(self, at: int, block: Block[Any]) -> None:
        actor = self.idle.popleft()
        actor.at, actor.block, actor.began = at, block, time.monotonic()
        self.flying[actor.handle.compute.remote(block)] = actor

    def _land(self) -> None:
        """Wait until an actor has started, computed a block, or died."""
        ready: list[Any] = []
        while not ready:
            ready, _ = self.ray.wait(list(self.flying), num_returns=1, timeout=_WAIT_SECONDS)
            if not ready and all(actor.block is None for actor in self.flying.values()):
                _log.warning("no worker has started yet: the cluster has no room, or the model takes long to load")
        actor = self.flying.pop(ready[0])
        at, block = actor.at, actor.block
        try:
            found = arrived(self.ray.get(ready[0]))
        except HeadwaterError as error:
            self._fail(at, error)
            self.idle.append(actor)
            return
        except self.ray.exceptions.RayError as error:
            self._lost(at, block, fault(error))
            return
        if found is not None:
            self.done[at] = found
            actor.count(found)
        else:
            self.deaths.pop(-1, None)  # workers can start: those that died before did so for reasons of their own
            waiting = sum(one.block is None for one in self.flying.values())
            tell("starting workers", max(self.size - waiting, 0), self.size, "workers")
        actor.at, actor.block = -1, None
        self.idle.append(actor)

    def _lost(self, at: int, block: Block[Any] | None, why: str) -> None:
        """An actor died: have its block computed again and start another actor, unless that happened too often."""
        self.deaths[at] = self.deaths.get(at, 0) + 1
        what = "while they started" if block is None else f"of {block}"
        if self.deaths[at] >= (TRIES if block is not None else TRIES * self.size):
            remedy = "what was committed is kept; mend the cause, and go on with --resume"
            text = f"{self.deaths[at]} workers died {what}, the last one so: {why}"
            self._fail(at, EngineError(text, where="--engine ray", remedy=remedy))
        else:
            _log.warning("a worker died %s (%s); another one goes on", what, why)
            if block is not None:
                self.again.append((at, block))
        self._start()

    def _fail(self, at: int, error: HeadwaterError) -> None:
        if self.stop is None or at < self.stop[0]:
            self.stop = (at, error)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a worker that asks for no GPU sees none
    try:
        import ray
    except ImportError as error:
        remedy = "pip install 'headwater[ray]'"
        raise UsageError("Ray is not installed", where="--engine ray", remedy=remedy) from error
    return ray


def _require_reachable(address: str) -> None:
    """Raise `EngineError` if nothing answers at `host:port`; Ray itself would try for minutes, then end the process."""
    host, sign, port = address.rpartition("://")[2].rpartition(":")
    if not sign:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str, why: str) -> EngineError:
    remedy = "start one with 'ray start --head' and give its address as host:port, or leave --address out"
    return EngineError(f"no Ray cluster answers at '{address}': {why[:300]}", where="--address", remedy=remedy)
