from __future__ import annotations

import json
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")
from torch import Tensor, nn  # noqa: E402

from deploy.errors import ConfigError, SpecError, SpikesError, TrainingError  # noqa: E402
from neurokd.network import SpikingNetwork, build, predict  # noqa: E402
from neurokd.network_layers import SpikingLayer, batch_statistics  # noqa: E402
from neurokd.neurons import LIF, CubaLIF  # noqa: E402

DENSE, CONV = "20-30-7", "9x8x2-6c3s2p1-p2-8c1-5"


def _randomised(network: SpikingNetwork, seed: int = 1) -> SpikingNetwork:
    """Every parameter and running statistic away from its first value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("raw_beta", "raw_alpha", "raw_threshold", "num_batches_tracked")):
                continue
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + noise if "running_var" in name else value + 0.4 * (noise - 0.4))
    return network


def _spikes(*shape: int, seed: int = 0, rate: float = 0.4) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def _step_by_step(network: SpikingNetwork, x: Tensor) -> Tensor:
    """The plain definition: one step of one layer after the other, in torch only."""
    states: dict[str, Tensor] = {}
    sat = []
    for step in x:
        signal = step
        for layer in network.spiking_layers():
            current, bias = layer.current(signal)
            neuron = layer.neuron
            if isinstance(neuron, CubaLIF):
                bias = neuron.bias if bias is None else bias
                current = states.get(layer.name + "i", torch.zeros(())) * neuron.alpha + current
                states[layer.name + "i"] = current
            v = neuron.beta * states.get(layer.name, torch.zeros(())) + current
            v = v if bias is None else v + bias
            signal = (v > neuron.threshold).float()
            states[layer.name] = torch.where(signal > 0, torch.zeros(()), v)
        sat.append(signal)
    return torch.stack(sat)


@pytest.mark.parametrize("spec", [DENSE, CONV])
@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("norm", [True, False])
def test_equals_the_step_by_step_definition(spec: str, neuron: str, norm: bool) -> None:
    network = _randomised(build(spec, neuron=neuron, norm=norm, seed=3)).eval()
    x = _spikes(6, 4, *network.spec.input_shape)
    with torch.no_grad():
        sat, layers = network(x, record=True)
        assert torch.equal(sat, _step_by_step(network, x))
    assert list(layers) == [block.name for block in network.spec.blocks()]
    assert [tuple(spikes.shape) for spikes in layers.values()] == [(6, 4, *b.out_shape) for b in network.spec.blocks()]
    assert torch.equal(layers[list(layers)[-1]], sat)
    assert sat.sum() > 0


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("spec", [DENSE, CONV])
def test_direct_encoding_is_the_same_input_at_every_step(spec: str, neuron: str) -> None:
    network = _randomised(build(spec, neuron=neuron, steps=5)).eval()
    image = torch.rand(3, *network.spec.input_shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert torch.equal(network(image), network(image.expand(5, *image.shape)))
        assert network(image, steps=9).shape == (9, 3, network.classes)
        assert torch.equal(network(image, steps=9)[:5], network(image))


def test_the_first_current_is_computed_once_an_image() -> None:
    network, calls = build(DENSE, steps=7), []
    network.spiking_layers()[0].synapse.register_forward_hook(lambda m, args, out: calls.append(args[0].shape))
    network(torch.rand(3, 20))
    assert calls == [(3, 20)]


def test_a_flat_network_reads_images_row_major() -> None:
    network = build("12-6-3", steps=4).eval()
    image = torch.rand(2, 3, 2, 2)
    assert torch.equal(network(image), network(image.reshape(2, 12)))
    spikes = _spikes(4, 2, 3, 2, 2)
    assert torch.equal(network(spikes), network(spikes.reshape(4, 2, 12)))


@pytest.mark.parametrize(
    ("spec", "shape", "steps"),
    [
        ("12-3", (2, 11), None),
        ("12-3", (12,), None),
        ("12-3", (2, 3, 4), None),
        ("12-3", (2, 1, 3, 5), None),
        ("12-3", (4, 2, 1, 1, 1, 12), None),
        ("4x3x1-3", (2, 12), None),
        ("4x3x1-3", (2, 1, 3, 4), None),
        ("4x3x1-3", (0, 1, 4, 3), None),
        ("12-3", (5, 2, 12), 4),
        ("12-3", (2, 12), 0),
    ],
)
def test_inputs_that_do_not_fit_are_refused(spec: str, shape: tuple[int, ...], steps: int | None) -> None:
    with pytest.raises(SpikesError) as caught:
        build(spec)(torch.zeros(shape), steps=steps)
    assert caught.value.got
    assert caught.value.allowed


def test_integer_input_is_refused() -> None:
    with pytest.raises(SpikesError, match="uint8"):
        build("12-3")(torch.zeros(2, 12, dtype=torch.uint8))


@pytest.mark.parametrize("spec", [DENSE, CONV])
@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"norm_affine": False, "norm_eps": 0.3}, {"norm": False}])
def test_folded_equals_the_network_in_evaluation(spec: str, neuron: str, options: dict[str, Any]) -> None:
    """In float64 the folded currents agree to 2^-40 of the largest one, and all spikes are equal."""
    network = _randomised(build(spec, neuron=neuron, **options)).double().eval()
    folded = network.folded()
    x = _spikes(8, 16, *network.spec.input_shape).double()
    with torch.no_grad():
        sat, layers = network(x, record=True)
        assert torch.equal(sat, folded(x))
    assert sat.sum() > 0
    assert all(layer.norm is None for layer in folded.spiking_layers())
    inputs = [x, *layers.values()]
    for old, new, spikes in zip(network.spiking_layers(), folded.spiking_layers(), inputs, strict=False):
        _same_currents(old, new, spikes.flatten(0, 1))


def _same_currents(old: SpikingLayer, new: SpikingLayer, x: Tensor) -> None:
    with torch.no_grad():
        (current, bias), (folded, _) = old.current(x), new.current(x)
    assert torch.allclose(current, folded, rtol=0, atol=2**-40 * float(current.abs().max()))
    if isinstance(new.neuron, CubaLIF) and bias is not None:
        assert torch.allclose(bias.reshape(-1), new.neuron.bias.reshape(-1), rtol=0, atol=2**-40)


def test_folded_values_are_the_closed_form() -> None:
    layer = _randomised(build(DENSE, bias=True)).spiking_layers()[0]
    weight, bias = layer.folded()
    assert weight.dtype == bias.dtype == torch.float64
    norm, synapse = layer.norm, layer.synapse
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    assert torch.allclose(weight, synapse.weight.double() * scale[:, None], rtol=2**-50, atol=0)
    expected = (synapse.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
    assert torch.allclose(bias, expected, rtol=2**-45, atol=2**-50)


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
@pytest.mark.parametrize("shape", [(40, 6), (10, 6, 4, 3)])
def test_batch_statistics_are_those_of_torch(momentum: float | None, shape: tuple[int, ...]) -> None:
    """Same running statistics as nn.BatchNorm after three batches, same normalised values, same gradient."""
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    ours, theirs = (kind(6, momentum=momentum).double() for _ in range(2))
    for seed in range(3):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()
        mean, variance = batch_statistics(ours, x)
        axes = (-1, *[1] * (len(shape) - 2))
        normal = (x - mean.reshape(axes)) / torch.sqrt(variance + ours.eps).reshape(axes)
        expected = theirs(x)
        assert torch.allclose(normal, expected, rtol=0, atol=2**-40)
        gradients = [torch.autograd.grad((y**3).sum(), x)[0] for y in (normal, expected)]
        assert torch.allclose(*gradients, rtol=0, atol=2**-36)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=2**-45), name


def test_norm_statistics_are_over_time_and_batch_together() -> None:
    network = build("20-10-3", norm_momentum=None).train()
    x = _spikes(6, 5, 20)
    network(x)
    norm, synapse = network.spiking_layers()[0].norm, network.spiking_layers()[0].synapse
    raw = synapse(x.flatten(0, 1)).detach()
    assert torch.allclose(norm.running_mean, raw.mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, raw.var(0), atol=1e-6)


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
def test_one_value_a_channel_cannot_train_a_norm(neuron: str) -> None:
    network = build("20-10-3", neuron=neuron).train()
    with pytest.raises(TrainingError, match="one value a channel"):
        network(torch.rand(1, 20))
    network.eval()(torch.rand(1, 20))


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("spec", ["64-128-128-128-10", "16x16x1-8c3p1-p2-16c3p1-p2-16c3-10"])
@pytest.mark.parametrize("threshold", [1.0, 0.3])
def test_a_fresh_network_spikes_in_every_layer(neuron: str, norm: bool, spec: str, threshold: float) -> None:
    network = build(spec, neuron=neuron, norm=norm, threshold=threshold, seed=2)
    images = torch.rand(32, *network.spec.input_shape, generator=torch.Generator().manual_seed(1))
    for training in (True, False):
        network.load_state_dict(build(spec, neuron=neuron, norm=norm, threshold=threshold, seed=2).state_dict())
        _, layers = network.train(training)(images, record=True)
        rates = {name: float(spikes.detach().mean()) for name, spikes in layers.items()}
        assert all(0.03 < rate < 0.6 for rate in rates.values()), rates


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("norm", [True, False])
def test_gradients_reach_every_parameter(neuron: str, norm: bool) -> None:
    network = build(CONV, neuron=neuron, norm=norm, learn_beta=True, learn_threshold=True, learn_alpha=neuron == "cuba")
    network.sat(torch.rand(8, *network.spec.input_shape)).pow(2).sum().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert missing == []
    assert all(float(layer.synapse.weight.grad.abs().sum()) > 0 for layer in network.spiking_layers())


def test_seed_decides_the_weights_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = build(DENSE, seed=5), build(DENSE, seed=5), build(DENSE, seed=6)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.spiking_layers()[0].synapse.weight, other.spiking_layers()[0].synapse.weight)


def test_every_option_reaches_its_place_and_the_network_is_rebuilt_from_plain_values() -> None:
    options: dict[str, Any] = {
        "neuron": ["cuba", "lif"], "beta": [0.5, 0.75], "alpha": 0.25, "threshold": [0.5, 2.0], "norm": [True, False],
        "bias": [True, None], "learn_beta": [False, True], "learn_alpha": [True, False], "learn_threshold": True,
        "surrogate": ["atan", "sigmoid"], "slope": [3.0, 0.0], "detach_reset": [True, False], "norm_eps": 0.01,
        "norm_momentum": None, "norm_affine": False, "steps": 11, "input_bits": 3, "seed": 9,
        "source": [{"synapse": "a"}, {"synapse": "b"}], "notes": ["something"],
    }  # fmt: skip
    network = build(CONV.replace("-8c1", ""), **options)
    first, last = network.spiking_layers()
    assert isinstance(first.neuron, CubaLIF)
    assert isinstance(last.neuron, LIF)
    with torch.no_grad():
        constants = [float(value) for value in (first.neuron.alpha, first.neuron.beta, first.neuron.threshold)]
        assert constants == [0.25, 0.5, 0.5]
        assert (float(last.neuron.beta), float(last.neuron.threshold)) == (0.75, 2.0)
    assert first.neuron.bias.shape == (6, 1, 1)
    assert (first.synapse.bias, last.norm) == (None, None)
    assert last.synapse.bias is not None
    assert (first.norm.eps, first.norm.momentum, first.norm.affine) == (0.01, None, False)
    assert isinstance(first.neuron.raw_alpha, nn.Parameter)
    assert isinstance(last.neuron.raw_beta, nn.Parameter)
    assert not isinstance(first.neuron.raw_beta, nn.Parameter)
    assert (first.neuron.surrogate.name, first.neuron.surrogate.slope) == ("atan", 3.0)
    assert (last.neuron.surrogate.name, last.neuron.surrogate.slope) == ("sigmoid", 25.0)
    assert (first.neuron.detach_reset, last.neuron.detach_reset) == (True, False)
    assert (network.steps, network.input_bits, network.notes) == (11, 3, ["something"])
    stored = json.loads(json.dumps(network.options))
    again = build(network.spec_text, **stored)
    again.load_state_dict(_randomised(network).state_dict())
    assert again.options == network.options
    x = _spikes(11, 2, *network.spec.input_shape)
    assert torch.equal(again.eval()(x), network.eval()(x))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"neuron": "izhikevich"}, "'neuron'"),
        ({"beta": 1.5}, "'beta'"),
        ({"beta": "0.9"}, "'beta'"),
        ({"beta": [0.9, 0.9, 0.9]}, "list of 'beta'"),
        ({"alpha": 1.0}, "'alpha'"),
        ({"threshold": 0.0}, "'threshold'"),
        ({"threshold": float("nan")}, "'threshold'"),
        ({"norm": 1}, "'norm'"),
        ({"bias": "yes"}, "'bias'"),
        ({"surrogate": "boxcar"}, "'surrogate'"),
        ({"slope": -1.0}, "'slope'"),
        ({"norm_eps": -1e-5}, "'norm_eps'"),
        ({"norm_momentum": 2.0}, "'norm_momentum'"),
        ({"steps": 0}, "'steps'"),
        ({"steps": 4.0}, "'steps'"),
        ({"input_bits": 17}, "'input_bits'"),
        ({"seed": -1}, "'seed'"),
        ({"decay": 0.9}, "unknown network option"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(DENSE, **options)
    assert what in caught.value.what
    assert caught.value.allowed
    assert caught.value.got


def test_a_bad_option_of_one_layer_names_the_layer() -> None:
    with pytest.raises(ConfigError) as caught:
        build(DENSE, beta=[0.9, -0.1])
    assert caught.value.where == "layer 2"


def test_a_bad_spec_is_refused() -> None:
    with pytest.raises(SpecError):
        build("784")


def test_predict_takes_the_most_spikes_and_of_equal_ones_the_lowest_index() -> None:
    sat = torch.zeros(3, 4, 5)
    sat[:2, 0, 3] = 1
    sat[:1, 0, 1] = 1
    sat[:2, 1, 4] = 1
    sat[1:, 1, 2] = 1
    sat[:, 2, 4] = 1
    assert predict(sat).tolist() == [3, 2, 4, 0]


def test_describe_says_layers_shapes_and_parameters() -> None:
    text = build(CONV, neuron="cuba", notes=["as told"]).describe()
    lines = text.splitlines()
    assert lines[0] == CONV
    assert [line.split()[0] for line in lines[1:]] == ["layer", "conv1", "conv2", "dense3", "sum", "note:"]
    assert "6c3s2p1 + norm" in lines[2]
    assert "2 x 9 x 8" in lines[2]
    assert "6 x 5 x 4" in lines[2]
    assert "p2" in lines[3]
    assert f"{6 * 19 + 8 * 7 + 5 * 33:,}" in lines[5]
    assert lines[6] == "note: as told"
