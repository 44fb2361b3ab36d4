"""Neurons: equal to snntorch step by step, fused equal to plain, gradients, the chip's grid, errors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")
snn = pytest.importorskip("snntorch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from snntorch import surrogate as snn_surrogate  # noqa: E402

from deploy.errors import ConfigError, TrainingError  # noqa: E402
from neurokd import kernels  # noqa: E402
from neurokd.neurons import (  # noqa: E402
    GRID,
    LIF,
    MIN_THRESHOLD,
    CubaLIF,
    CubaState,
    LIFState,
    Surrogate,
    alpha_on_grid,
    as_surrogate,
    cuba_lif,
    cuba_lif_backward,
    lif,
    lif_backward,
    on_grid,
    surrogate_names,
)

T, B, SHAPE = 9, 3, (4, 5)
Tensor = torch.Tensor
SAME = {
    "fast_sigmoid": snn_surrogate.fast_sigmoid(25),
    "atan": snn_surrogate.atan(2.0),
    "sigmoid": snn_surrogate.sigmoid(25),
    "straight_through": snn_surrogate.straight_through_estimator(),
}


def _current(seed: int = 0, shape: tuple[int, ...] = (T, B, *SHAPE), dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=dtype) * 0.7 + 0.2).requires_grad_()


def _gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tensors))


def _weighted(*outputs: Tensor, seed: int = 5) -> Tensor:
    """A scalar that depends on every element of every output."""
    generator = torch.Generator().manual_seed(seed)
    return sum((torch.randn(o.shape, generator=generator) * o).sum() for o in outputs)


def _close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        # float32 sums over at most T * B * 20 terms: 1e-5 of the largest entry is some 80 ulp.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max().clamp(min=1)))


def _leaky(current: Tensor, beta: Tensor, threshold: Tensor, v0: Tensor, function: object) -> tuple[Tensor, Tensor]:
    cell = snn.Leaky(
        beta=beta, threshold=threshold, spike_grad=function, reset_mechanism="zero", reset_delay=False,
        learn_beta=True, learn_threshold=True,
    )  # fmt: skip
    cell.beta, cell.threshold = torch.nn.Parameter(beta), torch.nn.Parameter(threshold)
    v, spikes = v0, []
    for x in current:
        s, v = cell(x, v)
        spikes.append(s)
    out = torch.stack(spikes)
    out.parameters = (cell.beta, cell.threshold)  # type: ignore[attr-defined]
    return out, v


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("per_neuron", [False, True])
def test_lif_equals_snntorch_leaky_step_by_step(name: str, per_neuron: bool) -> None:
    current, v0 = _current(), (torch.rand(B, *SHAPE) * 0.5).requires_grad_()
    beta = torch.rand(SHAPE) * 0.9 if per_neuron else torch.tensor(0.9)
    threshold = torch.rand(SHAPE) + 0.5 if per_neuron else torch.tensor(1.0)
    spikes, v = _leaky(current, beta, threshold, v0, SAME[name])
    ours_beta, ours_threshold = beta.clone().requires_grad_(), threshold.clone().requires_grad_()
    ours, v_last = lif(current, beta=ours_beta, threshold=ours_threshold, v0=v0, surrogate=name)
    assert 0 < ours.sum() < ours.numel()
    assert torch.equal(ours, spikes)
    assert torch.equal(v_last, v)
    _close(
        _gradients(_weighted(ours, v_last), current, v0, ours_beta, ours_threshold),
        _gradients(_weighted(spikes, v), current, v0, *spikes.parameters),
    )


@pytest.mark.parametrize("fused", [True, False])
def test_cuba_lif_equals_snntorch_synaptic_step_by_step(fused: bool) -> None:
    alpha, beta, threshold = torch.tensor(0.7), torch.tensor(0.85), torch.tensor(1.0)
    cell = snn.Synaptic(
        alpha=alpha, beta=beta, threshold=threshold, spike_grad=snn_surrogate.atan(), reset_mechanism="zero",
        reset_delay=False, learn_alpha=True, learn_beta=True, learn_threshold=True,
    )  # fmt: skip
    current = _current()
    i0, v0 = torch.rand(B, *SHAPE).requires_grad_(), (torch.rand(B, *SHAPE) * 0.5).requires_grad_()
    i, v, spikes = i0, v0, []
    for x in current:
        s, i, v = cell(x, i, v)
        spikes.append(s)
    theirs = torch.stack(spikes)
    ours_params = [p.clone().requires_grad_() for p in (alpha, beta, threshold)]
    a, b, th = ours_params
    ours, i_last, v_last = cuba_lif(current, alpha=a, beta=b, threshold=th, i0=i0, v0=v0, surrogate="atan", fused=fused)
    assert 0 < ours.sum() < ours.numel()
    assert torch.equal(ours, theirs)
    assert torch.equal(i_last, i)
    assert torch.equal(v_last, v)
    _close(
        _gradients(_weighted(ours, i_last, v_last), current, i0, v0, *ours_params),
        _gradients(_weighted(theirs, i, v), current, i0, v0, cell.alpha, cell.beta, cell.threshold),
    )


def test_snntorch_lets_the_gradient_through_the_reset_and_so_do_we() -> None:
    """The fact the backward formula stands on: without it, matching snntorch means detaching."""
    current, start = _current(), torch.zeros(B, *SHAPE)
    spikes, _ = _leaky(current, torch.tensor(0.9), torch.tensor(1.0), start, SAME["fast_sigmoid"])
    (theirs,) = _gradients(_weighted(spikes), current)
    (through,) = _gradients(_weighted(lif(current)[0]), current)
    (detached,) = _gradients(_weighted(lif(current, detach_reset=True)[0]), current)
    _close([through], [theirs])
    assert (detached - theirs).abs().max() > 1e-2


def _both(run: Callable[[bool], tuple[Tensor, ...]], *tensors: Tensor) -> None:
    fused, plain = run(True), run(False)
    for a, b in zip(fused, plain, strict=True):
        assert torch.equal(a, b)
    assert 0 < fused[0].sum() < fused[0].numel()
    _close(_gradients(_weighted(*fused), *tensors), _gradients(_weighted(*plain), *tensors))


@pytest.mark.parametrize("name", surrogate_names())
@pytest.mark.parametrize("detach", [False, True])
def test_fused_lif_equals_plain_loop(name: str, detach: bool) -> None:
    current, v0 = _current(1), (torch.rand(B, *SHAPE) * 0.5).requires_grad_()
    beta, threshold = torch.full((4, 1), 0.8).requires_grad_(), torch.tensor(0.9).requires_grad_()
    _both(
        lambda fused: lif(
            current, beta=beta, threshold=threshold, v0=v0, surrogate=name, detach_reset=detach, fused=fused
        ),
        current, v0, beta, threshold,
    )  # fmt: skip


@pytest.mark.parametrize("bias_shape", [(), (4, 1), SHAPE])
def test_fused_cuba_equals_plain_loop(bias_shape: tuple[int, ...]) -> None:
    current = _current(2)
    i0, v0 = torch.rand(B, *SHAPE).requires_grad_(), (torch.rand(B, *SHAPE) * 0.5).requires_grad_()
    bias = (torch.randn(bias_shape) * 0.1).requires_grad_()
    alpha, beta = torch.rand(SHAPE).requires_grad_(), torch.tensor([0.9]).requires_grad_()
    threshold = (torch.rand(5) + 1).requires_grad_()
    _both(
        lambda fused: cuba_lif(
            current, alpha=alpha, beta=beta, threshold=threshold, bias=bias, i0=i0, v0=v0, fused=fused
        ),
        current, i0, v0, alpha, beta, threshold, bias,
    )  # fmt: skip


@pytest.mark.parametrize("steps", [1, 7])
def test_a_held_current_equals_its_repetition(steps: int) -> None:
    held = _current(3, (B, *SHAPE))
    repeated = held.detach().expand(steps, B, *SHAPE).clone().requires_grad_()
    ours, v = lif(held, steps=steps)
    theirs, w = lif(repeated)
    assert torch.equal(ours, theirs)
    (grad,) = _gradients(_weighted(ours, v), held)
    (full,) = _gradients(_weighted(theirs, w), repeated)
    _close([grad], [full.sum(0)])
    a = cuba_lif(held, alpha=0.5, steps=steps)
    b = cuba_lif(repeated, alpha=0.5)
    assert torch.equal(a[0], b[0])
    (grad,) = _gradients(_weighted(*a), held)
    (full,) = _gradients(_weighted(*b), repeated)
    _close([grad], [full.sum(0)])


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_and_threads_change_nothing(threads: int) -> None:
    """More elements than a block, a ragged last one, and enough for the parallel kernels."""
    steps, batch, neurons = 13, 5, 2300
    assert batch * neurons > kernels.BLOCK
    assert steps * batch * neurons >= kernels.PARALLEL_FROM
    current, beta = _current(4, (steps, batch, neurons)), torch.rand(neurons).requires_grad_()
    bias = torch.randn(neurons).requires_grad_()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert kernels.parts(threads, steps * batch * neurons) == threads or kernels.numba.config.NUMBA_NUM_THREADS < 2
        _both(lambda fused: cuba_lif(current, alpha=0.4, beta=beta, bias=bias, fused=fused), current, beta, bias)
        _both(lambda fused: lif(current, beta=beta, fused=fused), current, beta)
    finally:
        torch.set_num_threads(before)


def test_backward_of_a_long_run_recomputes_in_smaller_blocks() -> None:
    steps = 2 * kernels.SCRATCH // kernels.BLOCK
    current = _current(6, (steps, 1, 300))
    _both(lambda fused: lif(current, beta=0.97, fused=fused), current)


def test_scans_from_several_python_threads_at_once() -> None:
    """numba's workqueue layer ends the process on concurrent calls; ours are one at a time."""
    current = _current(7, (8, 16, 2048)).detach()
    expected = lif(current)[0]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: lif(current)[0], range(16)))
    assert all(torch.equal(expected, r) for r in results)


def test_a_forked_child_scans_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    many = kernels.PARALLEL_FROM
    assert kernels.parts(2, many) >= 1
    assert kernels.parts(2, many - 1) == 1
    monkeypatch.setattr(kernels, "_OWNER", os.getpid() + 1)
    assert kernels.parts(2, many) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    current = _current(8).detach().to(dtype).requires_grad_()
    spikes, v = lif(current)
    assert spikes.dtype == dtype
    assert v.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    (grad,) = _gradients(spikes.float().sum(), current)
    assert grad.dtype == dtype
    assert grad.abs().sum() > 0
    wide = current.detach() if dtype == torch.float64 else current.detach().float()
    assert torch.equal(spikes.to(wide.dtype), lif(wide, fused=False)[0])


def test_snntorch_surrogates_are_taken_as_they_are() -> None:
    current = _current(9)
    ours, theirs = lif(current, surrogate="atan"), lif(current, surrogate=snn_surrogate.atan(2.0))
    assert torch.equal(ours[0], theirs[0])
    _close(_gradients(_weighted(*ours), current), _gradients(_weighted(*theirs), current))
    custom = snn_surrogate.custom_surrogate(lambda x, grad, spikes: grad * 0)
    (none,) = _gradients(lif(current, surrogate=custom)[0].sum(), current)
    assert none.abs().max() == 0


def test_snntorch_triangular_is_another_function() -> None:
    """Ours is a tent; theirs +1 below and -1 above the threshold. If theirs is mended, say so in Surrogate's table."""
    x = torch.tensor([-0.5, 0.5], requires_grad=True)
    (theirs,) = _gradients(snn_surrogate.triangular()(x).sum(), x)
    (ours,) = _gradients(Surrogate("triangular")(x).sum(), x)
    assert theirs.tolist() == [1.0, -1.0]
    assert ours.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", surrogate_names())
@pytest.mark.parametrize("slope", [0.0, 3.0])
def test_surrogate_kernels_equal_their_torch_formulas(name: str, slope: float) -> None:
    """One step from rest: dL/dI is h'(I - threshold) itself."""
    x, function = torch.linspace(-2.0, 3.9, 601), Surrogate(name, slope)
    current = x.reshape(1, -1).clone().requires_grad_()
    spikes, _ = lif(current[None], surrogate=function)
    (grad,) = _gradients(spikes.sum(), current)
    torch.testing.assert_close(grad[0], function.derivative(x - 1.0), rtol=1e-5, atol=1e-6)
    assert torch.equal(spikes[0, 0], (x > 1.0).float())


def test_known_values() -> None:
    """beta 0.5, threshold 1: v = 0.75, 1.125 (fires), 0.75, ...; exactly at the threshold there is no spike."""
    spikes, v = lif(torch.full((4, 1, 1), 0.75), beta=0.5)
    assert spikes.flatten().tolist() == [0, 1, 0, 1]
    assert v.item() == 0
    spikes, v = lif(torch.ones(2, 1, 1), beta=0.5)
    assert spikes.flatten().tolist() == [0, 1]
    spikes, i, v = cuba_lif(torch.tensor([[[0.5]], [[0.0]], [[0.0]]]), alpha=0.5, beta=0.5, bias=torch.tensor(0.25))
    assert spikes.flatten().tolist() == [0, 0, 0]
    assert (i.item(), v.item()) == (0.125, 0.25 * (0.75) + 0.5 * 0.5 + 0.125 + 0.25)


def test_state_in_state_out() -> None:
    """Two halves joined by the state equal one run, gradients included; a held current too."""
    current, layer, cuba = _current(10), LIF(0.8), CubaLIF(0.6, 0.8, bias_shape=(4, 1))
    whole, last = layer(current)
    first, state = layer(current[:4])
    second, end = layer(current[4:], state)
    assert isinstance(state, LIFState)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(end.v, last.v)
    _close(_gradients(_weighted(torch.cat([first, second])), current), _gradients(_weighted(whole), current))
    whole, full = cuba(current)
    first, between = cuba(current[:4])
    second, final = cuba(current[4:], between)
    assert isinstance(between, CubaState)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(final.i, full.i)
    assert torch.equal(final.v, full.v)


def test_cuba_bias_is_added_to_the_membrane_unfiltered() -> None:
    layer = CubaLIF(0.5, 0.5, 10.0, bias_shape=(1,))
    with torch.no_grad():
        layer.bias.fill_(1.0)
    _, state = layer(torch.zeros(2, 1, 1))
    assert state.v.item() == 1.5
    assert state.i.item() == 0.0
    (grad,) = _gradients(layer(torch.zeros(2, 1, 1))[1].v.sum(), layer.bias)
    assert grad.shape == (1,)


def _given(current: Tensor, alpha: float | None, beta: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Membranes before the reset, and spikes, by the plainest means."""
    i = v = torch.zeros(current.shape[1:])
    membranes, spikes = [], []
    for x in current.detach():
        i = x if alpha is None else alpha * i + x
        v = beta * v + i
        membranes.append(v)
        spikes.append((v > threshold).float())
        v = v * (1 - spikes[-1])
    return torch.stack(membranes), torch.stack(spikes)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("detach", [False, True])
def test_backward_from_given_membranes(held: bool, detach: bool) -> None:
    current = _current(11, (B, *SHAPE) if held else (T, B, *SHAPE))
    every = current.expand(T, B, *SHAPE) if held else current
    grad_spikes, function = torch.randn(T, B, *SHAPE), Surrogate("atan")
    steps = T if held else None

    spikes, _ = lif(current, beta=0.8, steps=steps, surrogate=function, detach_reset=detach)
    (expected,) = torch.autograd.grad(spikes, current, grad_spikes)
    v, s = _given(every, None, 0.8, 1.0)
    assert torch.equal(s, spikes)
    ours = lif_backward(grad_spikes, v, s, 0.8, 1.0, function, held=held, detach_reset=detach)
    _close([ours], [expected])

    membranes = cuba_lif(
        current, alpha=0.6, beta=0.8, bias=torch.zeros(()), steps=steps, surrogate=function, detach_reset=detach
    )
    (expected,) = torch.autograd.grad(membranes[0], current, grad_spikes)
    v, s = _given(every, 0.6, 0.8, 1.0)
    assert torch.equal(s, membranes[0])
    ours, ours_bias = cuba_lif_backward(grad_spikes, v, s, 0.6, 0.8, 1.0, function, held=held, detach_reset=detach)
    _close([ours], [expected])
    # A membrane bias is a current that skips the filter: the LIF gradient on the same membranes, summed over time.
    _close([ours_bias], [lif_backward(grad_spikes, v, s, 0.8, 1.0, function, held=True, detach_reset=detach)])


def test_backward_takes_the_spikes_as_given() -> None:
    """Spikes that do not follow from v_pre > threshold (an integer forward pass) decide the reset."""
    v, grad = torch.full((2, 1, 1), 0.5), torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    function = Surrogate("straight_through")
    fired = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
    assert lif_backward(grad, v, fired, 0.5, 1.0, function, detach_reset=True)[0].item() == 0.0
    assert lif_backward(grad, v, fired * 0, 0.5, 1.0, function, detach_reset=True)[0].item() == 0.5


@pytest.mark.parametrize("name", ["fast_sigmoid", "triangular"])
def test_plain_loop_passes_gradcheck_below_the_threshold(name: str) -> None:
    """Where no neuron can fire, v_last is smooth in the current, beta and v0: gradcheck holds the recursion."""
    current = (torch.rand(4, 2, 3, dtype=torch.float64) * 0.1).requires_grad_()
    beta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    v0 = torch.rand(2, 3, dtype=torch.float64).mul(0.1).requires_grad_()

    def last(x: Tensor, b: Tensor, v: Tensor) -> Tensor:
        return lif(x, beta=b, v0=v, threshold=1e6, surrogate=Surrogate(name, 1e3))[1]

    assert torch.autograd.gradcheck(last, (current, beta, v0))


def test_gradients_of_gradients_are_refused_by_the_fused_scan() -> None:
    current = _current(12)
    (grad,) = torch.autograd.grad(lif(current)[0].square().sum(), current, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_empty_batch() -> None:
    current = torch.zeros(3, 0, 4, requires_grad=True)
    beta = torch.tensor(0.9, requires_grad=True)
    spikes, v = lif(current, beta=beta)
    assert spikes.shape == (3, 0, 4)
    assert v.shape == (0, 4)
    grads = _gradients(spikes.sum(), current, beta)
    assert grads[0].shape == current.shape
    assert grads[1].item() == 0.0


# The grid


@given(st.integers(0, 4095))
@settings(max_examples=200, deadline=None)
def test_every_grid_point_is_exact_in_float32_and_stays(dv: int) -> None:
    beta = 1.0 - dv / GRID
    assert on_grid(beta) == beta
    assert float(on_grid(torch.tensor(beta))) == beta
    assert round(GRID * (1.0 - float(LIF(beta).beta))) == dv
    alpha = 1.0 - (dv + 1) / GRID
    assert alpha_on_grid(alpha) == alpha
    assert round(GRID * (1.0 - float(CubaLIF(alpha).alpha))) == dv + 1


@given(st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_the_nearest_grid_point_is_taken(beta: float) -> None:
    assert abs(on_grid(beta) - beta) <= (0.5 / GRID if beta >= 0.5 / GRID else 1.0 / GRID)
    assert 1 / GRID <= on_grid(beta) <= 1
    assert 0 <= alpha_on_grid(beta) <= 1 - 1 / GRID


def test_betas_are_rounded_on_construction() -> None:
    layer = LIF(0.9)
    assert float(layer.beta) == 1 - 410 / 4096
    assert float(layer.raw_beta) == float(layer.beta)
    assert list(dict(layer.named_parameters())) == []
    assert "raw_beta" in layer.state_dict()
    assert torch.equal(LIF(torch.tensor([0.9, 0.5])).beta, torch.tensor([1 - 410 / 4096, 0.5]))


def test_learned_parameters_stay_on_the_grid_and_in_range() -> None:
    layer = CubaLIF(0.5, 0.9, 1.0, learn_alpha=True, learn_beta=True, learn_threshold=True)
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    for sign in (1.0, -1.0):
        for _ in range(3):
            optimizer.zero_grad()
            (sign * (layer.alpha + layer.beta + layer.threshold)).backward()
            optimizer.step()
        low = sign > 0
        assert layer.beta.item() == (1 / GRID if low else 1 - 1 / GRID)
        assert layer.alpha.item() == (0.0 if low else 1 - 1 / GRID)
        assert layer.threshold.item() == MIN_THRESHOLD if low else layer.threshold.item() > 1
        # The gradient stops at the edge: the raw value is at most one step outside.
        assert -10.0 <= layer.raw_beta.item() <= 11.0
    spikes, _ = layer(_current(13))
    spikes.sum().backward()
    assert layer.raw_beta.grad is not None


def test_learned_beta_gets_the_gradient_straight_through() -> None:
    layer, current = LIF(0.9, learn_beta=True, learn_threshold=True), _current(14)
    with torch.no_grad():
        layer.raw_beta.fill_(0.8001)
    beta, threshold = layer.beta.detach().requires_grad_(), torch.tensor(1.0, requires_grad=True)
    assert beta.item() != layer.raw_beta.item()
    expected = _gradients(lif(current, beta=beta, threshold=threshold)[0].sum(), beta, threshold)
    _close(_gradients(layer(current)[0].sum(), layer.raw_beta, layer.raw_threshold), expected)


def test_repr_says_the_parameters() -> None:
    assert "beta=0.899902, threshold=1, surrogate=Surrogate(name='atan', slope=2.0)" in repr(LIF(surrogate="atan"))
    assert "alpha=0.5" in repr(CubaLIF(0.5))
    assert "beta=[2]" in repr(LIF(torch.tensor([0.5, 0.6])))


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lif(torch.zeros(3)), "no time or batch axis"),
        (lambda: lif(torch.zeros(0, 2, 3)), "at least one time step"),
        (lambda: lif(torch.zeros(2, 3), steps=0), "at least one time step"),
        (lambda: lif(torch.tensor(1.0), steps=2), "at least one time step"),
        (lambda: lif(torch.zeros(2, 3, 4, dtype=torch.int64)), "not floating point"),
        (lambda: lif(torch.zeros(2, 3, 4), beta=torch.ones(3)), "does not fit the neurons"),
        (lambda: lif(torch.zeros(2, 3, 4), beta=torch.ones(2, 3, 4)), "does not fit the neurons"),
        (lambda: lif(torch.zeros(2, 3, 4), v0=torch.zeros(3, 5)), "does not fit the current"),
        (lambda: cuba_lif(torch.zeros(2, 3, 4), alpha=0.5, bias=torch.zeros(7)), "does not fit the neurons"),
        (
            lambda: lif_backward(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 4), 0.9, 1.0, Surrogate()),
            "does not fit",
        ),
        (
            lambda: lif_backward(*[torch.zeros(2, 3, dtype=torch.float64)] * 3, 0.9, 1.0, Surrogate()),
            "does not fit",
        ),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lif(torch.zeros(2, 3, 4), surrogate="tent"), "unknown surrogate"),
        (lambda: Surrogate("atan", -1.0), "slope of a surrogate"),
        (lambda: Surrogate("atan", math.inf), "slope of a surrogate"),
        (lambda: as_surrogate(3), "a name or a function"),  # type: ignore[arg-type]
        (lambda: as_surrogate(snn_surrogate.atan(), 2.0), "beside a ready surrogate"),
        (lambda: LIF(1.5), "decay factor"),
        (lambda: LIF(math.nan), "decay factor"),
        (lambda: CubaLIF(-0.1), "decay factor"),
        (lambda: LIF(0.9, 0.0), "threshold is positive"),
        (lambda: LIF(0.9, torch.tensor([1.0, math.inf])), "threshold is positive"),
    ],
)
def test_options_that_make_no_sense(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
