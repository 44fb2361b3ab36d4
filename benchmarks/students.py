"""The students that are measured: seeded integer Programs whose layers fire at a chosen rate, and spikes for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import simulator
from deploy.program import Conv, Dense, Input, Population, Program, Synapse

Array = npt.NDArray[Any]
STEPS: Final = 25
ACTIVITY: Final = 0.13
HIDDEN_ACTIVITY: Final = 0.1
DV: Final = 410  # beta = 1 - 410/4096, the chip's 0.9
DENSE: Final = "784-800-10"
CONV: Final = "28x28x1-16c5s2-32c3s2-10"
DEEP: Final = "32x32x3-32c3s2-64c3s2-64c3s2-10"
LAYER: Final = re.compile(r"(\d+)(?:c(\d+)(?:s(\d+))?)?")


@dataclass(frozen=True)
class Layer:
    """``800`` (dense), or ``16c5s2``: 16 channels, 5 x 5 kernels, stride 2, no padding."""

    size: int
    kernel: int = 0
    stride: int = 1


def parse(spec: str) -> tuple[tuple[int, ...], list[Layer]]:
    """Input shape ``(n,)`` or ``(C, H, W)`` (written ``HxWxC``), and the layers."""
    first, *rest = spec.split("-")
    sides = [int(n) for n in first.split("x")]
    shape = (sides[0],) if len(sides) == 1 else (sides[2], sides[0], sides[1])
    layers = []
    for text in rest:
        size, kernel, stride = LAYER.fullmatch(text).groups()  # type: ignore[union-attr]
        layers.append(Layer(int(size), int(kernel or 0), int(stride or 1)))
    return shape, layers


def program(spec: str, *, seed: int = 0, dv: int = DV, activity: float = ACTIVITY) -> Program:
    """Random 8-bit weights; thresholds chosen layer by layer so that each fires at about ``HIDDEN_ACTIVITY``."""
    shape, layers = parse(spec)
    rng = np.random.default_rng(seed)
    source = Input("in", shape)
    probe = rate_coded(source.shape, 4, activity, seed=seed)
    populations: tuple[Population, ...] = ()
    synapses: tuple[Synapse, ...] = ()
    for index, layer in enumerate(layers):
        before = populations[-1] if populations else source
        synapse = _synapse(rng, f"w{index}", before, f"layer{index}", layer)
        made = synapse.output_shape(before.shape) if isinstance(synapse, Conv) else (layer.size,)
        synapses += (synapse,)
        still = Population(f"layer{index}", made, 4095, dv, 131071, np.zeros(int(np.prod(made)), int))
        populations += (_calibrated(Program(source, (*populations, still), synapses), probe),)
    return Program(source, populations, synapses, {"steps": STEPS})


def _synapse(rng: np.random.Generator, name: str, source: Input | Population, target: str, layer: Layer) -> Synapse:
    if layer.kernel:
        shape: tuple[int, ...] = (layer.size, source.shape[0], layer.kernel, layer.kernel)
        stride = (layer.stride, layer.stride)
        return Conv(name, source.name, target, _weights(rng, shape), stride=stride)
    return Dense(name, source.name, target, _weights(rng, (layer.size, source.size)))


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    weights: Array = (2 * np.clip(np.round(rng.normal(4, 32, shape)), -128, 127)).astype(np.int16)
    return weights


def _calibrated(so_far: Program, probe: Array, activity: float = HIDDEN_ACTIVITY) -> Population:
    """The last population with the threshold at which it fires at ``activity``, by bisection."""
    last, low, high = so_far.populations[-1], 0, 131071
    while high - low > max(8, low // 64):
        middle = (low + high) // 2
        last = replace(last, vth=middle)
        trial = replace(so_far, populations=(*so_far.populations[:-1], last))
        fired = simulator.run(trial, probe, record=()).counters[last.name].spikes.sum()
        too_often = fired > activity * probe.shape[0] * probe.shape[1] * last.size
        low, high = (middle, high) if too_often else (low, middle)
    return last


def rate_coded(shape: Sequence[int], samples: int, activity: float, *, steps: int = STEPS, seed: int = 0) -> Array:
    """Bernoulli spikes uint8 ``[T, B, *shape]``."""
    rng = np.random.default_rng(seed)
    return (rng.random((steps, samples, *shape), dtype=np.float32) < activity).astype(np.uint8)


WIDE: Final = 7940
NARROW: Final = 60
PAIRS: Final = 125


def chip_sized(*, seed: int = 0) -> Program:
    """A chain of 125 wide and 125 narrow populations: 1,000,000 neurons, 119,100,000 synapses, no weight shared.

    About what a Loihi 2 chip holds, and, as there, 8,000 neurons and 950,000 synapses a core. Biases drive the neurons
    to about 5 % activity, so that it neither dies out nor explodes on its way through 250 populations.
    """
    rng = np.random.default_rng(seed)
    sizes = [NARROW] + [WIDE, NARROW] * PAIRS
    names = ["in", *(f"layer{k}" for k in range(len(sizes) - 1))]
    populations = [_driven(rng, name, size) for name, size in zip(names[1:], sizes[1:], strict=True)]
    synapses = [
        Dense(f"w{k}", names[k], names[k + 1], _quick_weights(rng, (sizes[k + 1], sizes[k])))
        for k in range(len(sizes) - 1)
    ]
    return Program(Input("in", (NARROW,)), tuple(populations), tuple(synapses), {"steps": STEPS})


def _driven(rng: np.random.Generator, name: str, size: int) -> Population:
    """Neurons that reach their threshold in about 20 steps, each at its own pace."""
    vth, mantissa, exponent = (1900, 3550, 2) if size == WIDE else (15500, 3650, 5)
    bias = np.round(mantissa * rng.uniform(0.9, 1.1, size)).astype(np.int64)
    return Population(name, (size,), 4095, DV, vth, bias, exponent)


def _quick_weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    weights: Array = rng.integers(-60, 61, shape, np.int16)
    weights *= 2
    return weights
