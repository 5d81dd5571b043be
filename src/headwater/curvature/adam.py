"""Adam's moments, and the step that the optimiser which trained the model would take on a row.

With moments m, v after step t, Adam's next step on gradient g moves the weights along (LESS, arXiv 2402.04333, eq. 3)

    Γ(g) = m̂ / (√v̂ + ε),   m̂ = (β₁ m + (1 − β₁) g) / (1 − β₁^(t+1)),   v̂ = (β₂ v + (1 − β₂) g²) / (1 − β₂^(t+1))

and TrackStar (arXiv 2410.17413) divides by √v̂ alone, v̂ = v / (1 − β₂^t). All operations are entry by entry.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from headwater.core.errors import DataError, MismatchError, first_few

_FIRST, _SECOND, _ABOUT = "exp_avg.", "exp_avg_sq.", "adam"


@dataclass(frozen=True)
class AdamState:
    """Moments by parameter name, in the parameters' own layout.

    Attributes:
        first, second: m and v.
        step: t, the number of steps taken.
        beta1, beta2, epsilon: the optimiser's constants.
    """

    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]
    step: int
    beta1: float
    beta2: float
    epsilon: float

    def update(self, name: str, gradient: Tensor, *, bias_correction: bool = True) -> Tensor:
        """Γ of gradients `[rows, *parameter]` or flat; without `bias_correction`, m and v are used uncorrected."""
        m = self.beta1 * _laid_out(self.first[name], gradient) + (1 - self.beta1) * gradient
        v = self.beta2 * _laid_out(self.second[name], gradient) + (1 - self.beta2) * gradient.square()
        if bias_correction:
            m = m / (1 - self.beta1 ** (self.step + 1))
            v = v / (1 - self.beta2 ** (self.step + 1))
        return m / (v.sqrt() + self.epsilon)

    def scaled(self, name: str, gradient: Tensor) -> Tensor:
        """g / (√v̂ + ε) of gradients `[rows, *parameter]` or flat."""
        v = _laid_out(self.second[name], gradient) / (1 - self.beta2**self.step)
        return gradient / (v.sqrt() + self.epsilon)


def _laid_out(moment: Tensor, gradient: Tensor) -> Tensor:
    """A parameter's moment in the gradients' dtype and layout, which is flat for modules that are run again."""
    return moment.to(gradient).reshape(gradient.shape[1:])


def write_adam(path: str | Path, optimizer: torch.optim.Optimizer, model: Any) -> Path:
    """Write the moments of an Adam or AdamW that is training `model`; parameters without moments are left out.

    Raises:
        DataError: the optimiser has no moments (it is not Adam, or has not stepped), or its groups differ in β or ε.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors, steps, constants = {}, set(), set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if "exp_avg_sq" in state:
                name = names[id(parameter)]
                tensors[_FIRST + name] = state["exp_avg"].detach().cpu().contiguous()
                tensors[_SECOND + name] = state["exp_avg_sq"].detach().cpu().contiguous()
                steps.add(int(state["step"]))
                constants.add((*group["betas"], group["eps"]))
    if len(steps) != 1 or len(constants) != 1:
        what = f"{len(tensors) // 2} tensors with moments, steps {sorted(steps)}, (β₁, β₂, ε) {sorted(constants)}"
        remedy = "give an Adam that has stepped, with one set of constants"
        raise DataError(f"the optimiser's state cannot be used: {what}", where=type(optimizer).__name__, remedy=remedy)
    (step,), ((beta1, beta2, epsilon),) = steps, constants
    about = {"step": step, "beta1": beta1, "beta2": beta2, "epsilon": epsilon}
    save_file(tensors, path, metadata={_ABOUT: json.dumps(about)})
    return Path(path)


def keeps_moments(optimizer: Any) -> bool:
    """Whether the optimiser has the moments of an Adam that has stepped."""
    return any("exp_avg_sq" in state for state in optimizer.state.values())


def read_adam(path: str | Path, model: Any, wanted: Collection[str]) -> AdamState:
    """The moments of the `wanted` parameters of `model`, from a file that `write_adam` wrote.

    Raises:
        DataError: there is no such file, or it is not one that `write_adam` wrote.
        MismatchError: a wanted parameter is not in it, or has another shape there.
    """
    first, second = {}, {}
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            held = set(file.keys())
            for name in wanted:
                if _FIRST + name in held:
                    first[name], second[name] = file.get_tensor(_FIRST + name), file.get_tensor(_SECOND + name)
    except Exception as error:  # missing, foreign and truncated files raise errors of different classes
        remedy = "record the training with headwater.Recorder"
        raise DataError(f"no moments of Adam: {error}", where=str(path), remedy=remedy) from None
    require_moments(first, model, wanted, str(path))
    return AdamState(first, second, about["step"], about["beta1"], about["beta2"], about["epsilon"])


def require_moments(held: Mapping[str, Tensor], model: Any, wanted: Collection[str], where: str) -> None:
    """Raise `MismatchError` unless every wanted parameter of the model has a moment of its shape."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    unfit = tuple(name for name in wanted if name not in held or tuple(held[name].shape) != shapes.get(name))
    if unfit:
        what = f"{len(unfit)} selected parameters have no moments of their shape there: {first_few(unfit)}"
        raise MismatchError(what, fields=unfit, where=where, remedy="give the state of this model's training")
