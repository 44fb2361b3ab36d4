"""A Program's Lava processes in a user's own script: the Trace's spikes, from the builders the worker uses."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from deploy import reference
from deploy.errors import LavaMissing, ProgramError
from deploy.loihi import in_lava, to_lava
from deploy.program import Program
from deploy.testing import Kinds, random_case

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = textwrap.dedent("""
    import sys
    import numpy as np
    from deploy import Program
    from deploy.loihi import to_lava

    program, given = Program.load(sys.argv[1]), np.load(sys.argv[2])
    steps, samples = given.shape[:2]
    net = to_lava(program, steps=steps)

    from lava.magma.core.run_conditions import RunSteps
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source

    frames = given.swapaxes(0, 1).reshape(steps * samples, -1).T
    rows = steps * samples + net.lag[net.output]
    source = Source(data=np.hstack([frames, np.zeros((len(frames), rows - frames.shape[1]), int)]))
    sink = Sink(shape=net.s_out.shape, buffer=rows)
    net.connect_input(source.s_out)
    net.s_out.connect(sink.a_in)
    source.run(condition=RunSteps(num_steps=rows), run_cfg=net.run_config())
    seen = sink.data.get()[:, net.lag[net.output]:].T.reshape(samples, steps, -1).swapaxes(0, 1)
    source.stop()
    np.save(sys.argv[3], seen)
    print(*sorted(f"{name}:{type(process).__name__}:{process.name}" for name, process in net.processes.items()))
    print(sorted({"torch", "snntorch", "neurokd"} & set(sys.modules)))
""")


def ran(program: Program, spikes: np.ndarray, folder: Path) -> tuple[np.ndarray, list[str]]:
    """What the script saw, ``[T, B, n]``, and what it printed."""
    files = [folder / name for name in ("program.npz", "given.npy", "seen.npy")]
    program.save(files[0])
    np.save(files[1], spikes)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, files)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(files[2]), done.stdout.splitlines()


@pytest.mark.lava
@pytest.mark.usefixtures("lava")
class TestScript:
    def test_chain(self, chain: Program, spikes: np.ndarray, tmp_path: Path) -> None:
        seen, lines = ran(chain, spikes, tmp_path)
        np.testing.assert_array_equal(seen, reference.run(chain, spikes).sat)
        assert lines[-2].split() == [
            "first:Dense:first", "hidden:LIFReset:hidden", "out:LIFReset:out", "second:Dense:second",
        ]  # fmt: skip
        assert lines[-1] == "[]"

    def test_convolutions_skips_and_delays(self, tmp_path: Path) -> None:
        """An image, a skip from the input, a delay line, a neuron mode of ours; several readers of the input."""
        case = next(
            case
            for case in (random_case(seed, Kinds(short_loops=False), constant=False) for seed in range(200, 400))
            if len(case.program.input.shape) == 3
            and len(case.program.outgoing("in")) > 1
            and any(s.delay for s in case.program.synapses)
            and any(p.reset == "subtract" for p in case.program.populations)
            and case.program.output.spiking
            and 0 < reference.run(case.program, case.spikes).sat.mean() < 1
        )
        seen, _ = ran(case.program, case.spikes, tmp_path)
        expected = reference.run(case.program, case.spikes).sat
        np.testing.assert_array_equal(seen, expected.reshape(seen.shape))


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_that_are_none(chain: Program, steps: object) -> None:
    with pytest.raises(ProgramError, match="steps is out of range"):
        to_lava(chain, steps)  # type: ignore[arg-type]


def test_without_lava(chain: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lava", None)
    monkeypatch.delitem(sys.modules, "deploy.loihi.processes", raising=False)
    monkeypatch.setattr(in_lava, "INSTALL_COMMAND", "the command")
    with pytest.raises(LavaMissing, match="cannot be imported in this interpreter") as caught:
        to_lava(chain)
    assert "the command" in caught.value.next_step
