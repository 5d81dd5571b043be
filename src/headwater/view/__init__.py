"""The local app: rows, traces and values as pages; questions to a model; all of it as JSON and static files too.

`headwater view RUNS...` starts it, and `headwater.view(trace)` from Python. It reads what other commands wrote and
calls the public functions; it computes no scores of its own.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This package, which can be called: `headwater.view` is its name and the name of the function."""

    def __call__(self, *shown: Any, **models: Any) -> Any:
        """`headwater.view.notebook.view`."""
        from headwater.view.notebook import view

        return view(*shown, **models)


sys.modules[__name__].__class__ = _Room
