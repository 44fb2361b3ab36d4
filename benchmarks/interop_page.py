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

A reset one step after the spike (snntorch's `reset_delay=True`, its default) has no place in NIR. neurokd writes it as
`late-subtract` or `late-zero` in its metadata, runs it in floats and in torch, and refuses it for a chip.

Nor does a file say which output neurons stand for which class. neurokd writes `population` where a class has several in a
row (neuron n is of class n // population, the order of snntorch's population codes); without it every neuron is a class.
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
- The two `extras/*_subgraph.nir` files of the NIR paper have inner edges to a node `lif` that is called `lif1`: neither
  nir 1.0.8 nor neurokd reads them.
- `two_lif_neurons.nir` does not spike with r = 1 and a threshold of 20, `lif_rockpool.nir` not in norse, which ignores
  its r: "exact" says little there.
- Up to nir 1.0.4, which sinabs 3.1.3 pins, files with `v_reset` cannot be read; neurokd leaves the field out where it
  is zero, NIR's default.

## Not run beside

| tool | why |
|---|---|
| nengo | nengo 4.1.0 and nengo-dl 3.6.0 install with torch 2.13.0; the NIR paper ran them by a notebook and a script of its own (`lif_nengo.ipynb`, `nengo_import.py`), which were not tried |
| lava-dl | slayer has no NIR importer (its pull request was never merged); the NIR paper's converter is a script, not a package. Lava itself is compared on integers by `neurokd-deploy verify` |
| nirtorch | runs other tools' modules; its own test files are in the table of published files |
| spyx, SpiNNaker2, Speck, Xylo hardware | not tried |

## Run it again

```
for each of:   norse==1.1.0 nir==1.0.8      sinabs==3.1.3           spikingjelly==2.0.0 nir==1.0.8
               rockpool==3.1.0 nir          snntorch==1.0.0 nirtorch==2.6 nir==1.0.8
python3.11 -m venv ENVS/env-NAME && ENVS/env-NAME/bin/pip install torch==2.13.0 nirtorch PACKAGES
git clone https://github.com/OWNER/NAME REPOS/OWNER+NAME      # neuromorphs/NIR, synsense/sinabs, ...
python -m benchmarks.interop --envs ENVS --repos REPOS
```

NAME is `norse`, `sinabs`, `spikingjelly`, `rockpool`, `nirtorch` (for snntorch 1.0.0) and `snntorch-0.9.4`
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
    found = {_tool(row): row["versions"] for row in rows}
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


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    write_page()
