"""The fine-tuning grid: ``python -m benchmarks.finetune --data-root DIR [mnist fashion-mnist cifar10]``.

For each data set and seed one float teacher, assistant and student; then the student on the chip's integers: widths
{8, 4, 3} x {no fine-tuning, CE, SAT, SAT + CE}, under a synop budget, and on few images. Every cell is one small JSON
file in ``benchmarks/results/finetune/``; a cell that is there is not computed again, so an interrupted grid goes on.
Trained float networks stay in ``--work``. ``python -m benchmarks.pareto`` makes rows, tables and the plot of the cells.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.finetune_measures import Cell, costs, packed, right_answers
from benchmarks.finetune_sets import (
    BUDGET_METHOD,
    BUDGETS,
    FEW,
    FEW_METHODS,
    FEW_WIDTHS,
    METHODS,
    ROLES,
    SEEDS,
    SETS,
    WIDTHS,
    Setup,
    check_setup,
)
from benchmarks.rows import RESULTS, versions
from deploy import ptq, simulator
from deploy.files import read_json, write_json
from neurokd import checkpoint
from neurokd.budget import Budget, under_budget
from neurokd.calibrate import round_off
from neurokd.config import Config
from neurokd.data import Dataset, Split, load
from neurokd.distill import distill_stage, teacher_sats
from neurokd.encoding import Encoding
from neurokd.export import to_graph
from neurokd.feed import Feed, Network, accuracy
from neurokd.network import SpikingNetwork, build
from neurokd.quantize import fine_tune
from neurokd.quantized import QuantizedNetwork
from neurokd.reproduce import RESULTS as GRID_CELLS
from neurokd.reproduce import Grid
from neurokd.rounding import to_integers
from neurokd.satcache import SatCache

CELLS = RESULTS / "finetune"
PARTS = ("grid", "nir", "budgets", "few")
CALIBRATION = 500  # training images
GRID_WORK = Path("runs/reproduce")
COMMAND = "python -m benchmarks.finetune --data-root DIR"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=list(SETS), help=", ".join(SETS))
    parser.add_argument("--data-root", type=Path, action="append", help="folder with the data files (repeatable)")
    parser.add_argument("--work", type=Path, default=Path("runs/finetune"), help="where float networks stay")
    parser.add_argument("--cells", type=Path, default=CELLS, help="where cells are kept")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for part in options.parts:
        for name in options.sets:
            for seed in options.seeds:
                bench = Bench(name, seed, tuple(options.data_root or ()), options.work, options.cells)
                {"grid": bench.run, "nir": bench.nir, "budgets": bench.budgets, "few": bench.few}[part]()
    return 0


def cell_path(data: str, seed: int, cell: str, folder: Path = CELLS) -> Path:
    """Where a cell is kept."""
    return folder / f"{data}-s{seed}-{cell}.json"


@dataclass
class Bench:
    """One data set and seed."""

    name: str
    seed: int
    roots: tuple[Path, ...]
    work: Path
    cells: Path = CELLS

    @property
    def setup(self) -> Setup:
        return SETS[self.name]

    @cached_property
    def data(self) -> Dataset:
        """Read when a cell needs it; the same validation split for every seed's networks of that seed."""
        return load(self.name, self._root(), seed=self.seed)

    def _root(self) -> Path | None:
        return next((root for root in self.roots if found(self.name, root)), None)

    @cached_property
    def encoding(self) -> Encoding:
        return Encoding("direct", self.setup.bits, self.setup.steps, raw_levels=self.data.levels)

    def run(self) -> None:
        """Every cell of this data set and seed."""
        for role in ROLES:
            self._cell(role, lambda role=role: self._float_cell(role))  # type: ignore[misc]
        for bits in WIDTHS:
            for method in METHODS:
                self._cell(f"b{bits}-{method}", lambda b=bits, m=method: self._chip_cell(b, m))  # type: ignore[misc]

    def budgets(self) -> None:
        """Every cell under a budget."""
        for bits, share in BUDGETS:
            cell = f"b{bits}-synops{round(100 * share)}"
            self._cell(cell, lambda b=bits, s=share: self._budget_cell(b, s))  # type: ignore[misc]

    def few(self) -> None:
        """Every cell of fine-tuning on few images."""
        for bits in FEW_WIDTHS if self.setup.more else ():
            for method in FEW_METHODS:
                self._cell(f"b{bits}-{method}-few", lambda b=bits, m=method: self._few_cell(b, m))  # type: ignore[misc]

    def _cell(self, cell: str, work: Any) -> None:
        path, setup = cell_path(self.name, self.seed, cell, self.cells), self.setup.of_cell(cell)
        if path.exists():
            check_setup(path, setup)
            return
        start = time.perf_counter()
        facts = work()
        common = {"data": self.name, "title": self.data.title, "seed": self.seed, "cell": cell, "setup": setup}
        taken = {"seconds": round(time.perf_counter() - start, 1), "versions": versions("torch", "numpy", "numba")}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**common, **facts, **taken})
        shown = {key: facts[key] for key in ("accuracy", "validation", "synops") if key in facts}
        print(f"{self.name} seed {self.seed} {cell}: {shown} {taken['seconds']} s", flush=True)

    # Float networks ---------------------------------------------------------------------------------------------------

    def _float_cell(self, role: str) -> Cell:
        """A float network's figures; its energy is that of its 8-bit integers without fine-tuning."""
        network = self.network(role)
        return {
            "spec": network.spec_text,
            "parameters": network.spec.parameters(),
            **self._scores(network),
            **costs(to_integers(network), self.data, self.encoding),
        }

    @cached_property
    def grid(self) -> Grid:
        """The distillation grid's networks of this data set and seed."""
        config = replace(Config.default(self.name), data_root=str(self._root() or ""), seed=self.seed)
        return Grid(config, GRID_WORK, GRID_CELLS)

    def network(self, role: str) -> SpikingNetwork:
        """A trained float network: of the distillation grid, from the work folder, or trained now."""
        if self.setup.rows is not None:
            return self.grid.network(self.setup.rows[role])
        path = self.work / f"{self.name}-s{self.seed}-{role}.safetensors"
        if path.exists():
            return checkpoint.load(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        setup = self.setup
        network = build(
            setup.networks[role], steps=setup.steps, input_bits=setup.bits, surrogate="triangular", seed=self.seed
        )
        master = None if role == "teacher" else self.network(ROLES[ROLES.index(role) - 1])
        stage = setup.float_stage(role)
        distill_stage(
            network, master or network, self.data, self.encoding, stage, folder=path.with_suffix(".state"),
            seed=self.seed, name=role,
        )  # fmt: skip
        checkpoint.save(path, network)
        return network.eval()

    def _scores(self, network: Network) -> Cell:
        return {
            "accuracy": accuracy(network, Feed(self.data.test, self.encoding)),
            "validation": accuracy(network, Feed(self.data.validation, self.encoding)),
            "correct": packed(right_answers(network, self.data, self.encoding)),
        }

    # On the chip's integers -------------------------------------------------------------------------------------------

    @cached_property
    def sats(self) -> SatCache:
        """The teacher's SATs, every view."""
        rows = self.setup.rows
        folder = self.work / f"{self.name}-s{self.seed}-sats" if rows is None else self.grid.answers(rows["teacher"])
        stage = self.setup.tune("sat", 8)
        return teacher_sats(self.network("teacher"), self.data, self.encoding, stage, folder=folder, seed=self.seed)

    @cached_property
    def few_sats(self) -> SatCache:
        """The same on few images."""
        folder, stage = self.work / f"{self.name}-s{self.seed}-few-sats", self.setup.tune_on_few("sat", 8)
        return teacher_sats(self.network("teacher"), self.few_data, self.encoding, stage, folder=folder, seed=self.seed)

    def _chip_cell(self, bits: int, method: str) -> Cell:
        network = self.quantized(bits, method)
        facts = {"bits": bits, "method": method, "loss": self.setup.losses[method]}
        return {**facts, **self._scores(network), **costs(network, self.data, self.encoding)}

    @cached_property
    def few_data(self) -> Dataset:
        """With the first of the training images alone, one in :data:`FEW`."""
        train, count = self.data.train, len(self.data.train) // FEW
        return replace(self.data, train=Split(train.images[:count], train.labels[:count]))

    def _few_cell(self, bits: int, method: str) -> Cell:
        network, images = self.quantized(bits, method, few=True), len(self.few_data.train)
        facts = {"bits": bits, "method": method, "loss": self.setup.losses[method], "images": images}
        return {**facts, **self._scores(network), **costs(network, self.data, self.encoding)}

    def _budget_cell(self, bits: int, share: float) -> Cell:
        """The best student found under a share of the synops that the student takes at this width."""
        stage = self.setup.budget(bits)
        found = under_budget(
            self.network("student"), self.data, self.encoding, stage, Budget("synops", share),
            grids={"weight_bits": bits}, teacher_sats=self.sats, seed=self.seed,
        )  # fmt: skip
        facts = {"bits": bits, "method": BUDGET_METHOD, "loss": self.setup.losses[BUDGET_METHOD], "share": share}
        tried = {"start": found.start, "won": found.how, "tried": [asdict(one) for one in found.tried]}
        spec = {"spec": found.network.spec_text, "parameters": found.network.spec.parameters()}
        scores = self._scores(found.network)
        return {**facts, **tried, **spec, **scores, **costs(found.network, self.data, self.encoding)}

    def nir(self) -> None:
        """Without training: every width of the student's float NIR file, quantized by the chip side with calibration
        spikes; and of the student, rounded, with the mean error taken out of its biases."""
        for bits in WIDTHS:
            self._cell(f"b{bits}-nir", lambda b=bits: self._nir_cell(b))  # type: ignore[misc]
            if self.setup.more:
                self._cell(f"b{bits}-mended", lambda b=bits: self._mended_cell(b))  # type: ignore[misc]

    def _mended_cell(self, bits: int) -> Cell:
        network = round_off(self.network("student"), self.data, self.encoding, weight_bits=bits)
        scores = self._scores(network)
        return {"bits": bits, "method": "mended", **scores, **costs(network, self.data, self.encoding)}

    def _nir_cell(self, bits: int) -> Cell:
        graph, rows = to_graph(self.network("student")), np.arange(CALIBRATION)
        images = self.encoding.encode(self.data.train.images[rows], rows)
        result = ptq.quantize(graph, images.reshape(CALIBRATION, *graph.inputs[0].shape), bits=bits)
        right, counted = [], []
        for start in range(0, len(self.data.test), 500):
            rows = np.arange(start, min(start + 500, len(self.data.test)))
            tested = self.encoding.encode(self.data.test.images[rows], rows).reshape(-1, *graph.inputs[0].shape)
            trace = simulator.run(result.program, tested, steps=self.encoding.steps)
            right.append(trace.predictions() == self.data.test.labels[rows])
            counted.append(sum(float(counter.synops.sum()) for counter in trace.counters.values()))
        answers = np.concatenate(right)
        return {
            "bits": bits, "method": "nir", "accuracy": 100 * float(answers.mean()), "correct": packed(answers),
            "synops": sum(counted) / len(answers), "calibration": CALIBRATION,
            "same_answer": result.losses.same_answer, "layers": result.losses.to_json()["layers"],
            "differing_spikes": 0, "profiled": 0,
        }  # fmt: skip

    def quantized(self, bits: int, method: str, few: bool = False) -> QuantizedNetwork:
        """The student on ``bits``-bit weights, fine-tuned by ``method``, on all training images or few."""
        student = self.network("student")
        if method == "none":
            return to_integers(student, weight_bits=bits)
        data, stage = self.data, self.setup.tune(method, bits)
        if few:
            data, stage = self.few_data, self.setup.tune_on_few(method, bits)
        sats = None if method == "ce" else self.few_sats if few else self.sats
        return fine_tune(
            student, data, self.encoding, stage, teacher_sats=sats, weight_bits=bits, seed=self.seed
        )[0]  # fmt: skip


def found(name: str, root: Path) -> bool:
    """Whether a folder holds a data set."""
    from neurokd.data import status

    return any(entry.name == name and entry.found for entry in status(root))


def cells(folder: Path = CELLS) -> Iterator[Cell]:
    """Every stored cell."""
    for path in sorted(folder.glob("*.json")):
        yield read_json(path)


if __name__ == "__main__":
    raise SystemExit(main())
