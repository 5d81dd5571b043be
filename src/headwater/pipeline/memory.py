"""Keep a long run's memory flat: large blocks that are freed go back to the system.

The GNU allocator raises its threshold for mapping blocks of their own to as much as 32 MiB once such blocks were freed.
From then on the tensors of a batch, which differ in size from one to the next, are carved from the heap, and what they
leave is too scattered to be used again: a build of 50,000 rows grew by 10 KiB a row that nothing held. A fixed
threshold ends that, and costs no time that could be measured.
"""

from __future__ import annotations

import ctypes
import os
import platform

_M_MMAP_THRESHOLD = -3
"""The number of that parameter in `mallopt`, from glibc's <malloc.h>."""

_THRESHOLD = 2**20


def return_freed_blocks() -> bool:
    """Have blocks of 1 MiB and more mapped on their own in this process; True where that could be set.

    Does nothing where the C library is not glibc, or where `MALLOC_MMAP_THRESHOLD_` or `GLIBC_TUNABLES` says that the
    user has settled it.
    """
    if platform.libc_ver()[0] != "glibc" or {"MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys():
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _THRESHOLD))
