"""The steps of the optimisers of `headwater.training.fitting`, as functions of a state, and their derivatives.

    clip    ĝ = g · min(1, c / (‖g‖ + 1e-6))
    AdamW   m' = β₁ m + (1 − β₁) ĝ     v' = β₂ v + (1 − β₂) ĝ²     θ' = (1 − η λ) θ − η/b₁ · m' / (√(v'/b₂) + ε)
    SGD     θ' = θ − η (ĝ + λ θ)

b₁ and b₂ are the corrections for moments that start at zero. An adjoint is the derivative of a number at the end of the
training by a state, with one row for each such number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.training.fitting import TrainingRecipe, rate_share

EPSILON = 1e-8
_CLIP_EPSILON = 1e-6
"""The constants of `torch.optim.AdamW` and `torch.nn.utils.clip_grad_norm_`."""


@dataclass(frozen=True)
class State:
    """Weights, and Adam's two moments (unused by SGD); each `[parameters]`.

    An adjoint has the same parts: derivatives by the weights and by the moments, each `[numbers, parameters]`.
    """

    weights: Float[Tensor, "*numbers parameters"]
    first: Float[Tensor, "*numbers parameters"]
    second: Float[Tensor, "*numbers parameters"]

    @classmethod
    def of(cls, weights: Float[Tensor, "*numbers parameters"]) -> State:
        """These weights with moments of 0: the state before the first step, or the adjoint after the last one."""
        return cls(weights, torch.zeros_like(weights), torch.zeros_like(weights))

    def plus(self, weights: Float[Tensor, "*numbers parameters"]) -> State:
        """With something added to the weights."""
        return State(self.weights + weights, self.first, self.second)


@dataclass(frozen=True)
class Update:
    """One step of a recipe's optimiser.

    Attributes:
        recipe: the training.
        number: of the step, from 0.
        rate: the learning rate of this step.
    """

    recipe: TrainingRecipe
    number: int
    rate: float

    def step(self, state: State, gradient: Float[Tensor, " parameters"]) -> State:
        """The state after the step."""
        o, g = self.recipe, gradient * self._clip(gradient)
        if o.optimizer == "sgd":
            weights = state.weights - self.rate * (g + o.weight_decay * state.weights)
            return State(weights, state.first, state.second)
        first, second, denominator = self._moments(state, g)
        weights = (1 - self.rate * o.weight_decay) * state.weights - self._pace * first / denominator
        return State(weights, first, second)

    def back(
        self, state: State, gradient: Float[Tensor, " parameters"], after: State
    ) -> tuple[State, Float[Tensor, "numbers parameters"]]:
        """The derivatives by the state before the step, but for the part through the gradient, and by the gradient."""
        o, clip = self.recipe, self._clip(gradient)
        g, kept = gradient * clip, (1 - self.rate * o.weight_decay) * after.weights
        if o.optimizer == "sgd":
            return State(kept, after.first, after.second), self._through_clip(gradient, -self.rate * after.weights)
        first, second, denominator = self._moments(state, g)
        by_first = after.first - self._pace * after.weights / denominator
        root = (second * self._bias(o.beta2)).sqrt()  # √(v'/b₂) has the derivative 1 / (2 √(v' b₂))
        slope = torch.where(root > 0, self._pace * first / (2 * denominator**2 * root), 0)
        by_second = after.second + slope * after.weights
        by_clipped = (1 - o.beta1) * by_first + 2 * (1 - o.beta2) * g * by_second
        return State(kept, o.beta1 * by_first, o.beta2 * by_second), self._through_clip(gradient, by_clipped)

    @property
    def _pace(self) -> float:
        return self.rate / self._bias(self.recipe.beta1)

    def _bias(self, beta: float) -> float:
        return 1 - beta ** (self.number + 1)

    def _moments(self, state: State, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both moments after the step, and √(v'/b₂) + ε."""
        o = self.recipe
        first = o.beta1 * state.first + (1 - o.beta1) * g
        second = o.beta2 * state.second + (1 - o.beta2) * g * g
        return first, second, (second / self._bias(o.beta2)).sqrt() + EPSILON

    def _clip(self, gradient: Tensor) -> Tensor:
        """What the gradient is multiplied with."""
        if not self.recipe.clip:
            return torch.ones((), dtype=gradient.dtype, device=gradient.device)
        scale: Tensor = self.recipe.clip / (gradient.norm() + _CLIP_EPSILON)
        return scale.clamp_max(1)

    def _through_clip(self, gradient: Tensor, by_clipped: Tensor) -> Tensor:
        """The derivative by the gradient, from that by the clipped one."""
        clip = self._clip(gradient)
        if float(clip) >= 1:
            return by_clipped
        norm = gradient.norm()
        along = (by_clipped @ gradient) * clip / (norm * (norm + _CLIP_EPSILON))
        found: Tensor = clip * by_clipped - along[:, None] * gradient
        return found


def updates(recipe: TrainingRecipe, steps: int) -> list[Update]:
    """The steps of a training of so many steps."""
    return [Update(recipe, number, recipe.rate * rate_share(number, steps, recipe)) for number in range(steps)]
