"""Programs driven on purpose to the edges of the arithmetic, where chance never leads.

Each neuron has weights of its own for every step, from inputs that are on in that step only; so its synaptic sum of
each step can be any integer of ±163,839. Sums are chosen, neuron by neuron and step by step, to land the current on and
around ±2^23, and the membrane on and around the threshold and both ends of its range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.program import Dense, Input, Population, Program, ResetRule, Synapse
from deploy.testing import Case, Rng

NEURONS: Final = 16
COARSE: Final = 1280  # 5 (input) * 256 / 2 (weight step) << 7 (weight_exp)
FINE: Final = 6
INPUTS: Final = (5, FINE, 1)  # of each step: what the coarse, the fine and the unit weights meet
EDGE: Final = fp.MAX_STATE + 1
DECAYS: Final = (0, 1, 409, 2048, 4094, 4095)
CURRENTS: Final = tuple(sign * EDGE + off for sign in (1, -1) for off in (0, 1, -1, 64, -64, 128, -128))


def edge_case(seed: int) -> Case:
    """The case of a seed; always the same one. Two samples: the steps in order, and rotated by one."""
    rng = np.random.default_rng([seed, 0xED6E])
    steps = int(rng.integers(3, 9))
    layers = [_Layer.drawn(rng, f"layer{n}", steps) for n in range(int(rng.integers(1, 4)))]
    populations, synapses = [layer.population for layer in layers], [s for layer in layers for s in layer.synapses]
    frames = np.zeros((steps, 2, 3 * steps), np.int64)
    for step in range(steps):
        frames[step, 0, 3 * step : 3 * step + 3] = INPUTS
        turned = 3 * ((step + 1) % steps)
        frames[step, 1, turned : turned + 3] = INPUTS
    return Case(Program(Input("in", (3 * steps,), 3), tuple(populations), tuple(synapses)), frames, steps)


@dataclass(frozen=True, eq=False)
class _Layer:
    population: Population
    synapses: tuple[Synapse, ...]

    @classmethod
    def drawn(cls, rng: Rng, name: str, steps: int) -> _Layer:
        """A population with its sums chosen, and the two synapse blocks that give them."""
        population = _population(rng, name)
        sums = np.array([_sums(rng, population, n, steps) for n in range(NEURONS)])
        coarse, rest = np.divmod(sums, COARSE)
        fine, units = np.divmod(rest, FINE)
        zeros = np.zeros_like(sums)
        high = np.stack([2 * coarse, zeros, zeros], axis=2).reshape(NEURONS, -1)
        low = np.stack([zeros, fine, units], axis=2).reshape(NEURONS, -1)
        blocks = (
            Dense(f"{name} coarse", "in", name, high, weight_exp=7),
            Dense(f"{name} fine", "in", name, low, sign_mode="excitatory"),
        )
        return cls(population, blocks)


def _population(rng: Rng, name: str) -> Population:
    reset: ResetRule = "subtract" if rng.random() < 0.3 else "zero"
    readout = bool(rng.random() < 0.2)
    return Population(
        name,
        (NEURONS,),
        du=int(rng.choice(DECAYS)),
        dv=int(rng.choice(DECAYS)),
        vth=0 if readout else int(rng.choice([0, 1, 2048, 65536, 131070, 131071])),
        bias_mant=rng.choice([-4096, -1, 0, 0, 0, 1, 4095], NEURONS),
        bias_exp=int(rng.integers(0, 8)),
        reset="zero" if readout else reset,
        refractory=0 if readout or rng.random() < 0.8 else int(rng.integers(1, 4)),
        spiking=not readout,
    )


def _sums(rng: Rng, population: Population, neuron: int, steps: int) -> list[int]:
    """Synaptic sums of one neuron, each leading to an edge where one can be reached, else anywhere."""
    u, v, bias, held, sums = 0, 0, int(population.bias[neuron]), 0, []
    threshold = population.vth << fp.ACTIVATION_SHIFT
    membranes = (
        threshold,
        threshold + 1,
        threshold - 1,
        *(s * (fp.MAX_STATE + o) for s in (1, -1) for o in (-1, 0, 1)),
    )
    for _ in range(steps):
        kept, left = fp.decay(u, population.du + fp.CURRENT_DECAY_OFFSET), fp.decay(v, population.dv)
        wanted = [*CURRENTS, *(target - left - bias for target in membranes)]
        a = _reaching(rng, [target - kept for target in wanted])
        u = fp.wrap_current(fp.raw_current(u, a, population.du), fp.STATE_BITS)
        if held == 0:
            v = fp.saturate(fp.raw_membrane(v, u, bias, population.dv), fp.STATE_BITS)
        spike = population.spiking and held == 0 and v > threshold
        held = population.refractory if spike else max(held - 1, 0)
        v = (v - threshold if population.reset == "subtract" else 0) if spike else v
        sums.append(a)
    return sums


def _reaching(rng: Rng, differences: list[int]) -> int:
    """A sum that, shifted up, is one of ``differences``; if none can be, or one time in four, any sum."""
    reach = 128 * COARSE
    aligned = [d >> fp.ACTIVATION_SHIFT for d in differences if d % (1 << fp.ACTIVATION_SHIFT) == 0]
    sums: npt.NDArray[np.int64] = np.array([a for a in aligned if -reach <= a < reach], np.int64)
    if sums.size and rng.random() < 0.75:
        return int(rng.choice(sums))
    return int(rng.integers(-reach, reach)) if rng.random() < 0.5 else int(rng.integers(-64, 64))
