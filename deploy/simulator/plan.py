"""A Program made ready for the kernels: weights transposed, images channel-last, fan-out counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.program import Conv, Dense, Input, Population, Program, Synapse
from deploy.simulator import convolution, kernels
from deploy.simulator.buffers import Workspace
from deploy.simulator.canvas import conv_fanout, fields, scatter
from deploy.simulator.layout import aligned_zeros, padded, to_inner
from deploy.simulator.neurons import stays_inside

Array = npt.NDArray[Any]

Kernel = Callable[..., None]
INT16_MAX: Final = 32767
KEPT_BYTES: Final = 64 * 1024 * 1024  # a workspace above this is given back to the system


@dataclass(frozen=True, eq=False)
class Block:
    """One synapse block and its kernels.

    ``add(source, *bind(), first, fresh, sums, synops)`` writes (fresh) or adds its target's sums;
    ``stage(source, *bind(), first, sums, synops, ...)`` is that and the target's scan, where no other block reaches it.
    What ``bind`` gives holds memory of its own, for one thread.
    """

    source: str
    lag: int
    add: Kernel
    stage: Kernel
    bind: Callable[[], tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Stage:
    """One population with what reaches it; arrays are in the kernels' layout. ``calm``: no edge can be reached."""

    population: Population
    blocks: tuple[Block, ...]
    bias: npt.NDArray[np.int32]
    calm: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """A whole program: stages in order, whether it must run step by step (it has cycles), and memory to run in.

    It holds no reference to the program, which keeps it: see :func:`plan`.
    """

    stages: tuple[Stage, ...]
    stepwise: bool
    longest_lag: int
    _workspaces: list[Workspace] = field(default_factory=list)

    def borrow(self) -> Workspace:
        """A workspace no other thread has."""
        try:
            return self._workspaces.pop()
        except IndexError:
            return Workspace()

    def give_back(self, workspace: Workspace) -> None:
        """Keep a workspace for the next run, unless it is large: its memory goes back to the system now."""
        if workspace.bytes <= KEPT_BYTES:
            self._workspaces.append(workspace)
        else:
            workspace.clear()


_PLANS: WeakKeyDictionary[Program, Plan] = WeakKeyDictionary()


def plan(program: Program) -> Plan:
    """The program made ready; done once a program, as long as it lives."""
    found = _PLANS.get(program)
    if found is None:
        found = _PLANS[program] = _prepare(program)
    return found


def _prepare(program: Program) -> Plan:
    order = {program.input.name: -1, **{p.name: i for i, p in enumerate(program.populations)}}
    stages = tuple(
        Stage(
            population,
            tuple(_block(program, synapse) for synapse in program.incoming(population.name)),
            np.ascontiguousarray(to_inner(population.bias, population.shape)),
            stays_inside(population, sum(program.worst_sum(s) for s in program.incoming(population.name))),
        )
        for population in program.populations
    )
    stepwise = any(order[s.source] >= order[s.target] for s in program.synapses)
    return Plan(stages, stepwise, max((s.delay for s in program.synapses), default=0))


def _block(program: Program, synapse: Synapse) -> Block:
    graded = isinstance(program.node(synapse.source), Input) and program.input.bits > 1
    if isinstance(synapse, Dense):
        return _dense_block(program, synapse, graded)
    return _conv_block(program, synapse, graded)


def _packed(weights: Array, step: int) -> Array:
    """Weights in units of the grid's step, as int8 where they fit (they do on every mixed-sign grid)."""
    units = weights // step
    small = units.min(initial=0) >= -128 and units.max(initial=0) <= 127
    return units.astype(np.int8 if small else np.int16)


def _dense_block(program: Program, dense: Dense, graded: bool) -> Block:
    source, target = program.node(dense.source), program.node(dense.target)
    step = fp.weight_step(dense.weight_bits, dense.sign_mode)
    units = _packed(dense.weights, step)
    outgoing = (units if isinstance(source, Input) else to_inner(units, source.shape)).T  # [n_in, n_out]
    weights = padded(to_inner(outgoing, target.shape))
    fanout = np.count_nonzero(weights, axis=1).astype(np.int32)
    largest = max(int(weights.max(initial=0)), -int(weights.min(initial=0)), 1)
    given = (weights, fanout, step, dense.weight_exp, INT16_MAX // largest, graded, dense.delay)
    return Block(dense.source, dense.delay, kernels.dense_events, kernels.dense_stage, lambda: given)


def _conv_block(program: Program, conv: Conv, graded: bool) -> Block:
    source = program.node(conv.source)
    shape, channel_first = source.shape, isinstance(source, Input)
    out = conv.output_shape(shape)
    step = fp.weight_step(conv.weight_bits, conv.sign_mode)
    tables = scatter(conv, shape, out, step, channel_first)
    units = np.abs(conv.weights.astype(np.int64) // step).reshape(out[0], -1).sum(axis=1).max(initial=0)
    register = np.int16 if units <= INT16_MAX and not graded else np.int32
    binary_rows = not graded and (not channel_first or shape[0] == 1)
    gathered = fields(conv, shape, out, step, possible=binary_rows and register is np.int16)
    reached = conv_fanout(conv, shape, out).reshape(-1)
    fanout = np.ascontiguousarray(reached if channel_first else to_inner(reached, shape))

    def bind() -> tuple[Any, ...]:
        canvas = aligned_zeros(tables.canvas, register)
        return (
            tables.weights, tables.inner, tables.multiplier, tables.group, tables.sites, tables.shape, graded, canvas,
            gathered.weights, gathered.shape, gathered.least, gathered.patterns.table, gathered.patterns.shape,
            gathered.least_looked_up, fanout, step, conv.weight_exp, conv.delay,
        )  # fmt: skip

    return Block(conv.source, conv.delay, convolution.conv_events, convolution.conv_stage, bind)
