"""Sums over tensors whose gradients are on several devices, as those of a model that a `device_map` spreads."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Totals:
    """One sum `[rows, dim]` on each device, so that a sketch runs where a gradient is, and only sums are moved.

    Attributes:
        rows, dim: the shape.
        home: the device of the whole sum.
    """

    rows: int
    dim: int
    home: torch.device
    _parts: dict[torch.device, Tensor] = field(default_factory=dict)

    def on(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """The sum of one device, to add to."""
        if device not in self._parts:
            self._parts[device] = torch.zeros(self.rows, self.dim, dtype=dtype, device=device)
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
