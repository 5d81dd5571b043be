"""Devices that exist only as labels on CPU tensors: what mixes them fails as it would on accelerators.

    with Devices() as devices:
        devices.put(model.model.layers[0], "cuda:0")
        ...

Within the block every tensor has a label, which `tensor.device` shows: that of the device it was made on or moved to,
or of what it was computed from. An operation on tensors of two devices is refused, but for numbers (0 axes) and CPU
indices; so is `.numpy()` off the CPU. Moves to the CPU are noted with the file that asked. What autograd computes has
no label of its own and takes that of the tensors it meets.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

SOURCE = str(Path(__file__).parents[2] / "src" / "headwater")
_ANY = None
_CPU = torch.device("cpu")
_LIKE = ("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor")
_INDEXING = ("__getitem__", "__setitem__", "index_put_", "index_put")
_ACROSS = ("copy_",)


class MixedDevicesError(RuntimeError):
    """Tensors of two devices in one operation."""


class Devices(TorchFunctionMode):
    """See the module's docstring; `moves` are the files of headwater that moved a tensor from a device to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.moves: set[str] = set()
        self._replaced: list[Any] = []  # a backward pass enters the mode again

    def __enter__(self) -> Devices:
        """Also label what is made from NumPy arrays: no mode sees it, and it is on the CPU until it is moved."""
        real = torch.from_numpy
        self._replaced.append(real)

        def from_numpy(array: Any) -> Tensor:
            made = real(array)
            _label(made, _CPU)
            return made

        torch.from_numpy = from_numpy  # type: ignore[assignment]
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *error: Any) -> None:
        torch.from_numpy = self._replaced.pop()
        super().__exit__(*error)

    def put(self, module: nn.Module, device: str, *, moves: bool = True) -> None:
        """Label the module's parameters and buffers; with `moves`, what it is called with is moved there first."""
        target = torch.device(device)
        for tensor in (*module.parameters(), *module.buffers()):
            _label(tensor, target)

        def move(_: Any, args: Any, kwargs: Any) -> Any:
            return tree_map(lambda x: x.to(target) if isinstance(x, Tensor) else x, (args, kwargs))

        if moves:
            module.register_forward_pre_hook(move, with_kwargs=True, prepend=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return _label_of(args[0]) or _CPU
        if name == "backward":  # its hooks run within it, and are to be watched too
            with self:
                gradient = kwargs.get("gradient", args[1] if len(args) > 1 else torch.ones_like(args[0]))
                how = {"allow_unreachable": True, "accumulate_grad": True}
                return _engine_run_backward((args[0],), (gradient,), False, False, (), **how)
        if name == "register_hook":  # the gradient is where its tensor is
            label, hook = _label_of(args[0]), args[1]
            return func(args[0], lambda gradient: (_label(gradient, label), hook(gradient))[1])
        if name in ("to", "cpu", "cuda", "type_as") and tensors:
            return self._moved(func, name, args, kwargs)
        if name == "numpy" and _label_of(args[0]) not in (_ANY, _CPU):
            raise MixedDevicesError(f"numpy() of a tensor on {_label_of(args[0])}")
        target = torch.device(kwargs.pop("device")) if kwargs.get("device") is not None else None
        kwargs.pop("device", None)
        found = self._together(name, args, tensors)
        result = func(*args, **kwargs)
        label = target or found or (_CPU if not tensors else _ANY)
        if name.endswith("_") and not name.startswith("__") and tensors:
            label = _label_of(args[0]) or label
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and label is not _ANY:
                _label(made, label)
        return result

    def _moved(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
        given = [*args[1:], *kwargs.values()]
        target = _CPU if name == "cpu" else torch.device("cuda:0") if name == "cuda" else None
        rest: dict[str, Any] = {}
        for value in given:
            if isinstance(value, Tensor):
                target, rest["dtype"] = _label_of(value), value.dtype
            elif isinstance(value, torch.device | str):
                target = torch.device(value)
            elif isinstance(value, torch.dtype):
                rest["dtype"] = value
        source = _label_of(args[0])
        if target == _CPU and source not in (_ANY, _CPU):
            self.moves.add(_caller())
        made = args[0].to(**rest) if rest else args[0]
        if target is not None and target != source:
            made = made.view_as(made) if made is args[0] else made
        _label(made, target or source)
        return made

    def _together(self, name: str, args: Any, tensors: list[Tensor]) -> torch.device | None:
        if name in _LIKE:
            return _label_of(args[0])
        if name in _ACROSS:
            return _label_of(args[0])
        if name in _INDEXING:
            indices = [t for t in tree_leaves(args[1]) if isinstance(t, Tensor)]
            tensors = [t for t in tensors if not any(t is i and _label_of(i) in (_ANY, _CPU) for i in indices)]
        labels = {_label_of(t) for t in tensors if t.dim() or len(tensors) == 1} - {_ANY}
        if len(labels) > 1:
            raise MixedDevicesError(f"{name} of tensors on {' and '.join(sorted(map(str, labels)))} ({_caller()})")
        return labels.pop() if labels else next((label for t in tensors if (label := _label_of(t))), None)


def _label(tensor: Tensor, device: torch.device | None) -> None:
    tensor.logical = device  # type: ignore[attr-defined]


def _label_of(tensor: Tensor) -> torch.device | None:
    return getattr(tensor, "logical", None)


def _caller() -> str:
    """The innermost file of headwater on the stack, as `room/file.py`."""
    return next(_files(), "outside")


def _files() -> Iterator[str]:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(SOURCE):
            yield str(Path(frame.f_code.co_filename).relative_to(SOURCE))
        frame = frame.f_back  # type: ignore[assignment]
