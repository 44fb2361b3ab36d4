"""One way to run a Program, whatever runs it: ``run(program, spikes, target=...) -> Trace``."""

from __future__ import annotations

from typing import Any, Final

import numpy.typing as npt

from deploy import reference, simulator
from deploy.errors import ConfigError
from deploy.program import Program
from deploy.trace import Trace

TARGETS: Final = ("simulator", "reference", "lava", "netx", "loihi2")


def run(program: Program, spikes: npt.ArrayLike, *, target: str = "simulator", **options: Any) -> Trace:
    """Run a program over samples.

    Args:
        program: The network in integers.
        spikes: Integers ``[T, B, *shape]``, or ``[B, *shape]`` presented at every one of ``steps`` steps.
        target: ``simulator`` (fast), ``reference`` (plain Python integers), ``lava`` (Lava's ``fixed_pt`` models),
            ``netx`` (a netx file, loaded by lava-dl and run on Lava) or ``loihi2`` (a board).
        options: Of the target: see :func:`deploy.simulator.run`, :func:`deploy.reference.run`,
            :func:`deploy.loihi.client.run_lava` (``lava``, ``loihi2``), :func:`deploy.loihi.netx_run.run_netx`.

    Raises:
        ConfigError: an unknown target.
        SpikesError: the spikes do not fit the program's input.
    """
    if target == "simulator":
        return simulator.run(program, spikes, **options)
    if target == "reference":
        return reference.run(program, spikes, **options)
    if target == "lava":
        from deploy.loihi.client import run_lava

        return run_lava(program, spikes, **options)
    if target == "loihi2":
        from deploy.loihi.client import run_lava

        return run_lava(program, spikes, target="loihi2", **options)
    if target == "netx":
        from deploy.loihi.netx_run import run_netx

        return run_netx(program, spikes, **options)
    raise ConfigError("unknown target", where="target", got=target, allowed=", ".join(TARGETS))
