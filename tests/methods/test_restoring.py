"""An index keeps the meaning it was built with, and is refused where this version would read something else."""

from __future__ import annotations

import pytest

from headwater.core.errors import MismatchError
from headwater.core.spec import Coverage, MethodSpec
from headwater.indexing.session import require_same_parameters
from headwater.methods.catalog import find_method, restore_method


@pytest.mark.parametrize("name", ["rise", "rise-gram"])
def test_an_option_that_an_index_lacks_means_what_was_done_before(name: str) -> None:
    new = find_method(name).spec
    assert new.options["slope"] is True
    old = MethodSpec(name, {option: value for option, value in new.options.items() if option != "slope"})
    assert restore_method(old).spec.options == {**new.options, "slope": False}
    assert restore_method(new).spec == new


def test_another_number_of_parameters_is_refused() -> None:
    now = Coverage(10, 12, "", 3, 4)
    require_same_parameters(now, now, "the index")
    require_same_parameters(Coverage(11, 12, "the head"), now, "the index")  # RISE once counted a bias it does not read
    for then in (Coverage(9, 12, "", 2, 4), Coverage(9, 12, "selected but NOT seen: 1 in 1 parameters (a)")):
        with pytest.raises(MismatchError, match=r"the index was made from 9 parameters, and this version reads 10"):
            require_same_parameters(then, now, "the index")
