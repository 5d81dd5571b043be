"""Checkpoints whose weights are still in pieces, one of each process: recognised, with the way to join them.

| left by | in the folder |
|---|---|
| DeepSpeed ZeRO | `global_stepN/` with a piece for each process; of stage 3 also weights whose tensors are empty |
| PyTorch FSDP, sharded | `pytorch_model_fsdp_0/` with `.distcp` files |
| PyTorch FSDP, local | `pytorch_model_rank0.bin`, one of each process |
| PyTorch FSDP, full | `pytorch_model_fsdp.bin`: whole, under a name that no loader looks for |
| Megatron, tensor parallel | `mp_rank_00/`, one of each part |

None of these can be loaded as it is.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from headwater.core.errors import ModelError

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "adapter_model.bin", "*.gguf")
_LOCAL = re.compile(r"pytorch_model(_fsdp)?_rank_?\d+\.bin")
_FULL = "pytorch_model_fsdp.bin"
_PARALLEL = re.compile(r"mp_rank_\d+(_\d+)*")
_ZERO = re.compile(r"global_step\d+|(bf16_)?zero_pp_rank_.*|mp_rank_\d+_model_states\.pt")


def require_joined(folder: str | Path) -> None:
    """Refuse a folder that holds pieces of weights and no whole weights; the message says how to join them.

    Raises:
        ModelError: as said; names the pieces, and the command.
    """
    place = Path(folder)
    if not place.is_dir() or any(_is_whole(file) for glob in _WEIGHTS for file in place.glob(glob)):
        return
    for name in sorted(child.name for child in place.iterdir()):
        if _ZERO.fullmatch(name):
            raise ModelError(
                f"its weights are DeepSpeed ZeRO shards ('{name}')", where=str(folder), remedy=_zero(place)
            )
        if name.endswith(".distcp") or re.fullmatch(r"pytorch_model_fsdp_\d+", name):
            pieces = place if name.endswith(".distcp") else place / name
            whole = place.parent if name.endswith(".distcp") else place
            command = f"accelerate merge-weights {shlex.quote(str(pieces))} {shlex.quote(str(whole))}"
            remedy = f"consolidate them: {command}{_config(whole)}"
            raise ModelError(f"its weights are FSDP shards ('{name}')", where=str(folder), remedy=remedy)
        if found := _other(place, name):
            raise ModelError(f"its weights are {found[0]} ('{name}')", where=str(folder), remedy=found[1])


def _other(place: Path, name: str) -> tuple[str, str] | None:
    """What a file or folder of this name holds, and how it becomes whole weights; None if it is another one."""
    quoted = shlex.quote(str(place))
    if name == _FULL:
        moved = shlex.quote(str(place / "pytorch_model.bin"))
        return (
            "FSDP's full state under another name",
            f"rename it: mv {shlex.quote(str(place / name))} {moved}{_config(place)}",
        )
    if _LOCAL.fullmatch(name):
        remedy = (
            "no tool joins pieces of this form: consolidate them in the training script, resumed from here, with"
            " trainer.accelerator.state.fsdp_plugin.set_state_dict_type('FULL_STATE_DICT')"
            " before trainer.save_model('whole')"
        )
        return "FSDP shards of single processes", remedy
    if _PARALLEL.fullmatch(name) and (place / name).is_dir():
        if (place / "zero_to_fp32.py").is_file() or (place.parent / "zero_to_fp32.py").is_file():
            return "DeepSpeed shards", _zero(place)
        loads = shlex.quote(str(place.parent)) if place.name.startswith("iter_") else quoted
        command = "python tools/checkpoint/convert.py --model-type GPT --loader core --saver llama_hf"
        remedy = f"consolidate them in Megatron-LM's folder: {command} --load-dir {loads} --save-dir whole"
        return "tensor-parallel shards", remedy
    return None


def _config(folder: Path) -> str:
    """What to do beside for a folder without the model's configuration; else empty."""
    there = any((folder / file).is_file() for file in ("config.json", "adapter_config.json"))
    return "" if there else f", and copy the model's config.json into {folder}"


def _is_whole(file: Path) -> bool:
    """Whether a file holds weights, and neither a process's piece nor the empty tensors of ZeRO's stage 3."""
    if not file.is_file() or _LOCAL.fullmatch(file.name) or file.name == _FULL:
        return False
    return file.suffix != ".safetensors" or not _is_empty(file)


def _is_empty(file: Path) -> bool:
    """Whether a safetensors file has empty tensors; no, if it cannot be read, which its loader will say."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        raw = opened.read(length) if length < file.stat().st_size else b""
    try:
        tensors = [about for name, about in json.loads(raw).items() if name != "__metadata__"]
        return bool(tensors) and any(0 in about["shape"] for about in tensors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def sharded_optimizer(folder: Path) -> str | None:
    """The name of the pieces of an optimizer's state in a checkpoint's folder; None if there are none."""
    names = ("*optim_states.pt", "global_step*/*optim_states.pt", "optimizer_*/*.distcp", "optimizer_[0-9]*")
    found = [path for glob in names for path in sorted(folder.glob(glob))]
    return str(found[0].relative_to(folder)) if found else None


def _zero(place: Path) -> str:
    folder = place.parent if place.name.startswith("global_step") else place
    quoted = shlex.quote(str(folder))
    empty = [shlex.quote(file.name) for file in sorted(folder.glob("*.safetensors")) if _is_empty(file)]
    emptied = f"rm {' '.join(empty)} && " if empty else ""  # else they would be loaded in place of the joined weights
    if (folder / "zero_to_fp32.py").is_file():
        command = f"cd {quoted} && {emptied}python zero_to_fp32.py . ."
    else:
        command = f"cd {quoted} && {emptied}python -m deepspeed.utils.zero_to_fp32 . ."
    return f"consolidate them: {command} (with DeepSpeed before 0.16 the last word is pytorch_model.bin)"
