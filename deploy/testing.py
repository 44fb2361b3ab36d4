"""Random Programs with extreme parameters: the common food of every parity test between backends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.errors import ProgramError
from deploy.program import Conv, Dense, Input, Population, Program, Synapse

Rng = np.random.Generator


@dataclass(frozen=True)
class Kinds:
    """What a random program may contain; the defaults allow everything the reference interpreter knows."""

    conv: bool = True
    recurrent: bool = True
    skip: bool = True
    delays: bool = True
    resets: tuple[str, ...] = ("zero", "subtract")
    input_bits: tuple[int, ...] = (1, 1, 4, 8)


@dataclass(frozen=True, eq=False)
class Case:
    """A program and spikes for it: ``[T, B, *shape]``, or ``[B, *shape]`` to be presented at every step."""

    program: Program
    spikes: npt.NDArray[np.int64]
    steps: int


def random_case(seed: int, kinds: Kinds = Kinds(), *, constant: bool | None = None) -> Case:  # noqa: B008 - frozen
    """The case of a seed; always the same one. Draws again where weights would overflow the accumulator."""
    rng = np.random.default_rng(seed)
    while True:
        try:
            program = _program(rng, kinds)
        except ProgramError as error:
            if "accumulator" not in error.what and "kernel" not in error.what:
                raise
            continue
        return _case(rng, program, constant)


def _case(rng: Rng, program: Program, constant: bool | None) -> Case:
    steps, samples = int(rng.integers(1, 8)), int(rng.integers(1, 4))
    held = bool(rng.random() < 0.4) if constant is None else constant
    shape = (samples, *program.input.shape) if held else (steps, samples, *program.input.shape)
    spikes = rng.integers(0, program.input.largest + 1, shape)
    if rng.random() < 0.5:
        spikes = spikes * (rng.random(shape) < rng.choice([0.02, 0.2, 0.6]))
    return Case(program, spikes, steps)


def _program(rng: Rng, kinds: Kinds) -> Program:
    image = kinds.conv and rng.random() < 0.5
    shape = (
        tuple(int(n) for n in (rng.integers(1, 4), *rng.integers(3, 9, 2))) if image else (int(rng.integers(1, 20)),)
    )
    source = Input("in", shape, int(rng.choice(kinds.input_bits)))
    populations: list[Population] = []
    synapses: list[Synapse] = []
    previous: Input | Population = source
    for index in range(int(rng.integers(1, 3)) if image else 0):
        conv = _conv(rng, previous, f"conv{index}", f"image{index}")
        previous = _population(rng, conv.target, conv.output_shape(previous.shape), kinds)
        populations.append(previous)
        synapses.append(conv)
    for index in range(int(rng.integers(0 if populations else 1, 4))):
        target = _population(rng, f"layer{index}", (int(rng.integers(1, 14)),), kinds)
        synapses += _into(rng, target, previous, source, index, kinds)
        populations.append(target)
        previous = target
    return Program(source, tuple(populations), tuple(synapses), {})


def _into(
    rng: Rng, target: Population, previous: Input | Population, source: Input, index: int, kinds: Kinds
) -> list[Synapse]:
    delay = int(rng.choice([0, 0, 1, 3])) if kinds.delays else 0
    synapses: list[Synapse] = [_dense(rng, f"dense{index}", previous, target, delay)]
    if kinds.recurrent and rng.random() < 0.3:
        synapses.append(_dense(rng, f"loop{index}", target, target, int(rng.integers(1, 3)) if kinds.delays else 1))
    if kinds.skip and rng.random() < 0.25:
        later = int(rng.integers(0, 3)) if kinds.delays else 0
        synapses.append(_dense(rng, f"skip{index}", source, target, later))
    return synapses


def _population(rng: Rng, name: str, shape: tuple[int, ...], kinds: Kinds) -> Population:
    n = int(np.prod(shape))
    return Population(
        name,
        shape,
        du=int(rng.choice([4095, 4095, 0, 1, int(rng.integers(0, 4096))])),
        dv=int(rng.choice([0, 1, 4095, 410, int(rng.integers(0, 4096))])),
        vth=int(rng.choice([0, 64, 1000, 20000, 131071])),
        bias_mant=rng.integers(-4096, 4096, n) * int(rng.random() < 0.7),
        bias_exp=int(rng.integers(0, 8)),
        reset=str(rng.choice(kinds.resets)),  # type: ignore[arg-type]
    )


def _grid_weights(rng: Rng, shape: tuple[int, ...], bits: int, mode: str) -> npt.NDArray[np.int64]:
    step = fp.weight_step(bits, mode)
    low, high = fp.weight_limits(bits, mode)
    weights: npt.NDArray[np.int64] = rng.integers(low // step, high // step + 1, shape) * step
    kept: npt.NDArray[np.int64] = weights * (rng.random(shape) < rng.choice([0.3, 1.0]))
    return kept


def _format(rng: Rng) -> tuple[int, fp.SignMode]:
    return int(rng.choice([8, 8, 6, 4, 2])), fp.SIGN_MODES[int(rng.choice([0, 0, 1, 2]))]


def _dense(rng: Rng, name: str, source: Input | Population, target: Population, delay: int) -> Dense:
    bits, mode = _format(rng)
    weights = _grid_weights(rng, (target.size, source.size), bits, mode)
    exponent = int(rng.choice([0, 0, -8, 7, int(rng.integers(-8, 8))]))
    return Dense(name, source.name, target.name, weights, exponent, bits, mode, delay)


def _conv(rng: Rng, source: Input | Population, name: str, target: str) -> Conv:
    bits, mode = _format(rng)
    channels = source.shape[0]
    groups = int(rng.choice([1, channels]))
    shape = (groups * int(rng.integers(1, 4)), channels // groups, int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    stride, padding, dilation = rng.integers(1, 3, 2), rng.integers(0, 3, 2), rng.integers(1, 3, 2)
    return Conv(
        name,
        source.name,
        target,
        _grid_weights(rng, shape, bits, mode),
        int(rng.choice([0, 0, -8, 7, int(rng.integers(-8, 8))])),
        bits,
        mode,
        stride=(int(stride[0]), int(stride[1])),
        padding=(int(padding[0]), int(padding[1])),
        dilation=(int(dilation[0]), int(dilation[1])),
        groups=groups,
    )
