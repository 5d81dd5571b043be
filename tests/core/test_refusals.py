"""What the file system refuses is said in plain words, the old file stays, and the advice works when it is followed."""

from __future__ import annotations

import contextlib
import errno
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.core.errors import StoreError
from headwater.core.files import filling_folder, refusal, whole_file, write_text


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes: a full disk for one process."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    target = write_text(tmp_path / "hits.jsonl", "old\n")
    full = pytest.raises(StoreError, match=r"hits.jsonl: the disk is full.*then run the same command again")
    with full, files_of_at_most(100), whole_file(target) as part, part.open("w") as file:
        file.writelines("new\n" for _ in range(10**5))
    assert target.read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["hits.jsonl"]
    write_text(target, "new\n")  # there is space again
    assert target.read_text() == "new\n"


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EACCES, "may not"), (errno.EROFS, "read-only"), (errno.ENOSPC, "full")]
)
def test_a_refusal_names_place_and_remedy(tmp_path: Path, number: int, words: str) -> None:
    for error in (OSError(number, "raw", "a.txt"), RuntimeError(f"I/O error: raw (os error {number})")):
        found = refusal(error, "" if isinstance(error, OSError) else "a.txt")
        assert found is not None
        assert words in found.what
        assert found.where == "a.txt"
        assert found.remedy


def test_torch_and_safetensors_on_a_full_disk_are_a_full_disk(tmp_path: Path) -> None:
    import safetensors.torch
    import torch

    weight = torch.zeros(10**5)
    for save in (
        lambda: torch.save(weight, tmp_path / "a.pt"),
        lambda: safetensors.torch.save_file({"a": weight}, tmp_path / "a.safetensors"),
    ):
        full = pytest.raises(StoreError, match=r"the disk is full.*then go on with --resume")
        with full, files_of_at_most(1000), filling_folder(tmp_path, again="go on with --resume"):
            save()


def test_other_faults_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), filling_folder(tmp_path, again=""):
        raise RuntimeError("shapes do not match")
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
