"""The sums' memory is used again, and never while anything can still see it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch

from headwater.data.batches import Window, plan_batches
from headwater.features.totals import Spare
from headwater.methods.rapidin import ENTRY
from oracles.gradient_oracles import random_rows
from zoo import tiny_loaded

CPU = torch.device("cpu")
HOLDERS: dict[str, Callable[[torch.Tensor], object]] = {
    "itself": lambda lent: lent,
    "a view": lambda lent: lent[1:, ::2],
    "a detached alias": lambda lent: lent.detach().view(-1),
    "an array": lambda lent: lent.numpy()[0],
    "a buffer": lambda lent: memoryview(lent.numpy()),
    "a DLPack capsule": torch.utils.dlpack.to_dlpack,
    "the storage": lambda lent: lent.untyped_storage(),
}


def zeros(spare: Spare, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return spare.zeros(*shape, dtype=dtype, device=CPU)


@pytest.mark.parametrize("holder", HOLDERS)
def test_memory_is_lent_again_only_when_nothing_sees_it(holder: str) -> None:
    spare = Spare()
    lent = zeros(spare, 3, 40).fill_(7.0)
    held, place = HOLDERS[holder](lent), lent.data_ptr()
    del lent
    other = zeros(spare, 3, 40)
    assert other.data_ptr() != place
    del held, other
    first = zeros(spare, 3, 40)
    place = first.data_ptr()
    first.fill_(7.0)
    del first
    again = zeros(spare, 2, 30, dtype=torch.float64)
    assert again.data_ptr() == place, "nothing held it"
    assert torch.equal(again, torch.zeros(2, 30, dtype=torch.float64))


def test_a_copy_has_memory_of_its_own() -> None:
    spare = Spare()
    lent = zeros(spare, 4)
    for other in (copy.deepcopy(spare), pickle.loads(pickle.dumps(spare))):
        assert zeros(other, 4).data_ptr() != lent.data_ptr()


def test_the_vectors_of_a_batch_are_not_those_of_the_next() -> None:
    encoder = ENTRY.resolve({"buckets": 512}).require_vectors().bind(tiny_loaded("llama"))
    (one,) = plan_batches(random_rows((9, 14)), Window(64), tokens_per_batch=1000)
    (two,) = plan_batches(random_rows((8, 12), seed=5), Window(64), tokens_per_batch=1000)
    first = encoder.encode(one, "train").vectors["gradient"]
    before = first.clone()
    encoder.encode(two, "train")
    encoder.encode(two, "train")
    assert torch.equal(first, before)
    assert torch.equal(encoder.encode(one, "train").vectors["gradient"], before)
