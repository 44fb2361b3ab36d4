"""Write docs/loihi.md from benchmarks/results/{lava,netx}.json: ``python -m benchmarks.loihi_page [--check]``."""
# ruff: noqa: E501 - lines of Markdown

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import rows
from deploy.files import atomic_path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "loihi.md"
Rows = list[dict[str, Any]]

TEXT = """\
# Roads to Loihi

<!-- Written by `python -m benchmarks.loihi_page` from benchmarks/results/lava.json and netx.json. Edit the script, not this file. -->

One Program, five executions that must give the same spikes. The first four are tested to; the board could not be.

| | command | in Python | what runs |
|---|---|---|---|
| simulator | `neurokd-deploy run SOURCE` | `deploy.run(program, spikes)` | numba, bit-exact |
| Lava | `--target lava` | `deploy.loihi.run_lava`, `LavaWorker`, `run_parallel` | Lava's `fixed_pt` CPU models, in a worker process |
| your own Lava script | | `deploy.loihi.to_lava(program, steps)` | the same processes, in your interpreter |
| netx | `--target netx`, `neurokd-deploy netx write` | `deploy.loihi.netx` | lava-dl's own loader on Lava |
| a Loihi 2 board | `--target loihi2` | `run_lava(..., target="loihi2")` | the same processes under `Loihi2HwCfg` |

`neurokd-deploy lava install` puts lava-nc 0.10.0 on Python 3.10 to 3.13; `neurokd-deploy doctor` says what is missing.
`make test-310` runs the chip side on Python 3.10 with lava-nc and numpy as Lava's metadata wants them, without torch.

## The worker

Lava starts operating-system processes, waits for ever when one of them dies, and must not share an interpreter with
torch. So it runs in a worker process of its own session. `run_lava` starts one for a run. A `LavaWorker` imports Lava
once; each run is a forked child of it, so nothing a run leaves behind reaches the next. `run_parallel` shares samples
out among several.

    with LavaWorker(memory=2 * 2**30) as worker:
        for spikes in batches:
            trace = worker.run(program, spikes, timeout=60)

Whatever happens ends in a typed error with Lava's last words: a timeout (`WorkerTimeout`), a kill, a crash, an exception
inside one of Lava's processes, no memory (`WorkerError`), no Lava (`LavaMissing`). Ctrl-C, and the death of the caller,
take the worker's whole process group along. On Linux every process below it also asks the kernel to die with its parent.
Lava's channels and our recordings are anonymous memory inherited by `fork`. What keeps a name for a moment is each of
Lava's semaphores while Python makes it: a kill in just that moment leaves a file `sem.XXXXXX` or `sem.neurokd-PID-XXXXXXXX` in
`/dev/shm` (seen once in about 150 kills). When a worker ends, the first kind is removed if it was made since that worker
started and no process has it open; the second, which is certainly ours, whenever a worker starts or ends.

{many}

{kills}

{cost}

## Your own Lava script

    from deploy import Program
    from deploy.loihi import to_lava

    program = Program.load("program.npz")
    net = to_lava(program, steps=16)         # before importing lava: on Python 3.11 and later it makes Lava importable

    from lava.magma.core.run_conditions import RunSteps
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source

    source, sink = Source(data=frames), Sink(shape=net.s_out.shape, buffer=rows)   # frames [n, rows], (C, H, W) order
    net.connect_input(source.s_out)
    net.s_out.connect(sink.a_in)
    source.run(condition=RunSteps(num_steps=rows), run_cfg=net.run_config())

`net.processes` holds Lava's own `LIFReset`, `Dense`, `Conv` and `Sparse`, named like the layers and synapse blocks, and
connected. They come from the builders the worker uses (`deploy/loihi/processes`), so the two cannot differ. Lava's
synapses take a step each: population P's spikes of step t of sample b are those of Lava step `1 + lag[P] + b * steps + t`
(`net.lag`), and P is cleared when a sample reaches it. A delay or a skip connection passes a process `delay:<synapse>`;
subtract reset, refractory periods and readouts are a process of ours (`LIFVariant`), since no `fixed_pt` model of Lava
has them. `net.s_out` gives output neurons; where several stand for a class, `deploy.trace.by_class(counts,
program.population)` adds them up. Do not import torch in such a script: torch calls inside Lava's processes hang.

## netx files

`netx.write(program, path)` writes the HDF5 file that lava-dl 0.6.0's `netx.hdf5.Network` loads;
`netx.arguments(program, steps)` is what the constructor has to be told besides (`input_message_bits`, `reset_interval`,
`reset_offset=1`: without it the biases integrated while the pipeline fills stay in the membranes). `netx.read(path)`
makes a Program of a file. netx fixes much; what it cannot hold is refused, every reason at once, each at its node:

- a bias finer than 64 (its LIF has bias exponent 6): `netx.round_biases`, `neurokd-deploy netx write --round-biases`,
  moves biases to multiples of 64 and says how many of each layer moved and by how much at most (`netx.biases_moved`);
  that is another network, to be compared on the simulator before it is used;
- subtract reset, refractory periods, readouts;
- anything but a chain of layers: skip connections, several inputs of a layer, feedback over layers. A fully connected
  layer may hear itself one step later (`dense_rec`);
- weights in fractions (a negative `weight_exp` that does not divide out), fully connected matrices off the grid netx
  rescales to, all-zero matrices (netx divides by their maximum), delays on convolutions.

Where several output neurons stand for a class, the file says how many in a dataset of ours beside the layers
(`neurokd/population`), which lava-dl does not look at and `netx.read` takes up; for other files, `--population`.

Sums never change: netx chooses sign mode, weight bits and exponent itself (`optimize_weight_bits`), and the writer takes
only matrices for which that choice is exact. Where spikes wait (delays, loops) netx does not drop those on their way
when a sample ends, so such networks run one sample at a time.

{ours}

The networks of lava-dl's repository (its tests and tutorials), through `netx.read` and the simulator, against the input
and output recorded there: every spike of every recorded layer. PilotNet's recording is in steps of the pipeline (layer
k runs k steps behind the input), and every layer in it is cleared after 17 steps; lava-dl does not say so, it was found
by comparing. Lava-dl's recording of the Oxford network's first layer runs one step behind, tiny.net's begins with an
empty step.

{theirs}

What was refused or only read:

{read}

## A board

`--target loihi2` builds the same processes, puts Intel's adapters (`PyToNxAdapter`, `PyToN3ConvAdapter`,
`NxToPyAdapter`) between the host's and the chip's, and runs them under `Loihi2HwCfg()`. It needs, in the worker's
interpreter (`NEUROKD_LAVA_PYTHON`), Intel's Lava extension for Loihi, which Intel gives to members of INRC, and a board
named as `lava.utils.loihi` does it (`NXSDKHOST`, or `SLURM` with `BOARD` or `PARTITION`, and `LOIHI_GEN`).
`neurokd-deploy doctor` names each of these that is missing; a run without them ends in `LavaMissing` with the same list.

Refused before anything starts, by name: subtract reset, refractory periods, readouts, delay lines (skip connections and
delays), and recording u and v: these are processes and copies of the host's CPU.

**Tested without a board**: the layout with adapters; the refusals; what is said to be missing; and, with stand-ins for
the adapters that have their names and ports, the compilation of all processes under Lava's `Loihi2HwCfg` and a run under
it with the CPU's models, spike for spike equal to the reference. Open lava-nc 0.10.0 cannot select a model under
`Loihi2HwCfg` at all: it names a class (`CLoihiProcessModel`) that only Intel's package defines, so the test defines it.

**Not tested, for want of Intel's package and a board**: the neuro-core models and their compiler; whether they take
`LIFReset`, `Sparse`, convolutions with groups, dilation or graded input; the number of message bits the adapters want;
spike exponents of `PyToN3ConvAdapter`; whether the adapters add a step of delay (if so, every recording is shifted by it);
limits of the chip's input and output in a step; time and energy on the chip.
"""


def table(found: Iterable[dict[str, Any]], value: str = "value") -> str:
    """Case, figure, value and goal of each row."""
    lines = [f"| case | figure | {value} | goal |", "|---|---|---:|---|"]
    return "\n".join([*lines, *(f"| {r['case']} | {r['metric']} | {_value(r)} | {r['goal']} |" for r in found)])


def _value(row: dict[str, Any]) -> str:
    value = row["value"]
    number = f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{number} {row['unit']}".strip()


def page(lava: Rows, netx: Rows) -> str:
    """The page's text."""
    ours = [r for r in netx if "--lava-dl" not in r["command"]]
    theirs = [r for r in netx if "--lava-dl" in r["command"] and r["metric"] != "read"]
    read = [r for r in netx if r["metric"] == "read"]
    return TEXT.format(
        many=table(r for r in lava if " runs, " in r["case"]),
        kills=table(r for r in lava if r["case"].startswith("SIGKILL")),
        cost=table(r for r in lava if " on Lava" in r["case"]),
        ours=table(ours),
        theirs=table(theirs),
        read="\n".join(f"- `{r['case']}`: {str(r['value']).replace(r['case'] + ': ', '')}" for r in read),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write docs/loihi.md, or with ``--check`` say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    topics = rows.read()
    wanted = page(topics.get("lava", []), topics.get("netx", []))
    if options.check:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted
        print("docs/loihi.md is up to date" if same else "docs/loihi.md is not what the results say")
        return int(not same)
    with atomic_path(PAGE) as temporary:
        temporary.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
