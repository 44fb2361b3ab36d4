"""netx files: what netx holds comes back exactly, through our reader and lava-dl itself; the rest is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from deploy import reference, simulator
from deploy.errors import FileError, GraphError, LavaMissing, NeurokdError, UnsupportedNode, WorkerError
from deploy.loihi import netx, netx_run
from deploy.loihi.netx_run import run_netx
from deploy.loihi.netx_weights import on_grid, why_not_dense
from deploy.lower import lower
from deploy.program import Conv, Dense, Input, Population, Program
from tests.deploy.graphs import ONE_EACH, populated

Array = np.ndarray[Any, Any]


def weights(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-60, 61, shape) * 2


def cells(name: str, shape: tuple[int, ...], vth: int = 60, du: int = 4095, **options: Any) -> Population:
    size = int(np.prod(shape))
    return Population(name, shape, du, 410, vth, np.random.default_rng(size).integers(-20, 21, size), 6, **options)


def dense(name: str, source: str, target: str, w: Array, **options: Any) -> Dense:
    return Dense(name, source, target, w, **options)


def convolutional() -> Program:
    """Nothing square or symmetrical: image, kernels, stride, padding, dilation, a bias for each neuron; flattened."""
    rng = np.random.default_rng(1)
    return Program(
        Input("in", (2, 7, 9), 4),
        (cells("c1", (4, 4, 4), 3000), cells("c2", (3, 4, 3)), cells("d", (10,)), cells("out", (5,), du=1000)),
        (
            Conv("k1", "in", "c1", weights(rng, 4, 2, 3, 2), stride=(2, 3), padding=(1, 2), dilation=(1, 2)),
            Conv("k2", "c1", "c2", weights(rng, 3, 4, 1, 2), 1),
            dense("k3", "c2", "d", weights(rng, 10, 36)),
            dense("k4", "d", "out", weights(rng, 5, 10), weight_exp=-1),
        ),
    )


def grouped() -> Program:
    """Ends with an image; channels in groups; one bias a channel."""
    rng = np.random.default_rng(2)
    even = replace(cells("c", (4, 2, 3), 100), bias_mant=np.repeat([5, -7, 0, 9], 6))
    return Program(Input("in", (2, 3, 4)), (even,), (Conv("k", "in", "c", weights(rng, 4, 1, 2, 2), groups=2),))


def delayed() -> Program:
    """Delays that differ within a layer, as two blocks between the same populations."""
    rng = np.random.default_rng(3)
    early, w = rng.random((5, 8)) < 0.5, weights(rng, 5, 8)
    return Program(
        Input("in", (12,)),
        (cells("a", (8,)), cells("out", (5,))),
        (
            dense("w", "in", "a", weights(rng, 8, 12), delay=3),
            dense("v1", "a", "out", w * early, delay=1),
            dense("v4", "a", "out", w * ~early, delay=4),
        ),
    )


def looped() -> Program:
    rng = np.random.default_rng(4)
    return Program(
        Input("in", (12,)),
        (cells("a", (8,)), cells("out", (5,))),
        (
            dense("w", "in", "a", weights(rng, 8, 12)),
            dense("r", "a", "a", weights(rng, 8, 8), delay=1),
            dense("v", "a", "out", weights(rng, 5, 8)),
        ),
    )


PROGRAMS: dict[str, Callable[[], Program]] = {
    "convolutional": convolutional, "grouped": grouped, "delayed": delayed, "looped": looped,
}  # fmt: skip


def given(program: Program, steps: int = 9, samples: int = 3) -> Array:
    rng = np.random.default_rng(5)
    shape = (steps, samples, *program.input.shape)
    return rng.integers(0, program.input.largest + 1, shape) * (rng.random(shape) < 0.5)


@pytest.fixture
def with_biases_rounded(chain: Program) -> Program:
    return netx.round_biases(chain)


class TestRoundTrip:
    @pytest.mark.parametrize("name", PROGRAMS)
    def test_the_same_spikes_and_states(self, name: str, tmp_path: Path) -> None:
        program = PROGRAMS[name]()
        back = netx.read(netx.write(program, tmp_path / "a.net"), input_bits=program.input.bits)
        assert [p.shape for p in back.populations] == [p.shape for p in program.populations]
        spikes = given(program)
        ours, theirs = (reference.run(p, spikes) for p in (program, back))
        for before, after in zip(program.populations, back.populations, strict=True):
            np.testing.assert_array_equal(ours.v[before.name], theirs.v[after.name])
            assert 0 < ours.spikes[before.name].mean() < 1
            np.testing.assert_array_equal(ours.spikes[before.name], theirs.spikes[after.name])

    def test_round_biases_is_the_nearest_that_fits(self, chain: Program) -> None:
        assert "netx fixes the bias exponent at 6" in " ".join(netx.refusals(chain))
        rounded = netx.round_biases(chain)
        assert netx.refusals(rounded) == []
        for before, after in zip(chain.populations, rounded.populations, strict=True):
            moved = (before.bias_mant.astype(int) << before.bias_exp) - (after.bias_mant.astype(int) << 6)
            assert after.bias_exp == 6
            assert moved.min() >= -32
            assert moved.max() < 32
            assert np.any(moved)

    def test_what_rounding_moved_is_counted(self, chain: Program) -> None:
        rounded = netx.round_biases(chain)
        moved = netx.biases_moved(chain, rounded)
        assert set(moved) == {"hidden", "out"}
        for before in chain.populations:
            rest = (before.bias_mant.astype(int) << before.bias_exp) % 64
            by = np.minimum(rest, 64 - rest)
            expected = {"moved": int((rest > 0).sum()), "of": before.size, "by_up_to": int(by.max())}
            assert moved[before.name] == expected
        assert netx.biases_moved(rounded, netx.round_biases(rounded)) == {}

    def test_arguments(self, chain: Program) -> None:
        assert netx.arguments(chain) == {"input_message_bits": 0}
        assert netx.arguments(convolutional(), 8) == {
            "input_message_bits": 4, "reset_interval": 8, "reset_offset": 1,
        }  # fmt: skip


@pytest.fixture(scope="module")
def lava_dl() -> None:
    """Skips where lava-dl cannot be imported beside Lava."""
    try:
        run_netx(grouped(), given(grouped(), 1, 1), timeout=60)
    except LavaMissing as error:
        pytest.skip(f"no lava-dl in the worker's interpreter: {error.got}; run `neurokd-deploy lava install`")


def assert_netx_agrees(program: Program, spikes: Array, steps: int | None = None) -> None:
    trace = run_netx(program, spikes, steps=steps, timeout=120)
    expected = simulator.run(program, spikes, steps=steps, record="all")
    for name, ours in expected.spikes.items():
        np.testing.assert_array_equal(trace.spikes[name], ours, err_msg=name)
        assert 0 < ours.mean() < 1
    np.testing.assert_array_equal(trace.counts, expected.counts)
    np.testing.assert_array_equal(trace.input_events, expected.input_events)
    assert trace.backend == "netx"


@pytest.mark.lava
@pytest.mark.usefixtures("lava_dl", "nothing_left")
class TestLavaDl:
    """``netx.hdf5.Network`` on Lava's bit-accurate models gives the simulator's spikes, layer by layer."""

    @pytest.mark.parametrize("name", ["convolutional", "delayed"])
    def test_program(self, name: str) -> None:
        assert_netx_agrees(PROGRAMS[name](), given(PROGRAMS[name]()))

    @pytest.mark.long
    @pytest.mark.parametrize("name", ["grouped", "looped"])
    def test_more_programs(self, name: str) -> None:
        assert_netx_agrees(PROGRAMS[name](), given(PROGRAMS[name]()))

    @pytest.mark.long
    def test_same_image_every_step(self, with_biases_rounded: Program, spikes: Array) -> None:
        assert_netx_agrees(with_biases_rounded, spikes[0], 11)


class TestWorkersThatMisbehave:
    pytestmark = pytest.mark.usefixtures("nothing_left")

    def test_no_result(self, interpreter: Callable[[str], str]) -> None:
        with pytest.raises(WorkerError, match="without a readable result"):
            run_netx(grouped(), given(grouped()), python=interpreter("exit 0"))

    def test_other_result(self, interpreter: Callable[[str], str], tmp_path: Path) -> None:
        np.savez(tmp_path / "other.npz", **{"0": np.zeros(3)})
        with pytest.raises(WorkerError, match="wrong shape"):
            run_netx(grouped(), given(grouped()), python=interpreter(f"cp {tmp_path}/other.npz $4"))

    def test_fails(self, interpreter: Callable[[str], str]) -> None:
        with pytest.raises(WorkerError, match="worker failed") as caught:
            run_netx(grouped(), given(grouped()), python=interpreter("echo its words; exit 5"))
        assert "its words" in caught.value.got

    def test_has_no_lava_dl(self, interpreter: Callable[[str], str]) -> None:
        with pytest.raises(LavaMissing):
            run_netx(grouped(), given(grouped()), python=interpreter("exit 67"))


def refusal(program: Program) -> str:
    with pytest.raises(UnsupportedNode, match="netx file cannot hold") as caught:
        netx.write(program, "/no/such/folder/a.net")
    return caught.value.where


def changed(**options: Any) -> Program:
    """The loop-free part of :func:`looped` with other neurons in its last population."""
    made = looped()
    last = replace(made.populations[1], **options)
    return replace(made, populations=(made.populations[0], last), synapses=(made.synapses[0], made.synapses[2]))


def synapses(*made: Dense) -> Program:
    return Program(Input("in", (2,)), (cells("a", (2,)), cells("out", (2,))), made)


EVEN = np.array([[2, -4], [6, 8]])
IN = dense("w", "in", "a", EVEN)
OUT = dense("v", "a", "out", EVEN)


class TestWriteRefuses:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"reset": "subtract"}, "out: reset subtract"),
            ({"refractory": 2}, "out: a refractory period of 2"),
            ({"spiking": False, "vth": 0}, "out: a readout"),
            ({"bias_exp": 5, "bias_mant": np.array([1, 0, 0, 0, 0])}, "out: 1 of 5 biases finer than 64"),
            ({"bias_exp": 7, "bias_mant": np.array([4000, 0, 0, 0, 0])}, "out: a bias beyond"),
        ],
    )
    def test_neurons(self, options: dict[str, Any], reason: str) -> None:
        assert reason in refusal(changed(**options))

    @pytest.mark.parametrize(
        ("made", "reason"),
        [
            (synapses(IN, OUT, dense("skip", "in", "out", EVEN)), "out: it hears in; a netx layer hears only"),
            (synapses(IN, dense("skip", "in", "out", EVEN)), "out: it does not hear the layer before it, a"),
            (synapses(IN, OUT, dense("again", "a", "out", EVEN, delay=2)), "out: 2 synapse blocks from a"),
            (synapses(IN, OUT, dense("r", "a", "a", EVEN, delay=2)), "a: its loop"),
            (synapses(IN, OUT,
                      dense("r", "a", "a", EVEN, delay=1), dense("q", "a", "a", EVEN, delay=1)), "a: its loop"),
            (replace(synapses(IN, OUT), answer="a"), "a: it is the output but not the last layer"),
            (synapses(IN, dense("v", "a", "out", EVEN, weight_exp=-2)), "v: weights in fractions of 4"),
            (synapses(IN, dense("v", "a", "out", EVEN * 16, weight_exp=2)), "v: weights -256..512"),
            (synapses(IN, dense("v", "a", "out", EVEN * 0)), "v: every weight is 0"),
        ],
    )  # fmt: skip
    def test_wiring_and_weights(self, made: Program, reason: str) -> None:
        assert reason in refusal(made)

    def test_convolutions(self) -> None:
        made = grouped()
        conv = made.synapses[0]
        assert "k: a delay of 2 on a convolution" in refusal(replace(made, synapses=(replace(conv, delay=2),)))
        wide = Conv("k", "in", "c", np.full((1, 1, 1, 1), 2), padding=(128, 0))
        tall = Program(Input("in", (1, 1, 1)), (cells("c", (1, 257, 1)),), (wide,))
        assert "k: a kernel, stride, padding or dilation beyond 127" in refusal(tall)
        many = Conv("k", "in", "c", np.full((130, 1, 1, 1), 2), groups=130)
        assert "k: 130 groups" in refusal(Program(Input("in", (130, 1, 1)), (cells("c", (130, 1, 1)),), (many,)))

    def test_loop_beyond_its_weights(self) -> None:
        single = {"sign_mode": "excitatory"}
        made = synapses(
            dense("w", "in", "a", np.array([[1, 2], [3, 201]]), **single), OUT, dense("r", "a", "a", EVEN, delay=1)
        )
        assert "a: weights and loop together, as netx scales them: an odd weight beyond 127" in refusal(made)

    def test_every_reason_at_once(self) -> None:
        found = netx.refusals(changed(reset="subtract", refractory=1))
        assert len(found) == 2

    def test_folder_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FileError):
            netx.write(grouped(), tmp_path / "file" / "a.net")


class TestWeights:
    @pytest.mark.parametrize(
        ("given_weights", "reason"),
        [
            ([0, 255], ""), ([0, 256], "at most 255"), ([-255, -1], ""), ([-256, -1], "at least -255"),
            ([-256, 254], ""), ([-258, 2], "of both signs"), ([-3, 127], ""), ([-3, 130], "an odd weight"),
            ([0, 0], "every"),
        ],
    )  # fmt: skip
    def test_what_netx_holds(self, given_weights: list[int], reason: str) -> None:
        why = why_not_dense(np.array(given_weights))
        assert reason in why
        assert bool(reason) == bool(why)

    @pytest.mark.parametrize(
        ("units", "expected"),
        [
            ([-2, 4], ([-2, 4], 0, "mixed")), ([-3, 5], ([-6, 10], -1, "mixed")),
            ([3, 255], ([3, 255], 0, "excitatory")),
            ([-255, -1], ([-255, -1], 0, "inhibitory")), ([-512, 400], ([-256, 200], 1, "mixed")),
        ],
    )  # fmt: skip
    def test_on_grid(self, units: list[int], expected: tuple[list[int], int, str]) -> None:
        found = on_grid(np.array(units))
        assert found is not None
        assert (found[0].tolist(), *found[1:]) == expected

    def test_off_every_grid(self) -> None:
        assert on_grid(np.array([-3, 255])) is None


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """A written file, then changed: ``path=value``, None deletes."""

    def make(program: Program | None = None, **changes: Any) -> Path:
        path = netx.write(program or convolutional(), tmp_path / "a.net")
        with h5py.File(path, "r+") as opened:
            for place, value in changes.items():
                name = "layer/" + place.replace("__", "/").removeprefix("L")
                if name in opened:
                    del opened[name]
                if value is not None:
                    opened[name] = value
        return path

    return make


class TestPopulation:
    def test_a_file_of_ours_says_how_many_neurons_a_class_has(self, tmp_path: Path) -> None:
        program = replace(delayed(), meta={"population": delayed().output.size})
        path = netx.write(program, tmp_path / "a.net")
        assert netx.read(path).meta["population"] == program.population > 1
        assert netx.read(path, population=1).population == 1
        with h5py.File(netx.write(delayed(), tmp_path / "b.net")) as opened:
            assert list(opened) == ["layer"]
        assert "population" not in netx.read(tmp_path / "b.net").meta

    @pytest.mark.parametrize("wrong", [0, b"2", 2.5])
    def test_other_values_are_refused(self, tmp_path: Path, wrong: Any) -> None:
        with h5py.File(netx.write(delayed(), tmp_path / "a.net"), "r+") as opened:
            opened["neurokd/population"] = wrong
        with pytest.raises(GraphError, match="neurokd/population"):
            netx.read(tmp_path / "a.net")

    @pytest.mark.lava
    @pytest.mark.usefixtures("lava_dl", "nothing_left")
    def test_lava_dl_loads_it_and_answers_come_by_class(self) -> None:
        program = lower(populated())
        trace = run_netx(program, ONE_EACH, steps=6)
        assert trace.population == 4
        np.testing.assert_array_equal(trace.sat, reference.run(program, ONE_EACH, steps=6).sat)
        assert trace.predictions().tolist() == [1, 0]


class TestReadRefuses:
    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"L1__type": b"pool"}, "a layer of type 'pool'"),
            ({"L1__neuron__type": b"SDNN"}, "neurons of type 'SDNN'"),
            ({"L1__neuron": None}, "a layer without neurons"),
            ({"L1__surprise": 1}, "fields surprise"),
            ({"L1__neuron__rate": 1}, "neuron fields rate"),
            ({"L1__neuron__refDelay": 3}, "refDelay 3"),
            ({"L1__neuron__gradedSpike": True}, "gradedSpike 1"),
            ({"L1__delay": np.array([1, 2])}, "delays on a convolution"),
            ({"L1__weight": np.full((4, 2, 3, 2), [1, 301])}, "off the 8-bit grid"),
            ({"L2__type": b"input"}, "a second input layer"),
        ],
    )
    def test_no_counterpart(self, file: Callable[..., Path], changes: dict[str, Any], what: str) -> None:
        with pytest.raises(UnsupportedNode, match="cannot be taken") as caught:
            netx.read(file(**changes), input_bits=4)
        assert what in caught.value.got
        assert caught.value.where.startswith("layer ")

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"L1__type": None}, "a layer has no type"),
            ({"L1__type": 5}, "a type is no text"),
            ({"L1": None}, "no netx layers"),
            ({"L1__weight": None}, "the layer has no weight"),
            ({"L1__weight": np.full((4, 2, 3, 2), 0.5)}, "not in whole numbers"),
            ({"L1__neuron__iDecay": np.nan}, "not in whole numbers"),
            ({"L1__stride": np.array([1, 2, 3])}, "is no pair"),
            ({"L1__shape": np.array([4, 4])}, "shape is not understood"),
            ({"L1__bias": np.array([1, 2, 3])}, "biases have the wrong shape"),
            ({"L4__delay": np.zeros((3, 3), int)}, "delays have the wrong shape"),
            ({"L1__neuron__iDecay": 5000}, "du is out of range"),
            ({"L0": None, "L1__type": b"dense"}, "no netx layers"),
        ],
    )
    def test_damaged(self, file: Callable[..., Path], changes: dict[str, Any], what: str) -> None:
        with pytest.raises(NeurokdError, match=what):
            netx.read(file(**changes), input_bits=4)

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        path = tmp_path / "a.net"
        with pytest.raises(FileError):
            netx.read(path)
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
        with pytest.raises(GraphError, match="Git LFS pointer"):
            netx.read(path)
        path.write_bytes(b"other")
        with pytest.raises(GraphError, match="not HDF5"):
            netx.read(path)
        with h5py.File(path, "w") as opened:
            opened.create_group("layer/0")["type"] = b"flatten"
        with pytest.raises(GraphError, match="no layer of neurons"):
            netx.read(path)

    def test_shape_of_the_input(self, file: Callable[..., Path], tmp_path: Path) -> None:
        path = netx.write(grouped(), tmp_path / "b.net")
        with h5py.File(path, "r+") as opened:
            opened.move("layer/1", "moved")
            del opened["layer/0"]
            opened.move("moved", "layer/0")
        with pytest.raises(GraphError, match="does not say the shape of its input") as caught:
            netx.read(path)
        assert "input_shape" in caught.value.next_step
        assert netx.read(path, input_shape=(2, 3, 4)).input.shape == (2, 3, 4)


def input_layer(path: Path) -> Path:
    """A file as lava-dl's older networks: an input layer with neurons, kernels with a fifth axis, graded nothing."""
    with h5py.File(netx.write(grouped(), path), "r+") as opened:
        neuron = opened["layer/0"].create_group("neuron")
        neuron["type"] = b"LOIHI"
        neuron["iDecay"], neuron["vDecay"], neuron["vThMant"], neuron["theta"] = 4096, 1024, 25, 1600
        opened["layer/0/bias"], opened["layer/0/weight"] = 36.0, 40.0
        kernel = opened["layer/1/weight"][()]
        del opened["layer/1/weight"]
        opened["layer/1/weight"] = kernel[..., None].astype(np.float32)
    return path


class TestInputLayer:
    def test_its_spikes_are_the_input(self, tmp_path: Path) -> None:
        program = netx.read(input_layer(tmp_path / "a.net"))
        spikes = given(program)
        np.testing.assert_array_equal(reference.run(program, spikes).sat, reference.run(grouped(), spikes).sat)

    def test_or_its_neurons_are_driven_by_their_bias(self, tmp_path: Path) -> None:
        bias = np.random.default_rng(6).integers(0, 60, (2, 3, 4))
        program = netx.read(input_layer(tmp_path / "a.net"), input_bias=bias, steps=7)
        trace = reference.run(program, np.zeros((7, 1, 1), int))
        driven = trace.spikes["layer0"][:, 0]
        v, expected = np.zeros((2, 3, 4), int), []
        for _ in range(7):
            v = v * 3072 // 4096 + (bias << 6)
            expected.append(v > 1600)
            v[v > 1600] = 0
        np.testing.assert_array_equal(driven, expected)
        np.testing.assert_array_equal(trace.sat, reference.run(grouped(), driven[:, None]).sat)

    def test_bias_of_another_shape(self, tmp_path: Path) -> None:
        with pytest.raises(GraphError, match="input layer's biases have the wrong shape"):
            netx.read(input_layer(tmp_path / "a.net"), input_bias=np.zeros((3, 4, 2), int))


@pytest.mark.skipif(
    "LAVA_DL_TESTS" not in os.environ, reason="LAVA_DL_TESTS does not name a folder with lava-dl's tests"
)
def test_networks_of_lava_dls_own_tests() -> None:
    """Each network lava-dl ships with input and ground truth: 0 differing spikes, or refused by name."""
    from benchmarks import netx as measured

    rows = measured.shipped(Path(os.environ["LAVA_DL_TESTS"]))
    assert {row.case for row in rows if row.value == 0} >= {
        "tiny.net, driven input layer",
        "pilotnet_lif, driven input layer",
    }
    assert all(row.value == 0 or isinstance(row.value, str) for row in rows if row.metric != "spikes compared")


def test_the_worker_is_beside_its_client() -> None:
    assert netx_run.WORKER.is_file()
