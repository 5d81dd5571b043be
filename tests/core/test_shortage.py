"""Memory that ran out is told as that, with ways to need less, however deep a library has wrapped it."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from headwater.core.errors import ModelError, shortage
from headwater.features.proof import _told
from headwater.models.adapters import unreachable

ON_A_GPU = (
    "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 80 GiB of which 3 MiB is free."
)


def test_a_shortage_is_found_in_the_chain_and_nothing_else_is_one() -> None:
    wrapped = RuntimeError("the layer failed")
    wrapped.__cause__ = torch.OutOfMemoryError(ON_A_GPU)
    for error in (wrapped, MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")):
        found = shortage(error)
        assert isinstance(found, ModelError)
        assert "--tokens-per-batch" in found.remedy
    assert "Tried to allocate 2.00 MiB" in str(shortage(wrapped))
    assert "total capacity" not in str(shortage(wrapped))
    assert shortage(ValueError("no such row")) is None


def test_other_faults_are_not_taken_for_it_and_a_circle_ends() -> None:
    named = OSError("Error no file named model.safetensors found in directory out of memory/m")
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("bad config") from None
    except ValueError as error:
        hidden = error
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    for error in (named, ValueError("column 'out of memory' is missing"), hidden, one):
        assert shortage(error) is None
    for error in (
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("unable to mmap: Cannot allocate memory"),
    ):
        assert shortage(error) is not None


def test_a_model_that_does_not_fit_is_not_blamed_on_its_files(tmp_path: Path) -> None:
    found = unreachable("model", str(tmp_path), torch.OutOfMemoryError(ON_A_GPU))
    assert found.where == str(tmp_path)
    assert "memory ran out" in str(found)
    assert "save the model again" not in str(found)
    with pytest.raises(ModelError, match="memory ran out"), _told("the model has no backward pass"):
        raise torch.OutOfMemoryError(ON_A_GPU)


def test_a_command_says_it_in_one_line(tmp_path: Path) -> None:
    code = (
        "from headwater.cli import main\n"
        "def fails(*given, **how): raise MemoryError('Unable to allocate 1. TiB for an array')\n"
        "main.command_tree = fails\n"
        "main.run(['methods'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("headwater: memory ran out: Unable to allocate 1. TiB")
    assert "fault in headwater" not in line
