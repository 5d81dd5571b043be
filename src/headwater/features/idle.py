"""Proof that a watched module which did not run has no gradient, rather than one that went unseen.

An expert no token was sent to, or an adapter that is switched off, is rightly silent. A model that uses a layer's
weight without calling the layer would be wrongly so: its gradient would be taken for zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from headwater.core.errors import ModelError
from headwater.data.batches import TokenBatch
from headwater.features.sites import Site
from headwater.models.losses import all_logits


def require_idle(model: Any, sites: Iterable[Site], batch: TokenBatch) -> None:
    """Raise unless the parameters of `sites` get no gradient from a forward pass over the batch.

    Raises:
        ModelError: naming a parameter that is used past its module.
    """
    silent = {id(p): (site.where, p) for site in sites for p in site.module.parameters(recurse=False)}
    parameters: list[tuple[str, nn.Parameter]] = list(silent.values())
    for _, parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            logits = all_logits(model, batch.input_ids)
            used: tuple[Tensor | None, ...] = (None,) * len(parameters)
            if logits.requires_grad:
                tensors = [parameter for _, parameter in parameters]
                used = torch.autograd.grad(logits.sum(), tensors, allow_unused=True)
    finally:
        for _, parameter in parameters:
            parameter.requires_grad_(False)
    for (where, _), gradient in zip(parameters, used, strict=True):
        if gradient is not None:
            remedy = "leave it out with a glob over parameters"
            raise ModelError(
                "its weight is used without the module being run; no gradient seen", where=where, remedy=remedy
            )
