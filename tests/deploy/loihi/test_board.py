"""The road to a board, as far as it goes without one: refusals, what is missing, and everything up to the compiler."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest

from deploy import reference
from deploy.errors import ConfigError, LavaMissing, RuleError
from deploy.loihi import board, hardware, process
from deploy.loihi.client import Job, prepare, run_lava
from deploy.loihi.process import read_recordings, write_requests
from deploy.program import Conv, Dense, Input, Population, Program
from deploy.testing import Kinds, random_case

STAND_IN = textwrap.dedent('''
    """In place of Intel's adapters: the same names and ports, on the CPU."""
    import numpy as np
    from lava.magma.core.decorator import implements, requires, tag
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.core.model.py.ports import PyInPort, PyOutPort
    from lava.magma.core.model.py.type import LavaPyType
    from lava.magma.core.process.ports.ports import InPort, OutPort
    from lava.magma.core.process.process import AbstractProcess
    from lava.magma.core.resources import CPU
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


    class Adapter(AbstractProcess):
        def __init__(self, shape, num_message_bits=0):
            super().__init__(shape=shape)
            self.inp, self.out = InPort(shape=shape), OutPort(shape=shape)


    @implements(proc=Adapter, protocol=LoihiProtocol)
    @requires(CPU)
    @tag("fixed_pt")
    class PyAdapter(PyLoihiProcessModel):
        inp: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
        out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

        def run_spk(self):
            self.out.send(self.inp.recv())


    PyToNxAdapter = PyToN3ConvAdapter = NxToPyAdapter = Adapter
''')

SCRIPT = textwrap.dedent("""
    import importlib.util, json, sys
    sys.argv, (_, worker_file, given, result, folder) = sys.argv[:1], sys.argv
    spec = importlib.util.spec_from_file_location("neurokd_worker", worker_file)
    worker = sys.modules["neurokd_worker"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    import numpy as np
    import lava.proc
    import lava.magma.core.run_configs as run_configs
    from lava.magma.compiler.compiler import Compiler

    lava.proc.__path__.append(folder)
    # Lava 0.10.0 without Intel's package names this class and does not define it.
    run_configs.CLoihiProcessModel = getattr(run_configs, "CLoihiProcessModel", type("CLoihiProcessModel", (), {}))
    print(json.dumps([line for line in worker.hardware.missing() if "adapters" in line]))

    archive = dict(np.load(given))
    header = json.loads(bytes(archive["headers"]))[0]
    arrays = {name.partition("/")[2]: array for name, array in archive.items() if name.startswith("0/")}
    processes = worker.kinds.build(header, arrays)
    made = Compiler().compile(processes[header["processes"][0]["name"]], worker.hardware.configuration())
    names = sorted(type(process).__name__ for process in made.proc_builders)
    print(json.dumps(names))

    worker.hardware.configuration.__defaults__ = ("fixed_pt",)  # so that the CPU's models are the chip's arithmetic
    worker.transport.SharedMemoryManager, worker.transport.SystemProcess = worker.AnonymousMemory, worker.LoudProcess
    recorded = worker.run(header, arrays)
    np.savez(result, **{f"0/{name}": array for name, array in recorded.items()})
""")


def image_program() -> Program:
    """A convolution and a dense layer, both of the input, and one after them: every kind of adapter."""
    rng = np.random.default_rng(0)
    cells = [
        Population(name, shape, 4095, 410, vth, rng.integers(-300, 300, int(np.prod(shape))), 2)
        for name, shape, vth in (("image", (3, 2, 4), 600), ("side", (5,), 600), ("out", (4,), 200))
    ]
    return Program(
        Input("in", (2, 4, 5), 4),
        tuple(cells),
        (
            Conv("conv", "in", "image", rng.integers(-60, 61, (3, 2, 3, 2)) * 2),
            Dense("dense", "in", "side", rng.integers(-60, 61, (5, 40)) * 2),
            Dense("one", "image", "out", rng.integers(-60, 61, (4, 24)) * 2),
            Dense("two", "side", "out", rng.integers(-60, 61, (4, 5)) * 2),
        ),
    )


@pytest.mark.lava
@pytest.mark.usefixtures("lava")
def test_everything_up_to_the_compiler_and_through_the_adapters(tmp_path: Path) -> None:
    """Built for ``loihi2``, compiled under ``Loihi2HwCfg``, and with stand-ins for the adapters run on the CPU."""
    program = image_program()
    spikes = np.random.default_rng(1).integers(0, 16, (5, 3, 2, 4, 5))
    _, made = prepare(Job(program, spikes, target="loihi2"))
    package = tmp_path / "embedded_io"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "spike.py").write_text(STAND_IN)
    given, result = tmp_path / "in.npz", tmp_path / "out.npz"
    write_requests(given, [made])
    command = [process.interpreter(), "-c", SCRIPT, *map(str, (process.WORKER, given, result, tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[0] == "[]"
    for kind in ('"Conv"', '"Dense"', '"LIFReset"', '"Adapter"', '"Stream"', '"Sink"'):
        assert kind in done.stdout.splitlines()[1]
    recorded = read_recordings(result, tmp_path / "log", 1)[0]
    expected = reference.run(program, spikes)
    for name, ours in expected.spikes.items():
        seen = recorded[f"sink:{name}"].reshape(3, 5, *program.node(name).shape).swapaxes(0, 1)
        np.testing.assert_array_equal(seen, ours, err_msg=name)
        assert 0 < ours.mean() < 1


@pytest.mark.lava
@pytest.mark.usefixtures("lava", "nothing_left")
def test_without_a_board_what_is_missing_is_said(chain: Program, spikes: np.ndarray) -> None:
    with pytest.raises(LavaMissing, match="no Loihi 2 board can be used") as caught:
        run_lava(chain, spikes, target="loihi2", timeout=60)
    for name in (hardware.COMPILER, hardware.ADAPTERS, hardware.DRIVER):
        assert name in caught.value.got
    assert process.INTERPRETER_VARIABLE in caught.value.next_step


def test_missing_names_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_is", lambda name: True)
    for name in hardware.BOARD:
        monkeypatch.delenv(name, raising=False)
    assert [line.partition(":")[0] for line in hardware.missing()] == ["no board named"]
    monkeypatch.setenv("NXSDKHOST", "10.0.0.1")
    assert hardware.missing() == []


class TestRefusals:
    def refusal(self, program: Program, state: tuple[str, ...] = ()) -> str:
        with pytest.raises(RuleError, match="cannot run on a Loihi 2 board") as caught:
            board.require(program, state)
        return caught.value.where

    def test_neuron_modes_readouts_and_delays(self) -> None:
        cases = [random_case(seed, Kinds(short_loops=False)) for seed in range(60)]
        reasons = "; ".join(reason for case in cases for reason in board.reasons(case.program))
        for reason in ("reset subtract", "a refractory period of", "a readout without threshold", "in a delay line"):
            assert reason in reasons

    def test_state(self, chain: Program) -> None:
        board.require(chain)
        assert self.refusal(chain, ("hidden",)) == "hidden: u and v are not read from a chip"

    def test_a_job_for_a_board_is_refused_before_anything_starts(self, chain: Program, spikes: np.ndarray) -> None:
        with pytest.raises(RuleError, match="cannot run on a Loihi 2 board"):
            run_lava(chain, spikes, target="loihi2", record_state="all", python="/no/such/python")

    def test_unknown_target(self, chain: Program, spikes: np.ndarray) -> None:
        with pytest.raises(ConfigError, match="unknown target"):
            run_lava(chain, spikes, target="loihi3")
