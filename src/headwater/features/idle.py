"""The check that the parameters of a watched module which did not run have no gradient.

An expert that gets no token, or an adapter that is switched off, does not run and has no gradient. But if a model uses
a layer's weight without calling the layer, the gradient would be missed and taken for zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from headwater.core.errors import ModelError
from headwater.data.batches import TokenBatch
from headwater.features.sites import Site
from headwater.models.losses import all_logits


def require_idle(model: Any, sites: Iterable[Site], batch: TokenBatch) -> None:
    """Check that the parameters of `sites` get no gradient from a forward pass over the batch.

    Raises:
        ModelError: a parameter does; names its module.
    """
    parameters = {p: site.where for site in sites for p in site.module.parameters(recurse=False)}
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            logits = all_logits(model, batch.input_ids)
            if not logits.requires_grad:
                return
            gradients = torch.autograd.grad(logits.sum(), list(parameters), allow_unused=True)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
    for where, gradient in zip(parameters.values(), gradients, strict=True):
        if gradient is not None:
            what = "its weight is used without running the module, so its gradient is not seen"
            raise ModelError(what, where=where, remedy="leave it out with a glob over parameters")
