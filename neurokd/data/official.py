"""Checksums of the official files, and the names and places they lie under.

IDX checksums are of the unpacked content: gzip headers differ between mirrors, the content does not.
Sources: MNIST and Fashion-MNIST archives and CIFAR-10 pickles as in torchvision's ``datasets/mnist.py`` and
``datasets/cifar.py``; the CIFAR-10 archives as printed on https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

IDX_PARTS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
IDX_NAMES = {part: f"{part}-idx{3 if part.endswith('images') else 1}-ubyte" for part in IDX_PARTS}

IDX_MD5: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels": "a25bea736e30d166cdddb491f175f624",
        "t10k-images": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
IDX_FOLDERS = {
    "mnist": ("mnist", "MNIST/raw"),
    "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw"),
}


@dataclass(frozen=True)
class CifarLayout:
    """One of the two official layouts of CIFAR-10.

    Attributes:
        folder: The folder's official name.
        files: File name -> official md5; five training batches, then the test batch.
    """

    folder: str
    files: dict[str, str]


CIFAR_BINARY = CifarLayout(
    "cifar-10-batches-bin",
    {
        "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
        "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
        "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
        "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
        "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
    },
)
CIFAR_PYTHON = CifarLayout(
    "cifar-10-batches-py",
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)
CIFAR_ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # cifar-10-binary.tar.gz

# images then labels of sklearn.datasets.load_digits() as uint8, C order; scikit-learn 1.9.1
DIGITS_MD5 = "7696c07daa6d85010f8268703ab8b067"


def md5_of(*parts: bytes | bytearray) -> str:
    """md5 of the parts one after the other, as hex; an identity check, not a security measure."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def md5_of_file(path: Path) -> str:
    """md5 of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return _md5_of_stream(stream)


def md5_of_gzip(path: Path, limit: int = 1 << 28) -> str:
    """md5 of what a gzip file unpacks to; empty when it is damaged, no gzip, or unpacks to more than ``limit``."""
    try:
        with gzip.open(path, "rb") as stream:
            return _md5_of_stream(stream, limit)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return ""


def _md5_of_stream(stream: IO[bytes] | gzip.GzipFile, limit: int | None = None) -> str:
    digest, done = hashlib.md5(usedforsecurity=False), 0
    while piece := stream.read(1 << 20):
        digest.update(piece)
        done += len(piece)
        if limit is not None and done > limit:
            return ""
    return digest.hexdigest()
