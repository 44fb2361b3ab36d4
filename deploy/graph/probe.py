"""A helper process that tries files out before they are read here.

The HDF5 library runs into endless loops, and may crash, on damaged files (measured with HDF5 2.0.0: one bit flipped
in a global heap is enough). No check in Python can come before that, so the first reading happens elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from deploy.errors import FileError, GraphError, NeurokdError
from deploy.graph.hdf5 import Limits

_START_SECONDS = 120.0
_READ_SECONDS = 3.0
_BYTES_PER_SECOND = 10 * 2**20  # a tenth of what gzip decompresses on one slow core
_WORKER = Path(__file__).with_name("probe_worker.py")


class Probe:
    """Tries files out in a process of its own; use as a context manager for many files.

    Args:
        max_bytes: As :func:`deploy.graph.read`.
        seconds: Time for one file of a few megabytes; larger ones get more.
    """

    def __init__(self, max_bytes: int = Limits.max_bytes, seconds: float = _READ_SECONDS) -> None:
        self.max_bytes = max_bytes
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""
        self._many = False
        self._ready = False

    def __enter__(self) -> Probe:
        self._many = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):  # what was not sent before it ended is flushed here again
                    stream.close()

    def check(self, path: str | Path) -> None:
        """Read ``path`` elsewhere.

        Raises:
            FileError: missing or not readable.
            GraphError: not HDF5, damaged, refused, or too long or too large to read.
        """
        self._start()
        seconds = self.seconds + _size(Path(path)) / _BYTES_PER_SECOND
        request = {"path": os.path.abspath(path), "max_bytes": self.max_bytes, "seconds": math.ceil(seconds) + 2}
        answer = self._ask(json.dumps(request), seconds)
        if answer is None:
            self.close()
            if self._many:
                self._spawn()  # the next file need not wait for it
            raise _beyond_repair("reading it ends the HDF5 library, or does not end")
        fields = json.loads(answer)
        if fields:
            raise _rebuilt(fields)

    def _spawn(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._pending, self._ready = b"", False
        setup = {"path": [os.path.abspath(entry) for entry in sys.path], "memory": 2 * self.max_bytes + 2**30}
        self._tell(json.dumps(setup))

    def _start(self) -> None:
        if self._process is None:
            self._spawn()
        if not self._ready and self._answer(_START_SECONDS) != "ready":
            self.close()
            raise GraphError(
                "the process that tries files out does not start",
                where=_WORKER.name,
                got=f"no answer from {sys.executable}",
                allowed="a Python that imports deploy, h5py and numpy",
                next_step="run `neurokd-deploy doctor`, or read a file you trust with trusted=True",
            )
        self._ready = True

    def _ask(self, line: str, seconds: float) -> str | None:
        """One line out, one line back; None if the process ends or takes longer."""
        self._tell(line)
        return self._answer(seconds)

    def _tell(self, line: str) -> None:
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):  # it has ended: no answer will come, which is what _answer says
                process.stdin.write(line.encode() + b"\n")
                process.stdin.flush()

    def _answer(self, seconds: float) -> str | None:
        process, deadline = self._process, time.monotonic() + seconds
        if process is None or process.stdout is None:
            return None
        stream = process.stdout.fileno()
        while b"\n" not in self._pending:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(stream, 65536) if ready else b""
            if not data:
                return None
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        return line.decode()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _beyond_repair(got: str) -> GraphError:
    return GraphError(
        "the file is damaged: its HDF5 structure cannot be read",
        got=got,
        allowed="a whole file written by the nir package",
        next_step="copy or export the file again",
    )


def _rebuilt(fields: dict[str, str]) -> NeurokdError:
    kind = FileError if fields["kind"] == "FileError" else GraphError
    return kind(
        fields["what"],
        where=fields.get("where", ""),
        got=fields.get("got", ""),
        allowed=fields.get("allowed", ""),
        next_step=fields.get("next", ""),
    )
