"""What a data set is once read: images, labels, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deploy.errors import DataError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class SourceFile:
    """One file that was read.

    Attributes:
        path: Where it lies (for the embedded digits: the function that gives them).
        size: Bytes on disk.
        md5: Of the content; for a gzipped IDX file of the unpacked content, since gzip headers differ between
            mirrors.
        official: Whether ``md5`` is the one its publishers' file has.
    """

    path: str
    size: int
    md5: str
    official: bool


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one part of a data set.

    Attributes:
        images: uint8 ``[N, C, H, W]``, raw values 0 .. ``Dataset.levels``.
        labels: int64 ``[N]``, 0 .. number of classes - 1.

    Raises:
        DataError: another type or rank, or as many labels as images are not there.
    """

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        _expect("images", self.images, np.dtype(np.uint8), 4)
        _expect("labels", self.labels, np.dtype(np.int64), 1)
        if len(self.images) != len(self.labels):
            raise DataError(
                "images and labels differ in number",
                where="Split",
                got=f"{len(self.images)} images, {len(self.labels)} labels",
                allowed="one label an image",
                next_step="check that both arrays come from the same part of the data set",
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: ArrayLike) -> Split:
        """The samples at ``indices``, in that order, as a new split (copies)."""
        rows = np.asarray(indices, dtype=np.int64)
        return Split(self.images.take(rows, axis=0), self.labels.take(rows))


def _expect(what: str, array: object, dtype: np.dtype[np.generic], rank: int) -> None:
    if isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == rank:
        return
    got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
    raise DataError(
        f"the {what} have the wrong type or rank",
        where="Split",
        got=got,
        allowed=f"a numpy array, {dtype}, {rank} axes",
        next_step="convert the array: images are uint8 [N, C, H, W], labels are int64 [N]",
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, split and ready.

    Attributes:
        name: The name it is asked for by: ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``.
        title: The name to print beside figures. Says so when the files are not the official ones.
        source: The files it was read from.
        classes: Class names, in the order of the labels.
        shape: ``(C, H, W)`` of one image.
        levels: The largest raw pixel value the format holds: 16 for digits, 255 for the others.
        train, validation, test: The parts. Validation is taken from train; test is the official test set, whole.
    """

    name: str
    title: str
    source: tuple[SourceFile, ...]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    levels: int
    train: Split
    validation: Split
    test: Split

    @property
    def official(self) -> bool:
        """Whether every file carries the official checksum."""
        return all(file.official for file in self.source)

    def facts(self) -> dict[str, object]:
        """Plain values for a summary file: title, whether official, sizes of the parts, and the files' md5s."""
        return {
            "name": self.name,
            "title": self.title,
            "official": self.official,
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
            "md5": {file.path.replace("\\", "/").rsplit("/", 1)[-1]: file.md5 for file in self.source},
        }


@dataclass(frozen=True, eq=False)
class RawSet:
    """What a reader hands over: train and test as the files hold them, before any split.

    Attributes:
        train, test: The two official parts.
        source: The files read.
        note: Added to the title in brackets, e.g. ``JPEG copy``; empty for official files.
    """

    train: Split
    test: Split
    source: tuple[SourceFile, ...]
    note: str = ""


NOT_OFFICIAL = "not the official files"


def note_for(source: tuple[SourceFile, ...]) -> str:
    """The title's note: nothing when every checksum is the official one."""
    return "" if all(file.official for file in source) else NOT_OFFICIAL
