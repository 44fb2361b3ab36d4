"""What the command lines share: options by name, output as text or JSON, a progress bar, errors on one screen."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.errors import NeurokdError

console = Console()

Source = Annotated[Path, typer.Argument(help="Run folder, .nir file or program .npz.", show_default=False)]
SpikesFile = Annotated[
    Path | None, typer.Option("--spikes", help=".npy, or .npz with spikes, labels, steps. Default: the run folder's.")
]
Population = Annotated[
    int | None,
    typer.Option(min=1, help="Output neurons a class (neuron n is of class n // k); default: what the file says."),
]
Steps = Annotated[int | None, typer.Option("--steps", help="Time steps, where the spikes carry no time axis.")]
ChipName = Annotated[str, typer.Option("--chip", help="A chip of `neurokd-deploy chips`, or a .toml file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Count = Annotated[int | None, typer.Option("--samples", min=1, help="Use only the first N samples.")]


def show(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a value as JSON, or as the text made of it."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, default=str))
    else:
        console.print(text(), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(title: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; gives what is called with what is done and how much there is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task(title)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def guarded(command: Callable[[], None]) -> int:
    """Run a command line; typed errors go to stderr as one screen, with ``--json`` to stdout as JSON, and their exit
    code comes back."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        command()
    except NeurokdError as error:
        if debug:
            raise
        if "--json" in sys.argv:
            typer.echo(json.dumps(error.fields(), indent=2))
        else:
            Console(stderr=True).print(error.render(), markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        return 130
    return 0
