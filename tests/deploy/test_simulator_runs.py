"""How runs use the machine: memory used again, plans kept with their programs, threads that end, Ctrl-C."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import reference, simulator
from deploy.errors import SpikesError
from deploy.program import Conv, Dense, Input, Population, Program
from deploy.simulator import advance, canvas, engine
from deploy.simulator import plan as plan_module
from deploy.simulator import threads as simulator_threads
from deploy.simulator.advance import advance_stage
from deploy.simulator.buffers import Workspace, at_rest
from deploy.simulator.engine import Recording
from deploy.simulator.plan import KEPT_BYTES, plan
from deploy.spikes import stimulus
from deploy.testing import random_case
from deploy.trace import Trace


def chain(sizes: tuple[int, ...] = (30, 50, 40, 10)) -> Program:
    rng = np.random.default_rng(0)
    names = ["in", *(f"layer{k}" for k in range(len(sizes) - 1))]
    populations = [
        Population(name, (size,), 4095, 410, 300, rng.integers(-50, 900, size))
        for name, size in zip(names[1:], sizes[1:], strict=True)
    ]
    synapses = [
        Dense(f"w{k}", names[k], names[k + 1], rng.integers(-128, 128, (sizes[k + 1], sizes[k])) * 2)
        for k in range(len(sizes) - 1)
    ]
    return Program(Input("in", (sizes[0],)), tuple(populations), tuple(synapses))


def spikes_for(program: Program, steps: int, samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((steps, samples, *program.input.shape)) < 0.3).astype(np.uint8)


def require_same(got: Trace, expected: Trace) -> None:
    for name in expected.spikes:
        np.testing.assert_array_equal(got.spikes[name], expected.spikes[name], name)
        np.testing.assert_array_equal(got.v[name], expected.v[name], name)
        np.testing.assert_array_equal(got.counters[name].synops, expected.counters[name].synops, name)
        np.testing.assert_array_equal(got.counters[name].active, expected.counters[name].active, name)
    np.testing.assert_array_equal(got.counts, expected.counts)
    np.testing.assert_array_equal(got.input_events, expected.input_events)


def run(program: Program, spikes: np.ndarray, **options: object) -> Trace:
    return simulator.run(program, spikes, record="all", record_state="all", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [1, 3])
def test_chunks_and_pieces_of_every_size_give_the_same(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is used again from piece to piece, chunk to chunk and run to run: nothing of before may show through."""
    monkeypatch.setattr(engine, "LARGEST_CHUNK", limit)
    monkeypatch.setattr(advance, "SUMS_BYTES", 4 * 50 * limit)
    for seed in range(120):
        case = random_case(seed)
        expected = reference.run(case.program, case.spikes, steps=case.given_steps)
        for threads in (1, 2):
            require_same(run(case.program, case.spikes, steps=case.given_steps, threads=threads), expected)


def test_convolutions_by_fields_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strides, paddings, dilations, groups, delays, several sources: gathered wherever that can be."""
    monkeypatch.setattr(canvas, "AN_OUTPUT", 0)
    made: list[canvas.Fields] = []

    def spy(*arguments: Any, **options: Any) -> canvas.Fields:
        made.append(canvas.fields(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(plan_module, "fields", spy)
    for seed in range(300, 700):
        case = random_case(seed)
        if any(isinstance(synapse, Conv) for synapse in case.program.synapses):
            expected = reference.run(case.program, case.spikes, steps=case.given_steps)
            require_same(run(case.program, case.spikes, steps=case.given_steps), expected)
    assert sum(found.least == 1 for found in made) > 40


def test_a_run_leaves_nothing_behind_for_the_next() -> None:
    program = chain()
    busy, quiet = spikes_for(program, 20, 9), np.zeros((7, 3, 30), np.uint8)
    before = run(program, quiet)
    for _ in range(3):
        run(program, busy)
        require_same(run(program, quiet), before)
    require_same(before, reference.run(program, quiet))


def test_waves_over_layers_and_time_give_what_one_thread_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample on several threads, whatever the program: skips, delays, held input, graded input."""
    monkeypatch.setattr(engine, "WORTH_THREADS", 0)
    for seed in range(200):
        case = random_case(seed)
        one = case.spikes[:, :1] if case.given_steps is None else case.spikes[:1]
        expected = run(case.program, one, steps=case.given_steps, threads=1)
        for threads in (2, 5):
            require_same(run(case.program, one, steps=case.given_steps, threads=threads), expected)


def test_a_large_sample_does_run_in_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def spy(*arguments: object) -> None:
        seen.add(threading.get_ident())
        advance_stage(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(simulator_threads, "advance_stage", spy)
    program = chain((30, 9000, 40, 9000, 10))
    require_same(
        run(program, spikes_for(program, 80, 1), threads=2), run(program, spikes_for(program, 80, 1), threads=1)
    )
    assert seen, "the waves call it; which thread gets how much is the machine's affair"


@pytest.mark.parametrize(("samples", "threads"), [(1, 1), (1, 2), (5, 2), (64, 2), (129, 2), (512, 3)])
def test_chunks_cover_the_samples_and_are_even(samples: int, threads: int) -> None:
    program = chain()
    job = engine._job(program, stimulus(program, spikes_for(program, 3, samples)), Recording(frozenset(), frozenset()))
    sizes = [part.stop - part.start for part in engine._chunks(job, threads)]
    assert sum(sizes) == samples
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) % threads == 0 or len(sizes) == samples


def test_the_error_that_ended_a_run_is_told_not_that_it_was_ended() -> None:
    stop, reached = threading.Event(), threading.Barrier(2, timeout=5)
    caller = threading.get_ident()

    def work() -> int:
        reached.wait()
        if threading.get_ident() != caller:
            raise MemoryError("no room")
        stop.wait(5)
        raise CancelledError

    with pytest.raises(MemoryError, match="no room"):
        list(simulator_threads.together([work, work], 2, stop))


def test_a_plan_is_made_once_and_goes_with_its_program() -> None:
    program = chain()
    prepared = plan(program)
    assert plan(program) is prepared
    watched = weakref.ref(program)
    run(program, spikes_for(program, 3, 2))
    del program
    gc.collect()
    assert watched() is None


def test_large_workspaces_are_not_kept() -> None:
    prepared = plan(chain())
    kept, large = Workspace(), Workspace()
    large.take("spikes", "x", (KEPT_BYTES + 1,), np.uint8)
    prepared.give_back(kept)
    prepared.give_back(large)
    assert prepared.borrow() is kept
    assert prepared.borrow() is not large


def test_work_that_was_ended_stops_before_its_next_piece() -> None:
    program = chain()
    buffers = at_rest(program, Workspace(), np.zeros((2, 4, 30), np.uint8), 4)
    buffers.stop.set()
    with pytest.raises(CancelledError):
        advance_stage(plan(program).stages[0], buffers, 0, 4)
    with pytest.raises(CancelledError):
        simulator_threads.advance_in_waves(plan(program), buffers, 4, 2)


def test_an_error_on_a_thread_comes_out_and_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(job: object, part: slice, threads: int) -> int:
        raise MemoryError("no room")

    monkeypatch.setattr(engine, "_run_chunk", broken)
    before = threading.active_count()
    with pytest.raises(MemoryError, match="no room"):
        simulator.run(chain(), spikes_for(chain(), 3, 300), threads=2)
    assert threading.active_count() == before


def test_an_error_of_the_progress_bar_ends_the_run() -> None:
    def broken(done: int, of: int) -> None:
        raise OSError("terminal gone")

    before = threading.active_count()
    with pytest.raises(OSError, match="terminal gone"):
        simulator.run(chain(), spikes_for(chain(), 3, 300), threads=2, progress=broken)
    assert threading.active_count() == before


def test_a_session_refuses_another_number_of_samples() -> None:
    session = simulator.open(chain(), batch=2)
    with pytest.raises(SpikesError, match="another number of samples"):
        session.step(np.zeros((3, 30), np.uint8))
    with pytest.raises(SpikesError, match="another number of samples"):
        session.step(np.zeros(30, np.uint8))
    with pytest.raises(SpikesError, match="out of range"):
        session.step(np.full((2, 30), 2, np.uint8))


def test_sessions_take_any_integers_and_images() -> None:
    rng = np.random.default_rng(0)
    conv = Conv("c", "in", "out", rng.integers(-128, 128, (4, 3, 3, 3)) * 2)
    out = Population("out", (4, 4, 3), 4095, 410, 300, np.zeros(48, int))
    program = Program(Input("in", (3, 6, 5), 4), (out,), (conv,))
    spikes = rng.integers(0, 16, (9, 2, 3, 6, 5))
    whole = simulator.run(program, spikes)
    for dtype in (np.uint8, np.int64):
        session = simulator.open(program, batch=2)
        np.testing.assert_array_equal(np.stack([session.step(f.astype(dtype)) for f in spikes]), whole.sat)


INTERRUPTED = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born with SIGINT ignored
import numpy as np
from deploy import simulator
from deploy.program import Dense, Input, Population, Program

size, samples, threads = (int(text) for text in sys.argv[1:])
weights = np.full((size, size), 2)
layer = Population("layer", (size,), 4095, 410, 900, np.zeros(size, int))
program = Program(Input("in", (size,)), (layer,), (Dense("w", "in", "layer", weights),))
simulator.run(program, np.ones((1, 1, size), np.uint8))
spikes = np.broadcast_to(np.ones(size, np.uint8), (2, samples, size))
print("ready", flush=True)
try:
    while True:
        simulator.run(program, spikes, threads=threads)
except KeyboardInterrupt:
    print("interrupted", threading.active_count(), flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize(("size", "samples", "threads"), [(1500, 20_000, 2), (1500, 20_000, 1), (1500, 1, 2)])
def test_ctrl_c_ends_a_run_within_a_second_and_leaves_no_thread(size: int, samples: int, threads: int) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(size), str(samples), str(threads)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.7)
        started = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted 1\n"
        assert time.monotonic() - started < 1
        assert child.wait(5) == 0
    finally:
        child.kill()
        child.wait()
