"""Real Lava gives what the reference gives, and a worker that misbehaves never leaves anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import reference
from deploy.errors import (
    FileError,
    LavaMissing,
    NeurokdError,
    ProgramError,
    SimulatorError,
    SpikesError,
    WorkerError,
    WorkerTimeout,
)
from deploy.loihi import client, process
from deploy.loihi.client import run_lava, worker_info
from deploy.lower import lower
from deploy.program import Conv, Dense, Input, Population, Program
from deploy.testing import Kinds, random_case
from deploy.trace import Trace
from tests.deploy.graphs import ONE_EACH, populated

Spikes = np.ndarray[Any, Any]


def assert_equal(trace: Trace, expected: Trace) -> None:
    """Spikes, u and v of every population, step, sample and neuron."""
    assert set(trace.spikes) == set(expected.spikes)
    for name in expected.spikes:
        np.testing.assert_array_equal(trace.spikes[name], expected.spikes[name], err_msg=f"spikes of {name}")
        np.testing.assert_array_equal(trace.u[name], expected.u[name], err_msg=f"u of {name}")
        np.testing.assert_array_equal(trace.v[name], expected.v[name], err_msg=f"v of {name}")
    np.testing.assert_array_equal(trace.counts, expected.counts)
    np.testing.assert_array_equal(trace.input_events, expected.input_events)


@pytest.mark.lava
@pytest.mark.usefixtures("lava", "nothing_left")
class TestParity:
    def test_chain_with_state(self, chain: Program, spikes: Spikes) -> None:
        trace = run_lava(chain, spikes, record_state="all")
        assert_equal(trace, reference.run(chain, spikes))
        assert trace.backend == "lava"
        assert trace.program == chain.digest
        assert 0 < trace.sat.mean() < 1

    def test_same_image_every_step_and_one_recording(self, chain: Program, spikes: Spikes) -> None:
        trace = run_lava(chain, spikes[0], steps=9, record="hidden")
        expected = reference.run(chain, spikes[0], steps=9)
        assert set(trace.spikes) == {"hidden"}
        assert trace.u == {}
        np.testing.assert_array_equal(trace.spikes["hidden"], expected.spikes["hidden"])
        np.testing.assert_array_equal(trace.counts, expected.counts)

    @pytest.mark.parametrize("spiking", [True, False])
    def test_classes_of_several_neurons(self, spiking: bool) -> None:
        program = lower(populated(spiking=spiking))
        trace = run_lava(program, ONE_EACH, steps=6)
        assert trace.population == 4
        np.testing.assert_array_equal(trace.scores, reference.run(program, ONE_EACH, steps=6).scores)
        assert trace.predictions().tolist() == [1, 0]

    def test_state_that_carries_over(self, chain: Program, spikes: Spikes) -> None:
        trace = run_lava(chain, spikes, record_state="all", reset_between_samples=False)
        assert_equal(trace, reference.run(chain, spikes, reset_between_samples=False))

    @pytest.mark.parametrize("seed", [28, 36])
    def test_random_programs(self, seed: int) -> None:
        """Conv, skips, recurrence, delays, both resets, graded input; every third one with state that carries over."""
        case = random_case(seed, Kinds(short_loops=False))
        reset = bool(seed % 3)
        trace = run_lava(case.program, case.spikes, steps=case.steps, record_state="all", reset_between_samples=reset)
        expected = reference.run(case.program, case.spikes, steps=case.steps, reset_between_samples=reset)
        assert_equal(trace, expected)


def correlation(image: Spikes, conv: Conv) -> Spikes:
    """torch's Conv2d written out, ``[C, H, W]`` to ``[O, H', W']``."""
    out, per_group, kh, kw = conv.weights.shape
    padded = np.pad(image.astype(np.int64), [(0, 0), *((p, p) for p in conv.padding)])
    result = np.zeros(conv.output_shape(image.shape), np.int64)
    for o, y, x in np.ndindex(*result.shape):
        first = o // (out // conv.groups) * per_group
        rows = y * conv.stride[0] + np.arange(kh) * conv.dilation[0]
        columns = x * conv.stride[1] + np.arange(kw) * conv.dilation[1]
        window = padded[first : first + per_group][:, rows][:, :, columns]
        result[o, y, x] = np.sum(window * conv.weights[o])
    return result << conv.weight_exp if conv.weight_exp > 0 else result >> -conv.weight_exp


def conv_program(convs: list[Conv], image: Input) -> Program:
    """Each Conv into neurons of its own whose current is the synaptic sum of the step, 64 to one."""
    populations = tuple(
        Population(c.target, s, 4095, 4095, 131071, np.zeros(int(np.prod(s)), np.int16))
        for c in convs
        for s in [c.output_shape(image.shape)]
    )
    return Program(image, populations, tuple(convs))


@pytest.mark.lava
@pytest.mark.usefixtures("lava", "nothing_left")
def test_conv_is_torchs_cross_correlation() -> None:
    """Not square in image, kernel, stride, padding and dilation, and no kernel symmetric: axes and flips show."""
    rng = np.random.default_rng(3)

    def kernel(*shape: int) -> Spikes:
        return rng.integers(-60, 61, shape) * 2

    image = Input("in", (4, 6, 9), bits=4)
    convs = [
        Conv("plain", "in", "a", kernel(3, 4, 2, 3)),
        Conv("strided", "in", "b", kernel(2, 4, 3, 2), stride=(2, 3), padding=(1, 2), dilation=(2, 1)),
        Conv("grouped", "in", "c", kernel(4, 2, 3, 3), groups=2, padding=(0, 1)),
        Conv("shifted up", "in", "d", kernel(2, 4, 2, 2), weight_exp=2),
        Conv("shifted down", "in", "e", kernel(2, 4, 3, 2), weight_exp=-3, stride=(1, 2), padding=(2, 0)),
    ]
    frames = rng.integers(0, 16, (2, 2, 4, 6, 9))
    trace = run_lava(conv_program(convs, image), frames, record_state="all")
    for conv in convs:
        for step, sample in np.ndindex(2, 2):
            expected = correlation(frames[step, sample], conv) << 6
            np.testing.assert_array_equal(trace.u[conv.target][step, sample], expected, err_msg=conv.name)


@pytest.mark.lava
@pytest.mark.usefixtures("lava", "nothing_left")
def test_conv_beyond_lavas_int8_fields() -> None:
    """130 groups do not fit the int8 Lava's Conv keeps them in; such a Conv runs as Sparse."""
    rng = np.random.default_rng(4)
    conv = Conv("depthwise", "in", "a", rng.integers(-60, 61, (130, 1, 2, 2)) * 2, groups=130)
    frames = rng.integers(0, 2, (1, 1, 130, 3, 3))
    trace = run_lava(conv_program([conv], Input("in", (130, 3, 3))), frames, record_state="all")
    np.testing.assert_array_equal(trace.u["a"][0, 0], correlation(frames[0, 0], conv) << 6)


class TestWorkersThatMisbehave:
    """Always a typed error; the fixture checks that no process, folder or shared memory is left."""

    pytestmark = pytest.mark.usefixtures("nothing_left")

    def test_hangs_with_a_grandchild(
        self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str], workers: list[int]
    ) -> None:
        python = interpreter("echo still thinking >&2; sleep 600 & sleep 600")
        started = time.monotonic()
        with pytest.raises(WorkerTimeout, match="no result in time") as caught:
            run_lava(chain, spikes, timeout=0.5, python=python)
        assert time.monotonic() - started < 5
        assert "still thinking" in caught.value.got
        assert caught.value.allowed == "0.5 s"

    def test_is_killed(self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str]) -> None:
        python = interpreter("sleep 600 & kill -9 $$")
        with pytest.raises(WorkerError, match="the Lava worker failed") as caught:
            run_lava(chain, spikes, python=python)
        assert "ended by SIGKILL" in caught.value.got

    def test_prints_garbage_and_fails(self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str]) -> None:
        python = interpreter("head -c 300000 /dev/urandom; echo; echo the reason >&2; exit 3")
        with pytest.raises(WorkerError, match="the Lava worker failed") as caught:
            run_lava(chain, spikes, python=python)
        assert "exit code 3" in caught.value.got
        assert "the reason" in caught.value.got
        assert all(line.isprintable() for line in caught.value.render().splitlines())
        assert len(caught.value.got) < process.LOG_BYTES + 100

    @pytest.mark.parametrize("result", ["", "echo no archive > $5", "printf 'PK\\003\\004' > $5"])
    def test_ends_without_a_result(
        self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str], result: str
    ) -> None:
        with pytest.raises(WorkerError, match="without a readable result"):
            run_lava(chain, spikes, python=interpreter(result.replace("$5", "$4")))

    def test_result_without_the_recordings(
        self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str], tmp_path: Path
    ) -> None:
        np.savez(tmp_path / "other.npz", other=np.zeros(3))
        with pytest.raises(WorkerError, match="lacks what was asked for"):
            run_lava(chain, spikes, python=interpreter(f"cp {tmp_path}/other.npz $4"))

    def test_has_no_lava(self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str]) -> None:
        python = interpreter(f'exec {sys.executable} -S "$@"')
        with pytest.raises(LavaMissing, match="cannot be imported") as caught:
            run_lava(chain, spikes, python=python)
        assert "No module named" in caught.value.got
        assert process.INSTALL_COMMAND in caught.value.next_step

    def test_info_is_garbage(self, interpreter: Callable[[str], str]) -> None:
        with pytest.raises(WorkerError, match="did not say what it has"):
            worker_info(interpreter("echo '{' > $4"))


@pytest.mark.lava
@pytest.mark.usefixtures("lava", "nothing_left")
class TestLavaEndsWithIt:
    """The same with Lava's own processes running."""

    def test_timeout(self, chain: Program, spikes: Spikes) -> None:
        with pytest.raises(WorkerTimeout):
            run_lava(chain, spikes[0], steps=100_000, timeout=3)

    def test_one_of_lavas_processes_is_killed(self, chain: Program, spikes: Spikes, workers: list[int]) -> None:
        def kill_a_child() -> None:
            children: list[int] = []
            while not children:
                time.sleep(0.05)
                children = children_of(workers[0]) if workers else []
            time.sleep(1)
            os.kill(children[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_a_child, daemon=True)
        killer.start()
        with pytest.raises(WorkerError, match="the Lava worker failed") as caught:
            run_lava(chain, spikes[0], steps=100_000, timeout=60)
        assert "ended by signal 9" in caught.value.got

    def test_an_exception_in_one_of_lavas_processes(
        self, chain: Program, spikes: Spikes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = client.request

        def broken(*arguments: Any, **options: Any) -> Any:
            made = original(*arguments, **options)
            made.arrays["in.frames"] = made.arrays["in.frames"][:, :-1]
            return made

        monkeypatch.setattr(client, "request", broken)
        with pytest.raises(WorkerError, match="the Lava worker failed") as caught:
            run_lava(chain, spikes, timeout=60)
        assert "Mismatch" in caught.value.got


def children_of(process: int) -> list[int]:
    """Processes whose parent is this one."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


PARENT = textwrap.dedent("""
    import signal, subprocess, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born with SIGINT ignored
    import numpy as np
    from deploy.loihi import client, process
    from deploy.testing import random_case

    class Told(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            print(self.pid, flush=True)

    process.subprocess.Popen = Told
    case = random_case(0)
    client.run_lava(case.program, np.ones((1, *case.program.input.shape), int), steps=100_000)
""")


@pytest.mark.lava
@pytest.mark.usefixtures("lava")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_worker_ends_with_its_parent(how: signal.Signals, gone: Callable[[int], bool], tmp_path: Path) -> None:
    """Killed or interrupted, the parent takes Lava's processes with it."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    try:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        deadline = time.monotonic() + 30
        while len(children_of(worker)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(children_of(worker)) >= 3
        parent.send_signal(how)
        parent.wait(20)
        assert gone(worker)
    finally:
        parent.kill()
        parent.wait()
        if parent.stdout:
            parent.stdout.close()


class TestRefusals:
    """What is refused before any process starts."""

    def test_interpreter_that_is_not_there(self, chain: Program, spikes: Spikes) -> None:
        with pytest.raises(LavaMissing, match="cannot be started") as caught:
            run_lava(chain, spikes, python="/no/such/python")
        assert caught.value.where == "/no/such/python"

    def test_interpreter_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(process.INTERPRETER_VARIABLE, "/some/python")
        assert process.interpreter() == "/some/python"
        assert process.interpreter("/another") == "/another"
        monkeypatch.delenv(process.INTERPRETER_VARIABLE)
        assert process.interpreter() == sys.executable

    def test_temporary_folder_that_is_not_there(
        self, chain: Program, spikes: Spikes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process.tempfile, "tempdir", "/no/such/folder")
        with pytest.raises(FileError, match="temporary folder") as caught:
            run_lava(chain, spikes)
        assert "/no/such/folder" in caught.value.where

    def test_full_disk(self, chain: Program, spikes: Spikes, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*arguments: Any, **options: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(process.np, "savez", full)
        with pytest.raises(FileError, match="temporary folder") as caught:
            run_lava(chain, spikes)
        assert caught.value.got == "No space left on device"

    @pytest.mark.parametrize("option", ["record", "record_state"])
    def test_unknown_population(self, chain: Program, spikes: Spikes, option: str) -> None:
        with pytest.raises(SimulatorError, match="no such population"):
            run_lava(chain, spikes, **{option: "nobody"})

    def test_spikes_that_do_not_fit(self, chain: Program, spikes: Spikes) -> None:
        with pytest.raises(SpikesError, match="wrong shape"):
            run_lava(chain, spikes[:, :, :3])

    def test_loop_too_short_for_the_pipeline(self, spikes: Spikes) -> None:
        """a -> b -> a with one step of delay in all: Lava would need two."""
        neurons = [Population(name, (12,), 4095, 0, 10, np.zeros(12, np.int16)) for name in "ab"]
        weights = np.eye(12, dtype=np.int16) * 2
        synapses = (
            Dense("s0", "in", "a", weights),
            Dense("s1", "a", "b", weights),
            Dense("s2", "b", "a", weights, delay=1),
        )
        with pytest.raises(ProgramError, match="too short for Lava") as caught:
            run_lava(Program(Input("in", (12,)), tuple(neurons), synapses), spikes)
        assert "run on the simulator" in caught.value.next_step

    def test_every_refusal_is_typed(self) -> None:
        for kind in (LavaMissing, WorkerError, WorkerTimeout, FileError):
            assert issubclass(kind, NeurokdError)
