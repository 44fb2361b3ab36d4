"""docs/chips.md from hardware_configs/ and benchmarks/results/chips.json (written by ``benchmarks.energy_page``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.page_parts import REPORT, Cases, Rows, by_case, every_chip, number, table
from deploy.chip import load_chip
from deploy.chip_table import comparison

HEAD: Final = """\
# Chips

<!-- Written by `python -m benchmarks.energy_page` from hardware_configs/ and benchmarks/results/chips.json.
Edit benchmarks/chips_page.py, not this file. -->

The chip files ([hardware_configs](../hardware_configs/README.md) has the format) side by side; every value has its
evidence grade, and `neurokd-deploy chips NAME` prints where each stands. A dash is a value nobody has published.
Energies are not comparable between chips as they stand: TrueNorth's is the whole chip's power divided by its events,
Loihi's the minimum of one bare operation.

**Loihi 2 has no published energy or time per operation**, so its file has none and nothing is derived: the ratios of
Intel's technology brief (synaptic operation 5 times, neuron update 2 times faster than Loihi 1) are speeds of unnamed
operating points, and a range from them would be a guess in figures' clothes.

"""

STUDENTS: Final = """
## The students on every chip, the teacher beside

The networks are the distillation grid's, seed 0 ([results](results.md)): the best distilled student (row `labels-t-s`)
and its teacher, T = 4, eight output neurons a class. Both are in 8-bit integers without fine-tuning. Everything is
measured on the whole test set (10,000 images): accuracy, spikes and synaptic operations are counted in the integer
simulator, a sample.

"""

COSTS: Final = """
Placed by limits. Energy and latency a sample are modelled; a dash: no constants published. In each column the student
stands first, then the teacher. A step lasts as long as its slowest core, so a large network on many cores can be faster
than a small one on few. *Formats that differ* are the chip's design rules that the integers break (they were made for
Loihi 2, with direct encoding): such a network would have to be fine-tuned for that chip first.

"""

PLACING: Final = """
## Placing

`deploy.place(program, chip, chips=1, share=False)`; `neurokd-deploy map RUN --chip loihi1 [--chips 2] [--share]
[--cores] [--picture map.png]`. Layers are cut where a core is full, on to the next chip if more are allowed; the fewest
cores first, then cores change places on the mesh while that saves hops. `--share` puts several small layers on one core
where the file says how many it may hold. Synaptic memory follows nengo-loihi's encodings: a list of synapses for each
source (dense or with indices, whichever is smaller), and for convolutions a list for each pattern of taps, shared by
all sources that have it. What does not fit is refused with the limit that stops it and what would fit. Placing goes by
limits; formats that the chip does not have are named below the table.
"""

AGAIN: Final = """
Again: `python -m benchmarks.chips --grid mnist fashion-mnist cifar10 --data-root DIR`, then `python -m
benchmarks.energy_page`.
"""

NETWORK: Final = (
    ("accuracy in integers", "accuracy, integers", "%"), ("accuracy in float", "float", "%"),
    ("parameters", "parameters", ""), ("spikes a sample", "spikes", ""), ("synops a sample", "synops", ""),
)  # fmt: skip
Pair = tuple[str, str]  # the cases of a student and of its teacher


def chips_page(rows: Rows) -> str:
    """The whole of docs/chips.md."""
    names, cases = every_chip(), by_case(rows)
    side = comparison([load_chip(name) for name in names])
    parts = [HEAD, table(side[0], side[1:]), STUDENTS, networks(cases), COSTS, costs(cases, names)]
    return "".join([*parts, refusals(cases, names), AGAIN, reports(cases), PLACING])


def _networks(cases: Cases) -> list[str]:
    return [case for case in cases if " on " not in case and not case.startswith(REPORT)]


def networks(cases: Cases) -> str:
    """A line for each network: what it is and what it does."""
    lines = []
    for case in _networks(cases):
        found = cases[case]
        shown = [
            f"{found[metric]['value']:.2f} %" if unit and found[metric]["value"] is not None
            else number(found[metric]["value"])
            for metric, _, unit in NETWORK
        ]  # fmt: skip
        lines.append([case, *shown])
    return table(["network", *(title for _, title, _ in NETWORK)], lines)


def _pairs(cases: Cases) -> dict[str, Pair]:
    """Of each data set the student's case and the teacher's."""
    found: dict[str, dict[str, str]] = {}
    for case in _networks(cases):
        data, _, network = case.rpartition(", ")
        found.setdefault(data, {})[network.split()[0]] = case
    return {data: (both["student"], both["teacher"]) for data, both in found.items() if len(both) == 2}


def costs(cases: Cases, names: Sequence[str]) -> str:
    """Each data set on the chips that carry its student or teacher, then what the letters and the asterisk mean."""
    lines, letters, elsewhere = [], dict[str, str](), dict[str, str]()
    for data, pair in _pairs(cases).items():
        for name in names:
            on = [cases.get(f"{case} on {name}", {}) for case in pair]
            if any("cores" in one for one in on):
                shown = [_both(on, what) for what in ("cores", "binding", "energy", "latency")]
                lines.append([data, _marked(name, on, elsewhere), *shown, _times_less(on), _broken(on, letters)])
    head = ["data", "chip", "cores", "binding", "energy", "latency", "energy, teacher : student", "formats that differ"]
    notes = [f"{letter}: {text}" for text, letter in letters.items()]
    notes += [f"\\*: {name} has no cores of its own, and stands as on {other}" for name, other in elsewhere.items()]
    return table(head, lines, right=2) + "\n" + "".join(f"- {note}.\n" for note in notes)


def _marked(name: str, on: Sequence[Mapping[str, Any]], elsewhere: dict[str, str]) -> str:
    placed = next(one["cores"]["versions"]["placed_on"] for one in on if "cores" in one)
    if placed == name:
        return name
    elsewhere[name] = placed
    return f"{name}\\*"


def _both(on: Sequence[Mapping[str, Any]], what: str) -> str:
    """The student's figure and the teacher's; one where they are the same text."""
    student, teacher = (_figure(one, what) for one in on)
    return student if student == teacher else f"{student} / {teacher}"


def _figure(found: Mapping[str, Any], what: str) -> str:
    if "cores" not in found:
        return "—"
    if what == "binding":
        return str(found["cores"]["versions"]["binding"]).replace("_", " ")
    value = found[what]["value"]
    if value is None:
        return "—"
    return f"{value:,.0f}" if what == "cores" else f"{_three(value)} {found[what]['unit']}"


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times_less(on: Sequence[Mapping[str, Any]]) -> str:
    energies = [one["energy"]["value"] if "energy" in one else None for one in on]
    return "—" if None in energies else f"{energies[1] / energies[0]:.1f}"


def _broken(on: Sequence[Mapping[str, Any]], letters: dict[str, str]) -> str:
    """Letters of the broken rules, and of how many rules the chip publishes too little to say."""
    rows = [one["formats that differ"]["versions"] for one in on if "cores" in one]
    texts = dict.fromkeys(text for about in rows for text in about["broken"])
    shown = [letters.setdefault(text, chr(ord("a") + len(letters))) for text in texts]
    unknown = f"; {rows[0]['unknown']} of {rows[0]['rules']} unknown" if rows[0]["unknown"] else ""
    return (", ".join(shown) or "none") + unknown


def refusals(cases: Cases, names: Sequence[str]) -> str:
    """One line for each chip and reason: which networks it does not carry."""
    pairs = _pairs(cases)
    lines = []
    for name in names:
        reasons: dict[tuple[str, str], dict[str, list[str]]] = {}
        for case in (case for pair in pairs.values() for case in pair):
            row = cases.get(f"{case} on {name}", {}).get("does not fit")
            if row:
                about = row["versions"]
                by_got = reasons.setdefault((about["what"], about["next"]), {})
                by_got.setdefault(about["got"], []).append(case.rsplit(" ", 1)[0])
        lines += [_refusal(name, what, after, by_got, 2 * len(pairs)) for (what, after), by_got in reasons.items()]
    return "\nNot carried:\n\n" + "".join(f"- {line}\n" for line in lines)


def _refusal(name: str, what: str, after: str, by_got: Mapping[str, Sequence[str]], every: int) -> str:
    """``**chip**, all: why (got: whose); what would fit``."""
    who = [case for cases in by_got.values() for case in cases]
    whose = "all" if len(who) == every else "; ".join(who)
    found = [got if len(by_got) == 1 else f"{got} ({'; '.join(cases)})" for got, cases in by_got.items()]
    return f"**{name}**, {whose}: {what.removeprefix(name + ' has ')}: {', '.join(found)}; {after}."


def reports(cases: Cases) -> str:
    """Seconds and size of each run's report."""
    lines = [
        [case.removeprefix(REPORT), f"{found['written in']['value']:.2f} s", f"{found['size']['value']:.2f} MB"]
        for case, found in cases.items()
        if case.startswith(REPORT)
    ]
    head = "\nThe report of each run, the whole test set simulated again for it (goals: 10 s, 8 MB):\n\n"
    return head + table(["run", "written in", "size"], lines)
