"""The chain of executions, the switches, and the picture of where executions part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import graph as nir
from deploy import ptq, reference
from deploy.errors import ConfigError, GraphError, VerifyError
from deploy.execution_pairs import paired
from deploy.lower import lower
from deploy.runfolder import Samples, save_samples
from deploy.verify_chain import ChainReport, chain
from deploy.verify_file import verify_file
from deploy.verify_picture import parting
from deploy.verify_switch import switches

DT, STEPS, BATCH = 1e-4, 15, 6
LABELS = np.array([0, 1, 2, 0, 1, 2])


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def lif(name: str, size: int, tau: float) -> nir.LIF:
    return nir.LIF(name, tau * DT * np.ones(size), tau * np.ones(size), np.zeros(size), np.ones(size))


def foreign(reset: Any = "subtract") -> nir.Graph:
    """A float network of two layers and a loop, as another tool might have written it."""
    draws = rng()
    nodes = (
        nir.Input("in", (8,)), nir.Affine("w1", draws.normal(0.2, 0.5, (9, 8)), draws.normal(0, 0.2, 9)),
        lif("one", 9, 8), nir.Affine("back", draws.normal(0, 0.2, (9, 9))),
        nir.Affine("w2", draws.normal(0.2, 0.5, (3, 9))), lif("two", 3, 5), nir.Output("out", (3,)),
    )  # fmt: skip
    edges = (
        ("in", "w1"), ("w1", "one"), ("one", "back"), ("back", "one"), ("one", "w2"), ("w2", "two"), ("two", "out"),
    )  # fmt: skip
    return nir.Graph(nodes, edges, DT, reset)


def events() -> Any:
    return (rng().random((STEPS, BATCH, 8)) < 0.5).astype(np.uint8)


@pytest.fixture(scope="module")
def quantized() -> nir.Graph:
    return ptq.quantize(foreign("zero"), events()).graph


def test_every_execution_is_compared_with_the_next(quantized: nir.Graph) -> None:
    program = lower(quantized)
    trained = reference.run(program, events()).spikes
    result = chain(
        quantized, events(), against=("reference", "simulator"), float_source=foreign("zero"), trained=trained,
        labels=LABELS,
    )  # fmt: skip
    names = ["float student", "trained student", "file in floats", "re-read file", "reference", "simulator"]
    assert [run.name for run in result.executions] == names
    assert [(p.left, p.right) for p in result.pairs] == list(zip(names[:-1], names[1:], strict=True))
    assert result.raise_if_different() is result
    assert [p.must_be_equal for p in result.pairs] == [False, False, False, True, True]
    assert [c.name for c in result.verification.comparisons] == ["re-read file", "reference", "simulator"]
    assert set(result.accuracy) == set(names)
    first = result.pairs[0]
    assert 80 < first.agreement("one") < 100, "8 bits are close, not equal"
    assert first.first is not None
    assert "they part at layer" in str(result)
    plain = json.loads(json.dumps(result.to_json(), default=str))
    assert plain["equal"] is True
    assert plain["pairs"][0]["agreement"]["one"] == first.agreement("one")


def test_a_flipped_spike_anywhere_is_found_with_both_membranes(quantized: nir.Graph) -> None:
    program = lower(quantized)
    trained = {name: spikes.copy() for name, spikes in reference.run(program, events()).spikes.items()}
    trained["one"][4, 2, 7] ^= 1
    result = chain(quantized, events(), against=("simulator",), trained=trained)
    assert not result.equal
    with pytest.raises(VerifyError, match="differs in 1 spikes"):
        result.raise_if_different()
    place = result.pairs[0].first
    assert place is not None
    assert (place.layer, place.step, place.sample, place.neuron) == ("one", 4, 2, 7)
    assert place.left_v is None, "recorded spikes have no membranes"
    assert place.right_v is not None
    assert place.threshold == pytest.approx(1.0, rel=0.02), "in the float network's own units"


def test_neighbours_that_differ_are_refused_even_where_the_base_agrees(quantized: nir.Graph) -> None:
    result = chain(quantized, events(), against=("simulator",))
    left, right = result.executions[-2:]
    layers = {name: spikes.copy() for name, spikes in right.layers.items()}
    layers["two"][0, 0, 0] ^= 1
    broken = paired(left, replace(right, layers=layers))
    with pytest.raises(VerifyError, match="differ in 1 spikes"):
        ChainReport(result.verification, result.executions, (broken,), {}).raise_if_different()


def test_floats_on_the_grid_are_nearly_the_integers(quantized: nir.Graph) -> None:
    result = chain(quantized, events(), against=("reference", "simulator"))
    floats = result.pairs[0]
    assert (floats.left, floats.right) == ("file in floats", "re-read file")
    assert floats.agreement("one") > 99
    if floats.first is not None:
        place = floats.first
        assert place.left_v is not None
        assert place.threshold is not None
        assert abs(place.left_v - place.threshold) < 0.05, "only a decay's rounding at the threshold parts them"


def test_what_does_not_fit_is_refused(quantized: nir.Graph) -> None:
    with pytest.raises(VerifyError, match="no such execution"):
        chain(quantized, events(), against=("loihi3",))
    other = nir.Graph((nir.Input("in", (8,)), lif("one", 8, 4), nir.Output("out", (8,))), _line(), DT, "zero")
    with pytest.raises(VerifyError, match="populations are not the program's"):
        chain(quantized, events(), against=("simulator",), float_source=other)
    program = lower(quantized)
    with pytest.raises(VerifyError, match="nothing is compared"):
        chain(program, events(), against=("reference",))
    assert "no file to read again" in str(chain(program, events(), against=("reference", "simulator")))


def _line() -> tuple[tuple[str, str], ...]:
    return (("in", "one"), ("one", "out"))


def test_what_netx_cannot_hold_is_a_note(quantized: nir.Graph) -> None:
    result = chain(quantized, events()[:, :1], against=("reference", "simulator", "netx"))
    assert [run.name for run in result.executions][-1] == "simulator"
    assert "netx is left out: a netx file cannot hold this program" in str(result)


@pytest.mark.lava
def test_netx_and_lava_stand_at_the_end_of_the_chain() -> None:
    """A student without a loop and without fine biases, which netx holds."""
    nodes = tuple(
        replace(node, bias=None) if isinstance(node, nir.Affine) else node
        for node in foreign("zero").nodes
        if node.name != "back"
    )
    edges = tuple(edge for edge in foreign("zero").edges if "back" not in edge)
    plain = nir.Graph(nodes, edges, DT, "zero")
    made = ptq.quantize(plain, events(), correct_bias=False).graph
    result = chain(made, events()[:, :2], against=("reference", "simulator", "lava", "netx"), float_source=plain)
    assert [run.name for run in result.executions][-3:] == ["simulator", "lava", "netx"]
    assert result.raise_if_different().executions[-1].layers["one"].any()


def test_each_switch_alone(quantized: nir.Graph) -> None:
    found = switches(foreign(), quantized, events(), labels=LABELS, how="sinabs", other_dt=DT / 2)
    assert [s.name for s in found.switches] == [
        "quantization", "reset rule", "time step", "time step", "spike rule", "all of it: the chip",
    ]  # fmt: skip
    assert [s.what for s in found.switches[1:4]] == [
        "subtract -> zero", "exponential -> euler decay", "dt 0.0001 s -> 5e-05 s",
    ]  # fmt: skip
    assert found.accuracy is not None
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["switches"][1]["agreement"]["two"] <= 100
    assert "each switched alone" in str(found)


def test_a_switch_that_changes_nothing_shows_nothing() -> None:
    """Weights on the grid already, no leak, zero reset: neither quantization nor reset nor decay makes a difference."""
    nodes = (
        nir.Input("in", (8,)), nir.Affine("w", rng().integers(-4, 9, (5, 8)) * 2.0),
        nir.IF("one", np.ones(5) / DT, 20 * np.ones(5)), nir.Output("out", (5,)),
    )  # fmt: skip
    plain = nir.Graph(nodes, (("in", "w"), ("w", "one"), ("one", "out")), DT, "zero")
    made = ptq.quantize(plain, events(), correct_bias=False).graph
    found = {switch.name: switch for switch in switches(plain, made, events()).switches}
    assert "reset rule" not in found, "it is the chip's already"
    assert sum(found["time step"].pair.differing.values()) == 0
    assert sum(found["quantization"].pair.differing.values()) == sum(
        found["all of it: the chip"].pair.differing.values()
    )


@pytest.mark.parametrize("rule", ["zero", "subtract", "late-subtract"])
def test_a_foreign_float_file_is_quantized_verified_and_explained(rule: str, tmp_path: Path) -> None:
    nir.write(foreign(rule), tmp_path / "float.nir")
    save_samples(tmp_path / "spikes.npz", Samples(events(), LABELS))
    result = verify_file(tmp_path / "float.nir", tmp_path / "spikes.npz", against=("reference", "simulator"))
    assert result.chain.equal
    assert result.switches is not None
    assert ("reset rule" in [s.name for s in result.switches.switches]) == (rule != "zero")
    assert any("quantized after training" in note for note in result.notes)
    assert result.to_json()["switches"]["accuracy"] is not None
    drawn = result.picture(tmp_path / "parting.png")
    assert drawn == "float student and file in floats"
    assert (tmp_path / "parting.png").read_bytes().startswith(b"\x89PNG")


def test_a_float_file_beside_its_quantized_one(quantized: nir.Graph, tmp_path: Path) -> None:
    nir.write(quantized, tmp_path / "student.nir")
    nir.write(foreign("zero"), tmp_path / "float.nir")
    save_samples(tmp_path / "spikes.npz", Samples(events()))
    result = verify_file(
        tmp_path / "student.nir", tmp_path / "spikes.npz", against=("simulator",), float_file=tmp_path / "float.nir"
    )
    assert [run.name for run in result.chain.executions][0] == "float student"
    assert result.chain.accuracy == {}
    with pytest.raises(GraphError, match="reset"):
        verify_file(
            tmp_path / "student.nir", tmp_path / "spikes.npz", float_file=tmp_path / "float.nir", reset="subtract"
        )
    with pytest.raises(ConfigError, match="no such way to read"):
        verify_file(tmp_path / "student.nir", tmp_path / "spikes.npz", how="guess")


def test_equal_executions_have_a_picture_too(quantized: nir.Graph, tmp_path: Path) -> None:
    result = chain(quantized, events(), against=("reference", "simulator"))
    left, right = result.executions[-2:]
    parting(left, right, paired(left, right), tmp_path / "equal.png")
    assert (tmp_path / "equal.png").stat().st_size > 1000
