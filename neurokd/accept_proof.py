"""Proof that a network gives the spikes of the module it was taken from, layer by layer, on what was recorded."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy.errors import ModuleError
from neurokd.accept_chain import Chain, Part
from neurokd.accept_origin import Call
from neurokd.network import SpikingNetwork
from neurokd.network_layers import SpikingLayer, norm_constants

#: Half the distance of neighbouring float32 numbers near 1: the largest relative error of one operation.
_UNIT = 2.0**-24
#: Samples of a batch whose currents are computed again: a wrong weight shows in one.
_SAMPLES = 8


def prove(network: SpikingNetwork, chain: Chain) -> list[str]:
    """Compare the network with the recorded run.

    1. Every layer's current, computed in float64 from the spikes the user's layer got, is the user's current within
       the rounding error of float32 (bound in :func:`_bound`).
    2. Every layer's neuron turns the user's currents into exactly the user's spikes.
    3. End to end: the SAT is the user's output. Only here float32 rounding may flip a spike, where sums are added in
       another order; it is counted in a note.

    Returns:
        Notes: of (3), or that the example caused no output spikes.

    Raises:
        ModuleError: (1) or (2) fails, so the network is another one; this names the layer.
    """
    training = network.training
    network.eval()
    with torch.no_grad():
        for layer, part in zip(network.spiking_layers(), chain.parts, strict=True):
            _check_currents(layer, part)
            _check_spikes(layer, part)
        first, last = chain.parts[0], chain.parts[-1]
        x = first.starts[0].given if chain.time_axis is None else torch.stack([call.given for call in first.starts])
        sat = network.sat(x, chain.steps)
    network.train(training)
    expected = torch.stack([_output(call) for call in last.neurons])
    differing = int((sat != expected).sum())
    notes = [] if bool(expected.any()) else ["the example caused no output spikes: give an example_input of real data"]
    if differing:
        notes.append(f"{differing} of {sat.numel()} output spikes differ on the example by float32 rounding of sums")
    return notes


def _check_currents(layer: SpikingLayer, part: Part) -> None:
    weight, bias = layer.folded()
    for start, neuron in zip(part.starts, part.neurons, strict=True):
        x = start.given[:_SAMPLES].double().reshape(-1, *layer.block.in_shape)
        ours = _apply(layer, weight, x)
        ours = ours + bias.reshape(-1, *[1] * (ours.dim() - 2))
        theirs = neuron.given[:_SAMPLES].double().reshape(ours.shape)
        if not bool(((ours - theirs).abs() <= _bound(layer, weight, x)).all()):
            raise _differs(neuron, f"a current differs by {float((ours - theirs).abs().max()):.3g}")


def _apply(layer: SpikingLayer, weight: Tensor, x: Tensor) -> Tensor:
    x = x if layer.pool is None else layer.pool(x)
    synapse = layer.synapse
    if isinstance(synapse, nn.Linear):
        return functional.linear(x.flatten(1), weight)
    return functional.conv2d(
        x, weight, None, synapse.stride, synapse.padding, synapse.dilation, synapse.groups
    )  # fmt: skip


def _bound(layer: SpikingLayer, weight: Tensor, x: Tensor) -> Tensor:
    """Largest rounding error of a float32 current: n operations on a sum of magnitudes S err by at most 1.01 n u S.

    n is the fan-in, plus the pool's window, plus 16 for bias, norm and casts; S takes every term by its magnitude
    (Higham 2002, section 3.1; u = 2^-24).
    """
    window = 1 if layer.pool is None else math.prod(layer.block.pool.kernel) if layer.block.pool else 1
    terms = math.prod(weight.shape[1:]) + window + 16
    size = _apply(layer, weight.abs(), x.abs())
    constant = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
    scale = torch.ones_like(constant)
    if layer.norm is not None:
        scale, mean, shift = norm_constants(layer.norm)
        constant = (mean * scale).abs() + shift.abs()
    if layer.synapse.bias is not None:
        constant = constant + (layer.synapse.bias.double() * scale).abs()
    return 1.01 * terms * _UNIT * (size + constant.reshape(-1, *[1] * (size.dim() - 2)))


def _check_spikes(layer: SpikingLayer, part: Part) -> None:
    currents = torch.stack([call.given for call in part.neurons])
    spikes = layer.neuron(currents)[0]
    expected = torch.stack([_output(call) for call in part.neurons])
    if not torch.equal(spikes, expected):
        raise _differs(part.neurons[0], f"{int((spikes != expected).sum())} of {spikes.numel()} spikes differ")


def _output(call: Call) -> Tensor:
    assert call.output is not None
    return call.output


def _differs(call: Call, got: str) -> ModuleError:
    return ModuleError(
        "the network that was read off does not reproduce this module",
        where=f"module {call}",
        got=got,
        allowed="equal spikes, and currents equal within float32 rounding",
        next_step="forward does something that a trace does not show (values changed in place, code outside torch?)",
    )
