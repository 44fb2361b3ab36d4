# ruff: noqa: E501 - the lines of Markdown tables
"""docs/interop.md from benchmarks/results/interop.json: the matrix of tools, nodes and directions.

python -m benchmarks.interop_page
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.rows import RESULTS
from deploy.files import atomic_path, read_json

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "interop.md"
TOPIC: Final = RESULTS / "interop.json"
Rows = list[Mapping[str, Any]]

HEAD: Final = """\
# NIR between neurokd and other tools

<!-- Written by `python -m benchmarks.interop_page` from benchmarks/results/interop.json. Edit the script, not this file. -->

Every cell was measured: the tool ran in an environment of its own on the same random input, beside neurokd's float
interpretation ([deploy/float_model.py](../deploy/float_model.py)), and every output of every step was compared.

- **exact**: no spike (no number) differs.
- **tolerance**: graded outputs within float32 rounding (the largest difference and the largest value are given), or a
  spike that differs first where a membrane is within 1e-5 of its threshold.
- **differs**: what the tool does with the file is not what the file says; where neurokd knows the tool's way of
  reading (`neurokd-deploy verify --reading TOOL`, `deploy.float_model.run(how=...)`), its result then is given too.
- **refused**: by the tool or by neurokd, with the reason. Nothing is guessed.
"""

READINGS: Final = """\
## What files leave open, and how it is settled

NIR states differential equations. A file of another tool does not say its time step, its reset rule, or how its tool
turns equations into steps. `deploy.graph` takes the first two from the file's metadata (`neurokd` block), recognises
them where the parameters leave no choice, and otherwise asks (`--dt`, `--reset`); the third is a *reading*, forward
Euler unless another is named. What each tool does, found in its sources and confirmed by the tables below:

| | decay | input gain | spikes | loop's bias | reset | says |
|---|---|---|---|---|---|---|
| `euler` (NIR paper, neurokd, snntorch) | 1 - dt/tau | r dt/tau | one, v > threshold | from the first step | zero; snntorch's default: subtract, a step late | nothing, dt = 1e-4 recognised |
| `exact` | exp(-dt/tau) | r (1 - decay) | one, v > threshold | from the first step | | |
| `norse` | 1 - dt/tau | dt/tau (r of LIF ignored; IF: 1) | one, v > threshold | from the second step | to 0; v_reset ignored; starts at v_leak | nothing; 1.1.0 writes tau as dt / tau_mem_inv, so give the square of its dt |
| `spikingjelly` | 1 - dt/tau | r dt/tau | one, v >= threshold | from the second step | v_reset, where v also starts | nothing, dt = 1e-4 recognised |
| `sinabs` | exp(-1/tau) (tau in steps) | 1 | several, v >= threshold | (no loops) | subtract; IF floored at -threshold on import | nothing; give --dt 1 |
| `rockpool` | exp(-dt/tau) | 1 (LIF), decay (CubaLIF, LI) | several, v >= threshold | | subtract | r = tau exp(-dt/tau) / dt, from which neurokd names dt in its question |
| `nengo` (its neurons, put together by hand) | exp(-dt/tau) | r (1 - decay) | one, v > threshold; a Lowpass adds a step | | to 0; v floored at 0 unless min_voltage is set | writes no NIR |
| `lava-dl` (the NIR repository's two scripts) | 1 - dt/tau | r dt/tau | one, v > threshold on a grid of 1/4096 | | to 0 | nothing; `lava_to_nir.py` writes dt = 1e-4 (recognised), decay / 4096, weights and threshold / 64; `nir_to_lava.py` wants r = tau / dt |

A reset one step after the spike (snntorch's `reset_delay=True`, its default) has no place in NIR. neurokd writes it as
`late-subtract` or `late-zero` in its metadata, runs it in floats and in torch, and refuses it for a chip.

Nor does a file say which output neurons stand for which class. neurokd writes `population` where a class has several in a
row (neuron n is of class n // population, the order of snntorch's population codes); without it every neuron is a class.
"""

RENAMED: Final = """\
### The two files that are refused

`extras/*_subgraph.nir` of the NIR paper have inner edges to a node `lif` that is called `lif1`: neither nir 1.0.8 nor
neurokd reads them. `neurokd-deploy check` names every such edge, and the one node that no edge names, which is probably
meant. neurokd does not rename by itself; where you know better than the file, one line does it:

```
python -c "import h5py; h5py.File('FILE.nir', 'r+').move('node/nodes/lif1/nodes/lif1', 'node/nodes/lif1/nodes/lif')"
```

The repository also has each network without the nested graph:
"""

FOOT: Final = """\
Rows "written for it" are the same graph after `deploy.graph.for_tool(graph, "norse")` (or `"snntorch"`), which moves
gains into weights and counts a Flatten's axes from the end, or refuses; what they give is compared with the graph as it
was. neurokd's own exporters count those axes from the end too.

## Found on the way

- snntorch 1.0.0, `reset_delay=False` with subtraction: where a membrane is above twice the threshold the next spike is
  decided after subtracting twice. NIR cannot say that; `neurokd.export` finds and refuses it. It is the likely reason
  (not traced to the spike) why snntorch differs from norse and neurokd on `braille_noDelay_noBias_subtract.nir`.
- snntorch 0.8.1 to 1.0.0: `RSynaptic(reset_delay=False)` fails in its forward, which is what its own importer makes of
  a recurrent CubaLIF; with nirtorch 2.6 the import of any loop fails earlier. Its neurons were therefore run on the
  Braille files with the loop by hand.
- nirtorch's executors (norse, SpikingJelly) feed nothing back at the first step, so a recurrent layer's bias starts one
  step later than in snntorch: 202 of 2100 outputs of `braille_noDelay_bias_zero.nir` depend on it.
- norse imports `Threshold`, `Delay`, `LI`, `CubaLI` and `I`, and sinabs `Linear`, `Threshold`, `Delay`, `I` and `CubaLIF`,
  by leaving them out without a word: "differs" in those rows.
- norse 1.1.0 writes `LIFCell` as a CubaLIF with w_in = 1, but adds its input whole (w_in would be tau_syn / dt): the
  file is another network than the module, so "differs"; neurokd runs what the file says.
- nir 1.0.8 infers wrong shapes for non-square kernels and writes them into Output nodes (SpikingJelly, Conv2d):
  neurokd takes the width that arrives and warns.
- rockpool 3.1.0 cannot import a LIF, not even of its own file: it asks NIR's LIF for `tau_mem` (the field is `tau`).
  With its modules put together from the file's values ("modules by hand") rockpool agrees with neurokd's `rockpool`
  reading.
- lava-dl: `nir_to_lava.py` multiplies an IF's threshold by r instead of dividing it, so that with r = 1 / dt it never
  spikes ("differs" in the IF rows; the CNN has r = 1 and is exact, read with reset zero,
  which is all lava-dl has, not with the subtraction it was made for); it keeps no reset rule, v_reset or bias of a
  convolution. `lava_to_nir.py` fits files of two fully connected layers only, refuses neurons other than CUBA, and
  does not divide convolutions' weights or biases by 64. Its loops fail with nirtorch 0.2.1 and 1.0.
  slayer's blocks shift their output by a step (`delay_shift=True`, their default), which no NIR file says; the row was
  made without.
- nengo, put together by `benchmarks/interop_nengo.py`: convolutions and pooling are `nengo.Convolution` over channels
  first, whose own padding is "same" or "valid" (other padding: a slice of a larger Node; dilation: zeros in the kernel).
  It has no IF and no Threshold that take negative input: both are limits of its LIF (a time constant of 1e10 steps, and
  of 1/30 of one). Far shorter ones make nengo 4.1.0 itself fail at the first spike (`log1p` of less than -1).
- `two_lif_neurons.nir` does not spike with r = 1 and a threshold of 20, `lif_rockpool.nir` not in norse, which ignores
  its r: "exact" says little there.
- Up to nir 1.0.4, which sinabs 3.1.3 pins, files with `v_reset` cannot be read; neurokd leaves the field out where it
  is zero, NIR's default.

## Not run beside

| tool | why |
|---|---|
| nengo's NIR | none was found: nengo 4.1.0 and nengo-loihi's repository import no `nir`, the package index has no `nengo-nir`; the NIR paper used notebooks and scripts (`lif_nengo.ipynb`, `nengo_import.py`, `nir_to_nengo.py`), each for its own network. The rows above are nengo's own objects, put together by the benchmark (no exporter, so no rows of files that nengo wrote) |
| lava-dl's NIR | slayer has none (lava-dl's issue 217 asks for it); the rows above ran the two scripts of the NIR repository (`docs/source/examples/lava`) on slayer from lava-dl's repository, with stand-ins for their imports of Lava and OpenCV. Lava itself is compared on integers by `neurokd-deploy verify` |
| nirtorch | runs other tools' modules; its own test files are in the table of published files |
| spyx, SpiNNaker2, Speck, Xylo hardware | not tried |

## Run it again

```
for each of:   norse==1.1.0 nir==1.0.8      sinabs==3.1.3           spikingjelly==2.0.0 nir==1.0.8
               nengo==4.1.0 nir==1.0.8      rockpool==3.1.0 nir          snntorch==1.0.0 nirtorch==2.6 nir==1.0.8
python3.11 -m venv ENVS/env-NAME && ENVS/env-NAME/bin/pip install torch==2.13.0 nirtorch PACKAGES
git clone https://github.com/OWNER/NAME REPOS/OWNER+NAME      # neuromorphs/NIR, synsense/sinabs, ...
python -m benchmarks.interop --envs ENVS --repos REPOS
```

For lava-dl: `nirtorch==0.2.1 nir==1.0.8 h5py matplotlib`, and a `.pth` file in site-packages that names lava-dl's `src`
folder and a folder with the two scripts. `python -m benchmarks.interop_renamed --repos REPOS` does the renamed files.

NAME is `nengo`, `lava-dl`, `norse`, `sinabs`, `spikingjelly`, `rockpool`, `nirtorch` (for snntorch 1.0.0) and `snntorch-0.9.4`
(`snntorch==0.9.4 nirtorch==1.0 nir==1.0.4`).
"""


def write_page() -> None:
    """Write docs/interop.md whole or not at all."""
    with atomic_path(PAGE) as temporary:
        temporary.write_text(page(read_json(TOPIC)), encoding="utf-8")


def page(rows: Rows) -> str:
    """The page of a list of rows, as benchmarks/results/interop.json holds them."""
    parts = [HEAD, _summary(rows), _versions(rows), READINGS]
    parts.append("## The tools' own files, read and run by neurokd\n\n" + _by_tool(rows, "from"))
    parts.append("## Every node in neurokd's convention, read and run by the tools\n\n" + _matrix(rows))
    parts.append("## Published files\n\n" + _published(rows))
    parts.append(RENAMED + "\n" + _renamed(rows))
    return "\n".join([*parts, FOOT])


def _summary(rows: Rows) -> str:
    """How many cells of each direction are what."""
    lines = [
        "| direction | cells | exact | tolerance | differs | the tool cannot | neurokd refuses |",
        "|---|" + "---:|" * 6,
    ]
    names = {
        "from": "tool's own file, run by neurokd",
        "to": "neurokd's file, run by the tool",
        "published": "published file, run by both",
    }
    words = ("exact", "tolerance", "differs", "the tool", "refused by neurokd")
    for metric, name in names.items():
        values = [str(row["value"]) for row in rows if row["metric"] == metric]
        counts = [sum(value.startswith(word) for value in values) for word in words]
        lines.append(f"| {name} | {len(values)} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join([*lines, ""])


def _versions(rows: Rows) -> str:
    found = {_tool(row): row["versions"] for row in rows if row["metric"] != "renamed"}
    lines = []
    for tool, versions in found.items():
        lines.append(f"- {tool}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return "\n".join([*lines, ""])


def _tool(row: Mapping[str, Any]) -> str:
    return str(row["case"]).split(":", 1)[0]


def _case(row: Mapping[str, Any]) -> str:
    return str(row["case"]).split(":", 1)[1].strip()


def _by_tool(rows: Rows, metric: str) -> str:
    lines = ["| tool | node | result |", "|---|---|---|"]
    chosen = [row for row in rows if row["metric"] == metric]
    return "\n".join([*lines, *(f"| {_tool(row)} | {_case(row)} | {_cell(row)} |" for row in chosen), ""])


def _cell(row: Mapping[str, Any]) -> str:
    text = str(row["value"]).replace("|", "\\|").replace("<", "&lt;")
    head, _, rest = text.partition(":")
    return f"**{head}**:{rest}" if rest else f"**{head}**"


def _matrix(rows: Rows) -> str:
    chosen = {(_tool(row), _case(row)): row for row in rows if row["metric"] == "to"}
    tools, cases = _unique(tool for tool, _ in chosen), _unique(case for _, case in chosen)
    lines = ["| node | " + " | ".join(tools) + " |", "|---|" + "---|" * len(tools)]
    for case in cases:
        lines.append(f"| {case} | " + " | ".join(_short(chosen.get((tool, case))) for tool in tools) + " |")
    reasons = [
        f"| {tool} | {case} | {_cell(row)} |"
        for (tool, case), row in chosen.items()
        if not str(row["value"]).startswith(("exact", "tolerance"))
    ]
    return "\n".join(
        [
            *lines,
            "",
            "What differs or is refused, and why:",
            "",
            "| tool | node | what was seen |",
            "|---|---|---|",
            *reasons,
            "",
        ]
    )


def _short(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    text = str(row["value"])
    if text.startswith("the tool refuses"):
        return "refused"
    word = text.split(":", 1)[0].split()[0].rstrip(";,")
    return f"{word} (its own way: exact)" if word == "differs" and "when neurokd reads it" in text else word


def _published(rows: Rows) -> str:
    lines = ["| file | tool beside | result |", "|---|---|---|"]
    chosen = sorted((row for row in rows if row["metric"] == "published"), key=_case)
    return "\n".join([*lines, *(f"| {_case(row)} | {_tool(row)} | {_cell(row)} |" for row in chosen), ""])


def _renamed(rows: Rows) -> str:
    lines = ["| file, renamed so | beside its sibling, read by neurokd |", "|---|---|"]
    chosen = [row for row in rows if row["metric"] == "renamed"]
    return "\n".join([*lines, *(f"| {_case(row)} | {row['value']} |" for row in chosen), ""])


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    write_page()
