"""``neurokd``: thin commands over the pipeline's stages. Errors fit one screen; ``--debug`` adds the traceback."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.cli_options import guarded
from deploy.errors import ConfigError
from neurokd.cli_options import Data, Device, File, Out, Root, Seed, Set, grid_config, grouped, make_config, parsed

if TYPE_CHECKING:
    from neurokd.config import Config
    from neurokd.pipeline import Run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, distil and quantize spiking networks and export them for a Loihi-class chip. Every command works on a "
    "run folder (--out) and goes on where an earlier one stopped. The chip side is `neurokd-deploy`. "
    "--debug shows tracebacks.",
)
console = Console()


def _stages(config: Config, work: Callable[[Run], Any]) -> Any:
    from neurokd.bars import Bars
    from neurokd.pipeline import Run

    quiet = grouped() and os.environ["RANK"] != "0"
    with Bars(Console(stderr=True, quiet=quiet)) as bars:
        return work(Run(config, bars))


def _tell(facts: dict[str, Any], *keys: str) -> None:
    for key in keys:
        if key in facts:
            value = facts[key]
            console.print(f"{key:<12}{value:.2f}" if isinstance(value, float) else f"{key:<12}{value}", highlight=False)


@app.command()
def demo(
    data: Data = "digits",
    data_root: Root = None,
    out: Out = None,
    seed: Seed = 0,
    config: File = None,
    change: Set = None,
    without_lava: Annotated[bool, typer.Option("--without-lava", help="Leave the replay through Lava out.")] = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Also write TensorBoard events into this folder.")] = None,
    device: Device = "auto",
) -> None:
    """The whole chain: teacher, assistant, student, chip integers, NIR, simulator, Lava, proof of equality, report."""
    from neurokd.bars import Bars
    from neurokd.demo import demo as run_all

    made = make_config(data, data_root, out, seed, config, change)
    with Bars(Console(stderr=True)) as bars, _board(tensorboard, bars) as told:
        summary = run_all(made, progress=told, with_lava=not without_lava)
        if told is not bars:
            from neurokd.live import rasters_of

            rasters_of(told, made.out)
    console.print(summary_table(summary))
    console.print(f"report  {Path(made.out) / 'report.html'}", highlight=False, soft_wrap=True)


def _board(folder: Path | None, bars: Any) -> Any:
    """The progress callback: bars alone, or TensorBoard in front of them."""
    if folder is None:
        return nullcontext(bars)
    from neurokd.live import TensorBoard

    return TensorBoard(folder, bars)


def summary_table(summary: dict[str, Any]) -> Table:
    """The figures of a run as one table."""
    table = Table("what", "figure", "how known", title=f"{summary['title']}, seed {summary['seed']}")
    for stage, value in summary["accuracy"].items():
        table.add_row(f"accuracy, {stage}", f"{value:.2f} %", "test set, read once")
    equality = summary["equality"]
    for name, count in equality["differing_spikes"].items():
        samples = equality["samples_simulated"] if name in ("simulator", "nir") else equality["samples"]
        table.add_row(
            f"differing spikes, {name}", "not run" if count is None else str(count), f"{samples} samples, every layer"
        )
    activity, modelled = summary["activity"], summary["modelled"]
    table.add_row("spikes a sample", f"{activity['spikes_per_sample']:,.1f}", "counted")
    table.add_row("synops a sample", f"{activity['synops_per_sample']:,.0f}", "counted")
    for key, unit, factor in (("energy_per_sample_J", "µJ", 1e6), ("latency_per_sample_s", "µs", 1e6)):
        value = modelled[key]
        shown = "not published" if value is None else f"{value * factor:,.3g} {unit}"
        table.add_row(key.split("_")[0] + " a sample", shown, f"modelled, constants of {modelled['chip']}")
    table.add_row("time", f"{sum(summary['seconds'].values()):,.0f} s", "all stages")
    return table


def tried_table(facts: dict[str, Any]) -> Table:
    """What a search under a budget tried, on validation images; the winner marked."""
    unit, limit = facts["budget"], f"{facts['limit']:.4g}"
    table = Table("way", "accuracy", f"{unit} a sample, of {limit}", "weights", "network", "epochs")
    for one in facts["tried"]:
        cost = f"{one['cost']:.4g}" + ("" if one["fits"] else ", too many")
        epochs = str(one.get("epochs", facts["epochs"]))
        name = f"{one['how']} *" if one["how"] == facts["won"] else one["how"]
        table.add_row(name, f"{one['validation']:.2f} %", cost, f"{one['weights']:,}", one["spec"], epochs)
    return table


@app.command()
def train(
    role: Annotated[str, typer.Argument(help="teacher, student_plain, or all.")] = "all",
    data: Data = "",
    data_root: Root = None,
    out: Out = None,
    seed: Seed = 0,
    config: File = None,
    change: Set = None,
    device: Device = "auto",
) -> None:
    """Train the teacher and the plain student (the baseline) on labels."""
    from neurokd import pipeline

    roles = {"teacher": pipeline.train_teacher, "student_plain": pipeline.train_plain}
    if role not in (*roles, "all"):
        raise ConfigError("no such role to train", where="ROLE", got=role, allowed=", ".join((*roles, "all")))
    made = make_config(data, data_root, out, seed, config, change)
    for name in roles if role == "all" else (role,):
        facts = _stages(made, roles[name])
        console.print(f"{name}: {facts['accuracy']:.2f} % on the test set ({facts['spec']})", highlight=False)


@app.command()
def distill(out: Out = None, data: Data = "", data_root: Root = None, device: Device = "auto") -> None:
    """Distil the assistant and the student on the SAT; trains the teacher first if the run has none."""
    from neurokd import pipeline

    def work(run: Run) -> Any:
        pipeline.train_teacher(run)
        if pipeline.master_of(run) == "assistant":
            pipeline.distil_assistant(run)
        return pipeline.distil_student(run)

    facts = _stages(make_config(data, data_root, out, 0, None, None), work)
    _tell(facts, "accuracy", "validation", "spec", "parameters")


@app.command()
def quantize(
    out: Out = None,
    data: Data = "",
    data_root: Root = None,
    bits: Annotated[int | None, typer.Option("--bits", help="Width of every weight, 2..8.")] = None,
    layer_bits: Annotated[str | None, typer.Option(help="Other widths: dense1=8,dense2=4.")] = None,
    loss: Annotated[str | None, typer.Option(help="none (no fine-tuning), ce, sat, sat-ce, or a loss text.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    learn: Annotated[str | None, typer.Option(help="Also learn: threshold,decays,scale.")] = None,
    synops_budget: Annotated[float | None, typer.Option(help="Share of the synops to keep: 0.5.")] = None,
    energy_budget: Annotated[float | None, typer.Option(help="Share of the modelled energy to keep.")] = None,
    device: Device = "auto",
) -> None:
    """Fine-tune the distilled student on the chip's integers, SAT loss kept on; asked for anew, it is done anew."""
    from neurokd.pipeline import quantize_student, requantize

    made = make_config(data, data_root, out, 0, None, None)
    asked = {
        "weight_bits": bits, "layer_bits": layer_bits, "loss": loss, "epochs": epochs, "learn": learn,
        "synops_budget": synops_budget, "energy_budget": energy_budget,
    }  # fmt: skip
    wanted = made.override({f"quantize.{key}": value for key, value in asked.items() if value is not None})
    wanted.check()
    facts = _stages(made, lambda run: quantize_student(requantize(run, wanted.quantize)))
    _tell(facts, "accuracy", "validation", "weight_bits", "spec", "won")
    if facts.get("tried"):
        console.print(tried_table(facts))


@app.command()
def export(out: Out = None, data: Data = "", data_root: Root = None) -> None:
    """Write student.nir, the encoded test images and the student's own spikes into the run folder."""
    from neurokd.chip_stages import export_student

    made = make_config(data, data_root, out, 0, None, None)
    facts = _stages(made, export_student)
    console.print(f"{Path(made.out) / 'student.nir'}  {facts['bytes']} bytes", highlight=False, soft_wrap=True)
    console.print(f"next: neurokd-deploy check {made.out}", highlight=False, soft_wrap=True)


@app.command()
def reproduce(
    table: Annotated[str, typer.Option(help="1, 2, 3, or all (the rows of ours with labels too).")] = "all",
    data: Annotated[str, typer.Option("--data", help="mnist, fashion-mnist, cifar10, digits, or all three.")] = "all",
    seeds: Annotated[
        int | None, typer.Option(help="Seeds 0 to this minus 1; default 5, of CIFAR-10 3, as the goals ask.")
    ] = None,
    data_root: Root = None,
    work: Annotated[Path, typer.Option(help="Checkpoints and training state.")] = Path("runs/reproduce"),
    out: Annotated[Path, typer.Option("--out", help="One JSON file a cell.")] = Path("benchmarks/results/reproduce"),
    docs: Annotated[Path, typer.Option(help="Where results.md and results.png go.")] = Path("docs"),
    processes: Annotated[int, typer.Option(help="Data sets and seeds at a time; more than 1 shows no bars.")] = 1,
    change: Set = None,
    device: Device = "auto",
) -> None:
    """Train the poster's tables with our networks, cell by cell; interrupted, it goes on. Writes docs/results.md."""
    from functools import partial

    from neurokd import reproduce_page
    from neurokd.bars import Bars
    from neurokd.reproduce import reproduce as in_one_process
    from neurokd.reproduce_processes import Cells, reproduce_in_processes
    from neurokd.reproduce_rows import sets_of

    names, config = sets_of(data), partial(grid_config, parsed(change or []), data_root)
    tell = partial(console.print, highlight=False)
    if processes == 1:
        with Bars(Console(stderr=True)) as bars:
            failed = in_one_process(
                table, data, seeds, make_config=config, work=work, out=out, progress=bars, tell=tell
            )
    else:
        failed = reproduce_in_processes(Cells(table, work, out, config), data, seeds, processes, tell)
    console.print(f"page  {reproduce_page.write(out, names, seeds, docs)}", highlight=False, soft_wrap=True)
    if failed:
        raise failed[0][1]


@app.command("data")
def data_command(
    name: Annotated[str | None, typer.Option("--download", help="Download this set from its official mirrors.")] = None,
    data_root: Root = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the data sets and what is found where; download one with --download."""
    from neurokd.bars import DownloadBars
    from neurokd.data import status
    from neurokd.data.mirrors import download

    if name is not None:
        with DownloadBars(Console(stderr=True)) as bars:
            folder = download(name, data_root, progress=bars)
        console.print(f"{name} is in {folder}", highlight=False, soft_wrap=True)
    found = status(data_root)
    if as_json:
        typer.echo(json.dumps([vars(s) for s in found], indent=2, default=str))
        return
    for s in found:
        official = "official files" if s.official else "not the official files"
        facts = f"{s.train:,} train, {s.test:,} test, {official}" if s.found else "not found"
        console.print(f"{s.name:<14} {s.title}: {facts}", highlight=False, soft_wrap=True)
        for line in [str(file.path) for file in s.files] or [f"looked in {place}" for place in s.looked_in]:
            console.print(f"{'':<14} {line}", style="dim", highlight=False, soft_wrap=True)
        if s.problem:
            console.print(f"{'':<14} {s.problem}", highlight=False, soft_wrap=True)


#: Commands that several processes can do together.
TOGETHER = ("train", "distill", "quantize")


def _together() -> None:
    """The command line in every process torchrun started."""
    from neurokd import parallel

    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    if command not in TOGETHER:
        raise ConfigError(
            "this command is for one process", where="torchrun", got=command, allowed=", ".join(TOGETHER),
            next_step="train with torchrun, then run this command on its --out without",
        )  # fmt: skip
    with parallel.group():
        app()


def main() -> None:
    """Entry point of ``neurokd``."""
    sys.exit(guarded(_together if grouped() else app))


if __name__ == "__main__":
    main()
