"""The chip with the layers on it."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from deploy.errors import FileError
from deploy.place import place
from deploy.program import Dense, Input, Population, Program
from deploy.report import chip_picture


def program(size: int) -> Program:
    layer = Population("out", (size,), 4095, 0, 64, np.zeros(size, int))
    return Program(Input("in", (4,)), (layer,), (Dense("d", "in", "out", np.full((size, 4), 32)),))


@pytest.mark.parametrize(("chip", "chips"), [("loihi1", 1), ("loihi1", 2), ("spinnaker2", 1)])
def test_cores_in_use_are_coloured(tmp_path: Path, chip: str, chips: int) -> None:
    few, many = (place(program(n), chip, chips=chips).to_json() for n in (10, 9000))
    inked = []
    for k, placement in enumerate((few, many)):
        path = tmp_path / f"{k}.png"
        chip_picture(placement, path)
        pixels = matplotlib.image.imread(path)
        blue = (pixels[..., 2] > pixels[..., 0] + 0.2) & (pixels[..., 3] > 0.25)
        inked.append(int(blue.sum()))
    assert inked[1] > inked[0] > 0


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        chip_picture(place(program(10), "loihi1").to_json(), tmp_path / "file" / "map.png")
