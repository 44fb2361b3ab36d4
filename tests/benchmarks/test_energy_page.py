"""The pages on energy and chips say what the results say; the publications' networks have the published sizes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import energy_page, neurobench, published, sanafe, students
from deploy.chip import load_chip
from deploy.errors import DataError
from deploy.program import Conv, Dense


def test_the_pages_are_what_the_results_say() -> None:
    assert energy_page.main(["--check"]) == 0


@pytest.mark.parametrize("layers", published.CANDIDATES)
def test_candidates_have_the_papers_parameters_and_connections(layers: published.Layers) -> None:
    program = published.network((1, 28, 28), layers)
    biases = sum(p.shape[0] for p in program.populations)
    assert sum(s.weights.size for s in program.synapses) + biases == 6746
    connections = 0
    for block in program.synapses:
        outputs = program.node(block.target).shape
        connections += int(np.prod(outputs)) * int(np.prod(block.weights.shape[1:])) if isinstance(block, Conv) else 0
        connections += block.weights.size if isinstance(block, Dense) else 0
    assert abs(connections / 341_000 - 1) < 0.002


def test_the_dvs_example_has_its_sizes() -> None:
    program = published.network((1, 32, 32), published.DVS)
    assert [program.input.size, *(p.size for p in program.populations)] == [1024, 3600, 5408, 7744, 891, 11]


@pytest.mark.parametrize("tool", [sanafe, neurobench])
def test_a_tool_without_its_environment_is_refused(tool: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tool.PYTHON, raising=False)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="Python is not known"):
        tool.interpreter()  # type: ignore[attr-defined]


def test_pairs_are_every_connection_once() -> None:
    for spec in ("12-5", "6x6x2-3c3s2-4"):
        program = students.program(spec)
        for block in program.synapses:
            pairs, weights = sanafe._pairs(program, block)
            assert len(np.unique(pairs, axis=0)) == len(pairs) == len(weights)
            if isinstance(block, Dense):
                rebuilt = np.zeros(block.weights.shape)
                rebuilt[pairs[:, 1], pairs[:, 0]] = weights
                np.testing.assert_array_equal(rebuilt, block.weights)


def test_the_architecture_holds_the_chips_constants() -> None:
    text = sanafe.architecture(load_chip("loihi1_sanafe"))
    assert "energy_process_spike: 3.550000e-11" in text
    assert "latency_message_in: 1.600000e-08" in text
    assert "latency_sync: { 2: 6.000000e-07, 3: 1.000000e-06" in text
    host = text[text.index("host[0..3]") :]
    assert "energy_message_out: 0.000000e+00" in host
