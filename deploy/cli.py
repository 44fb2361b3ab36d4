"""``neurokd-deploy``: thin commands over public functions. Errors fit one screen; ``--debug`` adds the traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from deploy.cli_lava import lava, netx
from deploy.cli_options import (
    AsJson,
    ChipName,
    Count,
    Population,
    Source,
    SpikesFile,
    Steps,
    bar,
    console,
    guarded,
    show,
)
from deploy.errors import ConfigError

if TYPE_CHECKING:
    from deploy.chip import Chip

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Take a spiking network from a .nir file to a Loihi-class chip: check, run, verify, map, profile, report. "
    "SOURCE is a run folder (made by `neurokd demo`), a .nir file, or a program .npz. --debug shows tracebacks.",
)
app.add_typer(lava, name="lava")
app.add_typer(netx, name="netx")


@app.command()
def check(
    source: Source,
    chip: ChipName = "loihi2",
    dt: Annotated[float | None, typer.Option(help="Time step in seconds, where the file does not say.")] = None,
    reset: Annotated[str | None, typer.Option(help="zero, value or subtract, where the file does not say.")] = None,
    fail_on: Annotated[str, typer.Option(help="Least severity that exits with 6: error, warning or note.")] = "error",
    as_json: AsJson = False,
) -> None:
    """Every finding about a network at once, each at its node: unsupported, lossy, out of range, does not fit."""
    from deploy.check import SEVERITIES
    from deploy.check import check as find_all
    from deploy.runfolder import NIR, find

    if fail_on not in SEVERITIES:
        raise ConfigError("no such severity", where="--fail-on", got=fail_on, allowed=", ".join(SEVERITIES))
    failing = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    findings = find_all(find(source, NIR), chip, dt=dt, reset=reset)
    show(
        [f.as_dict() for f in findings],
        as_json,
        lambda: "\n".join(str(f) for f in findings) or f"nothing found: {source} can go to {chip}",
    )
    raise typer.Exit(6 if any(f.severity in failing for f in findings) else 0)


@app.command()
def run(
    source: Source,
    spikes: SpikesFile = None,
    target: Annotated[str, typer.Option(help="simulator, reference, lava, netx, or loihi2 (a board).")] = "simulator",
    out: Annotated[Path | None, typer.Option(help="Write answers, counters and spikes to this .npz.")] = None,
    chip: ChipName = "loihi2",
    steps: Steps = None,
    samples: Count = None,
    as_json: AsJson = False,
) -> None:
    """Simulate on-chip inference: exact integers, spikes and synops counted, accuracy where labels are known."""
    from deploy.backends import run as run_on
    from deploy.runfolder import program_of, samples_of, save_trace

    program = program_of(source, chip)
    given = samples_of(source, spikes, steps).first(samples, len(program.input.shape))
    with bar(target, as_json) as progress:
        options = {"progress": progress} if target == "simulator" else {}
        trace = run_on(program, given.spikes, target=target, steps=given.steps, **options)
    if out is not None:
        save_trace(out, trace)
    facts: dict[str, Any] = {"target": target, "samples": trace.samples, "steps": trace.steps, "wraps": trace.wraps}
    facts["saturations"] = trace.saturations
    if program.population > 1:
        facts |= {"classes": program.classes, "neurons_per_class": program.population}
    if given.labels is not None:
        facts["accuracy"] = trace.accuracy(given.labels)
    facts["spikes_per_sample"] = sum(int(c.spikes.sum()) for c in trace.counters.values()) / trace.samples
    facts["synops_per_sample"] = sum(int(c.synops.sum()) for c in trace.counters.values()) / trace.samples
    if not trace.counters:
        del facts["spikes_per_sample"], facts["synops_per_sample"], facts["wraps"], facts["saturations"]
    show(facts, as_json, lambda: "\n".join(f"{key:<18}{value}" for key, value in facts.items()))


@app.command()
def verify(
    source: Source,
    spikes: SpikesFile = None,
    against: Annotated[str, typer.Option(help="Comma-separated: reference, simulator, lava, netx.")] = (
        "reference,simulator,lava"
    ),
    samples: Annotated[int, typer.Option(min=1, help="Samples to compare.")] = 32,
    chip: ChipName = "loihi2",
    steps: Steps = None,
    float_file: Annotated[Path | None, typer.Option("--float", help="The float .nir that SOURCE came from.")] = None,
    reading: Annotated[str, typer.Option(help="Of the float file: euler, exact, or the tool that wrote it.")] = "euler",
    dt: Annotated[float | None, typer.Option(help="Time step in seconds, where the float file does not say.")] = None,
    reset: Annotated[str | None, typer.Option(help="zero, value, subtract, late-zero or late-subtract.")] = None,
    input_unit: Annotated[float, typer.Option(help="Float value of one unit of the input.")] = 1.0,
    other_dt: Annotated[float | None, typer.Option(help="Also show the float file at this time step.")] = None,
    population: Population = None,
    picture: Annotated[Path | None, typer.Option(help="Draw where executions part, as PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that every execution gives the same spikes; name the first layer, step and neuron where one does not.

    A float file is quantized first, and what quantization, reset rule and time step change is shown one by one.
    """
    from deploy.verify_file import verify_file

    names = [name.strip() for name in against.split(",") if name.strip()]
    result = verify_file(
        source, spikes, against=names, samples=samples, steps=steps, chip=chip, float_file=float_file, how=reading,
        dt=dt, reset=reset, input_unit=input_unit, other_dt=other_dt, population=population,
    )  # fmt: skip
    show(result.to_json(), as_json, lambda: str(result))
    if picture is not None:
        drawn = result.picture(picture)
        Console(stderr=True).print(f"wrote {picture}: {drawn}", markup=False, highlight=False, soft_wrap=True)
    result.chain.raise_if_different()


@app.command("map")
def map_(
    source: Source,
    chip: ChipName = "loihi2",
    cores: Annotated[bool, typer.Option("--cores", help="One line a core instead of one a layer.")] = False,
    chips: Annotated[int, typer.Option("--chips", min=1, help="Chips it may use.")] = 1,
    share: Annotated[bool, typer.Option("--share", help="Several small layers may share a core.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the chip with the layers on it, as PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put a network on a chip's cores: used and max of every resource, and the one that binds."""
    from deploy import rules
    from deploy.chip import load_chip
    from deploy.place import place
    from deploy.runfolder import program_of

    program, target = program_of(source), load_chip(chip)
    placement = place(program, target, chips=chips, share=share)
    differing = [finding.what for finding in rules.check(program, target) if finding.severity == "error"]
    if picture is not None:
        from deploy.report import chip_picture

        chip_picture(placement.to_json(), picture)
    note = f"\nformats that {target.name} does not have: {'; '.join(dict.fromkeys(differing))}" if differing else ""
    found = {**placement.to_json(), "formats_that_differ": differing}
    show(found, as_json, lambda: placement.table(cores=cores) + note)


@app.command()
def profile(
    source: Source,
    spikes: SpikesFile = None,
    chip: Annotated[str, typer.Option("--chip", help="Chip whose energies and times are used.")] = "loihi1",
    placed_on: Annotated[str | None, typer.Option(help="Chip to place on; default: the same chip.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the profile as one HTML page.")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Also write every figure as CSV.")] = None,
    by_core: Annotated[
        bool, typer.Option("--by-core", help="Count what each core does, from recorded spikes.")
    ] = False,
    steps: Steps = None,
    samples: Count = None,
    as_json: AsJson = False,
) -> None:
    """Count spikes and synops exactly; model energy and latency from the chip's cited constants."""
    from deploy.backends import run as run_on
    from deploy.place import place
    from deploy.profile import profile as count
    from deploy.runfolder import program_of, samples_of

    program = program_of(source)
    given = samples_of(source, spikes, steps).first(samples, len(program.input.shape))
    with bar("simulator", as_json) as progress:
        keep = {"record": "all"} if by_core else {}
        trace = run_on(program, given.spikes, steps=given.steps, progress=progress, **keep)
    placement = place(program, placed_on) if placed_on else None
    result = count(program, trace, chip, placement, spikes=given.spikes if by_core else None)
    if html is not None:
        result.to_html(html)
    if table is not None:
        result.to_csv(table)
    show(result.to_json(), as_json, result.table)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folder; several are compared.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write; default: report.html in the folder, comparison.html for several."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Also write what the report is made from as one JSON file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page from a run folder; what is missing is named, the rest is shown."""
    from deploy.report import compare, export, render

    single = len(folders) == 1
    written = render(folders[0], out) if single else compare(folders, out or Path("comparison.html"))
    if data is not None:
        export(folders[0], data)
    show({"report": str(written)}, as_json, lambda: f"wrote {written}")


@app.command()
def quantize(
    file: Annotated[Path, typer.Argument(help="Float .nir file.", show_default=False)],
    spikes: Annotated[
        Path, typer.Option("--spikes", help="Calibration spikes: .npy, or .npz with spikes, steps.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the quantized .nir goes.", show_default=False)],
    chip: ChipName = "loihi2",
    bits: Annotated[int | None, typer.Option(help="Width of every weight; default: the chip's widest.")] = None,
    layer_bits: Annotated[
        list[str] | None, typer.Option("--layer-bits", help="NODE=BITS: another width for one node (repeatable).")
    ] = None,
    search: Annotated[str, typer.Option(help="How scales are chosen: mse, percentile or max.")] = "mse",
    power_of_two: Annotated[bool, typer.Option("--power-of-two", help="Only scales that are powers of two.")] = False,
    input_unit: Annotated[
        float, typer.Option(help="Float value of one unit of input: 0.00392157 where 8-bit images were 0..1.")
    ] = 1.0,
    population: Population = None,
    steps: Steps = None,
    samples: Count = None,
    dt: Annotated[float | None, typer.Option(help="Time step in seconds, where the file does not say.")] = None,
    reset: Annotated[str | None, typer.Option(help="zero or subtract, where the file does not say.")] = None,
    as_json: AsJson = False,
) -> None:
    """Quantize a float network with calibration spikes, without training; says what each layer loses."""
    from deploy.ptq import quantize_file

    result = quantize_file(
        file, spikes, out, samples=samples, layer_bits=layer_bits or (), chip=chip, bits=bits, search=search,
        power_of_two=power_of_two, input_unit=input_unit, population=population, steps=steps, dt=dt, reset=reset,
    )  # fmt: skip
    show(result.losses.to_json(), as_json, lambda: f"{result.losses.table()}\nwrote {out}")


@app.command()
def chips(
    names: Annotated[list[str] | None, typer.Argument(help="Chips or .toml files; default: a list of all.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the chips; one name shows its every value with its source, several are compared side by side."""
    from deploy.chip import chips as known
    from deploy.chip import load_chip
    from deploy.chip_table import comparison, explanation

    found = [load_chip(name) for name in names or known()]
    if as_json:
        typer.echo(json.dumps([chip.to_json() for chip in found], indent=2))
        return
    if names:
        rows = explanation(found[0]) if len(found) == 1 else comparison(found)
    else:
        rows = [["chip", "title", "cores", "neurons a core", "energy a synop"]]
        rows += [[chip.name, chip.title, *_chip_cells(chip)] for chip in found]
    table = Table(Column(rows[0][0], no_wrap=True), *rows[0][1:])
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)


def _chip_cells(chip: Chip) -> list[str]:
    synop, limits = chip.energy["synop"], chip.limits
    energy = "not published" if synop.value is None else f"{synop.value} {synop.unit} ({synop.grade})"
    return [*(str(limits[key].value or "not published") for key in ("cores", "neurons_per_core")), energy]


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What this machine has and lacks, each with the command that mends it."""
    from deploy.loihi.doctor import doctor as examine
    from deploy.loihi.doctor import render as as_text

    checks = examine()
    show([c.to_json() for c in checks], as_json, lambda: as_text(checks))


def main() -> None:
    """Entry point of ``neurokd-deploy``."""
    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
