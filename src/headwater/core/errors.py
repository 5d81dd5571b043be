"""The exception tree: every message names the value, the place and the remedy.

The command line prints `str(error)` as one line on stderr and exits with `error.exit_code`; library users catch
`HeadwaterError` or one of its few children.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class HeadwaterError(Exception):
    """Root of everything headwater raises on purpose.

    Args:
        what: the fault, with the offending value in it.
        where: the place: file and line, row id, tensor or option name.
        remedy: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        place = f"{where}: " if where else ""
        super().__init__(f"{place}{what}" + (f" ({remedy})" if remedy else ""))


class UsageError(HeadwaterError):
    """The request itself is malformed: an unknown method, option or command-line value."""

    exit_code = 2


class DataError(HeadwaterError):
    """Rows that cannot be read, tokenised or matched."""


class ModelError(HeadwaterError):
    """A model, tokenizer or adapter that cannot be loaded or used."""


class StoreError(HeadwaterError):
    """An index or file that is missing, damaged, incompatible, in the way, or cannot be written."""


class EngineError(HeadwaterError):
    """Processes or machines that do the work cannot be reached, do not fit together, or die."""


class MismatchError(HeadwaterError):
    """Two things that should belong together do not; `fields` names where they differ."""

    def __init__(self, what: str, *, fields: tuple[str, ...], where: str = "", remedy: str = "") -> None:
        self.fields = fields
        super().__init__(what, where=where, remedy=remedy)


class NumericError(HeadwaterError):
    """A NaN, an infinity or an overflow; the message names the row."""


_SHORTAGES = (
    *("CUDA out of memory", "error: out of memory", "backend out of memory", "HIP out of memory", "ALLOC_FAILED"),
    *("can't allocate memory", "Cannot allocate memory", "bad_alloc"),
)
"""What PyTorch and the C++ library say; their errors are RuntimeErrors."""


def shortage(error: BaseException) -> ModelError | None:
    """The error for memory that ran out, a GPU's or the machine's; None if that is not what happened.

    Every library has its own class for it and some wrap it in another, so the words of the whole chain are read.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        said = isinstance(link, RuntimeError) and any(words in str(link) for words in _SHORTAGES)
        if said or isinstance(link, MemoryError) or getattr(link, "errno", None) == errno.ENOMEM:
            first = " ".join(str(link).split(". GPU ")[0].splitlines()[:1])[:160]
            remedy = (
                "where the command has them, give a smaller --tokens-per-batch, --dtype bfloat16, --quantization 4bit, "
                "--device-map auto or --device cpu; nvidia-smi lists what else takes a GPU's memory"
            )
            return ModelError(f"memory ran out: {first or type(link).__name__}", remedy=remedy)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str = "") -> UsageError:
    """The error for an unknown name; it suggests the nearest known one, or lists all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    remedy = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
    return UsageError(f"unknown {kind} '{name}'", where=where, remedy=remedy)


def first_few(names: Iterable[str]) -> str:
    """The first three names, for a message, and an ellipsis if there are more."""
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
