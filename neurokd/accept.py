"""Taking a user's own snntorch module, unchanged, as a network of this toolkit; and handing the training back.

The module's forward is run once (in evaluation, its states and modes restored afterwards) and watched. What comes out
is a :class:`~neurokd.network.SpikingNetwork` that gives the same output spikes, or a :class:`ModuleError` that names
the module or function in the way. The network shares nothing with the module: parameters are copied, and
:func:`to_user` copies trained ones back. Equality is proved layer by layer on the example before the network is
returned (:mod:`neurokd.accept_proof`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from snntorch._neurons import SpikingNeuron  # type: ignore[import-untyped]
from torch import Tensor, nn

from deploy.errors import ModuleError
from neurokd.accept_chain import Chain, Part
from neurokd.accept_modules import copy_back, copy_in, read_norm, read_spec, source_of
from neurokd.accept_neurons import NeuronReading, read_neuron
from neurokd.accept_proof import prove
from neurokd.accept_run import examples, trace, trace_any
from neurokd.network import SpikingNetwork, build


def is_snntorch(module: object) -> bool:
    """Whether ``module`` is a torch module with a snntorch neuron somewhere inside (supported or not)."""
    if not isinstance(module, nn.Module) or isinstance(module, SpikingNetwork):
        return False
    kinds = [(isinstance(part, SpikingNeuron), type(part).__module__) for part in module.modules()]
    return any(neuron or name.split(".")[0] == "snntorch" for neuron, name in kinds)


def as_network(module: nn.Module, *arguments: Any, **options: Any) -> SpikingNetwork:
    """``module`` itself if it is a SpikingNetwork, else ``accept(module, *arguments, **options)``."""
    return module if isinstance(module, SpikingNetwork) else accept(module, *arguments, **options)


def accept(
    module: nn.Module,
    example_input: Tensor | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    steps: int | None = None,
    convert_reset: bool = False,
    input_bits: int = 8,
    forward_kwargs: Mapping[str, Any] | None = None,
) -> SpikingNetwork:
    """Take a user's snntorch module as a network of ours, with the same output spikes.

    Taken: chains of Linear / Conv2d, each followed by snn.Leaky or snn.Synaptic with zero reset in the same step, with
    AvgPool2d before a synapse, BatchNorm after it, Flatten and Dropout; called in a loop over time inside forward
    (input the same at every step, or ``x[t]``), or one step a call (states as arguments, or init_hidden). Decays move
    to the nearest point of the chip's grid (1/4096). Everything that is not exactly the user's is in
    ``network.notes``. Dropout is not taken over: it does nothing in evaluation, and training here goes without.

    Args:
        module: The module. It is run in evaluation mode; its parameters, states, modes and the random generators are
            as before afterwards.
        example_input: What forward takes, float32: [B, ...], or [T, B, ...] if it reads ``x[t]`` ([B, T, ...] for
            ``x[:, t]``). A small batch of real data proves most.
        input_shape: Instead of an example: one sample of one step, e.g. (784,) or (1, 28, 28).
        steps: Time steps, where forward makes one step a call or where a time-first example is to be made up.
        convert_reset: Take neurons with another reset rule too and switch them to zero reset. The spikes then differ
            from the user's; a note says by how much on the example.
        input_bits: Kept as ``network.input_bits``.
        forward_kwargs: Further arguments of forward. States (mem1, ...) and a step count are given by themselves.

    Returns:
        The network, in the mode (training or evaluation) and on the device of the module.

    Raises:
        ModuleError: the module is not such a chain, or a setting has no counterpart; says where, and the way out.
    """
    _check_module(module)
    device = _check_devices(module)
    chain, example = trace_any(module, examples(example_input, input_shape, steps, forward_kwargs, device))
    spec = read_spec(chain)
    readings = [read_neuron(part.neurons[0], convert_reset=convert_reset) for part in chain.parts]
    network = build(spec, **_options(chain, readings, input_bits)).to(device).train(module.training)
    copy_in(network, module)
    proved = trace(module, example, readings, chain) if any(reading.changes for reading in readings) else chain
    notes = [*network.notes, *_change_note(chain, proved, readings), *prove(network, proved)]
    network.options["notes"] = notes
    return network


def to_user(network: SpikingNetwork, module: nn.Module) -> None:
    """Copy the network's parameters, norms' statistics, decays and thresholds into the module it was taken from.

    Args:
        network: Returned by :func:`accept`, trained since or rebuilt from its ``options``.
        module: The module that was accepted, or another of the same class and sizes. Its reset rule is not touched.

    Raises:
        ModuleError: the network did not come from a module, or the module does not fit it; nothing is copied then.
    """
    if not network.options["source"]:
        raise ModuleError(
            "this network was not taken from a module",
            got="a network of build()",
            allowed="a network returned by accept()",
        )
    copy_back(network, module)


def _options(chain: Chain, readings: Sequence[NeuronReading], input_bits: int) -> dict[str, Any]:
    layers = [{**read_norm(part), **reading.options} for part, reading in zip(chain.parts, readings, strict=True)]
    names = dict.fromkeys(name for layer in layers for name in layer)
    defaults = {"alpha": 0.0, "learn_alpha": False}
    options: dict[str, Any] = {name: [layer.get(name, defaults.get(name)) for layer in layers] for name in names}
    notes = [*chain.notes, *_dropout_notes(chain.parts), *(note for reading in readings for note in reading.notes)]
    network = {"steps": chain.steps, "input_bits": input_bits, "source": [source_of(part) for part in chain.parts]}
    return {**options, **network, "notes": notes}


def _dropout_notes(parts: Sequence[Part]) -> list[str]:
    calls = dict.fromkeys(str(call) for part in parts for call in part.dropouts)
    notes = [
        f"{call}: dropout is not taken over; it does nothing in evaluation, training here goes without"
        for call in calls
    ]
    norms = [part.norm for part in parts if part.norm is not None]
    return notes + [
        f"{call}: in training its statistics are over all steps together, not step by step" for call in norms
    ]


def _change_note(before: Chain, after: Chain, readings: Sequence[NeuronReading]) -> list[str]:
    if not any(reading.changes for reading in readings):
        return []
    pairs = zip(before.parts[-1].neurons, after.parts[-1].neurons, strict=True)
    differing = sum(int((_output(a.output) != _output(b.output)).sum()) for a, b in pairs)
    total = sum(_output(call.output).numel() for call in before.parts[-1].neurons)
    return [f"with these changes {differing} of {total} output spikes differ from the module's on the example"]


def _output(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _check_module(module: nn.Module) -> None:
    if isinstance(module, SpikingNetwork) or not is_snntorch(module):
        raise ModuleError(
            "there is nothing to accept",
            got=type(module).__name__,
            allowed="a torch nn.Module with snn.Leaky or snn.Synaptic neurons",
            next_step="as_network takes both a SpikingNetwork and a snntorch module",
        )


def _check_devices(module: nn.Module) -> torch.device:
    devices = {tensor.device for tensor in module.parameters()} or {torch.device("cpu")}
    if len(devices) > 1:
        raise ModuleError(
            "the module's parameters are on several devices",
            got=", ".join(sorted(map(str, devices))),
            allowed="one device",
            next_step="call module.to('cpu')",
        )
    return devices.pop()
