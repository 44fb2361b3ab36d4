"""Damage a .nir file in every way there is and check each: no crash, no hang, bounded memory.

    python -m benchmarks.fuzz_nir --count 10000 --seed 1

Kinds: bit flips, overwritten bytes, truncations, wrong shapes and types, absurd values, huge declared sizes, links
(soft, external, hard), object references, deep nesting, decompression bombs, missing and unknown fields, broken edges
and metadata. Writes its figures to benchmarks/results/nir_fuzz.json.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.nir_damage import damage, network
from benchmarks.rows import Row, versions
from benchmarks.rows import write as write_rows
from deploy.check import check
from deploy.files import read_json, write_json
from deploy.graph import write
from deploy.graph.probe import Probe

SLOW = 5.0


@dataclass
class Result:
    """What a run of the fuzzer saw.

    Attributes:
        count: Files to check.
        done: Files checked so far.
        crashes: ``kind: exception`` of every exception that reached the caller.
        accepted: Files in which nothing was found wrong.
        slowest: Longest check in seconds.
        megabytes: Largest resident memory of this process or the helper.
        kinds: Files by kind of damage.
        slow: Numbers of the files that took over SLOW seconds; they are timed again at the end, when a machine that was
            busy may be so no more, for what hangs, hangs again.
    """

    count: int = 0
    done: int = 0
    crashes: list[str] = field(default_factory=list)
    accepted: int = 0
    slowest: float = 0.0
    megabytes: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    slow: list[int] = field(default_factory=list)


def fuzz(count: int, seed: int, folder: Path, keep: Path | None = None, state: Path | None = None) -> Result:
    """Check ``count`` damaged files; crashing and slow ones go to ``keep``; ``state`` takes up a run cut short."""
    result = _stored(state, count)
    whole, path = folder / "whole.nir", folder / "damaged.nir"
    write(network(), whole)
    original = whole.read_bytes()
    with Probe() as probe:
        for index in range(result.done, count):
            path.write_bytes(original)
            kind = damage(path, np.random.default_rng([seed, index]))
            crashes, seconds = len(result.crashes), _timed(path, f"{index} {kind}", probe, result)
            if seconds > SLOW or len(result.crashes) > crashes:
                _keep(path, keep, f"{seed}_{index}.nir")
            result.kinds[kind] += 1
            if seconds > SLOW:
                result.slow.append(index)
            else:
                result.slowest = max(result.slowest, seconds)
            result.done = index + 1
            if state is not None and result.done % 100 == 0:
                write_json(state, {**vars(result), "kinds": dict(result.kinds), "megabytes": _megabytes(result)})
        for index in result.slow:
            path.write_bytes(original)
            damage(path, np.random.default_rng([seed, index]))
            result.slowest = max(result.slowest, min(_timed(path, "", probe, Result()) for _ in range(3)))
    result.megabytes = _megabytes(result)
    return result


def _stored(state: Path | None, count: int) -> Result:
    if state is None or not state.exists():
        return Result(count)
    stored = Result(**read_json(state))
    stored.kinds = Counter(stored.kinds)
    return stored


def _timed(path: Path, label: str, probe: Probe, result: Result) -> float:
    start = time.perf_counter()
    try:
        found = check(path, "loihi2", probe=probe)
        result.accepted += not any(finding.severity == "error" for finding in found)
    except Exception as error:  # noqa: BLE001 - the one thing this looks for
        result.crashes.append(f"{label}: {type(error).__name__}: {error}")
    return time.perf_counter() - start


def _megabytes(result: Result) -> float:
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(result.megabytes, max(usage) / 1024)


def _keep(path: Path, keep: Path | None, name: str) -> None:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / name).write_bytes(path.read_bytes())


def rows(result: Result, seed: int) -> list[Row]:
    """The figures as scoreboard rows."""
    common: dict[str, Any] = {
        "case": f"{result.count} damaged .nir files through check",
        "command": f"python -m benchmarks.fuzz_nir --count {result.count} --seed {seed}",
        "seed": seed,
        "versions": {**versions("nir", "h5py", "numpy"), "hdf5": h5py.version.hdf5_version},
    }
    return [
        Row(metric="crashes", value=len(result.crashes), unit="files", goal="0", **common),
        Row(metric="slowest check", value=round(result.slowest, 2), unit="s", goal="<= 5", **common),
        Row(metric="largest resident memory", value=round(result.megabytes), unit="MB", goal="< 1024", **common),
    ]


def main() -> None:
    """Run, print, write the rows; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for files that crash or take over 5 seconds")
    parser.add_argument("--state", type=Path, help="file that keeps the figures so far, to go on after an interruption")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = fuzz(options.count, options.seed, Path(folder), options.keep, options.state)
    found = rows(result, options.seed)
    write_rows("nir_fuzz", found)
    for row in found:
        print(f"{row.metric}: {row.value} {row.unit} (goal {row.goal})")
    print(f"nothing wrong found in {result.accepted} of {result.count}; {dict(result.kinds)}")
    print(*result.crashes[:20], sep="\n")
    sys.exit(not all(row.met for row in found))


if __name__ == "__main__":
    main()
