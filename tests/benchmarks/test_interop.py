"""The interop benchmark's judgements and its page; no other tool is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.interop import FROM, Job, Way, compared, judged
from benchmarks.interop_cases import PUBLISHED, example, graphs, shape_of
from benchmarks.interop_nengo import dilated, loops, order, padded
from benchmarks.interop_page import PAGE, TOPIC, page
from deploy import graph as nir
from deploy.files import read_json
from deploy.float_model import run
from deploy.float_nodes import apply


def job(tmp_path: Path, name: str, **changes: Any) -> Job:
    """A job of one of our graphs, its answer as a tool without faults would give it."""
    graph = graphs()[name]
    x = example(graph.inputs[0].shape)
    made = Job(
        "to", "snntorch", name, tmp_path / "g.nir", tmp_path / "x.npy", tmp_path / "o.npy", "run",
        Way("euler", graph.dt, graph.reset), answer={"error": ""},
    )  # fmt: skip
    nir.write(graph, made.nir)
    np.save(made.x, x)
    trace = run(graph, x)
    np.save(made.out, changes.get("answer", lambda values: values)(trace.outputs[trace.output]).astype(np.float32))
    return made


def test_every_node_is_asked_for_and_every_graph_runs() -> None:
    asked = {node.kind for graph in graphs().values() for node in graph.nodes}
    assert asked >= {
        "Affine", "Conv1d", "Conv2d", "AvgPool2d", "SumPool2d", "Flatten", "Scale", "Threshold", "Delay", "LIF",
        "CubaLIF", "IF", "LI", "CubaLI", "I",
    }  # fmt: skip
    for name, graph in graphs().items():
        trace = run(graph, example(graph.inputs[0].shape))
        assert trace.outputs[trace.output].any(), name


def test_equal_answers_are_exact(tmp_path: Path) -> None:
    assert judged(job(tmp_path, "recurrent CubaLIF")).startswith("exact: ")
    assert judged(job(tmp_path, "AvgPool2d")) == "exact"
    assert judged(job(tmp_path, "Conv1d")).startswith("tolerance: "), "float32 of a float64 answer"


def test_other_answers_are_counted(tmp_path: Path) -> None:
    def flipped(values: Any) -> Any:
        values = values.copy()
        values[3, 1, 2] = 1 - values[3, 1, 2]
        return values

    assert "1 of 300 outputs differ" in judged(job(tmp_path, "LIF", answer=flipped))
    assert judged(job(tmp_path, "LI", answer=lambda values: values + 0.1)).startswith("differs: by up to 0.1")
    assert "the tool gives the shape" in judged(job(tmp_path, "LI", answer=lambda values: values[..., :2]))


def test_a_tools_own_way_is_recognised(tmp_path: Path) -> None:
    graph = graphs()["recurrent LIF"]
    own = run(graph, example((6,)), how="norse").outputs["neurons"]
    made = job(tmp_path, "recurrent LIF", answer=lambda _: own)
    made.framework = "norse"
    assert judged(made).endswith("when neurokd reads it norse's way")


def test_a_spike_at_the_threshold_is_a_tolerance() -> None:
    graph = nir.Graph(
        (nir.Input("in", (1,)), nir.IF("n", np.ones(1), np.ones(1)), nir.Output("out", (1,))),
        (("in", "n"), ("n", "out")), 1.0, "zero",
    )  # fmt: skip
    trace = run(graph, np.full((1, 1, 1), 1.0 + 1e-7))
    assert compared(trace, np.zeros((1, 1, 1))).startswith("tolerance: ")
    trace = run(graph, np.full((1, 1, 1), 1.1))
    assert compared(trace, np.zeros((1, 1, 1))).startswith("differs: ")


def test_refusals_say_who_refuses(tmp_path: Path) -> None:
    made = job(tmp_path, "LIF")
    made.answer = {"error": "ValueError: no"}
    assert judged(made) == "the tool refuses it: ValueError: no; neurokd: reads and runs it"
    made.nir.write_bytes(b"nothing")
    assert judged(made).endswith("neurokd: refuses it too (the file is not HDF5, so it is no NIR file)")
    made.answer = {"error": ""}
    assert judged(made).startswith("refused by neurokd: ")
    made.do, made.answer = "export", {"error": "TypeError: no"}
    assert judged(made) == "the tool cannot write it: TypeError: no"


def test_tables_of_cases() -> None:
    assert {shape_of(case) for case in ("Conv1d", "AvgPool2d", "LIF, v_reset")} == {(4, 11), (4, 9, 8), (6,)}
    assert set(FROM) == {"snntorch", "norse", "sinabs", "spikingjelly", "rockpool", "nengo", "lava-dl"}
    assert len({(file.repo, file.path, file.reset) for file in PUBLISHED}) == len(PUBLISHED)


def test_nengos_convolution_is_given_borders_and_gaps() -> None:
    """Zeros in the kernel and around the image say what NIR's dilation and padding say, which nengo does not have."""
    graph = graphs()["Conv2d, not square, groups 2"]
    conv = graph.node("conv")
    assert isinstance(conv, nir.Conv2d)
    plain = replace(conv, weight=dilated(conv.weight, conv.dilation), padding=(0, 0), dilation=(1, 1))
    wide, inner = padded((4, 9, 8), conv.padding)
    x = example((4, 9, 8), 1, 2)[0].astype(np.float64)
    image = np.zeros((2, int(np.prod(wide))))
    image[:, inner] = x.reshape(2, -1)
    np.testing.assert_allclose(apply(plain, image.reshape(2, *wide)), apply(conv, x), atol=1e-12)


def test_nengos_loops_are_found() -> None:
    edges = list(graphs()["recurrent LIF"].edges)
    assert loops(edges, ["input"]) == {("back", "neurons")}
    names = order(edges, {("back", "neurons")})
    assert sorted(names) == ["back", "dense", "input", "neurons", "output"]
    assert names.index("dense") < names.index("neurons") < names.index("back")
    assert loops([("input", "a"), ("a", "b"), ("input", "b")], ["input"]) == set(), "a skip connection is no loop"


def test_nengo_was_asked_for_every_node() -> None:
    if not TOPIC.exists():
        pytest.skip("no figures: python -m benchmarks.interop has not been run")
    asked = {row["case"] for row in read_json(TOPIC) if row["metric"] == "to"}
    assert {f"nengo: {name}" for name in graphs()} <= asked


def test_the_page_is_the_one_the_figures_make() -> None:
    if not TOPIC.exists():
        pytest.skip("no figures: python -m benchmarks.interop has not been run")
    assert PAGE.read_text(encoding="utf-8") == page(read_json(TOPIC))
