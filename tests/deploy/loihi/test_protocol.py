"""The layout of Lava processes, without Lava."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from deploy import reference
from deploy.loihi.protocol import Request, conv_connections, lags, network, request
from deploy.program import Conv, Dense, Input, Population, Program
from deploy.spikes import stimulus


def population(name: str, size: int = 3) -> Population:
    return Population(name, (size,), 4095, 0, 10, np.zeros(size, np.int16))


def dense(source: str, target: str, delay: int = 0, size: int = 3) -> Dense:
    return Dense(f"{source}{target}", source, target, np.full((size, size), 2), delay=delay)


def program(*synapses: Dense) -> Program:
    names = dict.fromkeys(s.target for s in synapses)
    return Program(Input("i", (3,)), tuple(population(name) for name in sorted(names)), synapses)


def laid_out(made: Program, steps: int = 4, *, reset: bool = True) -> Request:
    given = stimulus(made, np.ones((steps, 2, 3), int))
    return request(made, given, {p.name for p in made.populations}, reset=reset)


def entry(made: Request, name: str) -> dict[str, Any]:
    return next(e for e in made.processes if e["name"] == name)


class TestLags:
    def test_chain(self) -> None:
        assert lags(program(dense("i", "a"), dense("a", "b"))) == {"i": 0, "a": 1, "b": 2}

    def test_longest_path_counts(self) -> None:
        assert lags(program(dense("i", "a"), dense("a", "b"), dense("i", "b"))) == {"i": 0, "a": 1, "b": 2}

    def test_a_delay_is_a_step_lava_takes_anyway(self) -> None:
        assert lags(program(dense("i", "a", 1), dense("a", "b", 3))) == {"i": 0, "a": 0, "b": 0}

    def test_recurrence_of_one_step_fits(self) -> None:
        assert lags(program(dense("i", "a"), dense("a", "a", 1))) == {"i": 0, "a": 1}

    def test_loop_of_two_with_two_steps_fits(self) -> None:
        made = program(dense("i", "a"), dense("a", "b"), dense("b", "a", 2))
        assert lags(made) == {"i": 0, "a": 1, "b": 2}


class TestRequest:
    def test_run_lasts_samples_and_pipeline(self) -> None:
        made = laid_out(program(dense("i", "a"), dense("a", "b")))
        assert made.steps == 2 * 4 + 2
        assert entry(made, "a")["offset"] == 2
        assert entry(made, "b")["offset"] == 3
        assert entry(made, "sink:b")["skip"] == 2
        assert made.recordings() == {"sink:a": (8, 3), "sink:b": (8, 3)}

    def test_equal_paths_need_no_delay_line(self) -> None:
        made = laid_out(program(dense("i", "a"), dense("a", "b")))
        assert [e for e in made.processes if e["kind"] == "delay"] == []

    def test_skip_waits_for_the_longer_path(self) -> None:
        made = laid_out(program(dense("i", "a"), dense("a", "b"), dense("i", "b")))
        line = entry(made, "delay:ib")
        assert (line["steps"], line["silent"]) == (1, [])
        assert [w["from"] for w in made.wires if w["to"] == "delay:ib"] == ["i"]

    def test_delay_drops_spikes_of_the_sample_before(self) -> None:
        """Delay 1, four steps a sample: what a sent at its last step (lag 1, so step 4, 8 ..) must not pass."""
        made = laid_out(program(dense("i", "a"), dense("a", "a", 1)))
        assert {"steps": 0, "start": 1, "period": 4, "silent": [0]}.items() <= entry(made, "delay:aa").items()

    def test_delay_longer_than_a_sample_drops_everything(self) -> None:
        made = laid_out(program(dense("i", "a"), dense("a", "a", 9)))
        assert entry(made, "delay:aa")["silent"] == [0, 1, 2, 3]

    def test_state_that_carries_over_is_cleared_once(self) -> None:
        made = laid_out(program(dense("i", "a"), dense("a", "a", 1)), reset=False)
        assert entry(made, "a")["period"] > made.steps
        assert entry(made, "delay:aa")["silent"] == []

    def test_frames_follow_each_other_sample_by_sample(self) -> None:
        made = program(dense("i", "a"))
        frames = np.arange(12).reshape(2, 2, 3) % 2
        laid = request(made, stimulus(made, frames), {"a"})
        np.testing.assert_array_equal(laid.arrays["i.frames"], frames.swapaxes(0, 1).reshape(4, 3))
        held = request(made, stimulus(made, frames[0], 5), {"a"})
        assert held.arrays["i.frames"].shape == (2, 3)
        assert entry(held, "i")["repeat"] == 5

    def test_graded_input_is_told_to_the_synapse(self) -> None:
        synapse = dense("i", "a")
        graded = Program(Input("i", (3,), bits=5), (population("a"),), (synapse,))
        assert entry(laid_out(graded), "ia")["message_bits"] == 5
        assert entry(laid_out(program(synapse)), "ia")["message_bits"] == 0

    def test_a_network_alone_is_the_same_without_stream_and_sinks(self) -> None:
        made = program(dense("i", "a"), dense("a", "b"), dense("i", "b"))
        alone, whole = network(made, 4), laid_out(made)
        ours = [e for e in whole.processes if e["kind"] not in ("stream", "sink")]
        assert [{**e, "rows": 8} if e["kind"] == "lif" else e for e in alone.processes] == ours
        assert [w for w in whole.wires if not w["to"].startswith("sink:")] == alone.wires

    def test_adapters_stand_between_host_and_chip(self) -> None:
        rng = np.random.default_rng(0)
        conv = Conv("c", "i", "a", rng.integers(-9, 9, (2, 1, 2, 2)) * 2)
        image = Population("a", (2, 2, 3), 4095, 0, 10, np.zeros(12, np.int16))
        made = Program(Input("i", (1, 3, 4), bits=4), (image,), (conv,))
        laid = request(made, stimulus(made, np.zeros((2, 1, 1, 3, 4), int)), {"a"}, target="loihi2")
        inward, outward = entry(laid, "adapter:i:c"), entry(laid, "adapter:a:sink:a")
        assert (inward["adapter"], inward["shape"], inward["message_bits"]) == ("PyToN3ConvAdapter", [4, 3, 1], 4)
        assert (outward["adapter"], outward["shape"], outward["message_bits"]) == ("NxToPyAdapter", [12], 0)
        wires = {(w["from"], w["to"]): w for w in laid.wires}
        assert wires["i", "adapter:i:c"]["to_image"] == [1, 3, 4]
        assert set(wires) == {
            ("i", "adapter:i:c"), ("adapter:i:c", "c"), ("c", "a"), ("a", "adapter:a:sink:a"),
            ("adapter:a:sink:a", "sink:a"),
        }  # fmt: skip

    def test_header_is_plain_json(self) -> None:
        made = laid_out(program(dense("i", "a"), dense("a", "a", 1)))
        assert json.loads(json.dumps(made.header())) == made.header()


@pytest.mark.parametrize("seed", range(8))
def test_conv_connections_are_the_references(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 3))
    shape = (2 * groups, int(rng.integers(4, 8)), int(rng.integers(4, 8)))
    stride, padding, dilation = (
        (int(rng.integers(low, high)), int(rng.integers(low, high))) for low, high in ((1, 4), (0, 3), (1, 3))
    )
    weights = rng.integers(-2, 3, (3 * groups, 2, 2, 2)) * 2
    conv = Conv("c", "in", "out", weights, stride=stride, padding=padding, dilation=dilation, groups=groups)
    out = conv.output_shape(shape)
    neurons = Population("out", out, 4095, 0, 1, np.zeros(int(np.prod(out)), np.int16))
    made = Program(Input("in", shape), (neurons,), (conv,))
    found = sorted(zip(*(part.tolist() for part in conv_connections(conv, shape)), strict=True))
    assert found == sorted(reference.connections(made, conv))


def test_conv_without_weights_has_no_connections() -> None:
    conv = Conv("c", "in", "out", np.zeros((1, 1, 2, 2), np.int16))
    assert [len(part) for part in conv_connections(conv, (1, 3, 3))] == [0, 0, 0]
