"""What a model's name refers to, and the errors for models that cannot be found or loaded."""

from __future__ import annotations

import difflib
from pathlib import Path

from headwater.core.errors import ModelError


def model_place(name: str) -> str:
    """The folder, or the hub name, that `name` means.

    Raises:
        ModelError: it cannot be a model. This is checked before any library or the network is used.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return str(folder)
        if (folder / "adapter_config.json").is_file():
            remedy = "give the base model as the model and this folder as its adapter"
            raise ModelError("this folder holds an adapter, not a model", where=name, remedy=remedy)
        remedy = f"give the folder that save_pretrained wrote{near(name)}"
        raise ModelError("no config.json in the model folder", where=name, remedy=remedy)
    if folder.exists():
        raise ModelError("a file is not a model folder", where=name, remedy="give the folder that contains it")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError("no such model folder", where=name, remedy=f"check the path{near(name)}")
    return name


def unreachable(kind: str, name: str, error: Exception) -> ModelError:
    """The error for a model or tokenizer that the libraries could not load."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE and not Path(name).is_dir():
        what = f"no such folder, and HF_HUB_OFFLINE is set with no {kind} of this name in the local cache"
        remedy = f"give a local folder, or unset HF_HUB_OFFLINE once to download{near(name)}"
        return ModelError(what, where=name, remedy=remedy)
    remedy = f"check the name, or download first and give the folder{near(name)}"
    return ModelError(f"the {kind} cannot be loaded: {brief(error)}", where=name, remedy=remedy)


def near(name: str) -> str:
    """`; did you mean ...?` with the most similarly named model folder beside it, or an empty string."""
    wanted = Path(name).expanduser()
    if not wanted.parent.is_dir():
        return ""
    folders = {child.name: child for child in wanted.parent.iterdir() if (child / "config.json").is_file()}
    close = difflib.get_close_matches(wanted.name, folders.keys() - {wanted.name}, n=1, cutoff=0.5)
    return f"; did you mean '{folders[close[0]]}'?" if close else ""


def brief(error: Exception, lines: int = 1) -> str:
    """The first lines of a library's error message, which may list every layer of a model."""
    message = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(message[:lines])[:400] or type(error).__name__
