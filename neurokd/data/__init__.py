"""Data sets in their official file formats, read with numpy only.

``load`` gives a :class:`Dataset`, ``status`` says what is found where, ``download`` fetches from the official
mirrors, ``batches`` walks a split in shuffled minibatches. scikit-learn's 8x8 digits need no download.
"""

from neurokd.data.batches import batches
from neurokd.data.catalog import DEFAULT_ROOT, NAMES, SetStatus, load, status
from neurokd.data.mirrors import REMOTES, Remote, RemoteFile, download
from neurokd.data.types import Dataset, SourceFile, Split

__all__ = [
    "DEFAULT_ROOT",
    "NAMES",
    "REMOTES",
    "Dataset",
    "Remote",
    "RemoteFile",
    "SetStatus",
    "SourceFile",
    "Split",
    "batches",
    "download",
    "load",
    "status",
]
