"""A Lava worker that stays: importing Lava is paid once, and several workers share samples out among them."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.errors import ConfigError, FileError, WorkerError, WorkerTimeout
from deploy.loihi import process
from deploy.loihi.client import Job, prepare, traces
from deploy.loihi.process import Array
from deploy.loihi.protocol import Request
from deploy.program import Program
from deploy.spikes import stimulus
from deploy.trace import Trace, concatenate

POLL_SECONDS: Final = 0.2


class LavaWorker:
    """A worker process for many runs; use as a context manager, from one thread at a time.

    Each run is a forked child of the worker, so that nothing it leaves behind, breaks or leaks reaches the next one.
    A run that fails leaves the worker in place; one that takes too long, and Ctrl-C, end it with everything it
    started, and the next run starts another. It starts with the first run.

    Args:
        python: The worker's interpreter; see :func:`deploy.loihi.process.interpreter`.
        memory: Bytes of address space each of Lava's processes may take; None: as much as there is.
    """

    def __init__(self, python: str | Path | None = None, *, memory: int | None = None) -> None:
        if memory is not None and memory <= 0:
            raise ConfigError(
                "memory is out of range", where="memory", got=memory, allowed="a number of bytes, or None"
            )
        self.python = process.interpreter(python)
        self.memory = memory
        self._worker: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[Any, Any] | None = None
        self._folder = Path()
        self._pending = b""
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id, and id of the process group, of the worker; None while there is none."""
        return None if self._worker is None else self._worker.pid

    def run(
        self,
        program: Program,
        spikes: npt.ArrayLike,
        *,
        steps: int | None = None,
        record: str | Iterable[str] = "all",
        record_state: str | Iterable[str] = (),
        reset_between_samples: bool = True,
        target: str = "lava",
        timeout: float = 600.0,
    ) -> Trace:
        """As :func:`deploy.loihi.client.run_lava`, arguments, result and errors alike."""
        job = Job(program, spikes, steps, record, record_state, reset_between_samples, target)
        return self.run_jobs([job], timeout=timeout)[0]

    def run_jobs(self, jobs: Sequence[Job], *, timeout: float = 600.0) -> list[Trace]:
        """As :func:`deploy.loihi.client.run_jobs`."""
        prepared = [prepare(job) for job in jobs]
        recordings = self._execute([made for _, made in prepared], timeout)
        return traces(jobs, prepared, recordings, self.python)

    def close(self) -> None:
        """End the worker and everything it started, for good; a second call does nothing."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        end, self._end, self._worker = self._end, None, None
        if end is not None:
            end()

    def __enter__(self) -> LavaWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _execute(self, requests: Sequence[Request], timeout: float) -> list[dict[str, Array]]:
        started = time.monotonic()
        try:
            self._start(timeout)
            files = [self._folder / name for name in ("in.npz", "out.npz", "run.log")]
            try:
                process.write_requests(files[0], requests)
                self._ask(files, started, timeout)
                return process.read_recordings(files[1], files[2], len(requests))
            finally:
                for path in files:
                    path.unlink(missing_ok=True)
        except OSError as error:
            self._stop()
            raise _no_room(error) from error
        except BaseException as error:
            if not isinstance(error, WorkerError) or isinstance(error, WorkerTimeout):
                self._stop()
            raise

    def _start(self, timeout: float) -> None:
        if self._closed:
            raise WorkerError("the Lava worker was closed", where=self.python, next_step="make another LavaWorker")
        if self._worker is not None and self._worker.poll() is None:
            return
        self._stop()
        self._folder = Path(tempfile.mkdtemp(prefix="neurokd-lava-"))
        self._end = weakref.finalize(self, shutil.rmtree, self._folder, True)
        command = [self.python, "-I", str(process.WORKER), "--serve"]
        log = self._folder / "worker.log"
        self._worker = process.start(command, self._folder, log, answers=True)
        self._end.detach()
        self._end = weakref.finalize(self, _end, self._worker, self._folder)
        self._pending = b""
        if self._closed:  # by another thread, meanwhile
            self._stop()
        begun = time.monotonic()
        if self._answer(begun, timeout, log) != "ready":
            raise self._gone(log)

    def _ask(self, files: Sequence[Path], started: float, timeout: float) -> None:
        given, result, log = map(str, files)
        line = json.dumps({"given": given, "result": result, "log": log, "memory": self.memory})
        if self._worker is not None and self._worker.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended: no answer will come
                self._worker.stdin.write(line.encode() + b"\n")
                self._worker.stdin.flush()
        answer = self._answer(started, timeout, files[2])
        if not answer.removeprefix("-").isdigit():
            raise self._gone(files[2])
        if answer != "0":
            raise process.failure(int(answer), self.python, process.last_lines(files[2]))

    def _answer(self, started: float, timeout: float, log: Path) -> str:
        """The worker's next line; empty where it has ended."""
        worker = self._worker
        if worker is None or worker.stdout is None:
            return ""
        stream = worker.stdout.fileno()
        while b"\n" not in self._pending:
            left = started + timeout - time.monotonic()
            if left <= 0:
                raise process.too_long(self.python, time.monotonic() - started, timeout, log)
            ended = worker.poll() is not None
            if select.select([stream], [], [], 0 if ended else min(left, POLL_SECONDS))[0]:
                read = os.read(stream, 4096)
                if not read:
                    return ""
                self._pending += read
            elif ended:
                return ""
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace").strip()

    def _gone(self, log: Path) -> Exception:
        """The error of a worker that ended by itself, or was killed; it is closed."""
        code = None
        with suppress(subprocess.TimeoutExpired):
            code = None if self._worker is None else self._worker.wait(POLL_SECONDS)
        lines = process.last_lines(log) or process.last_lines(self._folder / "worker.log")
        self._stop()
        return process.failure(process.EXIT_SILENT if code is None else code, self.python, lines)


def _end(worker: subprocess.Popen[bytes], folder: Path) -> None:
    process.end_group(worker)
    shutil.rmtree(folder, ignore_errors=True)


def _no_room(error: OSError) -> FileError:
    return FileError(
        "the temporary folder for the Lava worker cannot be written",
        where=error.filename or tempfile.gettempdir(),
        got=error.strerror or str(error),
        allowed="a writable folder with free space",
        next_step="free some space there, or point TMPDIR at another folder",
    )


def run_parallel(
    program: Program,
    spikes: npt.ArrayLike,
    *,
    workers: int = 2,
    steps: int | None = None,
    record: str | Iterable[str] = "all",
    record_state: str | Iterable[str] = (),
    timeout: float = 600.0,
    python: str | Path | None = None,
    memory: int | None = None,
) -> Trace:
    """Run a program on Lava with its samples shared out among several workers; each sample starts from rest.

    Args:
        workers: Worker processes at a time; as many as the machine has cores is a good number.
        memory: As for :class:`LavaWorker`; the rest as :func:`deploy.loihi.client.run_lava`.

    Raises:
        ConfigError: ``workers`` below 1.
        As :func:`deploy.loihi.client.run_lava`; where one worker fails, all end.
    """
    if workers < 1:
        raise ConfigError("the number of workers is out of range", where="workers", got=workers, allowed="1 or more")
    given = stimulus(program, spikes, steps)
    values = np.asarray(spikes)
    axis = values.ndim - len(program.input.shape) - 1
    shares = [part for part in np.array_split(values, min(workers, given.samples), axis=axis) if part.shape[axis]]
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(len(shares)))
        running = [stack.enter_context(LavaWorker(python, memory=memory)) for _ in shares]
        futures = [
            pool.submit(
                worker.run, program, part, steps=steps, record=record, record_state=record_state, timeout=timeout
            )
            for worker, part in zip(running, shares, strict=True)
        ]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
        return concatenate([future.result() for future in futures])
