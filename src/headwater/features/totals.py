"""Sums over tensors whose gradients are on several devices, as those of a model that a `device_map` spreads."""

from __future__ import annotations

import math
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class Spare:
    """Memory for sums on a CPU. It is lent again once nothing can see what was lent before.

    The C library asks the system for a block of more than 32 MiB at every request and gives it back at every release,
    and each of its pages is cleared by the system when it is first written: in all, this takes four times as long as
    clearing memory that is already there. So an encoder keeps the memory of its sums from batch to batch.

    What is lent lies in a NumPy array that is made for it. PyTorch keeps this array alive for as long as any tensor, a
    view of one, or an array made from one, shares its memory. Only when the array is gone is the memory lent again;
    until then, other memory is. On a GPU, PyTorch keeps freed memory itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._lent: weakref.ref[Any] | None = None

    def __reduce__(self) -> tuple[type[Spare], tuple[()]]:
        """A copy, in this or another process, begins without memory."""
        return Spare, ()

    def zeros(self, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor of zeros that shares memory with no other."""
        if device.type != "cpu":
            return torch.zeros(*shape, dtype=dtype, device=device)
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            lent = self._lent is not None and self._lent() is not None
            if lent or len(self._memory) < size:
                self._memory = torch.empty(size, dtype=torch.uint8)
            array = self._memory.numpy()[:size]
            self._lent = weakref.ref(array)
        return torch.from_numpy(array).view(dtype).view(shape).zero_()


@dataclass
class Totals:
    """One sum `[rows, dim]` on each device, so that a sketch runs where a gradient is, and only sums are moved.

    Attributes:
        rows, dim: the shape.
        home: the device of the whole sum.
        spare: where a sum on a CPU gets its memory.
    """

    rows: int
    dim: int
    home: torch.device
    spare: Spare = field(default_factory=Spare)
    _parts: dict[torch.device, Tensor] = field(default_factory=dict)

    def on(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """The sum of one device, to add to."""
        if device not in self._parts:
            self._parts[device] = self.spare.zeros(self.rows, self.dim, dtype=dtype, device=device)
        return self._parts[device]

    def whole(self) -> Tensor:
        """The sum of all devices, at home; the devices' own sums are used up."""
        parts = [self._parts.pop(device) for device in list(self._parts)]
        if not parts:
            return torch.zeros(self.rows, self.dim, device=self.home)
        total = parts[0].to(self.home)
        for part in parts[1:]:
            total += part.to(total)
        return total
