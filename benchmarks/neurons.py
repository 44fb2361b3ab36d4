"""Speed of the neuron scans against snntorch's loop, in one process, the two taking turns.

python benchmarks/neurons.py            # prints, and writes benchmarks/results/neurons.json
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn
from torch.nn import functional

from deploy.files import write_json
from neurokd.neurons import cuba_lif, lif

T, B = 25, 128
SEED = 0
RESULTS = Path(__file__).resolve().parent / "results" / "neurons.json"
Run = Callable[[], Tensor]


def snntorch_scan(current: Tensor, cell: nn.Module, held: bool = False) -> Tensor:
    """The loop a user of snntorch writes; ``current`` [T, B, N], or [B, N] held."""
    spikes, state = [], None
    for t in range(T):
        x = current if held else current[t]
        state = (
            tuple(torch.zeros_like(x) for _ in range(2 if isinstance(cell, snn.Synaptic) else 1))
            if state is None
            else state
        )
        s, *state = cell(x, *state)
        spikes.append(s)
    return torch.stack(spikes)


def scan_cases(generator: torch.Generator) -> dict[str, tuple[Run, Run]]:
    """Forward and backward of one layer of neurons: ours and snntorch's, on the same current and gradient."""
    options: dict[str, Any] = {"spike_grad": surrogate.atan(), "reset_mechanism": "zero", "reset_delay": False}
    leaky, synaptic = snn.Leaky(0.9, **options), snn.Synaptic(0.5, 0.9, **options)
    cases: dict[str, tuple[Run, Run]] = {}
    for name, shape in {"800": (800,), "16x12x12": (16, 12, 12)}.items():
        current = torch.rand(T, B, *shape, generator=generator).mul_(0.5).requires_grad_()
        grad = torch.randn(T, B, *shape, generator=generator)

        def step(run: Callable[[Tensor], Tensor], x: Tensor = current, g: Tensor = grad) -> Tensor:
            return torch.autograd.grad(run(x), x, g)[0]

        label = f"[{T}, {B}, {name}]"
        cases[f"LIF {label}"] = (
            lambda step=step: step(lambda x: lif(x, surrogate="atan")[0]),
            lambda step=step: step(lambda x: snntorch_scan(x, leaky)),
        )
        cases[f"CUBA-LIF {label}"] = (
            lambda step=step: step(lambda x: cuba_lif(x, alpha=0.5, surrogate="atan")[0]),
            lambda step=step: step(lambda x: snntorch_scan(x, synaptic)),
        )
    held, held_grad = (
        torch.rand(B, 800, generator=generator).requires_grad_(),
        torch.randn(T, B, 800, generator=generator),
    )
    cases[f"LIF [{B}, 800] held for {T}"] = (
        lambda: torch.autograd.grad(lif(held, steps=T, surrogate="atan")[0], held, held_grad)[0],
        lambda: torch.autograd.grad(snntorch_scan(held, leaky, held=True), held, held_grad)[0],
    )
    return cases


def network_case(generator: torch.Generator) -> tuple[Run, Run]:
    """A whole training step of 784-800-10 under direct encoding: forward, cross-entropy on rates, backward, Adam."""
    images = torch.rand(B, 784, generator=generator)
    labels = torch.randint(10, (B,), generator=generator)
    options: dict[str, Any] = {"spike_grad": surrogate.atan(), "reset_mechanism": "zero", "reset_delay": False}
    torch.manual_seed(SEED)
    layers = nn.ModuleList([nn.Linear(784, 800), nn.Linear(800, 10)])
    cells = [snn.Leaky(0.9, **options), snn.Leaky(0.9, **options)]
    optimizer = torch.optim.Adam(layers.parameters())

    def finish(sat: Tensor) -> Tensor:
        loss = functional.cross_entropy(10 * sat.mean(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def ours() -> Tensor:
        hidden = lif(layers[0](images), steps=T, surrogate="atan")[0]
        return finish(lif(layers[1](hidden.flatten(0, 1)).view(T, B, 10), surrogate="atan")[0])

    def theirs() -> Tensor:
        v, w, out = torch.zeros(B, 800), torch.zeros(B, 10), []
        for _ in range(T):
            s, v = cells[0](layers[0](images), v)
            s, w = cells[1](layers[1](s), w)
            out.append(s)
        return finish(torch.stack(out))

    return ours, theirs


def seconds(runs: tuple[Run, Run], repeats: int = 9) -> tuple[float, float]:
    """Median seconds of each, taken in turns after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 2):
        for run, kept in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if repeat >= 2:
                kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def row(case: str, metric: str, value: float, unit: str, goal: str = "", met: bool | None = None) -> dict[str, Any]:
    """One line of the scoreboard."""
    versions = {
        "python": platform.python_version(), "torch": torch.__version__, "numba": numba.__version__,
        "numpy": np.__version__, "snntorch": snn.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip
    return {
        "case": case, "metric": metric, "value": round(value, 4), "unit": unit, "goal": goal, "met": met,
        "command": "python benchmarks/neurons.py", "seed": SEED, "versions": versions,
    }  # fmt: skip


def main() -> int:
    """Measure every case, print it, write the scoreboard's rows."""
    generator = torch.Generator().manual_seed(SEED)
    rows = []
    for case, runs in scan_cases(generator).items():
        mine, theirs = seconds(runs)
        rows += [
            row(case, "forward + backward", mine * 1e3, "ms"),
            row(case, "faster than the snntorch loop", theirs / mine, "x"),
        ]
    mine, theirs = seconds(network_case(generator))
    ratio = theirs / mine
    rows += [
        row("784-800-10", "training step", mine * 1e3, "ms"),
        row("784-800-10", "faster than the snntorch loop", ratio, "x", ">= 5", ratio >= 5),
    ]
    write_json(RESULTS, rows)
    for entry in rows:
        print(f"{entry['case']:<34}{entry['metric']:<34}{entry['value']:>10} {entry['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
