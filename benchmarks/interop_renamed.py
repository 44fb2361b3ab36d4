"""The two published files with edges to a node of another name: read after renaming it, beside their siblings.

python -m benchmarks.interop_renamed --repos FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import h5py

from benchmarks.interop import content
from benchmarks.interop_cases import PUBLISHED, Published, example
from benchmarks.interop_page import write_page
from benchmarks.rows import Row, versions, write
from deploy import graph as nir
from deploy.float_model import run

NAME: Final = "node/nodes/lif1/nodes/lif1"
MEANT: Final = "node/nodes/lif1/nodes/lif"


def renamed(repos: Path, file: Published, folder: Path) -> str:
    """What the renamed file gives beside the one of the same name without ``_subgraph``."""
    sibling = replace(file, path=file.path.replace("extras/", "").replace("_subgraph", ""))
    paths = folder / "renamed.nir", folder / "sibling.nir"
    for path, source in zip(paths, (file, sibling), strict=True):
        path.write_bytes(content(repos, source))
    with h5py.File(paths[0], "r+") as stored:
        stored.move(NAME, MEANT)
    x = example(file.shape, file.steps)
    ours, theirs = (run(nir.read(path, reset=file.reset), x) for path in paths)
    left, right = ours.outputs[ours.output], theirs.outputs[theirs.output]
    return f"{int((left != right).sum())} of {left.size} outputs differ ({int(right.sum())} spikes)"


def main() -> None:
    """Write a row a file, and the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repos", type=Path, required=True, help="folder with clones named owner+name")
    repos = parser.parse_args().repos
    rows = []
    for file in (file for file in PUBLISHED if file.path.endswith("_subgraph.nir")):
        with tempfile.TemporaryDirectory() as folder:
            value = renamed(repos, file, Path(folder))
        print(file.path, value)
        rows.append(
            Row(case=f"neurokd: {file.repo}: {file.path}", metric="renamed", value=value, seed=0,
                versions=versions("nir", "numpy"), command="python -m benchmarks.interop_renamed --repos FOLDER")
        )  # fmt: skip
    write("interop", rows)
    write_page()


if __name__ == "__main__":
    main()
