"""The quantized student is the chip: equal spikes on random networks, exact at the edges, gradients that learn."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("one_thread")
torch = pytest.importorskip("torch", reason="the training side needs torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from deploy import fixed_point as fp  # noqa: E402
from deploy import graph as nir  # noqa: E402
from deploy.errors import SpikesError, TrainingError  # noqa: E402
from deploy.lower import lower  # noqa: E402
from deploy.simulator import neurons  # noqa: E402
from neurokd import integers  # noqa: E402
from neurokd.export import export, to_graph  # noqa: E402
from neurokd.integers import NeuronRule, integer_biases, scan, spikes_of  # noqa: E402
from neurokd.layer_grid import LARGEST_BIAS, MEMORYLESS, LayerGrid  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.neurons import LIF  # noqa: E402
from neurokd.quantized import QuantizedNetwork  # noqa: E402
from neurokd.rounding import to_integers  # noqa: E402
from neurokd.surrogates import Surrogate  # noqa: E402
from neurokd.testing import differing_spikes, random_case, simulated  # noqa: E402

EDGE = 1 << 23
DYADIC = Surrogate("straight_through")  # with detach_reset: gradients are small whole numbers, any sum of them exact


# Spikes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_every_spike_is_the_simulators_on_the_exported_file(seed: int, tmp_path: Path) -> None:
    case = random_case(seed)
    export(case.network, tmp_path / "student.nir")
    program = lower(nir.read(tmp_path / "student.nir", trusted=True))
    trace = simulated(program, case.network, case.x)
    differing = differing_spikes(trace, case.network, case.x)
    assert differing == dict.fromkeys([p.name for p in program.populations], 0), case.network.spec_text


def test_the_random_networks_cover_what_they_should() -> None:
    """Every width, both neurons, graded and plain input, groups, dilation, images not square; u wraps, v saturates."""
    cases = [random_case(seed) for seed in range(60)]
    traces = [simulated(lower(to_graph(case.network)), case.network, case.x) for case in cases]
    assert sum(trace.wraps > 0 for trace in traces) >= 3
    assert sum(trace.saturations > 0 for trace in traces) >= 3
    assert sum(bool(spikes.any()) for trace in traces for spikes in trace.spikes.values()) > 100
    layers = [layer for case in cases for layer in case.network.quantized_layers()]
    assert {case.held for case in cases} == {layer.cuba for layer in layers} == {True, False}
    convs = [layer.geometry for layer in layers if layer.geometry]
    images = [case.network.spec.input_shape for case in cases if len(case.network.spec.input_shape) == 3]
    assert {layer.grid.weight_bits for layer in layers} == {8, 6, 4, 3, 2}
    assert {layer.grid.weight_exp < 0 for layer in layers} == {layer.grid.weight_exp > 0 for layer in layers}
    assert {case.network.input_bits for case in cases} == set(range(1, 9))
    assert any(conv["groups"] > 1 for conv in convs)
    assert any(conv["dilation"] != (1, 1) for conv in convs)
    assert any(shape[1] != shape[2] for shape in images)
    assert {layer.norm is not None for case in cases for layer in case.student.spiking_layers()} == {True, False}


def network(spec: str = "12-9-4", **options: Any) -> SpikingNetwork:
    return build(spec, **{"steps": 6, "input_bits": 4, "norm": False, **options})


@pytest.mark.parametrize(("beta", "alpha"), [(0.0, 0.0), (1.0, 1.0 - 1e-9), (1.0, 0.0), (0.0, 1.0 - 1e-9)])
def test_decays_beyond_the_chips_go_to_the_nearest_and_stay_equal(beta: float, alpha: float, tmp_path: Path) -> None:
    floats = network(neuron=["cuba", "lif"], beta=beta, alpha=alpha)
    weight, seeded = floats.spiking_layers()[0].synapse.weight, torch.Generator().manual_seed(0)
    torch.nn.init.normal_(weight, 0.0, 0.5, generator=seeded)  # fresh ones are tiny for such an alpha
    quantized = to_integers(floats)
    first = quantized.quantized_layers()[0].grid
    assert (first.dv, first.beta) == ((4095, 1 / 4096) if beta == 0 else (0, 1.0))
    assert (first.du, first.alpha) == ((4095, 0.0) if alpha == 0 else (0, 4095 / 4096))
    export(quantized, tmp_path / "student.nir")
    program = lower(nir.read(tmp_path / "student.nir", trusted=True))
    assert [(p.du, p.dv) for p in program.populations] == [(first.du, first.dv), (MEMORYLESS, first.dv)]
    x = torch.randint(0, 16, (8, 12), generator=torch.Generator().manual_seed(0)) / 15
    trace = simulated(program, quantized, x)
    assert trace.spikes["dense1"].any()
    assert not any(differing_spikes(trace, quantized, x).values())


def test_flat_networks_take_images_and_both_spellings_of_steps() -> None:
    quantized = to_integers(network("12-9-4"))
    image = torch.randint(0, 16, (3, 1, 3, 4), generator=torch.Generator().manual_seed(1)) / 15
    expected = quantized.sat(image.flatten(1), 5)
    assert torch.equal(quantized.sat(image, 5), expected)
    assert torch.equal(quantized.sat(image.expand(5, 3, 1, 3, 4)), expected)
    assert quantized.sat(image).shape == (6, 3, 4)
    sat, layers = quantized(image, record=True)
    assert torch.equal(sat, layers["dense2"])
    assert [tuple(spikes.shape) for spikes in layers.values()] == [(6, 3, 9), (6, 3, 4)]


def test_threads_share_the_work_without_a_trace() -> None:
    grid = LayerGrid(1.0, 1.0, 0, 8, "mixed", 100, 700, 300)
    sums = torch.randint(-400, 400, (9, 37, 501), generator=torch.Generator().manual_seed(2)).float()
    bias = torch.arange(501.0).double() - 250
    assert sums.numel() >= integers.PARALLEL_FROM
    alone = scan(sums, bias, grid)
    torch.set_num_threads(3)
    try:
        together = scan(sums, bias, grid)
    finally:
        torch.set_num_threads(1)
    assert alone[0].any()
    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])


# Exactness --------------------------------------------------------------------------------------------------------

sums_at_edges = st.one_of(
    st.sampled_from([0, 1, -1, 1 << 17, -(1 << 17), (1 << 17) - 1, EDGE - 1, 1 - EDGE]), st.integers(1 - EDGE, EDGE - 1)
)
decays = st.one_of(st.sampled_from([0, 1, 410, 4095]), st.integers(0, 4095))


@settings(deadline=None)  # the first example waits for the compiler
@given(
    st.lists(st.tuples(sums_at_edges, sums_at_edges), min_size=1, max_size=8),
    st.tuples(*[st.one_of(st.sampled_from([0, LARGEST_BIAS, -LARGEST_BIAS]), st.integers(-(1 << 19), 1 << 19))] * 2),
    decays, decays, st.one_of(st.sampled_from([0, fp.MAX_VTH]), st.integers(0, fp.MAX_VTH)), st.booleans(),
)  # fmt: skip
def test_the_training_scan_is_the_chips_rule_step_by_step(
    sums: list[tuple[int, int]], bias: tuple[int, int], du: int, dv: int, vth: int, held: bool
) -> None:
    steps = len(sums)
    given_sums = np.array(sums[:1] if held else sums, np.float32)
    spikes, membranes = np.empty((2, steps, 2), np.float32)
    for start in (0, 1):  # one element a call: the parts that threads take
        ends = (start, start + 1)
        neurons.training_scan(given_sums, held, np.array(bias, np.int32), du, dv, vth, spikes, membranes, *ends)
    for place in (0, 1):
        u = v = 0
        for t in range(steps):
            a = sums[0 if held else t][place]
            before = fp.saturate(fp.raw_membrane(v, fp.wrap_current(fp.raw_current(u, a, du), 24), bias[place], dv), 24)
            u, v, spike = fp.lif_step(u, v, a, du, dv, bias[place], vth)
            assert (spikes[t, place], membranes[t, place] * 64) == (spike, before)


def _layer_at_the_accumulators_end(row: int) -> QuantizedNetwork:
    """784 graded inputs of 8 bits; the positive weights of one neuron sum up to ``row``."""
    grid = LayerGrid(1.0, 1.0 / 255, -5, 8, "mixed", 1000, MEMORYLESS, 0)
    network = build("784-2", norm=False, input_bits=8)
    quantized = QuantizedNetwork(network, {"dense1": grid}, "loihi2")
    weights = torch.zeros(2, 784)
    weights[0, :129], weights[0, 129], weights[0, 130:400] = 254, row - 129 * 254, -100
    weights[1] = -40
    with torch.no_grad():
        quantized.quantized_layers()[0].weight.copy_(weights * grid.weight_unit)
    return quantized


def test_sums_just_below_the_accumulators_end_are_exact_and_lower() -> None:
    quantized = _layer_at_the_accumulators_end(32896)  # * 255 = 8388480 of 8388607
    layer = quantized.quantized_layers()[0]
    quantized.check_exact()
    x = torch.randint(0, 256, (64, 784), generator=torch.Generator().manual_seed(0)).float()
    x[0] = 255
    x[1] = (layer.integer_weights()[0] > 0) * 255.0
    exact = x.long() @ layer.integer_weights().detach().long().T
    assert int(exact[1, 0]) == 8388480
    assert torch.equal(layer.sums(x).detach().long(), exact >> 5)
    program = lower(to_graph(quantized))
    assert not any(differing_spikes(simulated(program, quantized, x / 255), quantized, x / 255).values())


def test_sums_that_could_leave_the_accumulator_are_refused_with_the_bound() -> None:
    quantized = _layer_at_the_accumulators_end(32898)
    for act in (quantized.check_exact, lambda: quantized(torch.zeros(1, 784))):
        with pytest.raises(TrainingError, match="could leave the accumulator") as caught:
            act()
        assert caught.value.where == "layer dense1"
        assert (caught.value.got, caught.value.allowed) == ("up to 8388990", "8388607 (24 bits)")
        assert "learning rate" in caught.value.next_step


def test_a_narrower_accumulator_is_the_limit_where_the_chip_has_one() -> None:
    quantized = to_integers(network("200-4", input_bits=1), "loihi1")
    layer = quantized.quantized_layers()[0]
    assert layer.grid.largest_sum == 2**15 - 1
    with torch.no_grad():
        layer.weight.fill_(200 * layer.grid.weight_unit)
    lower(to_graph(quantized), "loihi2")
    with pytest.raises(TrainingError, match="could leave the accumulator") as caught:
        quantized.sat(torch.zeros(1, 200))
    assert caught.value.allowed == "32767 (16 bits)"


@pytest.mark.parametrize("how", ["autocast", "without oneDNN"])
def test_sums_stay_exact_in_modes_in_which_torch_rounds(how: str) -> None:
    """bfloat16 autocast, and NNPACK's Winograd convolution, which torch takes where oneDNN is off."""
    quantized = to_integers(network("14x14x16-32c3p1-p2-2", input_bits=8))
    first, second = quantized.quantized_layers()
    x = torch.randint(0, 256, (64, 16, 14, 14), generator=torch.Generator().manual_seed(0)).float()
    spikes = torch.randint(0, 2, (64, 32, 14, 14), generator=torch.Generator().manual_seed(1)).float()
    exact = functional.conv2d(x.double(), first.integer_weights().double(), padding=1)
    exact_dense = functional.avg_pool2d(spikes.double(), 2, divisor_override=1).flatten(1)
    exact_dense = exact_dense @ second.integer_weights().double().T
    on = torch.backends.mkldnn.is_available()
    try:
        torch._C._set_mkldnn_enabled(how == "autocast" and on)
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            sums, dense = first.sums(x), second.sums(spikes)
    finally:
        torch._C._set_mkldnn_enabled(on)
    assert sums.dtype == torch.float32
    assert torch.equal(sums.double(), torch.floor(exact * 2.0**first.grid.weight_exp))
    assert torch.equal(dense.double(), torch.floor(exact_dense * 2.0**second.grid.weight_exp))


@given(st.lists(st.floats(-LARGEST_BIAS, LARGEST_BIAS), min_size=1, max_size=6))
def test_biases_have_one_mantissa_width_and_exponent(values: list[float]) -> None:
    whole = integer_biases(torch.tensor(values, dtype=torch.float64))
    exponent = fp.bias_exponent(int(whole.abs().max()))
    assert exponent <= fp.BIAS_EXPONENT_MAX
    assert bool((whole % (1 << exponent) == 0).all())
    needed = fp.bias_exponent(int(max(map(abs, values)) + 0.5))
    assert float((whole - torch.tensor(values, dtype=torch.float64)).abs().max()) <= (1 << needed) / 2


# Gradients --------------------------------------------------------------------------------------------------------


def on_grid_pair(
    neuron: str, spec: str = "10-7-3", surrogate: str = "fast_sigmoid", detach: bool = False
) -> tuple[SpikingNetwork, QuantizedNetwork]:
    """A float network that lies exactly on the chip's grid, and the chip's own.

    Scale 2^-7, plain spikes in, whole even weights, biases multiples of 128 / 64, decays 1/2: for 6 steps no rounding
    happens in u and v, and every membrane is a float32.
    """
    floats = build(
        spec, norm=False, bias=True, neuron=neuron, beta=0.5, alpha=0.5, threshold=0.75, steps=6, input_bits=1,
        surrogate=surrogate, detach_reset=detach,
    )  # fmt: skip
    generator, scale = torch.Generator().manual_seed(3), 2.0**-7
    du = MEMORYLESS if neuron == "lif" else 2047
    grids = {}
    for layer in floats.spiking_layers():
        window = 1 if layer.block.pool is None else layer.block.pool.kernel[0] * layer.block.pool.kernel[1]
        grids[layer.name] = LayerGrid(scale, 1.0 / window, 0, 8, "mixed", 96, du, 2048)
        shape = layer.synapse.weight.shape
        bias = layer.synapse.bias if isinstance(layer.neuron, LIF) else layer.neuron.bias
        with torch.no_grad():
            whole = torch.randint(-40, 60, shape, generator=generator) * 2.0
            layer.synapse.weight.copy_(whole * (scale * window))
            bias.copy_(torch.randint(-8, 9, bias.shape, generator=generator) * (2.0 * scale))
    return floats, QuantizedNetwork(floats, grids, "loihi2")


def gradients(net: Any, x: Tensor, weighting: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) gradients of every layer."""
    net.zero_grad()
    (net.sat(x) * weighting).sum().backward()
    if isinstance(net, QuantizedNetwork):
        return [(layer.weight.grad, layer.bias.grad) for layer in net.quantized_layers()]
    biases = [x.synapse.bias if isinstance(x.neuron, LIF) else x.neuron.bias for x in net.spiking_layers()]
    return [
        (layer.synapse.weight.grad, bias.grad.reshape(-1))
        for layer, bias in zip(net.spiking_layers(), biases, strict=True)
    ]


def binary(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def whole(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("spec", ["10-7-3", "6x5x2-4c3x2p1-p2-3"])
@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("held", [True, False])
def test_gradients_are_those_of_the_float_network_on_the_grid(spec: str, neuron: str, held: bool) -> None:
    """Equal bit for bit: the same spikes, membranes and summation order, units that differ by powers of two.

    The bias gradients are equal because with this surrogate they are sums of whole numbers below 2^24.
    """
    floats, chip = on_grid_pair(neuron, spec, "straight_through", detach=True)
    lead = (5,) if held else (6, 5)
    x, weighting = binary(*lead, *floats.spec.input_shape), whole(6, 5, 3)
    sat, layers = chip(x, record=True)
    assert all(torch.equal(layers[name], spikes) for name, spikes in floats(x, record=True)[1].items())
    assert 0 < float(sat.detach().mean()) < 1
    for ours, theirs in zip(gradients(chip, x, weighting), gradients(floats, x, weighting), strict=True):
        assert bool(ours[0].any())
        assert bool(ours[1].any())
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "atan", "triangular"])
@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("detach", [True, False])
def test_surrogates_and_the_reset_act_as_in_the_float_network(surrogate: str, neuron: str, detach: bool) -> None:
    floats, chip = on_grid_pair(neuron, "10-7-3", surrogate, detach)
    x, weighting = binary(6, 5, 10), whole(6, 5, 3)
    for ours, theirs in zip(gradients(chip, x, weighting), gradients(floats, x, weighting), strict=True):
        assert bool(ours[0].any())
        assert torch.equal(ours[0], theirs[0])
        # The biases' 30 terms are added in another order: at most 30 roundings of 2^-24 of their magnitudes' sum.
        assert torch.allclose(ours[1], theirs[1], rtol=0, atol=30 * 2.0**-24 * 30 * float(theirs[1].abs().max()))


def test_membranes_differ_from_the_float_ones_by_the_decays_rounding_only() -> None:
    """Each step truncates less than 1/64 unit of v: at most scale / 64 / (1 - beta) in all, plus float32's own."""
    grid = LayerGrid(2.0**-7, 1.0, 0, 8, "mixed", fp.MAX_VTH, MEMORYLESS, 410)
    sums = torch.randint(-300, 301, (40, 8, 16), generator=torch.Generator().manual_seed(5)).float()
    _, membranes = scan(sums, torch.zeros(16, dtype=torch.float64), grid)
    v = torch.zeros(8, 16, dtype=torch.float64)
    for t in range(40):
        v = grid.beta * v + sums[t].double()
        error = (membranes[t].double() - v).abs().max()
        assert float(error) <= 1 / 64 / (1 - grid.beta)
    assert float(error) > 0


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
def test_held_and_time_first_input_give_equal_gradients(neuron: str) -> None:
    _, chip = on_grid_pair(neuron, "10-7-3", "straight_through", detach=True)
    x, weighting = binary(5, 10), whole(6, 5, 3)
    held, timed = gradients(chip, x, weighting), gradients(chip, x.expand(6, 5, 10), weighting)
    for one, other in zip(held, timed, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_weights_at_the_grids_ends_get_no_outward_gradient() -> None:
    _, chip = on_grid_pair("lif", "10-7-3")
    first = chip.quantized_layers()[0]
    unit = first.grid.weight_unit
    ends = torch.tensor([300.0, 254.0, 253.0, -256.0, -300.0, -255.0])
    for sign in (1.0, -1.0):
        with torch.no_grad():
            first.weight[0, :6] = ends * unit
        first.zero_grad()
        (first.integer_weights()[0, :6].sum() * sign).backward()
        passed = first.weight.grad[0, :6] * unit
        outward = (ends >= 254) if sign < 0 else (ends <= -256)  # descent moves against the gradient
        assert torch.equal(passed, torch.where(outward, torch.zeros(6), torch.full((6,), sign)))
    assert first.integer_weights()[0, :6].tolist() == [254, 254, 252, -256, -256, -256]


def test_biases_at_the_mantissas_end_get_no_outward_gradient_and_stay_representable() -> None:
    rule = NeuronRule(LayerGrid(1.0, 1.0, 0, 8, "mixed", 9000, MEMORYLESS, 0), DYADIC)
    bias = torch.tensor([2.0 * LARGEST_BIAS, 100.0]).requires_grad_()
    for weighting in (1.0, -1.0):
        (grad,) = torch.autograd.grad(spikes_of(torch.zeros(1, 2), bias, rule, 1).sum() * weighting, bias)
        assert grad.tolist() == [0.0 if weighting < 0 else 1 / 64, weighting / 64]
    assert integer_biases(bias.clamp(-LARGEST_BIAS, LARGEST_BIAS)).tolist() == [LARGEST_BIAS, 128.0]


def test_a_shift_to_the_right_passes_the_products_gradient() -> None:
    sums = torch.tensor([5.0, -5.0, 8.0]).requires_grad_()
    shifted = integers.shift(sums, -2)
    assert shifted.tolist() == [1.0, -2.0, 2.0]
    assert torch.autograd.grad(shifted.sum(), sums)[0].tolist() == [0.25] * 3
    assert integers.shift(sums, 0) is sums
    assert integers.shift(sums, 2).tolist() == [20.0, -20.0, 32.0]


def test_a_gradient_can_be_taken_twice() -> None:
    _, chip = on_grid_pair("cuba")
    loss = (chip.sat(binary(5, 10)) * whole(6, 5, 3)).sum()
    weight = chip.quantized_layers()[0].weight
    one = torch.autograd.grad(loss, weight, retain_graph=True)[0]
    assert torch.equal(one, torch.autograd.grad(loss, weight)[0])


# Refusals and notes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (torch.full((2, 12), 1.01), "values 0..1.01"),
        (torch.full((2, 12), -0.1), "values -0.1.."),
        (torch.full((2, 12), float("nan")), "nan"),
        (torch.zeros(2, 11), "[2, 11]"),
        (torch.zeros(2, 12, dtype=torch.int64), "int64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: Tensor, got: str) -> None:
    x = x.clone()
    if got.startswith("values"):
        x[0, 0] = 0.0 if x[0, 1] > 0 else -0.1
    with pytest.raises(SpikesError) as caught:
        to_integers(network("12-9-4")).sat(x)
    assert got in caught.value.got


def test_steps_below_one_are_refused() -> None:
    with pytest.raises(SpikesError, match="number of steps"):
        to_integers(network()).sat(torch.zeros(2, 12), 0)


def test_grids_of_other_layers_are_refused() -> None:
    grid = LayerGrid(1.0, 1.0, 0, 8, "mixed", 64, MEMORYLESS, 410)
    with pytest.raises(TrainingError, match="not those of the network's layers") as caught:
        QuantizedNetwork(network("12-9-4"), {"dense1": grid, "dense3": grid}, "loihi2")
    assert (caught.value.got, caught.value.allowed) == ("dense1, dense3", "dense1, dense2")


def test_a_spike_function_that_cannot_be_kept_is_noted() -> None:
    floats = network("12-9-4")
    floats.spiking_layers()[1].neuron.surrogate = lambda x: (x > 0).float()
    notes = to_integers(floats).notes
    assert len(notes) == 1
    assert "dense2: its own spike function is not kept" in notes[0]
    assert floats.notes == []


def test_the_float_student_stays_as_it_is() -> None:
    floats = network("12-9-4", norm=True).train()
    before = {name: value.clone() for name, value in floats.state_dict().items()}
    quantized = to_integers(floats)
    assert quantized.training
    with torch.no_grad():
        for parameter in quantized.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in floats.state_dict().items())


def test_overlapping_windows_are_seen_where_weights_meet() -> None:
    def overlap(spec: str) -> bool:
        floats = network(spec)
        grids = {
            layer.name: LayerGrid(1.0, 1.0, 0, 8, "mixed", 64, MEMORYLESS, 410) for layer in floats.spiking_layers()
        }
        return QuantizedNetwork(floats, grids, "loihi2").quantized_layers()[0].windows_overlap

    assert overlap("8x8x1-p3s2-4c2-2")
    assert overlap("8x8x1-p3x2s1x2-2")
    assert not overlap("8x8x1-p2-4c3-2")
    assert not overlap("8x8x1-p3s2-4c1-2")  # one tap a channel: nothing to meet
    assert not overlap("8x8x1-p3s2-4c2d2-2")  # taps two windows apart
    assert not overlap("8x8x1-4c2-2")


def test_the_rule_is_frozen_and_the_library_warns_of_nothing() -> None:
    rule = NeuronRule(LayerGrid(1.0, 1.0, 0, 8, "mixed", 64, MEMORYLESS, 410), DYADIC)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.detach_reset = True  # type: ignore[misc]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_integers(network()).sat(torch.zeros(2, 12))
