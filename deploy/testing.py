"""Random Programs with extreme parameters: the common food of every parity test between backends."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.errors import ProgramError
from deploy.program import Conv, Dense, Input, Population, Program, ResetRule, Shape, Synapse
from deploy.trace import Counter, Counts, Trace

Rng = np.random.Generator


@dataclass(frozen=True)
class Kinds:
    """What a random program may contain; the defaults allow everything the reference interpreter knows.

    Attributes:
        short_loops: Feedback over several layers after a single step, which no pipeline (Lava) can run.
    """

    conv: bool = True
    recurrent: bool = True
    skip: bool = True
    delays: bool = True
    resets: tuple[ResetRule, ...] = ("zero", "subtract")
    refractory: bool = True
    readout: bool = True
    short_loops: bool = True
    input_bits: tuple[int, ...] = (1, 1, 4, 8)


@dataclass(frozen=True, eq=False)
class Case:
    """A program and spikes for it: ``[T, B, *shape]``, or ``[B, *shape]`` to be presented at every step."""

    program: Program
    spikes: npt.NDArray[np.int64]
    steps: int

    @property
    def given_steps(self) -> int | None:
        """What a backend's ``steps=`` must be: None where the spikes have a time axis."""
        return self.steps if self.spikes.ndim == len(self.program.input.shape) + 1 else None


def random_case(seed: int, kinds: Kinds = Kinds(), *, constant: bool | None = None) -> Case:  # noqa: B008 - frozen
    """The case of a seed; always the same one. Draws again where weights would overflow the accumulator."""
    rng = np.random.default_rng(seed)
    while True:
        try:
            program = _Maker(rng, kinds).program()
        except ProgramError as error:
            if "accumulator" not in error.what and "kernel" not in error.what:
                raise
            continue
        return _case(rng, program, constant)


def _case(rng: Rng, program: Program, constant: bool | None) -> Case:
    steps, samples = int(rng.integers(1, 10)), int(rng.integers(1, 4))
    held = bool(rng.random() < 0.4) if constant is None else constant
    shape = (samples, *program.input.shape) if held else (steps, samples, *program.input.shape)
    spikes = rng.integers(0, program.input.largest + 1, shape)
    if rng.random() < 0.5:
        spikes = spikes * (rng.random(shape) < rng.choice([0.02, 0.2, 0.6]))
    return Case(program, spikes, steps)


@dataclass
class _Maker:
    """One random program while it is drawn."""

    rng: Rng
    kinds: Kinds
    populations: list[Population] = field(default_factory=list)
    synapses: list[Synapse] = field(default_factory=list)

    def program(self) -> Program:
        """Draw the input, then images reached by convolutions, then layers reached by all-to-all synapses."""
        rng = self.rng
        image = self.kinds.conv and rng.random() < 0.5
        shape = _image(rng) if image else (int(rng.integers(1, 20)),)
        source = Input("in", shape, int(rng.choice(self.kinds.input_bits)))
        images = int(rng.integers(1, 3)) if image else 0
        layers = int(rng.integers(0 if images else 1, 4))
        previous: Input | Population = source
        for index in range(images):
            previous = self.image(index, previous, images + layers)
        for index in range(layers):
            previous = self.layer(index, previous, source, images + layers)
        self.feedback()
        answer = "" if rng.random() < 0.8 else str(rng.choice([p.name for p in self.populations]))
        return Program(source, tuple(self.populations), tuple(self.synapses), {}, answer)

    def image(self, index: int, previous: Input | Population, count: int) -> Population:
        """A population reached by a convolution, now and then also by a loop of its own."""
        conv = _conv(self.rng, previous, f"conv{index}", f"image{index}", self.delay())
        target = self.population(conv.target, conv.output_shape(previous.shape), count)
        self.synapses.append(conv)
        if self.kinds.recurrent and target.spiking and self.rng.random() < 0.2:
            self.synapses.append(_same_conv(self.rng, target, f"circle{index}", self.later()))
        return target

    def layer(self, index: int, previous: Input | Population, source: Input, count: int) -> Population:
        """A population reached by all-to-all synapses: flat, or an image all the same."""
        rng = self.rng
        shaped = self.kinds.conv and rng.random() < 0.15
        shape: Shape = (2, 1, 3) if shaped else (int(rng.integers(1, 14)),)
        target = self.population(f"layer{index}", shape, count)
        self.synapses.append(_dense(rng, f"dense{index}", previous, target, self.delay()))
        if self.kinds.recurrent and target.spiking and rng.random() < 0.3:
            self.synapses.append(_dense(rng, f"loop{index}", target, target, self.later()))
        if self.kinds.skip and rng.random() < 0.25:
            self.synapses.append(_dense(rng, f"skip{index}", source, target, self.delay()))
        return target

    def feedback(self) -> None:
        """Now and then all-to-all synapses from the last population back to the first."""
        first, last = self.populations[0], self.populations[-1]
        if not (self.kinds.recurrent and last.spiking and first is not last and self.rng.random() < 0.2):
            return
        delay = self.later() if self.kinds.short_loops else len(self.populations)
        self.synapses.append(_dense(self.rng, "feedback", last, first, delay))

    def delay(self) -> int:
        """Steps a spike waits on its way forward."""
        return int(self.rng.choice([0, 0, 0, 1, 3, 7])) if self.kinds.delays else 0

    def later(self) -> int:
        """Steps a spike waits on its way back, at least 1."""
        return int(self.rng.choice([1, 1, 2, 5])) if self.kinds.delays else 1

    def population(self, name: str, shape: Shape, count: int) -> Population:
        """Neurons of any mode; a readout only as the last of ``count`` populations."""
        rng, n = self.rng, int(np.prod(shape))
        last = len(self.populations) == count - 1
        readout = self.kinds.readout and last and rng.random() < 0.25
        refractory = int(rng.choice([0, 0, 0, 0, 0, 0, 1, 2, 5])) if self.kinds.refractory else 0
        made = Population(
            name,
            shape,
            du=int(rng.choice([4095, 4095, 0, 1, int(rng.integers(0, 4096))])),
            dv=int(rng.choice([0, 1, 4095, 410, int(rng.integers(0, 4096))])),
            vth=0 if readout else int(rng.choice([0, 64, 64, 300, 1000, 20000, 131071])),
            bias_mant=_mantissas(rng, n),
            bias_exp=int(rng.integers(0, 8)),
            reset="zero" if readout else self.kinds.resets[int(rng.integers(len(self.kinds.resets)))],
            refractory=0 if readout else refractory,
            spiking=not readout,
        )
        self.populations.append(made)
        return made


def _image(rng: Rng) -> Shape:
    channels, height, width = (int(n) for n in (rng.integers(1, 4), *rng.integers(3, 9, 2)))
    return channels, height, width


def _mantissas(rng: Rng, n: int) -> npt.NDArray[np.int64]:
    anywhere = rng.integers(-4096, 4096, n)
    extreme = rng.choice([-4096, 4095, 0, -1, 1], n)
    return (anywhere, extreme, np.zeros(n, np.int64))[int(rng.choice([0, 0, 1, 2]))]


def _grid_weights(rng: Rng, shape: tuple[int, ...], bits: int, mode: str) -> npt.NDArray[np.int64]:
    step = fp.weight_step(bits, mode)
    low, high = fp.weight_limits(bits, mode)
    weights: npt.NDArray[np.int64] = rng.integers(low // step, high // step + 1, shape) * step
    kept: npt.NDArray[np.int64] = weights * (rng.random(shape) < rng.choice([0.3, 1.0]))
    return kept


def _format(rng: Rng) -> tuple[int, int, fp.SignMode]:
    """weight_exp, weight_bits and sign mode."""
    exponent = int(rng.choice([0, 0, -8, 7, -1, int(rng.integers(-8, 8))]))
    bits = int(rng.choice([8, 8, int(rng.integers(1, 9))]))
    return exponent, bits, fp.SIGN_MODES[int(rng.choice([0, 0, 1, 2]))]


def _dense(rng: Rng, name: str, source: Input | Population, target: Population, delay: int) -> Dense:
    exponent, bits, mode = _format(rng)
    weights = _grid_weights(rng, (target.size, source.size), bits, mode)
    return Dense(name, source.name, target.name, weights, exponent, bits, mode, delay)


def _conv(rng: Rng, source: Input | Population, name: str, target: str, delay: int) -> Conv:
    exponent, bits, mode = _format(rng)
    channels = source.shape[0]
    groups = int(rng.choice([1, channels]))
    shape = (groups * int(rng.integers(1, 4)), channels // groups, int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    stride, padding, dilation = rng.integers(1, 4, 2), rng.integers(0, 3, 2), rng.integers(1, 3, 2)
    return Conv(
        name, source.name, target, _grid_weights(rng, shape, bits, mode), exponent, bits, mode, delay,
        stride=(int(stride[0]), int(stride[1])),
        padding=(int(padding[0]), int(padding[1])),
        dilation=(int(dilation[0]), int(dilation[1])),
        groups=groups,
    )  # fmt: skip


def _same_conv(rng: Rng, around: Population, name: str, delay: int) -> Conv:
    """A convolution from a population to itself: odd kernel sides, padded so that the shape stays."""
    exponent, bits, mode = _format(rng)
    channels = around.shape[0]
    groups = int(rng.choice([1, channels]))
    sides = (int(rng.choice([1, 3])), int(rng.choice([1, 3])))
    weights = _grid_weights(rng, (channels, channels // groups, *sides), bits, mode)
    padding = (sides[0] // 2, sides[1] // 2)
    return Conv(name, around.name, around.name, weights, exponent, bits, mode, delay, padding=padding, groups=groups)


def differences(expected: Trace, got: Trace) -> list[str]:
    """Where two runs differ, as ``population.what`` with a count: everything both recorded, counters where both do."""
    found = []
    for what in ("spikes", "u", "v"):
        ours, theirs = getattr(expected, what), getattr(got, what)
        if sorted(ours) != sorted(theirs):
            found.append(f"{what}: recorded {sorted(theirs)} instead of {sorted(ours)}")
        both = [name for name in ours if name in theirs]
        wrong = {name: _unequal(ours[name], theirs[name]) for name in both}
        found += [f"{name}.{what}: {count} values" for name, count in wrong.items() if count]
    for name in expected.counters.keys() & got.counters.keys():
        for counted in fields(Counter):
            a, b = (getattr(trace.counters[name], counted.name) for trace in (expected, got))
            found += [f"{name} counter {counted.name}"] if _unequal(np.asarray(a), np.asarray(b)) else []
    none = np.zeros(0, np.int64)
    pairs = [
        ("counts", expected.counts, got.counts),
        ("population", np.array(expected.population), np.array(got.population)),
        ("input_events", expected.input_events, got.input_events),
        ("membranes", _or(expected.membranes, none), _or(got.membranes, none)),
    ]
    return found + [f"{label}: {_unequal(a, b)} values" for label, a, b in pairs if _unequal(a, b)]


def _or(a: Counts | None, otherwise: Counts) -> Counts:
    return otherwise if a is None else a


def _unequal(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> int:
    return max(a.size, b.size, 1) if a.shape != b.shape else int(np.count_nonzero(a != b))
