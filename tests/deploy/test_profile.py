"""Profiles: counts equal the run's counters, energy and time equal sums done by hand with the toy chip's figures."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from deploy import reference
from deploy.chip import Chip, load_chip
from deploy.errors import ChipError, ProgramError, RuleError, SimulatorError
from deploy.place import place
from deploy.profile import Profile, profile
from deploy.profile_types import amount
from deploy.program import Conv, Dense, Input, Population, Program
from deploy.trace import Counter, Trace

TOY = load_chip("toy")


def layer(name: str, *shape: int, vth: int = 31) -> Population:
    return Population(name, shape, 4095, 0, vth, np.zeros(int(np.prod(shape)), np.int16))


def net(hidden: int = 2, *, bits: int = 1, delay: int = 0) -> Program:
    first = Dense("first", "in", "hidden", np.full((hidden, 3), 32, np.int16), weight_bits=4)
    second = Dense("second", "hidden", "out", np.full((1, hidden), 32, np.int16), weight_bits=4, delay=delay)
    return Program(Input("in", (3,), bits), (layer("hidden", hidden), layer("out", 1)), (first, second))


def counter(neurons: int, spikes: list[int], synops: list[int], active: list[int]) -> Counter:
    """Counters of one sample."""
    columns = [np.array(x, dtype=np.int64)[:, None] for x in (spikes, synops, active)]
    return Counter(neurons, *columns, np.zeros_like(columns[0]), np.zeros_like(columns[0]))


def run_of(program: Program, events: list[int], **counters: Counter) -> Trace:
    entering = np.array(events, dtype=np.int64)[:, None]
    return Trace("reference", program.digest, "out", np.zeros((1, 1), np.int64), entering, counters)


def two_steps(program: Program) -> Trace:
    """Two steps of one sample: 3 and 1 input events, 2 and 0 hidden spikes, 1 and 0 output spikes."""
    hidden, out = counter(2, [2, 0], [6, 2], [2, 1]), counter(1, [1, 0], [2, 0], [1, 0])
    return run_of(program, [3, 1], hidden=hidden, out=out)


def events_of(result: Profile) -> dict[str, tuple[float, float | None]]:
    return {event.event: (event.count, event.energy) for event in result.events}


def without(chip: Chip, section: str, *names: str) -> Chip:
    """A chip that does not publish some constants."""
    part = getattr(chip, section)
    entries = tuple(
        (n, dataclasses.replace(q, value=None, grade="", note="not told") if n in names else q) for n, q in part
    )
    return dataclasses.replace(chip, **{section: dataclasses.replace(part, entries=entries)})


def test_energy_of_a_tiny_net_by_hand() -> None:
    result = profile(net(), two_steps(net()), TOY)
    pj = {
        event: (count, round(energy * 1e12, 6))
        for event, (count, energy) in events_of(result).items()
        if energy is not None
    }
    assert pj == {
        "synop": (10, 10 * 10.0),  # 6 + 2 at hidden, 2 at out
        "neuron_active": (4, 4 * 100.0),  # 2 + 1 of hidden, 1 + 0 of out
        "neuron_inactive": (2, 2 * 50.0),  # 3 neurons, 2 steps, 4 of the 6 updates are active
        "spike_generate": (3, 3 * 7.0),
        "axon_out": (2, 2 * 3.0),  # 2 hidden spikes to the one core of out; out sends to no core
        "axon_in": (6, 6 * 2.0),  # these and 4 input events
        "spike_within_tile": (6, 6 * 1.0),
        "hop_east_west": (0, 0.0),  # both cores are in tile 0
        "hop_north_south": (0, 0.0),
    }
    assert result.energy.mean == pytest.approx((100 + 400 + 100 + 21 + 6 + 12 + 6) * 1e-12, rel=1e-12)
    # The same by layer: input 4 × (2 + 1); hidden 80 + 300 + 50 + 2 × (7 + 3 + 2 + 1); out 20 + 100 + 50 + 7.
    assert [layer.energy.mean for layer in result.layers] == pytest.approx([12e-12, 456e-12, 177e-12], rel=1e-12)


def test_latency_of_a_tiny_net_by_hand() -> None:
    result = profile(net(), two_steps(net()), TOY)
    # hidden, step 0: 6 synops, 2 active updates, 2 spikes of 2, 2 messages out at 3, 3 in at 4: 48.
    # hidden, step 1: 2 synops, an active and an idle update, 1 message in: 2 + 10 + 5 + 4 = 21.
    # out, step 0: 2 + 10 + 2 + 2 messages in at 4: 22; step 1: idle, 5. Idle cores: hidden 10, out 5.
    # Pipelined, hidden works at steps 1 and 2, out at 2 and 3; one tile in use, a barrier of 100.
    works = [max(10, 5), max(48, 5), max(21, 22), max(10, 5)]
    assert result.pipeline == 4
    assert result.latency.mean == pytest.approx((sum(works) + 4 * 100) * 1e-9, rel=1e-12)
    assert result.step.mean == pytest.approx((sum(works) / 4 + 100) * 1e-9, rel=1e-12)
    assert dict(result.slowest) == {"hidden": 0.75, "out": 0.25}


def test_a_cut_layer_sends_over_tiles() -> None:
    program = net(10)
    hidden, out = counter(10, [10], [30], [10]), counter(1, [1], [10], [1])
    result = profile(program, run_of(program, [3], hidden=hidden, out=out), TOY)
    counts = {event: count for event, (count, _) in events_of(result).items()}
    # One half of hidden shares out's tile, the other half's 5 spikes cross one border; inputs reach 2 cores.
    assert (counts["axon_out"], counts["axon_in"], counts["hop_east_west"]) == (10, 10 + 3 * 2, 5)
    kinds = {event.event: event.kind for event in result.events}
    assert (kinds["axon_in"], kinds["hop_east_west"]) == ("counted", "modelled")
    # Each hidden core: 15 synops, 5 active updates, 5 spikes, 5 messages out, 3 in: 15 + 50 + 10 + 15 + 12.
    # Steps: idle 25, hidden 102, out 10 + 10 + 2 + 10·4 = 62 against idle hidden 25; two tiles, a barrier of 200.
    assert result.latency.mean == pytest.approx((25 + 102 + 62 + 3 * 200) * 1e-9, rel=1e-12)


def test_loihi_constants_give_the_papers_energy() -> None:
    result = profile(net(), two_steps(net()), "loihi1")
    by_hand = 10 * 23.6 + 4 * 81 + 2 * 52 + 6 * 1.7
    assert result.energy.mean == pytest.approx(by_hand * 1e-12, rel=1e-12)
    assert "Davies et al. 2018" in result.energy.source
    assert "simulated" in result.energy.source
    assert any("spikes generated" in line for line in result.ignored)


def test_counts_are_those_of_the_run() -> None:
    program = net()
    spikes = np.random.default_rng(3).integers(0, 2, (5, 4, 3)).astype(np.uint8)
    trace = reference.run(program, spikes)
    result = profile(program, trace, TOY)
    hidden = trace.counters["hidden"]
    assert result.layers[0].spikes.mean == trace.input_events.sum(axis=0).mean()
    assert result.layers[1].spikes.mean == hidden.spikes.sum(axis=0).mean()
    assert result.layers[1].spikes.p95 == np.percentile(hidden.spikes.sum(axis=0), 95)
    assert result.layers[1].active.mean + result.layers[1].inactive.mean == 2 * 5
    assert result.synops.mean == sum(c.synops.sum(axis=0).mean() for c in trace.counters.values())
    assert {x.spikes.kind for x in result.layers} == {"counted"}
    assert {x.energy.kind for x in result.layers} == {"modelled"}


def test_layers_add_up_to_the_whole() -> None:
    program = net()
    trace = reference.run(program, np.ones((4, 2, 3), np.uint8))
    result = profile(program, trace, TOY)
    assert sum(x.energy.mean or 0 for x in result.layers) == pytest.approx(result.energy.mean, rel=1e-12)
    assert sum(x.energy or 0 for x in result.events) == pytest.approx(result.energy.mean, rel=1e-12)
    assert sum(x.spikes.mean or 0 for x in result.layers[1:]) == pytest.approx(result.spikes.mean)


def test_convolutions_have_their_own_constant() -> None:
    conv = Conv("c", "in", "out", np.full((1, 1, 2, 2), 32, np.int16), weight_bits=4)
    program = Program(Input("in", (1, 3, 3)), (layer("out", 1, 2, 2),), (conv,))
    trace = reference.run(program, np.ones((1, 1, 1, 3, 3), np.uint8))
    events = events_of(profile(program, trace, TOY))
    assert events["synop_conv"] == (16, pytest.approx(16 * 5e-12))
    assert events["synop"][0] == 0
    # Each input meets 1, 2 or 4 of the outputs, all on one core: every input has an axon.
    assert events["axon_in"][0] == 9
    plain = profile(program, trace, without(TOY, "energy", "synop_conv"))
    assert events_of(plain)["synop_conv"] == (16, pytest.approx(16 * 10e-12))


def test_mixed_blocks_share_the_operations() -> None:
    conv = Conv("c", "in", "out", np.full((1, 1, 1, 1), 32, np.int16), weight_bits=4)
    dense = Dense("d", "in", "out", 32 * np.eye(3, dtype=np.int16)[[0, 1, 2]], weight_bits=4)
    program = Program(Input("in", (1, 1, 3)), (layer("out", 1, 1, 3),), (conv, dense))
    result = profile(program, reference.run(program, np.ones((1, 1, 1, 1, 3), np.uint8)), TOY)
    counts = {event.event: (event.count, event.kind) for event in result.events}
    assert counts["synop_conv"] == (pytest.approx(6 * 1 / 4), "modelled")
    assert counts["synop"] == (pytest.approx(6 * 3 / 4), "modelled")


def test_zero_spikes_cost_idle_updates_only() -> None:
    program = net()
    result = profile(program, reference.run(program, np.zeros((2, 1, 3), np.uint8)), TOY)
    assert result.spikes.mean == 0
    assert result.energy.mean == pytest.approx(2 * 3 * 50e-12)


def test_loihi2_gives_counts_and_says_why_there_is_no_energy() -> None:
    result = profile(net(), two_steps(net()), "loihi2")
    assert result.synops.mean == 10
    assert (result.energy.mean, result.latency.mean, result.slowest) == (None, None, ())
    assert "Intel has published no energy" in result.energy.source
    assert "ratios" in result.latency.source
    assert "none: Intel Loihi 2" in result.table()
    assert result.summary()["modelled"]["energy_per_sample_J"] is None


def test_another_chips_constants_are_named() -> None:
    program = net(bits=8)
    result = profile(program, two_steps(program), "loihi1", place(program, "loihi2"))
    assert (result.placed_on, result.chip) == ("loihi2", "loihi1")
    text = " ".join(result.ignored)
    assert "between loihi2, where the program is placed, and loihi1" in text
    assert "payload" in text


def test_static_energy_is_apart_and_only_on_request() -> None:
    plain = profile(net(), two_steps(net()), TOY)
    asked = profile(net(), two_steps(net()), TOY, static=True)
    assert plain.static is None
    assert any("Static power" in line for line in plain.ignored)
    assert asked.static is not None
    assert asked.latency.mean is not None
    assert asked.static.mean == pytest.approx(asked.latency.mean * 1e-3)
    assert asked.energy == plain.energy
    assert not any("Static power" in line for line in asked.ignored)
    assert "static energy" in asked.table()
    untimed = profile(net(), two_steps(net()), without(TOY, "time", "synop"), static=True)
    assert untimed.static is not None
    assert (untimed.static.mean, untimed.static.source) == (None, "Toy chip: not told")
    with pytest.raises(ChipError, match="no published value for power.static"):
        profile(net(), two_steps(net()), "loihi2", static=True)


def test_an_unpublished_barrier_is_left_out_and_said() -> None:
    result = profile(net(), two_steps(net()), without(TOY, "time", "barrier"))
    assert result.latency.mean == pytest.approx((10 + 48 + 22 + 10) * 1e-9)
    assert any("barrier" in line for line in result.ignored)


def test_json_tags_every_figure() -> None:
    data = json.loads(json.dumps(profile(net(), two_steps(net()), TOY, static=True).to_json()))
    assert data["energy"]["kind"] == "modelled"
    assert data["layers"][1]["synops"] == {
        **dict.fromkeys(("mean", "p5", "p50", "p95"), 8.0),
        "unit": "synops",
        "kind": "counted",
        "source": "reference run",
        "ci95": None,
    }
    assert data["layers"][1]["active"]["source"] == "reference run: u or v not zero after the update"
    assert data["events"][0]["label"] == "synaptic operations"
    assert data["events"][0]["grade"] == "invented for tests"
    assert data["static"]["unit"] == "J"


def test_summary_has_the_keys_of_a_run() -> None:
    summary = profile(net(), two_steps(net()), TOY).summary()
    assert summary["activity"]["spikes_per_sample"] == 3
    assert summary["activity"]["layers"][1] == {"name": "out", "spikes": 1.0, "synops": 2.0}
    assert set(summary["modelled"]) == {"chip", "energy_per_sample_J", "latency_per_sample_s"}


def test_notebooks_get_a_table() -> None:
    text = profile(net(), two_steps(net()), TOY)._repr_html_()
    assert "<td>hidden</td>" in text
    assert "Toy chip" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(3.2e-6, "J", "3.2 µJ"), (2.0, "s", "2 s"), (5e-13, "J", "0.5 pJ"), (12.34, "spikes", "12.3"), (0.0, "s", "0 ps")],
)
def test_amounts_for_people(value: float, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_a_run_of_another_program_is_refused() -> None:
    with pytest.raises(ProgramError, match="the run is of another program"):
        profile(net(3), two_steps(net()), TOY)


def test_a_placement_of_another_program_is_refused() -> None:
    with pytest.raises(ProgramError, match="the placement is of another program"):
        profile(net(), two_steps(net()), TOY, place(net(3), TOY))


def test_a_run_without_counters_is_refused() -> None:
    bare = dataclasses.replace(two_steps(net()), counters={}, backend="lava")
    with pytest.raises(SimulatorError, match="nothing to profile") as caught:
        profile(net(), bare, TOY)
    assert "hidden, out" in caught.value.got


def test_a_program_that_does_not_fit_is_refused() -> None:
    program = net(40)
    hidden, out = counter(40, [0], [0], [0]), counter(1, [0], [0], [0])
    with pytest.raises(RuleError):
        profile(program, run_of(program, [0], hidden=hidden, out=out), TOY)
