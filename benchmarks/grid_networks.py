"""The distillation grid's best distilled student and its teacher in the chip's integers, and the encoded test images.

Both are post-training quantized (:func:`neurokd.rounding.to_integers`, 8 bits), not fine-tuned: the figures made from
them are then of the networks that README's accuracies are of. Checkpoints are looked for below ``runs/reproduce``;
where a finished cell came without one, as in a clone, the network is trained again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.files import read_json
from deploy.lower import lower
from deploy.program import Program
from neurokd.config import Config
from neurokd.export import to_graph
from neurokd.reproduce import RESULTS, Grid, cell_path
from neurokd.rounding import to_integers

WORK: Final = Path("runs/reproduce")
#: Which row of the grid stands for which role; the student is the best distilled one by validation images.
ROLES: Final = {"student": "labels-t-s", "teacher": "teacher"}
TITLES: Final = {"cifar10": "CIFAR-10 (JPEG copy)"}


@dataclass(frozen=True, eq=False)
class GridNetwork:
    """A trained network in integers, and the whole test set.

    Attributes:
        data: The data set's title; role: ``student`` or ``teacher``; row: of the grid; spec: its layers.
        accuracy: Of the float network on the test images in percent, from the grid's cell; None without one.
        parameters: Weights and biases.
        spikes: Constant input ``[B, *shape]``; labels ``[B]``; steps T.
    """

    data: str
    role: str
    row: str
    spec: str
    accuracy: float | None
    parameters: int
    program: Program
    spikes: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    steps: int

    @property
    def case(self) -> str:
        """How its rows are named."""
        return f"{self.data}, {self.role} {self.spec}"


def title_of(name: str, title: str) -> str:
    """What the pages call a data set."""
    return TITLES.get(name, title)


def grid_networks(
    name: str,
    root: Path | None,
    *,
    work: Path = WORK,
    cells: Path = RESULTS,
    roles: Mapping[str, str] = ROLES,
) -> Iterator[GridNetwork]:
    """A data set's networks, seed 0.

    Raises:
        DataError: the data files are not below ``root``; CheckpointError: a network was not trained.
    """
    config = Config.default(name).override({} if root is None else {"data_root": str(root)})
    grid = Grid(config, work, cells)
    test, encoding = grid.data.test, grid.encoding
    spikes = encoding.encode(test.images, np.arange(len(test)))
    for role, row in roles.items():
        network = grid.network(row)
        program = lower(to_graph(to_integers(network, config.chip)), config.chip)
        yield GridNetwork(
            title_of(name, grid.data.title), role, row, network.spec_text, _accuracy(cells, name, row),
            network.spec.parameters(), program, spikes.reshape(len(test), *program.input.shape), test.labels,
            encoding.steps,
        )  # fmt: skip


def _accuracy(cells: Path, name: str, row: str) -> float | None:
    cell = cell_path(cells, name, row, 0)
    facts: dict[str, Any] = read_json(cell) if cell.is_file() else {}
    return facts.get("accuracy")
