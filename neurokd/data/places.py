"""Finding a set's files under a root folder, and the errors for what is missing or damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import DataError


@dataclass(frozen=True)
class Place:
    """A folder that may hold a set.

    Attributes:
        folder: The folder.
        wanted: For each file needed, the names it may have there, in order of preference.
    """

    folder: Path
    wanted: dict[str, tuple[str, ...]]

    def present(self) -> dict[str, Path]:
        """The files that are there, by key."""
        found = {}
        for key, names in self.wanted.items():
            path = next((self.folder / name for name in names if _exists(self.folder / name)), None)
            if path is not None:
                found[key] = path
        return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a folder without search permission
        raise unreadable(path, error) from error


def locate(name: str, root: Path, places: Sequence[Place]) -> tuple[Place, dict[str, Path]]:
    """The first place that has every file.

    Raises:
        DataError: no place has any of them, or one has only some.
    """
    present = [(place, place.present()) for place in places]
    for place, files in present:
        if len(files) == len(place.wanted):
            return place, files
    for place, files in present:
        if files:
            raise _incomplete(name, root, place, files)
    raise DataError(
        f"the files of {name} are not there",
        where=root,
        got="nothing in " + ", ".join(str(place.folder) for place in places)
        if root.is_dir()
        else "the folder does not exist",
        allowed=" or ".join(str(place.folder.relative_to(root)) + "/" for place in places) + " below it",
        next_step=f"{download_command(name, root)}; or name the folder that holds it with --data-root",
    )


def _incomplete(name: str, root: Path, place: Place, files: dict[str, Path]) -> DataError:
    missing = [names[0] for key, names in place.wanted.items() if key not in files]
    return DataError(
        f"some files of {name} are missing",
        where=place.folder,
        got=f"{len(files)} of {len(place.wanted)}; missing: {', '.join(missing)}",
        allowed="all of them",
        next_step=download_command(name, root),
    )


def download_command(name: str, root: Path) -> str:
    """The command that fetches the set into ``root``."""
    return f"neurokd data --download {name} --data-root {root}"


def damaged(path: Path, what: str, got: object, allowed: object) -> DataError:
    """The error for a file whose content is not what its format says."""
    return DataError(
        what,
        where=path,
        got=got,
        allowed=allowed,
        next_step="delete or move this file, then fetch the set again with `neurokd data --download NAME`",
    )


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file the system will not let us read."""
    return DataError(
        "the data file cannot be read",
        where=path,
        got=error.strerror or str(error),
        allowed="a readable file",
        next_step="check the file's permissions and the disk",
    )


def check_labels(path: Path, largest: int, classes: int) -> None:
    """Refuse labels beyond the number of classes."""
    if largest >= classes:
        raise damaged(path, "a label is out of range", f"label {largest}", f"0 .. {classes - 1}")
