"""netx: our students through lava-dl's own loader, and the networks lava-dl ships through ours.

``python -m benchmarks.netx`` runs students of ours, written as netx files, in ``netx.hdf5.Network`` on Lava and counts
the spikes that differ from the simulator's. With ``--lava-dl FOLDER``, a checkout of github.com/lava-nc/lava-dl, it
also runs every network found there with its recorded input and compares with its recorded output.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.rows import Row, write
from benchmarks.students import program as random_student
from benchmarks.students import rate_coded
from deploy import simulator
from deploy.errors import NeurokdError
from deploy.loihi import netx
from deploy.loihi.client import worker_info
from deploy.loihi.netx_run import run_netx
from deploy.lower import lower
from deploy.program import Program

Array = npt.NDArray[Any]
COMMAND: Final = "python -m benchmarks.netx"
SEED: Final = 0
TESTS: Final = Path("tests/lava/lib/dl/netx")
TUTORIALS: Final = Path("tutorials/lava/lib/dl/netx")
SAMPLE: Final = 17  # Lava steps after which the recordings of PilotNet show every layer cleared
TRAINED: Final = {"digits, 64-48-10": "64-48-10", "digits, 8x8x1-8c3-16c3-10": "8x8x1-8c3-16c3-10"}


def students(rest: dict[str, Any]) -> list[Row]:
    """Random students of MNIST's size, and trained ones."""
    rows = []
    for spec in ("784-128-10", "28x28x1-8c5s2-16c3s2-10"):
        made = _with_biases(random_student(spec))
        rows += _compared(f"{spec}, random, T = 25", made, rate_coded(made.input.shape, 2, 0.13), rest)
    for case, spec in TRAINED.items():
        program, spikes, labels = trained(spec)
        rounded = netx.round_biases(program)
        exact, coarse = (simulator.run(p, spikes, steps=8).accuracy(labels) for p in (program, rounded))
        rows += _compared(f"{case}, trained, T = 8", rounded, spikes[:16], rest, steps=8)
        rows.append(Row(f"{case}, trained, T = 8", "accuracy", exact, "%", "", **rest))
        rows.append(Row(f"{case}, trained, T = 8", "accuracy, biases rounded to 64", coarse, "%", "", **rest))
    return rows


def _with_biases(program: Program) -> Program:
    rng = np.random.default_rng(SEED)
    populations = (replace(p, bias_mant=rng.integers(-9, 10, p.size), bias_exp=6) for p in program.populations)
    return replace(program, populations=tuple(populations))


def trained(spec: str) -> tuple[Program, Array, Array]:
    """A student of the digits, fine-tuned on the chip's integers: its Program, test images and labels."""
    import neurokd

    data = neurokd.load_data("digits")
    encoding = neurokd.Encoding("direct", bits=4, steps=8, raw_levels=data.levels)
    student = neurokd.build(spec, input_bits=4)
    neurokd.train(student, data, epochs=8)
    chip_student = neurokd.quantize(student, student, data, chip="loihi2", epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        neurokd.export(chip_student, Path(folder) / "student.nir")
        program = lower(Path(folder) / "student.nir", chip="loihi2")
    images = encoding.encode(data.test.images, range(len(data.test)))
    return program, images.reshape(-1, *program.input.shape), np.asarray(data.test.labels)


def _compared(
    case: str, program: Program, spikes: Array, rest: dict[str, Any], steps: int | None = None
) -> Iterator[Row]:
    expected = simulator.run(program, spikes, steps=steps, record="all")
    trace = run_netx(program, spikes, steps=steps)
    wrong = sum(int(np.count_nonzero(trace.spikes[name] != ours)) for name, ours in expected.spikes.items())
    yield Row(case, "differing spikes, netx.hdf5.Network on Lava", wrong, "", "== 0", **rest)
    yield Row(case, "spikes compared", sum(int(s.sum()) for s in expected.spikes.values()), "", "> 0", **rest)


def shipped(folder: Path, rest: dict[str, Any] | None = None) -> list[Row]:
    """Every netx file of a lava-dl checkout: run and compared where there is a recording, refused with the reason."""
    given = rest or {}
    rows = [*_tiny(folder / TESTS, given), *_pilotnet(folder / TESTS, given), *_oxford(folder / TUTORIALS, given)]
    for path in sorted(folder.rglob("*.net")):
        case, metric = str(path.relative_to(folder)), "read"
        try:
            netx.read(path)
            rows.append(Row(case, metric, "read whole", "", "", **given))
        except NeurokdError as error:
            rows.append(Row(case, metric, f"refused: {error.where}: {error.what}: {error.got}", "", "", **given))
    return [
        replace(row, value=row.value.replace(f"{folder}/", "")) if isinstance(row.value, str) else row for row in rows
    ]


def _rows(case: str, pairs: list[tuple[Array, Array]], rest: dict[str, Any]) -> list[Row]:
    wrong = sum(int(np.count_nonzero(ours != theirs)) for ours, theirs in pairs)
    spikes = sum(int(theirs.sum()) for _, theirs in pairs)
    return [
        Row(case, "differing spikes", wrong, "", "== 0", **rest),
        Row(case, "spikes compared", spikes, "", "> 0", **rest),
    ]


def _time_first(recorded: Array) -> Array:
    """``[T, ...]`` of a recording with time last; ``(W, H, C, T)`` becomes ``[T, C, H, W]``."""
    return np.ascontiguousarray(recorded.transpose(range(recorded.ndim)[::-1])).astype(np.int64)


def _tiny(folder: Path, rest: dict[str, Any]) -> list[Row]:
    """slayer's recordings ``(1, C, H, W, T)``, whose step 0 is empty."""
    record = {name: np.load(folder / f"gts/tinynet/{name}.npy")[0] for name in ("input", "layer1", "output")}
    seen = {name: np.moveaxis(array, -1, 0)[1:].astype(np.int64) for name, array in record.items()}
    bias = np.load(folder / "gts/tinynet/input_bias.npy").transpose(2, 1, 0).astype(np.int64)
    steps = len(seen["input"])
    fed = simulator.run(netx.read(folder / "tiny.net"), seen["input"][:, None], record="all")
    driven = simulator.run(
        netx.read(folder / "tiny.net", input_bias=bias), np.zeros((steps, 1, 1), np.int64), record="all"
    )
    names = {"layer0": "input", "layer1": "layer1", "layer2": "output"}
    rows = []
    for case, trace in (("recorded input spikes", fed), ("driven input layer", driven)):
        pairs = [(trace.spikes[ours][:, 0], seen[name]) for ours, name in names.items() if ours in trace.spikes]
        rows += _rows(f"tiny.net, {case}", pairs, rest)
    return rows


def _pilotnet(folder: Path, rest: dict[str, Any]) -> list[Row]:
    """Recorded from the chip's pipeline over 24 steps: layer k runs k steps behind, samples last 17."""
    where = folder / "gts/pilotnet_lif"
    names = ["input", *(f"conv-{n}" for n in range(5)), *(f"fc-{n}" for n in range(3))]
    program = netx.read(where / "network.net", input_bias=np.load(where / "image.npy").transpose(2, 1, 0))
    trace = simulator.run(program, np.zeros((SAMPLE, 2, 1), np.int64), record="all")
    pairs = []
    for lag, (name, population) in enumerate(zip(names, program.populations, strict=False)):
        if not (where / f"{name}.npy").is_file():
            continue
        recorded = _time_first(np.load(where / f"{name}.npy"))[lag:]
        ours = trace.spikes[population.name].swapaxes(0, 1).reshape(2 * SAMPLE, *population.shape)
        pairs.append((ours[: len(recorded)], recorded))
    return _rows("pilotnet_lif, driven input layer", pairs, rest)


def _oxford(folder: Path, rest: dict[str, Any]) -> list[Row]:
    """The first layer, recorded ``(n, T)``; Lava's recording runs one step behind."""
    where = folder / "oxford"
    if not (where / "gts/in.npy").is_file():
        return []
    given, recorded = (_time_first(np.load(where / f"gts/{name}.npy")) for name in ("in", "out"))
    trace = simulator.run(netx.read(where / "Trained/network.net"), given[:, None], record="all")
    return _rows("oxford, first layer", [(trace.spikes["layer0"][:-1, 0], recorded[1:])], rest)


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lava-dl", type=Path, help="a checkout of lava-dl; without it only our students run")
    parser.add_argument("--no-students", action="store_true", help="only lava-dl's networks")
    asked = parser.parse_args()
    rest: dict[str, Any] = {"command": COMMAND, "seed": SEED, "versions": worker_info().versions()}
    rows = [] if asked.no_students else students(rest)
    if asked.lava_dl is not None:
        rows += shipped(asked.lava_dl, {**rest, "command": f"{COMMAND} --lava-dl FOLDER"})
    write("netx", rows)
    print(*(f"{row.case}: {row.metric}: {row.value} {row.unit}" for row in rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
