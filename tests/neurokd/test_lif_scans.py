"""Plain LIF scans: bfloat16, channels last, the batch norm inside, against the plain loop and torch's norm."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from neurokd.lif_scans import LifMode, norm_lif  # noqa: E402
from neurokd.network import build  # noqa: E402
from neurokd.neurons import Surrogate, cuba_lif, lif  # noqa: E402
from neurokd.precision import set_precision  # noqa: E402
from neurokd.surrogates import surrogate_names  # noqa: E402

T, B, SHAPE = 6, 3, (5, 4, 3)
Tensor = torch.Tensor


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.7 + 0.2


def _inside(x: Tensor) -> Tensor:
    """The same values, channels innermost in memory."""
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)


def _run(current: Tensor, **options: object) -> list[Tensor]:
    current = current.detach().requires_grad_()
    spikes, v = lif(current, beta=0.8, **options)  # type: ignore[arg-type]
    weight = _random(*spikes.shape, seed=3)
    loss = (spikes * weight).sum() + (v * weight[0]).sum()
    return [spikes, v, torch.autograd.grad(loss, current)[0]]


@pytest.mark.parametrize("name", surrogate_names())
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_fused_equals_the_plain_loop(name: str, detach: bool, held: bool) -> None:
    current = _random(B, *SHAPE) if held else _random(T, B, *SHAPE)
    options = {"surrogate": name, "detach_reset": detach, "steps": T if held else None}
    ours, plain = _run(current, **options), _run(current, **options, fused=False)
    assert torch.equal(ours[0], plain[0])
    assert torch.equal(ours[1], plain[1])
    torch.testing.assert_close(ours[2], plain[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("cuba", [False, True])
def test_channels_innermost_change_nothing_but_the_memory_order(held: bool, cuba: bool) -> None:
    x = _random(B, *SHAPE) if held else _random(T, B, *SHAPE)
    beta, bias = torch.linspace(0.5, 0.9, 5).reshape(5, 1, 1).requires_grad_(), _random(*SHAPE).requires_grad_()
    found = []
    for order in (x, _inside(x)):
        current, steps = order.detach().requires_grad_(), T if held else None
        if cuba:
            spikes, i, v = cuba_lif(current, alpha=0.5, beta=beta, bias=bias, steps=steps)
            total = (v * i).sum()
        else:
            spikes, v = lif(current, beta=beta, steps=steps)
            total = v.sum() + 0.0 * bias.sum()
        loss = (spikes * _random(*spikes.shape, seed=4)).sum() + total
        found.append([spikes, v, *torch.autograd.grad(loss, (current, beta, bias))])
        assert spikes.movedim(-3, -1).is_contiguous() == (order is not x)
    assert all(torch.equal(a, b) for a, b in zip(found[0][:3], found[1][:3], strict=True))
    for a, b in zip(found[0][3:], found[1][3:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_integrated_in_float32() -> None:
    current = _random(T, B, *SHAPE).bfloat16()
    spikes, v, grad = _run(current)
    wide = _run(current.float())
    assert (spikes.dtype, v.dtype, grad.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    assert torch.equal(spikes.float(), wide[0])
    assert torch.equal(v, wide[1])
    # The gradient of bfloat16 spikes arrives rounded, and the current's leaves rounded: 2**-8 each.
    torch.testing.assert_close(grad.float(), wide[2], rtol=2**-6, atol=2**-6)


def test_gradients_are_rounded_to_the_nearest_even_bfloat16() -> None:
    current = torch.full((1, 1, 4), 0.5, requires_grad=True)
    grad = torch.tensor([1.00390625, 1.01171875, -1.00390625, 3.0e38]).reshape(1, 1, 4)
    spikes, _ = lif(current.bfloat16(), surrogate="straight_through", spikes=torch.float32)
    (ours,) = torch.autograd.grad(spikes, current, grad)
    assert torch.equal(ours, grad.bfloat16().float())


def test_spikes_of_another_type_than_the_current() -> None:
    current = _random(T, B, 7).requires_grad_()
    spikes, _ = lif(current, spikes=torch.bfloat16)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), lif(current)[0])
    assert torch.autograd.grad(spikes.sum(), current)[0].dtype == torch.float32


@pytest.mark.parametrize("surrogate", ["triangular", "atan"])
@pytest.mark.parametrize("channels", [1, 5, 70, 1500])
def test_norm_inside_the_scan(surrogate: str, channels: int) -> None:
    """Against torch's batch norm and the plain loop: spikes equal but for membranes within 1e-5 of the threshold."""
    raw = _random(T * B, channels, 3, 2).mul(0.8).add(3.0).contiguous(memory_format=torch.channels_last)
    weight, bias = _random(channels, seed=1).abs().add(0.3), _random(channels, seed=2)
    grad, mode = _random(T, B, channels, 3, 2, seed=3), LifMode(T, 0.8, 1.0, Surrogate(surrogate), False, torch.float32)
    ours, theirs = [[t.clone().requires_grad_() for t in (raw, weight, bias)] for _ in range(2)]

    spikes, mean, variance, count = norm_lif(*ours, 1e-5, mode)
    normed = functional.batch_norm(theirs[0], None, None, theirs[1], theirs[2], True, 0.1, 1e-5)
    expected, _ = lif(normed.reshape(T, B, *raw.shape[1:]), beta=0.8, surrogate=surrogate, fused=False)

    assert count == T * B * 6
    torch.testing.assert_close(mean, raw.double().mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance, raw.double().var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-6)
    assert int((spikes != expected).sum()) == 0
    found, wanted = torch.autograd.grad(spikes, ours, grad), torch.autograd.grad(expected, theirs, grad)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


def test_threads_do_not_change_spikes() -> None:
    raw = _random(4 * 16, 32, 16, 16).contiguous(memory_format=torch.channels_last)
    mode, found = LifMode(4, 0.8, 1.0, Surrogate("triangular"), False, torch.float32), []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            leaf = raw.detach().requires_grad_()
            spikes = norm_lif(leaf, torch.ones(32), torch.zeros(32), 1e-5, mode)[0]
            found.append((spikes, torch.autograd.grad(spikes.square().sum(), leaf)[0]))
        finally:
            torch.set_num_threads(before)
    assert float((found[0][0] != found[1][0]).float().mean()) < 1e-5
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", ["8x8x2-6c3-p2-8c3p1-12-4", "8x8x1-4c3s2-4"])
def test_a_network_trains_as_its_layers_one_by_one(spec: str) -> None:
    """The fused norm and the memory order against norm and neurons as separate modules."""
    network, steps = build(spec, steps=5, seed=1).train(), 5
    x = torch.rand(6, *network.spec.input_shape, generator=torch.Generator().manual_seed(1))
    sat = network.sat(x)
    grads = torch.autograd.grad(sat.square().sum(), list(network.parameters()))
    means = [layer.norm.running_mean.clone() for layer in network.spiking_layers()]

    other, spikes = build(spec, steps=5, seed=1).train(), x.expand(steps, *x.shape)
    for layer in other.spiking_layers():
        flat = spikes.flatten(0, 1)
        flat = flat if layer.pool is None else layer.pool(flat)
        raw = layer.synapse(flat.flatten(1) if layer.synapse.weight.dim() == 2 else flat)
        spikes = layer.neuron(layer.norm(raw).reshape(steps, len(x), *raw.shape[1:]))[0]
    assert torch.equal(sat, spikes)
    expected = torch.autograd.grad(spikes.square().sum(), list(other.parameters()))
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for mean, layer in zip(means, other.spiking_layers(), strict=True):
        torch.testing.assert_close(mean, layer.norm.running_mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", ["8x8x2-6c3-p2-8c3p1-12-4", "16-12-4"])
@pytest.mark.parametrize("options", [{}, {"norm": False}, {"neuron": "cuba"}, {"learn_beta": True}])
def test_bfloat16_synapses_only_while_training(spec: str, options: dict[str, object]) -> None:
    network = build(spec, steps=5, seed=1, **options)
    x = torch.rand(6, *network.spec.input_shape, generator=torch.Generator().manual_seed(1))
    wide = network.train().sat(x)
    set_precision(network.spiking_layers(), "bfloat16")
    sat = network.sat(x)
    assert sat.dtype == torch.float32
    assert float((sat != wide).float().mean()) < 0.2
    sat.square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
    for told in (network(x, record=True)[1], network.outputs(x, want=("layers",)).layers):
        assert all(spikes.dtype == torch.float32 and spikes.is_contiguous() for spikes in told.values())
    narrow = network.eval().sat(x)
    set_precision(network.spiking_layers(), "float32")
    assert torch.equal(narrow, network.sat(x))
