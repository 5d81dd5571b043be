"""Adam's moments from whatever a training run left: a Recorder's file, or the `optimizer.pt` of a Trainer's checkpoint.

`optimizer.pt` numbers parameters instead of naming them: first those of the first group, in the order of the model,
then those of the second, and so on. A Trainer makes two groups, with and without weight decay. Which numbers are which
parameters is found by the Trainer's own rule if all shapes agree with it, else by the shapes alone, if only one
assignment agrees with them. If neither is so, the file is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from headwater.core.errors import DataError, MismatchError, first_few
from headwater.curvature.adam import AdamState, read_adam, require_moments
from headwater.models.checkpoints import ADAM
from headwater.models.shards import sharded_optimizer

OPTIMIZER = "optimizer.pt"
"""The file in which a Trainer keeps the state of its optimiser."""

Shape = tuple[int, ...]
"""A parameter's shape; None in its place where the optimiser has no state for it."""

_MOST_STATES = 10_000
"""With more ways to assign the first parameters than this, shapes decide nothing."""


def read_moments(path: str | Path, model: Any, wanted: Collection[str]) -> AdamState:
    """The moments of the `wanted` parameters of `model`.

    Args:
        path: a file that `write_adam` wrote, an `optimizer.pt`, or a checkpoint's folder that holds one of them.
        model: the model that was trained, with its adapter if that was trained.
        wanted: names of its parameters.

    Raises:
        DataError: there is no such file, or it does not hold the moments of an Adam that has stepped.
        MismatchError: it is not certain which moments are those of which parameter, or a wanted one has none.
    """
    place = Path(path)
    if place.is_dir():
        found = [place / name for name in (ADAM, OPTIMIZER) if (place / name).is_file()]
        pieces = None if found else sharded_optimizer(place)
        if pieces is not None:
            remedy = "train with headwater.Recorder, which keeps whole moments, or use a method without them (tracin)"
            raise DataError(f"the optimizer's state is in pieces ('{pieces}')", where=str(place), remedy=remedy)
        place = found[0] if found else place / ADAM
    return _of_optimizer(place, model, wanted) if place.suffix in (".pt", ".bin") else read_adam(place, model, wanted)


def _of_optimizer(file: Path, model: Any, wanted: Collection[str]) -> AdamState:
    state, groups = _load(file)
    shapes = [[_shape(state.get(number)) for number in group["params"]] for group in groups]
    order = _names_in_order(shapes, model, str(file))
    numbers = [number for group in groups for number in group["params"]]
    held = {name: state[number] for name, number in zip(order, numbers, strict=True) if _shape(state.get(number))}
    kept = {name: held[name] for name in wanted if name in held}
    require_moments({name: entry["exp_avg"] for name, entry in kept.items()}, model, wanted, str(file))
    constants = {(*map(float, group["betas"]), float(group["eps"])) for group in groups if group["params"]}
    steps = {int(entry["step"]) for entry in kept.values()}
    if len(constants) != 1 or len(steps) != 1:
        what = f"steps {sorted(steps)} and (β₁, β₂, ε) {sorted(constants)} differ between parameters"
        raise DataError(what, where=str(file), remedy="select parameters that were trained alike")
    (step,), ((beta1, beta2, epsilon),) = steps, constants
    first, second = ({n: entry[key] for n, entry in kept.items()} for key in ("exp_avg", "exp_avg_sq"))
    return AdamState(first, second, step, beta1, beta2, epsilon)


def _load(file: Path) -> tuple[Mapping[int, Any], Sequence[Mapping[str, Any]]]:
    """The state of each parameter by its number, and the groups; nothing but tensors and numbers is unpickled."""
    try:
        raw = torch.load(file, map_location="cpu", weights_only=True)
        state, groups = raw["state"], [group for group in raw["param_groups"] if group["params"]]
    except Exception as error:  # missing, foreign and truncated files raise errors of different classes
        reason = " ".join(str(error).split())[:200]
        remedy = "give the optimizer.pt of a Trainer's checkpoint"
        raise DataError(f"no state of an optimizer: {reason}", where=str(file), remedy=remedy) from None
    keys = {key for entry in state.values() for key in entry}
    if not {"exp_avg", "exp_avg_sq", "step"} <= keys or any("betas" not in group for group in groups):
        what = f"these are not the moments of an Adam that has stepped; there is {', '.join(sorted(keys)) or 'nothing'}"
        remedy = "train with adamw_torch, or use a method without moments (tracin)"
        raise DataError(what, where=str(file), remedy=remedy)
    return state, groups


def _shape(entry: Mapping[str, Any] | None) -> Shape | None:
    return tuple(entry["exp_avg"].shape) if entry and "exp_avg" in entry and "exp_avg_sq" in entry else None


def _names_in_order(groups: Sequence[Sequence[Shape | None]], model: Any, where: str) -> list[str]:
    """The names of the parameters in the groups' order; errors as in `read_moments`."""
    names = _trained(model)
    count = sum(map(len, groups))
    if count != len(names):
        what = f"the optimizer trained {count} tensors, and the model has {len(names)} that may have been trained"
        raise MismatchError(what, fields=(), where=where, remedy="give the model, and the adapter, of this training")
    ruled = _by_trainers_rule(names, groups, model)
    if ruled is not None:
        return ruled
    several, found = _by_shapes(names, groups)
    if found is None or several:
        what = "its shapes fit the parameters in several ways" if several else "its shapes are not those of the model"
        remedy = "record the training with headwater.Recorder, which names the moments"
        if found is None and not several:
            remedy = "give the model, and the adapter, of this training"
        raise MismatchError(f"{what} ({first_few(names)})", fields=(), where=where, remedy=remedy)
    return found


def _trained(model: Any) -> dict[str, Shape]:
    """Parameters that were trained, in the model's order: all of a plain model, of an adapted one the adapter's."""
    named = dict(model.named_parameters())
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        own = {tensor.data_ptr() for tensor in get_peft_model_state_dict(model, save_embedding_layers=False).values()}
        named = {name: parameter for name, parameter in named.items() if parameter.data_ptr() in own}
    return {name: tuple(parameter.shape) for name, parameter in named.items()}


def _by_trainers_rule(
    names: Mapping[str, Shape], groups: Sequence[Sequence[Shape | None]], model: Any
) -> list[str] | None:
    """The parameters with weight decay, then those without, as the Trainer divides them; None if shapes differ."""
    from transformers import Trainer

    rule: Any = Trainer.get_decay_parameter_names
    decayed = set(rule(None, model))
    divided = [[n for n in names if n in decayed], [n for n in names if n not in decayed]]
    order = [part for part in divided if part]
    fits = len(order) == len(groups) and all(
        len(part) == len(group) and all(shape in (None, names[n]) for n, shape in zip(part, group, strict=True))
        for part, group in zip(order, groups, strict=True)
    )
    return [name for part in order for name in part] if fits else None


def _by_shapes(names: Mapping[str, Shape], groups: Sequence[Sequence[Shape | None]]) -> tuple[bool, list[str] | None]:
    """Whether several assignments agree with the shapes, and one that does; within a group, the model's order holds.

    A state is how many parameters each group has been given so far, with one way to get there and whether there are
    more.
    """
    states: dict[Shape, tuple[bool, Any]] = {(0,) * len(groups): (False, None)}
    for name, shape in names.items():
        after: dict[Shape, tuple[bool, Any]] = {}
        for taken, (several, path) in states.items():
            for group, wanted in enumerate(groups):
                if taken[group] < len(wanted) and wanted[taken[group]] in (None, shape):
                    key = (*taken[:group], taken[group] + 1, *taken[group + 1 :])
                    after[key] = (several or key in after, (path, group, name))
        states = after
        if len(states) > _MOST_STATES:
            return True, None
    several, path = states.get(tuple(map(len, groups)), (False, None))
    parts: list[list[str]] = [[] for _ in groups]
    while path is not None:
        path, group, name = path
        parts[group].insert(0, name)
    return several, [name for part in parts for name in part] or None
