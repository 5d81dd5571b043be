"""Checkpoints whose weights are still in pieces, one of each process: recognised, with the way to join them.

DeepSpeed ZeRO leaves `global_stepN/` with a piece for each process, PyTorch FSDP leaves `pytorch_model_fsdp_0/` with
`.distcp` files. Neither is a model that can be loaded.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from headwater.core.errors import ModelError

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "adapter_model.bin", "*.gguf")
_ZERO = re.compile(r"global_step\d+|(bf16_)?zero_pp_rank_.*|mp_rank_\d+_model_states\.pt")


def require_joined(folder: str | Path) -> None:
    """Refuse a folder that holds pieces of weights and no whole weights; the message says how to join them.

    Raises:
        ModelError: as said; names the pieces, and the command.
    """
    place = Path(folder)
    if not place.is_dir() or any(file.is_file() for glob in _WEIGHTS for file in place.glob(glob)):
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
            remedy = f"consolidate them: {command}"
            if not any((whole / file).is_file() for file in ("config.json", "adapter_config.json")):
                remedy += f", and copy the model's config.json into {whole}"
            raise ModelError(f"its weights are FSDP shards ('{name}')", where=str(folder), remedy=remedy)


def sharded_optimizer(folder: Path) -> str | None:
    """The name of the pieces of an optimizer's state in a checkpoint's folder; None if there are none."""
    names = ("*optim_states.pt", "global_step*/*optim_states.pt", "optimizer_*/*.distcp", "optimizer_[0-9]*")
    found = [path for glob in names for path in sorted(folder.glob(glob))]
    return str(found[0].relative_to(folder)) if found else None


def _zero(place: Path) -> str:
    folder = place.parent if place.name.startswith("global_step") else place
    quoted = shlex.quote(str(folder))
    if (folder / "zero_to_fp32.py").is_file():
        command = f"cd {quoted} && python zero_to_fp32.py . ."
    else:
        command = f"python -m deepspeed.utils.zero_to_fp32 {quoted} {quoted}"
    return f"consolidate them: {command} (with DeepSpeed before 0.16 the last word is pytorch_model.bin)"
