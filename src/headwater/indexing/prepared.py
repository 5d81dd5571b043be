"""Fit what a method needs before an index is built with it: the file lies beside the index."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from headwater.core.errors import UsageError
from headwater.data.corpus import Corpus
from headwater.data.rows import Row
from headwater.index.noted import is_local
from headwater.index.store import exists
from headwater.indexing.probe import survey
from headwater.methods.method import Method
from headwater.methods.preparing import beside, preparation, prepared
from headwater.models.reader import Reader

_log = logging.getLogger(__name__)


def prepared_beside(method: Method, reader: Reader, corpus: Corpus, out: str, *, resume: bool = False) -> Method:
    """The method with its file `<name of the index>.<what it is>`, fitted on a uniform sample of the rows.

    Args:
        method: the method.
        reader: the model and how it reads rows.
        corpus: the rows.
        out: the index's path.
        resume: use the file that an earlier build of this index left, if it began the index too. A file without an
            index is of another one that was removed, or was never used.

    Raises:
        UsageError: something is to be fitted, and the index is to be on an object store.
    """
    need = preparation(method)
    if need is None:
        return method
    if not is_local(out):
        what = f"'{method.spec.name}' keeps a file beside the index, which cannot be on an object store"
        raise UsageError(what, where=out, remedy="build the index on a disk")
    file = beside(out, need.suffix)

    def sample() -> Sequence[Row]:
        rows = survey(corpus, method.fit_rows).sample
        fitted = min(len(rows), method.fit_rows)
        told = f"'{method.spec.name}' is first fitted on {fitted:,} row{'s' * (fitted != 1)}"
        _log.warning("%s, which takes as long as %g forward passes of them", told, need.passes)
        return rows

    return prepared(method, reader, sample, file, keep=resume and exists(out))
