"""Threads of a run: over samples, or, where there are too few of those, over layers and stretches of time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Final

from deploy.simulator.advance import advance_stage
from deploy.simulator.buffers import Buffers
from deploy.simulator.plan import Plan

WAKE_SECONDS: Final = 0.2  # how long a waiting thread sleeps before it looks whether the run was ended


def together(calls: Sequence[Callable[[], int]], threads: int, stop: threading.Event) -> Iterator[int]:
    """Make the calls on this thread and ``threads - 1`` others; yields what each of this thread's returned, and last
    the sum of all others'.

    This thread works too, with its caches as they are: on two cores, starting and waking two others cost as much as a
    28x28 convolutional network on 10 samples. Whatever is raised, here or there (Ctrl-C too), sets ``stop`` and leaves
    when every thread has ended.

    Raises:
        CancelledError: ``stop`` was set by others before all calls were made.
    """
    left, done, raised = deque(calls), list[int](), list[BaseException]()

    def help_out() -> None:
        try:
            done.extend(_taken(left, stop))
        except BaseException as error:  # noqa: BLE001 - raised again below
            raised.append(error)
            stop.set()

    helpers = list[threading.Thread]()
    try:
        for _ in range(min(threads, len(calls)) - 1):
            helper = threading.Thread(target=help_out, daemon=True)
            helper.start()
            helpers.append(helper)
        yield from _taken(left, stop)
    except CancelledError as error:  # where another thread's error set ``stop``, that one is told
        raised.append(error)
    except BaseException:
        stop.set()
        raise
    finally:
        for helper in helpers:
            helper.join()
    if raised:
        raise raised[0]
    if left:
        raise CancelledError
    yield sum(done)


def _taken(left: deque[Callable[[], int]], stop: threading.Event) -> Iterator[int]:
    """Makes calls until none is left or the run was ended."""
    while not stop.is_set():
        try:
            call = left.popleft()
        except IndexError:
            return
        yield call()


class _Wave:
    """Which layer may run which window of steps: its windows in order, each after its sources have run it."""

    def __init__(self, prepared: Plan, windows: int) -> None:
        place = {stage.population.name: k for k, stage in enumerate(prepared.stages)}
        self._sources = [[place[b.source] for b in s.blocks if b.source in place] for s in prepared.stages]
        self._done = [0] * len(prepared.stages)
        self._free = [True] * len(prepared.stages)
        self._windows = windows
        self._first = 0  # every stage before it has run all windows
        self._changed = threading.Condition()

    def take(self, stop: threading.Event) -> tuple[int, int] | None:
        """The next (stage, window) that may run, waiting for it; None when all are taken.

        Raises:
            CancelledError: ``stop`` was set meanwhile.
        """
        with self._changed:
            while True:
                if stop.is_set():
                    raise CancelledError
                stage = self._ready()
                if stage is not None:
                    self._free[stage] = False
                    return stage, self._done[stage]
                if self._first == len(self._done):
                    return None
                self._changed.wait(WAKE_SECONDS)

    def _ready(self) -> int | None:
        for stage in range(self._first, len(self._done)):
            window = self._done[stage]
            waiting = not self._free[stage] or window == self._windows
            if not waiting and all(self._done[source] > window for source in self._sources[stage]):
                return stage
        return None

    def finish(self, stage: int) -> None:
        """A stage has run its window."""
        with self._changed:
            self._done[stage] += 1
            self._free[stage] = True
            while self._first < len(self._done) and self._done[self._first] == self._windows:
                self._first += 1
            self._changed.notify_all()


def advance_in_waves(prepared: Plan, buffers: Buffers, steps: int, threads: int) -> None:
    """Run every population over all steps on several threads: one computes a layer's later steps, the next the layer
    after it for the earlier ones. For programs without cycles; the results are those of :func:`advance`.

    Raises:
        CancelledError: ``buffers.stop`` was set meanwhile.
    """
    length = -(-steps // threads)
    windows = -(-steps // length)
    wave = _Wave(prepared, windows)

    def work() -> int:
        own = replace(buffers, workspace=prepared.borrow())
        while (task := wave.take(buffers.stop)) is not None:
            stage, window = task
            first = window * length
            advance_stage(prepared.stages[stage], own, first, min(length, steps - first))
            wave.finish(stage)
        prepared.give_back(own.workspace)
        return 0

    for _ in together([work] * threads, threads, buffers.stop):
        pass
