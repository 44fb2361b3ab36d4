"""Options that commands of ``neurokd`` share, and the configuration they make. torch stays unimported."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.errors import ConfigError

if TYPE_CHECKING:
    from neurokd.config import Config

Data = Annotated[str, typer.Option("--data", help="digits, mnist, fashion-mnist or cifar10.")]
Root = Annotated[Path | None, typer.Option("--data-root", help="Folder with the data files (digits need none).")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder; default runs/<data>.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
File = Annotated[Path | None, typer.Option("--config", help="Start from this config.toml instead of the defaults.")]
Device = Annotated[
    str,
    typer.Option(
        "--device", callback=lambda name: use_device(name), help="auto (a GPU where there is one), cpu or cuda."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value: --set training.student.epochs=5 (repeatable)."),
]


def make_config(
    data: str, root: Path | None, out: Path | None, seed: int, file: Path | None, changes: list[str] | None
) -> Config:
    """The configuration of a command line: the run folder's own if it has one, else defaults, else ``--config``.

    Raises:
        ConfigError: unknown or ill-typed values.
    """
    from neurokd.config import Config

    folder = out or Path(f"runs/{data or 'digits'}")
    kept = folder / "config.toml"
    if kept.is_file() and file is None and not changes and not data:
        config = Config.load(kept)
    else:
        config = Config.load(file) if file is not None else Config.default(data or "digits")
        config = config.override({"seed": seed, **parsed(changes or [])})
    places = {"out": str(out or f"runs/{config.data}")}
    if root is not None:
        places["data_root"] = str(root)
    config = config.override(places)
    if not grouped():
        return config
    from neurokd import parallel

    config = parallel.shared(config)
    return config.override({"out": str(parallel.private_folder(Path(config.out)))})


def grouped() -> bool:
    """Whether torchrun started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def use_device(name: str) -> str:
    """Choose the device; torch is not imported for the choice that is made anyway."""
    if name != "auto" or "neurokd.device" in sys.modules:
        from neurokd import device

        device.use(name)
    return name


def parsed(changes: list[str]) -> dict[str, Any]:
    """``key=value`` texts; values are TOML where they are TOML, else plain text."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    found: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise ConfigError("a change is not KEY=VALUE", where="--set", got=change, allowed="--set encoding.steps=6")
        try:
            found[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = text
    return found


def grid_config(changes: dict[str, Any], data_root: Path | None, name: str, seed: int) -> Config:
    """The configuration of a data set and seed of the grid."""
    from neurokd.config import Config

    made = Config.default(name).override({"seed": seed, **changes})
    return made if data_root is None else made.override({"data_root": str(data_root)})
