"""Reading the user's torch modules (Linear, Conv2d, AvgPool2d, BatchNorm) and copying parameters there and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deploy.errors import ModuleError, SpecError
from neurokd.accept_chain import Chain, Part, refuse
from neurokd.accept_origin import Call
from neurokd.network import SpikingNetwork
from neurokd.network_layers import SpikingLayer
from neurokd.neurons import CubaLIF
from neurokd.spec import NetworkSpec
from neurokd.spec_layers import Conv, Dense, LayerSpec, Pair, Pool


def read_spec(chain: Chain) -> NetworkSpec:
    """The specification of a chain.

    Raises:
        ModuleError: a module with a setting that a specification does not have.
    """
    layers: list[LayerSpec] = []
    for part in chain.parts:
        for call in part.calls():
            _check_leaf(call)
        layers += [] if part.pool is None else [pool_of(part.pool)]
        layers.append(_dense(part.synapse) if isinstance(part.synapse.module, nn.Linear) else conv_of(part.synapse))
    try:
        spec = NetworkSpec(tuple(chain.parts[0].starts[0].given.shape[1:]), tuple(layers))
    except SpecError as error:
        raise ModuleError(
            f"the layers do not make a network: {error.what}", where=error.where, got=error.got, allowed=error.allowed
        ) from error
    for part, block in zip(chain.parts, spec.blocks(), strict=True):
        given = tuple(part.starts[0].given.shape[1:])
        if given not in (block.in_shape, (math.prod(block.in_shape),)):
            way = "flatten only before the first Linear"
            got = f"{block.in_shape} became {given}"
            raise refuse(part.starts[0], "an image is reshaped between layers", got=got, next_step=way)
    return spec


def read_norm(part: Part) -> dict[str, Any]:
    """The norm and bias of one layer as options of ``build``.

    Raises:
        ModuleError: a norm that does not fold, or a bias or norm that the CUBA neuron would filter.
    """
    biased = part.synapse.module.bias is not None
    synaptic = hasattr(part.neurons[0].module, "alpha")
    if synaptic and (biased or part.norm is not None):
        raise refuse(
            part.synapse if biased else part.norm or part.synapse,
            "a constant current before snn.Synaptic is filtered by its alpha; on the chip the bias is on the membrane",
            got="bias=True" if biased else "a batch norm, which has a shift",
            allowed="Linear or Conv2d with bias=False right before snn.Synaptic",
            next_step="use bias=False, no batch norm there, and fine-tune; or snn.Leaky, or build(..., neuron='cuba')",
        )
    options: dict[str, Any] = {"norm": part.norm is not None, "bias": biased}
    options |= {"norm_eps": 1e-5, "norm_momentum": 0.1, "norm_affine": True}
    if part.norm is not None:
        norm: Any = part.norm.module
        _check_norm(part.norm, part.synapse)
        options |= {"norm_eps": norm.eps, "norm_momentum": norm.momentum, "norm_affine": norm.affine}
    return options


def source_of(part: Part) -> dict[str, str]:
    """Paths in the user's module, by part; for :func:`copy_back`."""
    paths = {"synapse": part.synapse.path, "neuron": part.neurons[0].path}
    return paths if part.norm is None else {**paths, "norm": part.norm.path}


def pairs(network: SpikingNetwork, module: nn.Module, parts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """(ours, theirs) of every tensor of ``parts``; decays and thresholds of neurons as used.

    Raises:
        ModuleError: the module lacks a submodule, or a tensor has another shape.
    """
    for layer, paths in zip(network.spiking_layers(), network.options["source"], strict=True):
        if "norm" in paths and layer.norm is None:
            raise ModuleError(
                "the network has no norm where the module has one",
                where=f"layer {layer.name}",
                got="a folded network",
                allowed="the network that accept returned, trained or not",
            )
        for part in (part for part in parts if part in paths):
            theirs = _submodule(module, paths[part])
            for name, ours in _tensors(layer, part):
                target = getattr(theirs, name, None)
                if not isinstance(target, Tensor) or target.numel() != ours.numel():
                    raise _not_the_same(f"{paths[part]}.{name}", target, ours)
                yield ours, target


def _tensors(layer: SpikingLayer, part: str) -> Iterator[tuple[str, Tensor]]:
    if part == "neuron":
        names = ("alpha", "beta", "threshold") if isinstance(layer.neuron, CubaLIF) else ("beta", "threshold")
        yield from ((name, getattr(layer.neuron, name)) for name in names)
        return
    held: Any = layer.synapse if part == "synapse" else layer.norm
    yield from held.state_dict(keep_vars=True).items()


def copy_in(network: SpikingNetwork, module: nn.Module) -> None:
    """Copy weights, biases and norms from the user's module, with their ``requires_grad``; neurons are built so."""
    with torch.no_grad():
        for ours, theirs in pairs(network, module, ("synapse", "norm")):
            ours.copy_(theirs.reshape(ours.shape))
            if isinstance(ours, nn.Parameter):
                ours.requires_grad_(theirs.requires_grad)


def copy_back(network: SpikingNetwork, module: nn.Module) -> None:
    """Copy every parameter back into the user's module: all or, on an error, none."""
    matched = list(pairs(network, module, ("synapse", "norm", "neuron")))
    with torch.no_grad():
        for ours, theirs in matched:
            theirs.copy_(ours.detach().reshape(theirs.shape))


def _submodule(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise ModuleError(
            "the module has no such part",
            where=path,
            got=str(error),
            allowed="a module of the class that was accepted",
            next_step="give to_user the module that was accepted, or another of the same class",
        ) from error


def _not_the_same(where: str, theirs: object, ours: Tensor) -> ModuleError:
    got = f"shape {list(theirs.shape)}" if isinstance(theirs, Tensor) else "nothing"
    return ModuleError(
        "the module's tensor does not fit the network's",
        where=where,
        got=got,
        allowed=f"shape {list(ours.shape)}",
        next_step="give to_user the module that was accepted, or another of the same class and sizes",
    )


def _check_leaf(call: Call) -> None:
    module = call.module
    hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
    if hooks or getattr(module, "parametrizations", None):
        raise refuse(
            call,
            "hooks stand around this module's forward (pruning or weight norm, perhaps)",
            got=f"{hooks} forward hooks",
            allowed="a plain module",
            next_step="remove them: torch.nn.utils.prune.remove, torch.nn.utils.remove_weight_norm, handle.remove()",
        )


def _dense(call: Call) -> Dense:
    module: Any = call.module
    return Dense(module.out_features)


def conv_of(call: Call) -> Conv:
    """A Conv2d's geometry, ``same`` and ``valid`` as numbers; refuses other padding modes."""
    module: Any = call.module
    if module.padding_mode != "zeros":
        got = f"padding_mode='{module.padding_mode}'"
        raise refuse(call, "this padding is not on the chip", got=got, allowed="padding_mode='zeros'")
    padding = module.padding
    if isinstance(padding, str):
        padding = (0, 0) if padding == "valid" else _same(call)
    return Conv(
        module.out_channels, _pair(module.kernel_size), _pair(module.stride), _pair(padding), module.groups,
        _pair(module.dilation),
    )  # fmt: skip


def _same(call: Call) -> Pair:
    module: Any = call.module
    total = [d * (k - 1) for k, d in zip(module.kernel_size, module.dilation, strict=True)]
    if any(size % 2 for size in total):
        got = f"padding='same' with kernel {module.kernel_size}"
        way = "use an odd kernel, or padding as a number"
        raise refuse(
            call, "this padding differs between the two sides", got=got, allowed="equal padding", next_step=way
        )
    return (total[0] // 2, total[1] // 2)


def pool_of(call: Call) -> Pool:
    """An AvgPool2d's geometry; refuses ceil_mode, count_include_pad=False and divisor_override."""
    module: Any = call.module
    plain = {"ceil_mode": False, "count_include_pad": True, "divisor_override": None}
    for name, allowed in plain.items():
        if getattr(module, name) != allowed:
            got = f"{name}={getattr(module, name)}"
            raise refuse(call, "this pool setting has no counterpart", got=got, allowed=f"{name}={allowed}")
    return Pool(_pair(module.kernel_size), _pair(module.stride), _pair(module.padding))


def _check_norm(call: Call, synapse: Call) -> None:
    module: Any = call.module
    way = "keep track_running_stats=True, and BatchNorm1d after Linear, BatchNorm2d after Conv2d"
    if not module.track_running_stats or module.running_mean is None:
        got = "track_running_stats=False"
        raise refuse(call, "a batch norm without running statistics does not fold", got=got, allowed=way, next_step=way)
    if isinstance(module, nn.BatchNorm1d) != isinstance(synapse.module, nn.Linear):
        got = f"{type(module).__name__} after {type(synapse.module).__name__}"
        raise refuse(call, "the batch norm is not over the synapse's channels", got=got, allowed=way, next_step=way)


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
