"""A Program as the HDF5 file that lava-dl 0.6.0's ``netx.hdf5.Network`` loads; see :mod:`deploy.loihi.netx`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from deploy.errors import UnsupportedNode
from deploy.loihi.netx_weights import in_units, why_not_dense
from deploy.loihi.protocol import CONV_FIELD_MAX
from deploy.program import Conv, Dense, Input, Population, Program, Synapse

Array = npt.NDArray[Any]
BIAS_EXP: Final = 6  # netx/hdf5.py gives every LIF this one
BIAS_MANTISSA: Final = (-4096, 4095)
OURS: Final = "neurokd"  # beside "layer", which is all that lava-dl reads
POPULATION: Final = "population"


def refusals(program: Program) -> list[str]:
    """Every reason why a netx file cannot hold this Program exactly, each with the node's name; empty if it can."""
    found = []
    before: Input | Population = program.input
    for population in program.populations:
        found += [f"{population.name}: {reason}" for reason in _neurons(population)]
        found += [f"{population.name}: {reason}" for reason in _place(program, before, population)]
        for synapse in program.incoming(population.name):
            found += [f"{synapse.name}: {reason}" for reason in _synapse(synapse)]
        before = population
    if program.output is not program.populations[-1]:
        found.append(f"{program.output.name}: it is the output but not the last layer, which is netx's")
    return found


def _neurons(population: Population) -> Iterator[str]:
    if population.reset != "zero":
        yield f"reset {population.reset}; Lava's LIF resets to zero"
    if population.refractory:
        yield f"a refractory period of {population.refractory} steps, which netx does not read"
    if not population.spiking:
        yield "a readout without threshold; every netx layer spikes"
    bias = _biases(population)
    if np.any(bias % (1 << BIAS_EXP)):
        fine = int(np.count_nonzero(bias % (1 << BIAS_EXP)))
        yield f"{fine} of {bias.size} biases finer than {1 << BIAS_EXP}: netx fixes the bias exponent at {BIAS_EXP}"
    elif np.any((bias >> BIAS_EXP < BIAS_MANTISSA[0]) | (bias >> BIAS_EXP > BIAS_MANTISSA[1])):
        yield f"a bias beyond the 13-bit mantissa at exponent {BIAS_EXP}"


def _place(program: Program, before: Input | Population, population: Population) -> Iterator[str]:
    """A chain: each layer hears the one before, and a fully connected one itself a step later."""
    forward = [s for s in program.incoming(population.name) if s.source == before.name and s.source != s.target]
    loops = [s for s in program.incoming(population.name) if s.source == s.target]
    others = sorted({s.source for s in program.incoming(population.name)} - {before.name, population.name})
    if others:
        yield f"it hears {', '.join(others)}; a netx layer hears only the one before it, {before.name}"
    if not forward:
        yield f"it does not hear the layer before it, {before.name}"
    if len(forward) > 1 and (any(isinstance(s, Conv) for s in forward) or _overlap(forward)):
        yield f"{len(forward)} synapse blocks from {before.name}; netx has one weight and one delay for each pair"
    if loops and not _plain_loop(forward, loops):
        yield "its loop; netx has one fully connected loop of one step, beside undelayed fully connected weights"
    if loops and forward and not others:
        together = [in_units(s) for s in (*forward, *loops) if isinstance(s, Dense)]
        weights = [w for w in together if w is not None]
        if len(weights) == len(together) > 1 and (why := why_not_dense(np.hstack(weights))):
            yield f"weights and loop together, as netx scales them: {why}"


def _plain_loop(forward: list[Synapse], loops: list[Synapse]) -> bool:
    dense = all(isinstance(s, Dense) for s in (*forward, *loops))
    return dense and len(loops) == 1 and loops[0].delay == 1 and all(s.delay == 0 for s in forward)


def _overlap(blocks: list[Synapse]) -> bool:
    return bool(np.any(sum((s.weights != 0).astype(int) for s in blocks) > 1))


def _synapse(synapse: Synapse) -> Iterator[str]:
    weights = in_units(synapse)
    if weights is None:
        yield f"weights in fractions of {1 << -synapse.weight_exp} (weight_exp {synapse.weight_exp})"
    elif isinstance(synapse, Dense) and synapse.source != synapse.target and (why := why_not_dense(weights)):
        yield why
    if isinstance(synapse, Conv):
        if synapse.delay:
            yield f"a delay of {synapse.delay} on a convolution; netx reads none there"
        if max(*synapse.weights.shape[2:], *synapse.stride, *synapse.padding, *synapse.dilation) > CONV_FIELD_MAX:
            yield f"a kernel, stride, padding or dilation beyond {CONV_FIELD_MAX}, Lava's int8"
        if synapse.groups > CONV_FIELD_MAX:
            yield f"{synapse.groups} groups; Lava keeps at most {CONV_FIELD_MAX}"


def round_biases(program: Program) -> Program:
    """The Program with each bias on the nearest multiple of 64 (halves up) a netx file can hold; another network.

    Compare it with the first on the simulator before using it: a bias moves by up to 32, a threshold being
    ``vth * 64``.
    """
    unit = 1 << BIAS_EXP
    populations = []
    for population in program.populations:
        bias = _biases(population)
        mantissa = np.clip((bias + unit // 2) // unit, *BIAS_MANTISSA)
        populations.append(replace(population, bias_mant=mantissa, bias_exp=BIAS_EXP))
    return replace(program, populations=tuple(populations))


def biases_moved(before: Program, after: Program) -> dict[str, dict[str, int]]:
    """How many biases of each population :func:`round_biases` moved, and the largest move in units of the membrane.

    Populations whose biases are all as they were are left out.
    """
    moved = {}
    for old, new in zip(before.populations, after.populations, strict=True):
        steps = np.abs(_biases(new) - _biases(old))
        if steps.any():
            moved[old.name] = {"moved": int(np.count_nonzero(steps)), "of": steps.size, "by_up_to": int(steps.max())}
    return moved


def _biases(population: Population) -> Array:
    return population.bias_mant.astype(np.int64) << population.bias_exp


def require(program: Program) -> None:
    """Refuse what :func:`refusals` names.

    Raises:
        UnsupportedNode: with every reason.
    """
    if found := refusals(program):
        raise UnsupportedNode(
            "a netx file cannot hold this program",
            where="; ".join(found),
            allowed="a chain of fully connected and convolutional layers of LIF and CUBA-LIF that reset to zero",
            next_step="where biases are all: `neurokd-deploy netx write --round-biases` (netx.round_biases); "
            "else --target lava or deploy.loihi.to_lava",
        )


def fill(file: Any, program: Program) -> None:
    """Write the layers into an open HDF5 file; the Program has passed :func:`require`."""
    layers = file.create_group("layer")
    before: Input | Population = program.input
    if isinstance(_first(program), Conv):
        _described(layers, "input", before.shape)
    for population in program.populations:
        forward = [s for s in program.incoming(population.name) if s.source == before.name and s.source != s.target]
        loops = [s for s in program.incoming(population.name) if s.source == s.target]
        if isinstance(forward[0], Conv):
            layer = _described(layers, "conv", population.shape)
            _convolution(layer, forward[0])
        else:
            if before is not program.input and len(before.shape) == 3:
                _described(layers, "flatten", (before.size,))
            layer = _described(layers, "dense_rec" if loops else "dense", (population.size,))
            _dense(layer, forward, before.size, population.size)
            if loops:
                layer["weight_rec"] = _units(loops[0])
        _cells(layer, population, convolution=isinstance(forward[0], Conv))
        before = population
    if program.population > 1:
        file.create_group(OURS)[POPULATION] = program.population


def _first(program: Program) -> Synapse:
    return program.incoming(program.populations[0].name)[0]


def _units(synapse: Synapse) -> Array:
    weights = in_units(synapse)
    assert weights is not None
    return weights.astype(np.int32)


def _described(layers: Any, kind: str, shape: tuple[int, ...]) -> Any:
    layer = layers.create_group(str(len(layers)))
    layer.create_dataset("type", data=np.array([kind.encode()], dtype="S10"))
    layer["shape"] = np.array(shape, np.int64)
    return layer


def _convolution(layer: Any, conv: Conv) -> None:
    """Kernels ``[O, I/groups, kh, kw]`` as torch has them, pairs ``(y, x)``: netx turns them itself."""
    weights = _units(conv)
    layer["weight"] = weights
    layer["inChannels"], layer["outChannels"] = weights.shape[1] * conv.groups, weights.shape[0]
    layer["kernelSize"] = np.array(weights.shape[2:], np.int64)
    for name in ("stride", "padding", "dilation"):
        layer[name] = np.array(getattr(conv, name), np.int64)
    layer["groups"] = conv.groups


def _dense(layer: Any, blocks: list[Synapse], inputs: int, outputs: int) -> None:
    """One matrix, and one delay for each weight where any waits."""
    weights = sum((_units(s) for s in blocks), np.zeros((outputs, inputs), np.int32))
    layer["weight"] = weights
    layer["inFeatures"], layer["outFeatures"] = inputs, outputs
    if any(s.delay for s in blocks):
        layer["delay"] = sum((s.delay * (s.weights != 0) for s in blocks), np.zeros((outputs, inputs), np.int64))


def _cells(layer: Any, population: Population, *, convolution: bool) -> None:
    """Lava's own constants; a bias for each neuron, in Lava's ``(W, H, C)`` order, or one a channel."""
    bias = _biases(population) >> BIAS_EXP
    if convolution:
        image = bias.reshape(population.shape)
        uniform = bool(np.all(image == image[:, :1, :1]))
        bias = image[:, 0, 0] if uniform else image.transpose(2, 1, 0)
    if np.any(bias):
        layer["bias"] = bias.astype(np.int32)
    neuron = layer.create_group("neuron")
    neuron.create_dataset("type", data=b"CUBA", dtype=h5py.string_dtype("ascii", 4))
    neuron["iDecay"], neuron["vDecay"], neuron["vThMant"] = population.du + 1, population.dv, population.vth
    neuron["refDelay"], neuron["gradedSpike"] = 1, False
