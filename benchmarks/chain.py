"""Time the whole chain, set after set: ``python -m benchmarks.chain --data-root DIR [digits mnist ...]``.

Each set is run by ``neurokd demo`` in a process of its own and a fresh folder; ``--fresh-clone`` also times
``make demo`` from a clone of the committed tree in a temporary folder, installation included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, write

ROOT = Path(__file__).resolve().parents[1]
SETS = ("digits", "mnist", "fashion-mnist", "cifar10")
ACCURACY_GOALS = {("mnist", "teacher"): ">= 98.3", ("mnist", "student"): ">= 97.5"}
LARGEST_LOSS = {"mnist": "<= 0.3"}
MINUTES = {"digits": "<= 4", "mnist": "<= 25"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and write ``benchmarks/results/chain.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=["digits"], help=", ".join(SETS))
    parser.add_argument("--data-root", type=Path, help="folder with the data files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh-clone", action="store_true", help="time `make demo` from a fresh clone too")
    options = parser.parse_args(arguments)
    for name in options.sets:
        summary, seconds = run(name, options.data_root, options.seed)
        write("chain", rows(name, summary, seconds))
    if options.fresh_clone:
        write("chain", [fresh_clone()])
    return 0


def run(name: str, root: Path | None, seed: int) -> tuple[dict[str, Any], float]:
    """One whole chain in a fresh folder: its summary and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "neurokd.cli", "demo", "--data", name, "--seed", str(seed), "--out", folder]
        start = time.perf_counter()
        subprocess.run([*command, *(("--data-root", str(root)) if root else ())], check=True)
        seconds = time.perf_counter() - start
        return json.loads((Path(folder) / "summary.json").read_text()), seconds


def rows(name: str, summary: dict[str, Any], seconds: float) -> list[Row]:
    """The scoreboard's rows of one run."""
    command = f"python -m benchmarks.chain {name}" + ("" if name == "digits" else " --data-root DIR")
    common: dict[str, Any] = {"command": command, "seed": summary["seed"], "versions": summary["versions"]}
    title, accuracy = summary["title"], summary["accuracy"]
    found = [
        Row(title, f"accuracy, {stage}", value, "%", ACCURACY_GOALS.get((name, stage), ""), **common)
        for stage, value in accuracy.items()
    ]
    lost = accuracy["student"] - accuracy["chip"]
    found.append(Row(title, "float student minus chip", lost, "points", LARGEST_LOSS.get(name, ""), **common))
    for execution, count in summary["equality"]["differing_spikes"].items():
        found.append(Row(title, f"differing spikes, {execution}", count, "spikes", "== 0", **common))
    found.append(Row(title, "samples through Lava", summary["equality"]["samples"], "samples", ">= 32", **common))
    for role in ("teacher", "assistant", "student"):
        found.append(Row(title, f"parameters, {role}", summary["networks"][role]["parameters"], "", "", **common))
    activity, modelled = summary["activity"], summary["modelled"]
    found.append(Row(title, "spikes a sample", activity["spikes_per_sample"], "spikes", "", **common))
    found.append(Row(title, "synops a sample", activity["synops_per_sample"], "synops", "", **common))
    found.append(Row(title, "modelled energy a sample", modelled["energy_per_sample_J"] * 1e6, "µJ", "", **common))
    found.append(Row(title, "modelled latency a sample", modelled["latency_per_sample_s"] * 1e6, "µs", "", **common))
    found.append(Row(title, "whole chain", seconds / 60, "min", MINUTES.get(name, ""), **common))
    return found


def fresh_clone() -> Row:
    """``make demo`` from a clone in a temporary folder: installation, then the digits chain."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "neurokd"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        start = time.perf_counter()
        subprocess.run(["make", "demo"], cwd=clone, check=True)
        minutes = (time.perf_counter() - start) / 60
        summary = json.loads((clone / "runs" / "digits" / "summary.json").read_text())
    command = "python -m benchmarks.chain --fresh-clone"
    return Row("fresh clone", "make demo", minutes, "min", "<= 10", command, summary["seed"], summary["versions"])


if __name__ == "__main__":
    sys.exit(main())
