"""Placement: resource counts by hand, cuts that fit, refusals that say what would fit."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.chip import Chip, load_chip
from deploy.errors import RuleError
from deploy.place import place
from deploy.place_core import Slice, cut, neuron_order
from deploy.program import Conv, Dense, Input, Population, Program

TOY = load_chip("toy")


def with_limits(chip: Chip, **limits: int | None) -> Chip:
    """A chip with other limits; None is 'not published'."""
    entries = tuple(
        (name, dataclasses.replace(q, value=limits.get(name, q.value), note="x")) for name, q in chip.limits.entries
    )
    return dataclasses.replace(chip, limits=dataclasses.replace(chip.limits, entries=entries))


def population(name: str, *shape: int) -> Population:
    return Population(name, shape, 4095, 0, 64, np.zeros(int(np.prod(shape)), np.int16))


def full(rows: int, columns: int) -> np.ndarray:
    return np.full((rows, columns), 16, dtype=np.int16)


def net(*sizes: int, bits: int = 4) -> Program:
    """Fully connected layers, every weight nonzero."""
    names = ["in", *(f"layer{k}" for k in range(1, len(sizes)))]
    synapses = tuple(
        Dense(f"to_{b}", a, b, np.full((n, m), 32, np.int16), weight_bits=bits)
        for a, b, m, n in zip(names, names[1:], sizes, sizes[1:], strict=False)
    )
    layers = tuple(population(name, size) for name, size in zip(names[1:], sizes[1:], strict=True))
    return Program(Input("in", (sizes[0],)), layers, synapses)


def test_resources_of_a_small_net_by_hand() -> None:
    placement = place(net(6, 8, 3), TOY)
    hidden, out = placement.cores
    # 6 sources, each a list of 8 weights of 4 bit and a header of 2: 34 bit, rounded up to 48.
    assert dict(hidden.pairs) == {
        "neurons": (8, 8),
        "synaptic_memory_bits": (6 * 48, 1024),
        "input_axons": (6, 16),
        "output_axons": (8, 16),
        "fan_in": (6, 24),
        "fan_out": (3, 24),
    }
    # 8 sources, each a list of 3 weights: 14 bit, rounded up to 16.
    assert out.pair("synaptic_memory_bits") == (8 * 16, 1024)
    assert out.pair("output_axons") == (0, 16)
    assert (hidden.tile, out.tile, placement.tiles) == (0, 0, 1)
    assert (hidden.binding, out.binding) == ("neurons", "input_axons")


def test_a_sparse_block_is_stored_with_indices_when_that_is_smaller() -> None:
    weights = np.zeros((8, 4), np.int16)
    weights[0] = 32
    program = Program(Input("in", (4,)), (population("out", 8),), (Dense("d", "in", "out", weights, weight_bits=4),))
    core = place(program, TOY).cores[0]
    # One weight of 4 bit, its index of 3 and a header of 2 are 9 bit: one word of 16 for each of 4 sources.
    assert core.pair("synaptic_memory_bits") == (4 * 16, 1024)
    assert core.synapses == (4,)


def test_loihi_memory_follows_nengo_loihi() -> None:
    core = place(net(10, 100, bits=8), load_chip("loihi1")).cores[0]
    # bits_per_axon(100), dense, 8 bit: 64*8+10 -> 576 and 36*8+10 -> 320.
    assert core.pair("synaptic_memory_bits") == (10 * (576 + 320), 16384 * 64)


def test_a_convolution_shares_its_kernel_on_a_core() -> None:
    weights = np.full((2, 1, 2, 2), 32, np.int16)
    layers = (population("conv", 2, 2, 2),)
    program = Program(Input("in", (1, 3, 3)), layers, (Conv("c", "in", "conv", weights, weight_bits=4),))
    core = place(program, TOY).cores[0]
    # Of each axis' inputs the first sees one tap, the middle both, the last the other: 9 lists of 2 channels, of
    # 2 weights of 4+3 bit and a header of 2 (16 bit, four times), of 4 (30 bit: 32, four times), of 8 (58 bit: 64).
    assert core.pair("synaptic_memory_bits") == (4 * 16 + 4 * 32 + 64, 1024)
    assert core.pair("input_axons") == (9, 16)
    assert core.synapses == (8 * 4,)
    assert core.pair("fan_in") == (4, 24)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "lists"),
    [
        (6, 3, 1, 0, 5),  # 1, 2, 3, 2 and 1 taps
        (6, 3, 1, 1, 3),  # the inputs at the two edges have lost a tap
        (7, 3, 2, 0, 4),  # 0 | 1 | 2 0 | 2: the first, the odd ones, the even ones, the last
        (4, 2, 2, 0, 2),  # no overlap: each input has one of two taps
        (5, 1, 1, 0, 1),
    ],
)
def test_inputs_with_the_same_taps_share_a_list(size: int, kernel: int, stride: int, padding: int, lists: int) -> None:
    side = (size + 2 * padding - kernel) // stride + 1
    conv = Conv("c", "in", "conv", np.full((1, 1, kernel, 1), 32, np.int16), stride=(stride, 1), padding=(padding, 0))
    program = Program(Input("in", (1, size, 1)), (population("conv", 1, side, 1),), (conv,))
    bare = with_limits(load_chip("loihi1"), synaptic_memory_word_bits=64)
    # One column: every list is at most a word of 64 bit.
    assert place(program, bare).cores[0].pair("synaptic_memory_bits")[0] == lists * 64


def test_a_layer_too_large_for_a_core_is_cut_evenly() -> None:
    placement = place(net(6, 10, 3), TOY)
    assert [(c.part.layer, c.part.size) for c in placement.cores] == [("layer1", 5), ("layer1", 5), ("layer2", 3)]
    # layer2 shares a tile with one half of layer1: one border for 5 axons instead of 10.
    assert sorted(c.tile for c in placement.cores) == [0, 0, 1]
    assert (placement.tiles, placement.traffic) == (2, 5)


def test_memory_cuts_a_layer() -> None:
    placement = place(net(6, 8, 3), with_limits(TOY, synaptic_memory_bits_per_core=200))
    assert [c.part.size for c in placement.of("layer1")] == [4, 4]
    # 6 lists of 4 weights are 18 bit, 32 with rounding.
    assert placement.cores[0].pair("synaptic_memory_bits") == (192, 200)


def test_output_axons_cut_a_layer() -> None:
    # 8 neurons to 2 cores need 16 output axons; with 8, two cores of 4 neurons send to 2 cores each.
    placement = place(net(6, 8, 10), with_limits(TOY, output_axons_per_core=8))
    assert [c.part.size for c in placement.cores] == [4, 4, 5, 5]
    assert all(core.pair("output_axons") == (8, 8) for core in placement.of("layer1"))


def test_a_recurrent_layer_counts_its_own_axons() -> None:
    base = net(4, 4)
    loop = Dense("loop", "layer1", "layer1", full(4, 4), delay=1)
    placement = place(dataclasses.replace(base, synapses=(*base.synapses, loop)), TOY)
    assert placement.cores[0].pair("output_axons") == (4, 16)
    assert placement.cores[0].pair("input_axons") == (8, 16)


def test_a_convolution_is_cut_by_pixel_when_that_saves_axons() -> None:
    layers = (population("conv", 4, 4, 4),)
    conv = Conv("c", "in", "conv", np.full((4, 1, 3, 3), 32, np.int16), padding=(1, 1), weight_bits=4)
    program = Program(Input("in", (1, 4, 4)), layers, (conv,))
    chip = with_limits(TOY, cores=16, mesh_columns=8, neurons_per_core=16, input_axons_per_core=12, fan_out=None)
    placement = place(program, chip)
    # 16 neurons of one channel see all 16 inputs; 16 of one row of pixels see 12 at most.
    assert {core.part.order for core in placement.cores} == {"pixel-major"}
    assert len(placement.cores) == 4
    covered = np.sum([core.part.mask(layers[0]) for core in placement.cores], axis=0)
    np.testing.assert_array_equal(covered, np.ones(64))


def test_pixel_order_keeps_channels_together() -> None:
    order = neuron_order(population("p", 2, 2, 2), "pixel-major")
    assert order.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    mask = Slice("p", "pixel-major", 0, 2).mask(population("p", 2, 2, 2))
    assert np.flatnonzero(mask).tolist() == [0, 4]


def test_routes_say_who_sends_to_whom() -> None:
    routes = place(net(6, 10, 3), TOY).routes
    assert [(r.source, r.source_core, r.target_core, r.axons, r.share) for r in routes] == [
        ("in", None, 2, 6, 1.0),
        ("in", None, 1, 6, 1.0),
        ("layer1", 2, 0, 5, 1.0),
        ("layer1", 1, 0, 5, 1.0),
    ]


def test_a_neuron_without_synapses_needs_no_axon() -> None:
    program = net(2, 2, 2)
    weights = np.array([[32, 0], [32, 0]], np.int16)
    cut_off = dataclasses.replace(program.synapses[1], weights=weights)
    placement = place(dataclasses.replace(program, synapses=(program.synapses[0], cut_off)), TOY)
    assert placement.cores[0].pair("output_axons") == (1, 16)
    assert placement.routes[-1].share == 0.5


def test_hops_follow_the_mesh() -> None:
    chip = load_chip("loihi1")
    placement = place(net(6, 10, 3), TOY)
    wide = dataclasses.replace(placement, mesh=(8, 4, 4), cores_max=128)
    assert placement.hops(0, 2) == (1, 0)
    assert wide.hops(0, 3) == (0, 0)
    assert wide.hops(0, 4 * 8) == (0, 1)
    assert wide.hops(4 * 7, 4 * 8) == (7, 1)
    assert wide.hops(4 * 7, 128) == (1, 0)  # the next chip stands east of this one
    assert dataclasses.replace(placement, mesh=None).hops(0, 2) == (0, 0)
    assert chip.limits.mesh_columns == 8


def test_unpublished_limits_bind_nothing_and_are_shown() -> None:
    placement = place(net(600, 30, bits=8), "loihi2")
    assert placement.cores[0].pair("input_axons") == (600, None)
    # No header, index or word is published: 600 lists of 30 weights of 8 bit.
    assert placement.cores[0].pair("synaptic_memory_bits")[0] == 600 * 30 * 8
    assert "600/?" in placement.table()
    no_mesh = place(net(6, 8, 3), with_limits(TOY, mesh_rows=None))
    assert (no_mesh.mesh, no_mesh.tiles, no_mesh.cores[0].tile) == (None, None, None)


def test_too_many_cores_is_refused_with_what_would_fit() -> None:
    with pytest.raises(RuleError, match="does not fit on one Toy chip") as caught:
        place(net(6, 16, 10, 16), TOY)
    assert caught.value.got == "6 cores: layer1 2, layer2 2, layer3 2"
    assert (
        caught.value.next_step == "it would fit on 2 such chips (chips=2, --chips 2), or with fewer neurons in layer1"
    )


def test_a_program_goes_on_on_the_next_chip() -> None:
    program = net(6, 16, 10, 16)
    placement = place(program, TOY, chips=2)
    assert (len(placement.cores), placement.chips, placement.chips_used) == (6, 2, 2)
    assert sorted(core.chip for core in placement.cores) == [0, 0, 0, 0, 1, 1]
    assert {core.tile for core in placement.cores if core.chip == 1} == {2}
    assert placement.table().startswith("toy: 6 of 8 cores on 2 of 2 chips")
    assert placement.to_json()["chips_used"] == [2, 2]
    with pytest.raises(RuleError, match="a program needs a chip"):
        place(program, TOY, chips=0)
    with pytest.raises(RuleError, match="does not fit on 2 Toy chip"):
        place(net(6, 16, 10, 16, 10, 16), TOY, chips=2)


def test_small_layers_share_a_core_where_the_chip_allows_it() -> None:
    program = net(6, 4, 3, 3)
    apart, together = place(program, TOY), place(program, TOY, share=True)
    assert (len(apart.cores), len(together.cores)) == (3, 2)
    core = together.cores[0]
    assert core.layers == ("layer1", "layer2")
    assert core.synapses == (24, 12)
    # What two cores need apart adds up: 7 neurons, 6 + 4 input axons, and 4 + 3 axons out.
    assert (core.pair("neurons"), core.pair("input_axons"), core.pair("output_axons")) == ((7, 8), (10, 16), (7, 16))
    alone = [apart.cores[k].pair("synaptic_memory_bits")[0] for k in (0, 1)]
    assert core.pair("synaptic_memory_bits")[0] == sum(alone)
    assert [layer["cores"] for layer in together.to_json()["layers"]] == [[0], [0], [1]]
    assert "layer1 + layer2" in together.table(cores=True)
    with pytest.raises(RuleError, match="cannot share a core"):
        place(program, with_limits(TOY, layers_per_core=None), share=True)
    assert len(place(program, with_limits(TOY, layers_per_core=1), share=True).cores) == 3


def test_cores_change_places_while_that_saves_hops() -> None:
    program = net(200, 2500, 2500, 1200, 10, bits=8)
    placement = place(program, with_limits(load_chip("loihi1"), output_axons_per_core=None), chips=2)
    numbers = sorted(core.number for core in placement.cores)
    assert numbers == list(range(len(placement.cores)))
    back = {core.number: k for k, core in enumerate(placement.cores)}
    routes = tuple(
        dataclasses.replace(
            r,
            source_core=None if r.source_core is None else back[r.source_core],
            target_core=back[r.target_core],
        )
        for r in placement.routes
    )
    assert placement.traffic < dataclasses.replace(placement, routes=routes).traffic


@pytest.mark.parametrize(("sizes", "limit"), [((25, 3), "fan-in"), ((3, 25), "fan-out")])
def test_a_fan_beyond_the_chip_is_refused(sizes: tuple[int, int], limit: str) -> None:
    with pytest.raises(RuleError, match=f"the {limit} of a neuron is too large") as caught:
        place(net(*sizes), TOY)
    assert caught.value.got == "25 synapses"
    assert "at most 24" in caught.value.next_step


def test_a_neuron_too_large_for_a_core_is_refused() -> None:
    with pytest.raises(RuleError, match="a single neuron of the layer does not fit") as caught:
        place(net(20, 3), TOY)
    assert caught.value.got == "20 input axons"
    assert caught.value.allowed == "at most 16 input axons a core"
    with pytest.raises(RuleError) as caught:
        place(net(6, 3), with_limits(TOY, synaptic_memory_bits_per_core=64))
    assert "synaptic memory bits" in caught.value.got


def test_a_neuron_with_too_many_destinations_is_refused() -> None:
    with pytest.raises(RuleError, match="more cores than a core has output axons") as caught:
        place(net(2, 2, 16), with_limits(TOY, output_axons_per_core=1))
    assert "layers it feeds took fewer cores" in caught.value.next_step


def test_table_and_json_show_every_pair() -> None:
    placement = place(net(6, 10, 3), TOY)
    text = placement.table()
    assert text.splitlines()[0] == "toy: 3 of 4 cores"
    assert "layer1  2" in text
    assert len(placement.table(cores=True).splitlines()) == 2 + 3
    data: dict[str, Any] = json.loads(json.dumps(placement.to_json()))
    assert data["cores_used"] == [3, 4]
    assert data["cores"][0]["resources"]["neurons"] == [5, 8]
    assert data["layers"][0] == {
        "name": "layer1",
        "cores": [2, 1],
        "neurons": 10,
        "binding": {"resource": "neurons", "used_max": [5, 8]},
    }


def test_placing_twice_gives_the_same() -> None:
    assert place(net(6, 10, 3), TOY) == place(net(6, 10, 3), TOY)


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 60), cap=st.integers(1, 20), room=st.integers(0, 40))
def test_cuts_cover_everything_and_fit(size: int, cap: int, room: int) -> None:
    def fits(start: int, stop: int) -> bool:
        return sum(1 + n % 3 for n in range(start, stop)) <= room

    pieces = cut(size, cap, fits)
    if not pieces:
        assert room < 3
        return
    assert [n for start, stop in pieces for n in range(start, stop)] == list(range(size))
    assert all(fits(*piece) and piece[1] - piece[0] <= cap for piece in pieces)
    assert cut(size, cap, fits, len(pieces)) == pieces
    assert cut(size, cap, fits, len(pieces) - 1) == []
