"""Every finding at once, each at its node; nothing raises but an unreadable chip."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from deploy import check as module
from deploy.check import check
from deploy.chip import load_chip
from deploy.errors import ChipError, RuleError
from deploy.graph import (
    LI,
    Affine,
    Conv1d,
    Delay,
    Finding,
    Flatten,
    Graph,
    Input,
    LifParameters,
    NeuronGrid,
    Node,
    Output,
    RunSettings,
    Scale,
    SynapseGrid,
    neuron_from_steps,
    to_nir,
    write,
)
from deploy.lower import lower

SCALE = 0.5
MIXED = SynapseGrid(0, 8, "mixed")


def neuron(name: str, size: int = 2, quantized: bool = True) -> Any:
    full = np.ones(size)
    steps = LifParameters(full * (1 - 512 / 4096), None, full, full * 0, full * 10 * SCALE, None)
    return neuron_from_steps(name, steps, 1e-4, NeuronGrid(SCALE) if quantized else None)


def weights(name: str, inputs: int = 2, outputs: int = 2, quantized: bool = True) -> Affine:
    return Affine(name, np.full((outputs, inputs), 4 * SCALE), quantization=MIXED if quantized else None)


def graph(*nodes: Node, edges: tuple[tuple[str, str], ...] = (), **more: Any) -> Graph:
    """A chain of ``nodes`` between Input and Output, and further ``edges``."""
    every = (Input("in", (2,)), *nodes, Output("out", (2,)))
    names = [node.name for node in every if node.name[0] != "_"]
    chain = tuple(zip(names[:-1], names[1:], strict=True))
    return Graph(every, chain + edges, **{"dt": 1e-4, "reset": "zero", "settings": RunSettings(8), **more})


GOOD = graph(weights("fc"), neuron("lif"))


def errors(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.node, finding.what) for finding in found if finding.severity == "error"]


def test_a_network_in_order_has_no_findings(tmp_path: Path) -> None:
    write(GOOD, tmp_path / "a.nir")
    for source in (GOOD, to_nir(GOOD), tmp_path / "a.nir", str(tmp_path / "a.nir")):
        assert check(source) == []
        assert check(source, "loihi2") == []
        assert check(source, load_chip("loihi2")) == []


def test_a_file_says_everything_at_once_errors_first(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    write(dataclasses.replace(GOOD, metadata={"tool": "x"}), path)
    with h5py.File(path, "r+") as file:
        file["node/nodes/fc/weight"][0, 0] = np.nan
        file["node/nodes/lif/more"] = 1
        file["node/metadata/neurokd/reset"][()] = "hard"
    found = check(path, "loihi2")
    assert [(finding.severity, finding.node) for finding in found] == [
        ("error", "fc"),
        ("error", "lif"),
        ("error", ""),
        ("note", ""),
    ]
    assert all(finding.got and finding.next_step for finding in found[:2])


def test_given_time_step_and_reset_rule_are_used() -> None:
    foreign = nir.NIRGraph(
        {
            "in": nir.Input(np.array([2])),
            "l": nir.LIF(np.full(2, 0.01), np.ones(2), np.zeros(2), np.ones(2)),
            "out": nir.Output(np.array([2])),
        },
        [("in", "l"), ("l", "out")],
    )
    assert len(errors(check(foreign))) == 2
    assert errors(check(foreign, dt=1e-3, reset="zero")) == []


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_no_file_makes_it_raise(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.nir").write_bytes(content)
    assert [finding.severity for finding in check(tmp_path / "a.nir", "loihi2")] == ["error"]


def test_a_missing_file_is_a_finding() -> None:
    (found,) = check("nowhere/none.nir", "loihi2")
    assert "cannot read the file" in found.what
    assert "none.nir" in found.what


def test_what_is_no_network_is_a_finding() -> None:
    assert "not a NIR graph" in check(3)[0].what


def test_an_unknown_chip_is_an_error_of_the_caller() -> None:
    with pytest.raises(ChipError):
        check(GOOD, "no-such-chip")


LOOP = graph(weights("fc"), neuron("lif"), weights("_a"), weights("_b"),
             edges=(("fc", "_a"), ("_a", "_b"), ("_b", "fc")))  # fmt: skip


def ladder(levels: int, width: int) -> Graph:
    """``width ** levels`` ways from the input to the neuron."""
    rungs = [[Delay(f"_{level}.{n}", 0.0) for n in range(width)] for level in range(levels)]
    edges = [(a.name, b.name) for low, high in zip(rungs[:-1], rungs[1:], strict=True) for a in low for b in high]
    edges += [("in", node.name) for node in rungs[0]] + [(node.name, "fc") for node in rungs[-1]]
    return graph(weights("fc"), neuron("lif"), *(node for rung in rungs for node in rung), edges=tuple(edges))


CASES: list[tuple[str, Graph, str, str]] = [
    ("scale", graph(weights("fc"), Scale("s", 2.0), neuron("lif")), "s", "Scale nodes have no counterpart"),
    ("li", graph(weights("fc"), LI("li", 1.0, 1.0, 0.0), weights("w"), neuron("lif")), "li",
     "LI nodes have no counterpart"),
    ("float neuron", graph(weights("fc"), neuron("lif", 2, False)), "lif", "not quantized"),
    ("float weights", graph(weights("fc", 2, 2, False), neuron("lif")), "fc", "not quantized"),
    ("silent", graph(weights("fc"), dataclasses.replace(neuron("lif"), r=[0.0, 1.0])), "lif", "multiplied by 0"),
    ("output", graph(weights("fc"), neuron("lif"), weights("w")), "out", "one spiking population"),
    ("loop", LOOP, "fc", "a loop of nodes without a neuron"),
    ("ways", ladder(13, 2), "fc", "too many nodes between populations"),
    ("chain", ladder(70, 1), "_64.0", "too many nodes between populations"),
    ("off the grid", graph(dataclasses.replace(weights("fc"), weight=np.ones((2, 2)) * 0.3), neuron("lif")), "fc",
     "off the integer grid"),
    ("rule", dataclasses.replace(GOOD, reset="subtract"), "lif", "not on the chip: reset rule"),
    ("reset", graph(weights("fc", 2, 2, False), neuron("lif"), reset="subtract"), "", "not on the chip: reset rule"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "node", "what"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_stands_between_a_network_and_a_chip(source: Graph, node: str, what: str) -> None:
    assert any(place == node and what in said for place, said in errors(check(source, "loihi2")))
    assert errors(check(source)) == []


def test_errors_of_several_nodes_are_said_where_lowering_stops_at_the_first() -> None:
    off = dataclasses.replace(weights("a"), weight=np.ones((2, 2)) * 0.3)
    source = graph(off, neuron("l1"), dataclasses.replace(off, name="b"), neuron("l2"), weights("c"), neuron("l3"))
    assert [node for node, _ in errors(check(source, "loihi2"))] == ["a", "b"]
    late = dataclasses.replace(neuron("l2"), tau=[1e-3, 1.1e-3], r=[10.0, 11.0])
    source = graph(off, neuron("l1"), weights("b"), late)
    assert [node for node, _ in errors(check(source, "loihi2"))] == ["a", "l2"]


def test_a_second_input_is_said() -> None:
    nodes = (Input("a", (2,)), Input("b", (2,)), weights("fc"), neuron("lif"), Output("out", (2,)))
    edges = (("a", "fc"), ("b", "fc"), ("fc", "lif"), ("lif", "out"))
    assert ("b", "a program has one input") in errors(check(Graph(nodes, edges, 1e-4, "zero"), "loihi2"))


def test_all_nodes_without_counterpart_are_said_with_a_way_out() -> None:
    nodes = (
        Input("in", (1, 4)),
        Conv1d("c", np.ones((1, 1, 3))),
        Flatten("f", 0),
        Scale("s", 2.0),
        neuron("lif"),
        Output("out", (2,)),
    )
    names = [node.name for node in nodes]
    found = check(Graph(nodes, tuple(zip(names[:-1], names[1:], strict=True)), 1e-4, "zero"), "loihi2")
    said = {finding.node: finding.next_step for finding in found if "no counterpart" in finding.what}
    assert "Conv2d" in said["c"]
    assert "weights" in said["s"]


def test_rules_of_the_chip_are_all_said() -> None:
    assert len(errors(check(dataclasses.replace(GOOD, settings=RunSettings(8, input_bits=8)), "toy"))) >= 2


def test_a_network_that_fits_no_core_is_said_at_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuleError("too large", where="layer lif on loihi2", got=2, allowed=1)

    monkeypatch.setattr(module, "place", full)
    assert errors(check(GOOD, "loihi2")) == [("lif", "too large")]


def test_a_chip_that_does_not_say_its_size_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise ChipError("cores not published")

    monkeypatch.setattr(module, "place", unknown)
    (found,) = check(GOOD, "loihi2")
    assert (found.severity, found.what) == ("note", "whether it fits is not known: cores not published")


def test_a_saved_program_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    lower(GOOD, "loihi2").save(path)
    assert check(path, "loihi2") == []
    assert check(path) == []
    assert any("8" in finding.got for finding in check(path, "toy")), "the toy chip's weights are narrower"
    assert errors(check(path, max_bytes=100)) == [("", "the file declares more data than is taken")]


@pytest.mark.parametrize("header", [b"", b"1", b"{}", b"[" * 100_000])
def test_no_saved_program_makes_it_raise(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, header=np.frombuffer(header, np.uint8))
    assert errors(check(path, "loihi2"))
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        assert errors(check(path, "loihi2")), "cut short"


def test_findings_as_text_and_as_plain_data() -> None:
    finding = Finding("error", "fc", "is off", "3", "1", "mend it")
    assert str(finding) == "error: fc: is off (got: 3; allowed: 1; next: mend it)"
    assert str(Finding("note", "", "is so")) == "note: is so"
    assert finding.as_dict() == {
        "severity": "error",
        "node": "fc",
        "what": "is off",
        "got": "3",
        "allowed": "1",
        "next_step": "mend it",
    }
