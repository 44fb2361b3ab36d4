"""What lava-nc 0.10.0 needs to run on Python 3.11 and later, and on numpy 2.4 and later: two repairs, in memory only.

**Before import** (:func:`apply`). Lava uses instances of its own dataclasses as field defaults, as in
``x: ByteEncoder = ByteEncoder()``. Up to Python 3.10 ``dataclasses`` refused only ``list``, ``dict`` and ``set``
there; since 3.11 it refuses every default whose class has no hash, and a plain dataclass has none. The repair gives
exactly those default classes, and only where they belong to Lava, the identity hash every other object has.

**After import** (:func:`mend_reshape`). Lava's virtual ReshapePort calls ``np.reshape(newshape=...)``, a keyword numpy
2.4 removed; a process that receives through such a port dies at its first step. The mended port passes the shape by
position.

No field, no other method and no arithmetic changes, and no installed file is touched.

Runs in the worker process only; the worker loads this file by path, because it imports nothing of ``deploy``.
Evidence: ``benchmarks/lava_repair.py`` runs the unit tests lava-nc ships on 3.10 without and on newer Pythons with it.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

PACKAGE = "lava"


def needed() -> bool:
    """True on a Python whose ``dataclasses`` refuses unhashable field defaults."""
    return sys.version_info >= (3, 11)


def apply() -> bool:
    """Admit Lava's field defaults, for classes created from now on in this process.

    Returns:
        True if something was changed, False where no repair is needed or it was applied before.
    """
    if not needed() or getattr(dataclasses.dataclass, "admits_lava", False):
        return False
    dataclasses.dataclass = _admitting(dataclasses.dataclass)
    return True


def _admitting(original: Callable[..., Any]) -> Callable[..., Any]:
    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        def decorate(target: type) -> Any:
            if _is_lavas(target):
                _admit_defaults(target)
            return original(target, **options)

        return decorate if cls is None else decorate(cls)

    dataclass.admits_lava = True  # type: ignore[attr-defined]
    return dataclass


def _is_lavas(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == PACKAGE


def _admit_defaults(cls: type) -> None:
    for default in vars(cls).values():
        kind = type(default)
        if kind.__hash__ is None and dataclasses.is_dataclass(kind) and _is_lavas(kind):
            kind.__hash__ = object.__hash__


def mend_reshape(port: Any) -> None:
    """Make Lava's ``ReshapePort`` (the class, given by the caller) call ``np.reshape`` as every numpy takes it."""
    port.get_transform_func_fwd = lambda self: functools.partial(_reshape, shape=self.shape)
    port.get_transform_func_bwd = lambda self: functools.partial(_reshape, shape=self.old_shape)


def _reshape(array: Any, shape: tuple[int, ...]) -> Any:
    return array.reshape(shape)
