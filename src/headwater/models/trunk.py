"""The model up to its head: what the head is given, without computing any logits."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import ModelError

BACKEND = "inductor"
"""What `torch.compile` compiles with."""


class _HeadReachedError(Exception):
    """The head was called; the rest of the model need not run."""


@dataclass(frozen=True)
class UpToHead:
    """A model that is run until it calls its head, for models that change the trunk's output before.

    Attributes:
        model: the whole model.
        head: the module whose input is wanted.
    """

    model: Any
    head: Any

    def __call__(self, **given: Any) -> Any:
        """The head's input as `last_hidden_state`, as a trunk gives it; raises `ModelError` if the head is not run."""
        found: list[Tensor] = []
        mine = threading.get_ident()

        def stop(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if threading.get_ident() != mine:  # another thread runs the model for itself
                return
            found.append(next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))
            raise _HeadReachedError

        handle = self.head.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.model(**given)
        except _HeadReachedError:
            return SimpleNamespace(last_hidden_state=found[0])
        finally:
            handle.remove()
        what = f"{type(self.model).__name__} does not run its head"
        raise ModelError(what, remedy="use a method that does not read the head")


@dataclass(frozen=True)
class Compiled:
    """A trunk that runs through `torch.compile`, for rows of any number and length.

    Attributes:
        trunk: the module.
        run: what `torch.compile` made of it; it compiles when it is first called, which takes a minute or so.
    """

    trunk: Any
    run: Any

    @classmethod
    def of(cls, trunk: Any) -> Compiled:
        """Have a trunk compiled; raises `ModelError` if the model has none apart from its head."""
        if isinstance(trunk, UpToHead):
            what = f"{type(trunk.model).__name__} changes what its trunk gives, so that it cannot be compiled by itself"
            raise ModelError(what, where="--compile", remedy="leave it out")
        return cls(trunk, torch.compile(trunk, dynamic=True, backend=BACKEND))

    def __call__(self, **given: Any) -> Any:
        """The trunk's output; raises `ModelError` if it cannot be compiled."""
        try:
            return self.run(**given)
        except torch._dynamo.exc.TorchDynamoException as error:
            brief = " ".join(str(error).split())[:300]
            what = f"{type(self.trunk).__name__} cannot be compiled: {brief}"
            raise ModelError(what, where="--compile", remedy="leave it out") from error


def trunk_of(model: Any, head: Any, input_ids: Tensor) -> Any:
    """The model's trunk if it gives what the head is given on this batch, bit for bit; otherwise the model up to it."""
    whole, trunk = UpToHead(model, head), model.base_model
    if trunk is model:
        return whole
    with torch.no_grad():
        states = getattr(trunk(input_ids=input_ids, use_cache=False), "last_hidden_state", None)
        given = whole(input_ids=input_ids, use_cache=False).last_hidden_state
    return trunk if states is not None and torch.equal(states, given) else whole
