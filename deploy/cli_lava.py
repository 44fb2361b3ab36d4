"""``neurokd-deploy lava`` and ``netx``: Lava into this environment, lava-dl's files in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli_options import AsJson, ChipName, Population, Source, Steps, show

lava = typer.Typer(no_args_is_help=True, help="Lava, the oracle: install it into this environment.")
netx = typer.Typer(no_args_is_help=True, help="lava-dl's netx files (HDF5): write them, read them.")


@netx.command("write")
def netx_write(
    source: Source,
    out: Annotated[Path, typer.Argument(help="The .net file to write.", show_default=False)],
    chip: ChipName = "loihi2",
    round_biases: Annotated[
        bool, typer.Option("--round-biases", help="Move biases to multiples of 64, the finest netx holds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write what lava-dl's netx.hdf5.Network loads; refuse, with every reason, what it cannot hold exactly."""
    from deploy.loihi import netx as files
    from deploy.runfolder import program_of

    program = program_of(source, chip)
    written = files.round_biases(program) if round_biases else program
    files.write(written, out)
    told = files.arguments(written, written.steps)
    moved = files.biases_moved(program, written)
    facts = {"file": str(out), "arguments": told, "biases_rounded": bool(moved), "biases_moved": moved}
    call = ", ".join([repr(str(out)), *(f"{name}={value}" for name, value in told.items())])
    lines = [f"{name}: {m['moved']} of {m['of']} biases moved by up to {m['by_up_to']}" for name, m in moved.items()]
    lines += ["biases were rounded: this is another network; compare them on the simulator"] if moved else []
    lines += ["no bias had to be rounded"] if round_biases and not moved else []
    note = "".join(f"\n{line}" for line in lines)
    show(facts, as_json, lambda: f"wrote {out}\nnetx.hdf5.Network({call}){note}")


@netx.command("read")
def netx_read(
    file: Annotated[Path, typer.Argument(help="A .net file of lava-dl.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The program .npz to write.", show_default=False)],
    input_bits: Annotated[int, typer.Option(min=1, max=8, help="Bits of graded input; the file does not say.")] = 1,
    population: Population = None,
    steps: Steps = None,
    as_json: AsJson = False,
) -> None:
    """Read a netx file as a program that every other command takes."""
    from deploy.loihi import netx as files

    program = files.read(file, input_bits=input_bits, steps=steps, population=population)
    program.save(out)
    layers = [{"name": p.name, "shape": list(p.shape)} for p in program.populations]
    show(
        {"program": str(out), "input": list(program.input.shape), "layers": layers},
        as_json,
        lambda: f"wrote {out}: {', '.join(f'{p.name} {p.shape}' for p in program.populations)}",
    )


@lava.command("install")
def lava_install(as_json: AsJson = False) -> None:
    """Put lava-nc 0.10.0 and lava-dl 0.6.0 into this environment, on any Python from 3.10 to 3.13."""
    from deploy.loihi.install import install

    result = install()
    show(result.to_json(), as_json, lambda: str(result))
