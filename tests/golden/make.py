"""Makes the golden vectors: small Programs at the edges of the arithmetic, and what real Lava answers.

    python tests/golden/make.py            # needs Lava; writes tests/golden/*.npz, the same bytes every time
    python tests/golden/make.py --check    # runs Lava again and compares with the files

Each ``<case>.npz`` holds ``program`` (the bytes of a Program file), ``stimulus`` [T, B, *shape], for each population
``spikes:<name>`` uint8, ``u:<name>`` and ``v:<name>`` int32 [T, B, *shape], and ``provenance`` (JSON as bytes).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.files import atomic_path
from deploy.loihi.client import run_lava, worker_info
from deploy.program import Conv, Dense, Input, Population, Program, Synapse
from deploy.trace import Trace

FOLDER = Path(__file__).parent
COMMAND = "python tests/golden/make.py"
SEED = 20
DECAYS = (0, 1, 409, 2047, 4093, 4095)
Array = npt.NDArray[Any]
Rng = np.random.Generator
Case = tuple[Program, Array]


def neurons(
    name: str,
    size: int,
    du: int = 4095,
    dv: int = 0,
    vth: int = fp.MAX_VTH,
    bias: int | Sequence[int] | Array = 0,
    exponent: int = 0,
) -> Population:
    """A population; ``bias`` is the mantissa, one for all or one each."""
    return Population(name, (size,), du, dv, vth, np.broadcast_to(np.asarray(bias, np.int16), (size,)), exponent)


def parts_of(total: int) -> list[int]:
    """Five input values whose sum, weighted 255, 255, 255, 255 and 1, is ``total`` (0 .. 260355)."""
    large, rest = divmod(total, 255)
    filled = [min(255, max(0, large - 255 * n)) for n in range(4)]
    return [*filled, rest]


def current_edges(sign: int) -> Case:
    """u at, and one unit of sum around, +-2^23: Lava's wrap keeps +2^23 and turns -2^23 up; then what accumulates."""
    edge = 1 << 17
    sums = [edge - 1, edge, edge + 1, 1, 0, edge, edge, edge // 2, edge // 2 - 1, 1, 2 * edge - 1800, 3]
    stimulus = np.array([[parts_of(total), parts_of(total // 3)] for total in sums])
    mode: fp.SignMode = "excitatory" if sign > 0 else "inhibitory"
    weights = sign * np.array([[255, 255, 255, 255, 1], [255, 255, 255, 255, 0]])
    names = [f"du{du}" for du in DECAYS]
    populations = [neurons(name, 2, du, 4095 - du) for name, du in zip(names, DECAYS, strict=True)]
    synapses = [Dense(f"to {name}", "in", name, weights, sign_mode=mode) for name in names]
    return Program(Input("in", (5,), 8), tuple(populations), tuple(synapses)), stimulus


def current_beyond_one_turn(rng: Rng) -> Case:
    """Sums near 24 bits: shifted up by 6 they leave 24 bits many times over, which Lava's single turn does not undo."""
    populations = [neurons(f"du{du}", 3, du, 100) for du in DECAYS]
    synapses = [
        Dense(f"to {p.name}", "in", p.name, rng.integers(-128, 128, (3, 4)) * 2, weight_exp=5) for p in populations
    ]
    return Program(Input("in", (4,), 8), tuple(populations), tuple(synapses)), rng.integers(0, 256, (16, 2, 4))


def membrane_saturation() -> Case:
    """v driven against both limits by the largest biases; thresholds at and just below the largest."""
    bias = [4095, -4096, 4095, -4096]
    populations = [neurons(f"vth{vth} dv{dv}", 4, 4095, dv, vth, bias, 7) for vth in (131071, 131070) for dv in (0, 3)]
    weights = np.array([[2, 0], [0, -256], [254, 254], [-256, -256]])
    synapses = [Dense(f"to {p.name}", "in", p.name, weights, weight_exp=7) for p in populations]
    stimulus = np.zeros((24, 2, 2), int)
    stimulus[8:, 1] = 1
    return Program(Input("in", (2,)), tuple(populations), tuple(synapses)), stimulus


def decays(rng: Rng) -> Case:
    """Odd decays on small values of both signs: rounding toward zero, and values that die out."""
    pairs = [(1, 4095), (3, 1), (409, 409), (1023, 2049), (2047, 3), (4093, 4094), (4094, 1), (0, 0)]
    populations = [neurons(f"du{du} dv{dv}", 4, du, dv, 3) for du, dv in pairs]
    synapses = [Dense(f"to {p.name}", "in", p.name, rng.integers(-2, 3, (4, 3)) * 2) for p in populations]
    stimulus = (rng.random((20, 2, 3)) < 0.2).astype(int)
    return Program(Input("in", (3,)), tuple(populations), tuple(synapses)), stimulus


def thresholds() -> Case:
    """v exactly at, one below and one above ``vth << 6``: the comparison is strict."""
    bias = [640, 639, 641, 320]
    populations = [neurons(f"vth{vth}", 4, 4095, 0, vth, bias) for vth in (0, 10, 20)]
    synapses = [Dense(f"to {p.name}", "in", p.name, np.full((4, 1), 2)) for p in populations]
    return Program(Input("in", (1,)), tuple(populations), tuple(synapses)), np.zeros((8, 2, 1), int)


def biases() -> Case:
    """Every bias exponent with mantissas at both ends."""
    mantissas = [-4096, -4095, -1, 0, 1, 4095]
    populations = [neurons(f"exp{e}", 6, 4095, 100, 4000, mantissas, e) for e in range(8)]
    synapses = [Dense(f"to {p.name}", "in", p.name, np.zeros((6, 1), int)) for p in populations]
    return Program(Input("in", (1,)), tuple(populations), tuple(synapses)), np.ones((12, 2, 1), int)


def weight_exponents(rng: Rng) -> Case:
    """weight_exp from -8 to 7 on sums of both signs: shifting right rounds toward minus infinity."""
    populations = [neurons(f"exp{e}", 4, 4095, 1000, 200) for e in range(-8, 8)]
    weights = rng.integers(-128, 128, (4, 6)) * 2
    synapses = [Dense(f"to {p.name}", "in", p.name, weights, e) for p, e in zip(populations, range(-8, 8), strict=True)]
    stimulus = rng.integers(0, 16, (8, 2, 6)) * (rng.random((8, 2, 6)) < 0.5)
    return Program(Input("in", (6,), 4), tuple(populations), tuple(synapses)), stimulus


def sign_modes(rng: Rng) -> Case:
    """Each sign mode with 1 to 8 weight bits, both ends of the grid included."""
    populations, synapses = [], []
    for mode in fp.SIGN_MODES:
        for bits in range(1, 9):
            low, high = fp.weight_limits(bits, mode)
            step = fp.weight_step(bits, mode)
            weights = rng.integers(low // step, high // step + 1, (3, 5)) * step
            weights[0, :2] = low, high
            populations.append(neurons(f"{mode} {bits}", 3, 2000, 300, 150))
            synapses.append(
                Dense(f"to {mode} {bits}", "in", f"{mode} {bits}", weights, weight_bits=bits, sign_mode=mode)
            )
    stimulus = (rng.random((8, 2, 5)) < 0.5).astype(int)
    return Program(Input("in", (5,)), tuple(populations), tuple(synapses)), stimulus


def chain(rng: Rng) -> Case:
    """Four layers with biases that are at work while the pipeline fills, three samples without a gap."""
    sizes = [6, 7, 5, 6, 4]
    populations = [
        neurons(f"layer{n}", s, 1500, 410, 40, rng.integers(-600, 900, s), 2) for n, s in enumerate(sizes[1:])
    ]
    names = ["in", *(p.name for p in populations)]
    synapses = [
        Dense(f"s{n}", names[n], names[n + 1], rng.integers(-60, 90, (sizes[n + 1], sizes[n])) // 2 * 2)
        for n in range(4)
    ]
    return Program(Input("in", (6,)), tuple(populations), tuple(synapses)), rng.integers(0, 2, (7, 3, 6))


def convolutions(rng: Rng) -> Case:
    """Convs that are not square anywhere, grouped, shifted both ways, one after the other."""
    synapses: list[Synapse] = [
        Conv("c0", "in", "a", rng.integers(-60, 61, (4, 2, 2, 3)) * 2, stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        Conv("c1", "a", "b", rng.integers(-60, 61, (2, 2, 1, 2)) * 2, 1, groups=2),
        Conv("c2", "a", "c", rng.integers(-60, 61, (3, 4, 2, 1)) * 2, -2, padding=(0, 1)),
    ]
    shapes = {"in": (2, 4, 7)}
    populations = []
    for conv in synapses:
        shape = shapes[conv.target] = conv.output_shape(shapes[conv.source])  # type: ignore[union-attr]
        bias = rng.integers(-200, 200, int(np.prod(shape)))
        populations.append(Population(conv.target, shape, 4095, 410, 900 if conv.target == "a" else 60, bias, 1))
    return Program(Input("in", (2, 4, 7), 3), tuple(populations), tuple(synapses)), rng.integers(0, 8, (6, 2, 2, 4, 7))


def neuron_modes(rng: Rng) -> Case:
    """What Lava's own fixed-point neurons lack, on process models of ours around Lava's step: subtract reset,
    refractory periods, both together, and readouts driven to both ends of the membrane."""
    modes: list[dict[str, Any]] = [
        {"reset": "subtract"}, {"refractory": 1}, {"refractory": 3}, {"reset": "subtract", "refractory": 2},
        {"spiking": False, "vth": 0},
    ]  # fmt: skip
    populations: list[Population] = []
    for number, mode in enumerate(modes):
        for du, dv in ((4095, 0), (300, 410)):
            bias = [4095, -4096, 40, 0]
            fields = {"vth": 90, "bias_mant": np.array(bias), "bias_exp": 7 if number == 4 else 1, **mode}
            populations.append(Population(f"mode{number} du{du}", (4,), du, dv, **fields))
    synapses = [Dense(f"to {p.name}", "in", p.name, rng.integers(-10, 40, (4, 3)) * 2) for p in populations]
    return Program(Input("in", (3,)), tuple(populations), tuple(synapses)), rng.integers(0, 2, (24, 2, 3))


def delays_and_loops(rng: Rng) -> Case:
    """Delays shorter and longer than a sample, loops over one and two layers, a skip, a convolution in a loop."""
    a = Population("a", (2, 3, 2), 4095, 410, 60, rng.integers(-300, 900, 12), 1)
    b = Population("b", (5,), 2000, 100, 50, rng.integers(-300, 900, 5), 1)
    c = Population("c", (3,), 4095, 410, 40, rng.integers(-300, 900, 3), 1)

    def weights(*shape: int) -> Array:
        return rng.integers(-20, 30, shape) * 2

    synapses: list[Synapse] = [
        Conv("in-a", "in", "a", weights(2, 1, 2, 3), delay=1), Conv("a-a", "a", "a", weights(2, 2, 3, 1), delay=2,
                                                                    padding=(1, 0)),
        Dense("a-b", "a", "b", weights(5, 12)), Dense("b-b", "b", "b", weights(5, 5), -1, delay=1),
        Dense("b-c", "b", "c", weights(3, 5), delay=9), Dense("in-c", "in", "c", weights(3, 16), delay=3),
        Dense("c-a", "c", "a", weights(12, 3), delay=4),
    ]  # fmt: skip
    return Program(Input("in", (1, 4, 4)), (a, b, c), tuple(synapses)), rng.integers(0, 2, (12, 3, 1, 4, 4))


CASES: dict[str, Callable[[Rng], Case]] = {
    "current-edges-up": lambda rng: current_edges(1),
    "current-edges-down": lambda rng: current_edges(-1),
    "current-beyond-one-turn": current_beyond_one_turn,
    "membrane-saturation": lambda rng: membrane_saturation(),
    "decays": decays,
    "thresholds": lambda rng: thresholds(),
    "biases": lambda rng: biases(),
    "weight-exponents": weight_exponents,
    "sign-modes": sign_modes,
    "chain": chain,
    "convolutions": convolutions,
    "neuron-modes": neuron_modes,
    "delays-and-loops": delays_and_loops,
}


def arrays_of(program: Program, stimulus: Array, trace: Trace) -> dict[str, Array]:
    """What one file holds, but for its provenance."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.npz"
        program.save(path)
        stored = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    recordings = {"spikes": trace.spikes, "u": trace.u, "v": trace.v}
    recorded = {f"{what}:{name}": array for what, by_name in recordings.items() for name, array in by_name.items()}
    return {"program": stored, "stimulus": stimulus.astype(np.uint8), **recorded}


def answers(names: Iterable[str]) -> Iterable[tuple[str, dict[str, Array]]]:
    """Run the named cases on Lava."""
    for name in names:
        program, stimulus = CASES[name](np.random.default_rng(SEED))
        trace = run_lava(program, stimulus, record_state="all")
        yield name, arrays_of(program, stimulus, trace)


def write(names: Iterable[str]) -> None:
    """Write the files of the named cases."""
    provenance = {"made by": COMMAND, "seed": SEED, "versions": worker_info().versions()}
    stored = np.frombuffer(json.dumps(provenance).encode(), dtype=np.uint8)
    for name, arrays in answers(names):
        with atomic_path(FOLDER / f"{name}.npz") as path, path.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays, provenance=stored)
        print(f"{name}: {(FOLDER / f'{name}.npz').stat().st_size} bytes")


def differing(names: Iterable[str]) -> list[str]:
    """The arrays in which Lava's answer of today is not the file's."""
    found = []
    for name, arrays in answers(names):
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
            recorded = [key for key in arrays if ":" in key]
            found += [f"{name} {key}" for key in recorded if not np.array_equal(arrays[key], file[key])]
    return found


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    options = parser.parse_args()
    names = options.cases or list(CASES)
    if unknown := sorted(set(names) - set(CASES)):
        parser.error(f"no such case: {', '.join(unknown)}")
    if not options.check:
        write(names)
        return 0
    found = differing(names)
    print("\n".join(found) or f"{len(names)} cases as recorded")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
