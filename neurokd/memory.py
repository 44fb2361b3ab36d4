"""Keep freed memory in the process while it trains: a training step asks for the same large tensors again and again.

glibc gives every block above 32 MiB, and the top of its heap, back to the system as soon as it is free. The next step
then takes one page fault, and one zeroed page, for every 4 KiB it touches: measured 8,000 to 58,000 faults a step. With
the settings of :func:`keep_pages` the same steps are 1.2 to 1.55 times faster (``python -m benchmarks.training``).

Only glibc on Linux has these settings; elsewhere nothing happens. The simulator never calls this.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from typing import Final

#: Environment variable; ``system`` leaves the allocator as it is.
VARIABLE: Final = "NEUROKD_ALLOCATOR"

# malloc.h of glibc: parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_SETTINGS: Final = {
    _MMAP_MAX: 0,  # large blocks come from the heap, which is kept, not from mmap, which is not
    _TRIM_THRESHOLD: 2**31 - 1,  # the heap's top stays
    _TOP_PAD: 64 * 2**20,  # it grows in few steps
}

_done: bool | None = None


def keep_pages() -> bool:
    """Tell glibc to keep freed memory, once a process; gives whether it does.

    False where there is no glibc, where ``NEUROKD_ALLOCATOR=system`` is set, or where glibc refuses.
    """
    global _done
    if _done is None:
        _done = _wanted() and _tell_glibc()
    return _done


def _wanted() -> bool:
    return os.environ.get(VARIABLE, "") != "system"


def _tell_glibc() -> bool:
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in _SETTINGS.items()])
