"""What a Loihi 2 board needs in the interpreter that runs Lava, and the processes that stand between host and chip.

Open Lava (lava-nc) has the run configuration ``Loihi2HwCfg`` but neither a compiler for the chip nor the adapters that
carry spikes between the host's processes and the chip's: these are Intel's package for members of INRC. Imports
nothing of ``deploy``: the worker loads this file by path, and Lava only inside functions.
"""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from typing import Any

COMPILER = "lava.magma.compiler.subcompilers.nc.ncproc_compiler"
ADAPTERS = "lava.proc.embedded_io.spike"
DRIVER = "nxcore"
WAYS = {
    COMPILER: "the compiler for neuro cores",
    ADAPTERS: "the adapters between host and chip",
    DRIVER: "the driver of the boards",
}
BOARD = ("NXSDKHOST", "SLURM", "BOARD", "PARTITION")


def missing() -> list[str]:
    """One line for each thing a board needs that is not here; empty where a run can be tried."""
    lines = [f"no {name} ({what}, in Intel's Lava extension for Loihi)" for name, what in WAYS.items() if not _is(name)]
    if not any(os.environ.get(name) for name in BOARD):
        lines.append(f"no board named: none of {', '.join(BOARD)} is set (lava.utils.loihi sets them)")
    return lines


def _is(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # a package above it is not there
        return False


def configuration(tag: str | None = None) -> Any:
    """Lava's run configuration for the chip, which takes a neuro core's model of a process where there is one.

    Args:
        tag: As Lava's ``select_tag``; None on a board, as in Intel's own examples.
    """
    from lava.magma.core.run_configs import Loihi2HwCfg

    return Loihi2HwCfg(select_tag=tag)


def build_adapter(entry: dict[str, Any], arrays: object) -> Any:
    """``PyToNxAdapter``, ``PyToN3ConvAdapter`` or ``NxToPyAdapter`` of Intel's package, ports ``inp`` and ``out``."""
    bits = {"num_message_bits": entry["message_bits"]} if entry["message_bits"] else {}
    return getattr(importlib.import_module(ADAPTERS), entry["adapter"])(shape=tuple(entry["shape"]), **bits)
