"""One torch module -> one NIR node (a recurrent neuron: two), every attribute used or refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import snntorch  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from deploy import graph as nir
from deploy.graph.coerce import FloatArray
from deploy.graph.discrete import LifParameters, neuron_from_steps
from deploy.graph.quantization import Reset
from neurokd.accept_chain import refuse
from neurokd.accept_modules import conv_of, pool_of
from neurokd.accept_neurons import KNOWN_FIELDS, KNOWN_TENSORS, TORCH_FIELDS, check_spike_function
from neurokd.accept_origin import DROPOUTS, NORMS, RESHAPES, Call

DT: Final = 1e-4  # seconds a step; what snntorch writes and other importers assume
NEURONS: Final[dict[type[nn.Module], tuple[str, ...]]] = {
    snntorch.Leaky: ("mem",), snntorch.Synaptic: ("syn", "mem"), snntorch.RLeaky: ("spk", "mem"),
    snntorch.RSynaptic: ("spk", "syn", "mem"),
}  # fmt: skip
TAKEN: Final = (
    *NEURONS, nn.Linear, nn.Conv1d, nn.Conv2d, nn.AvgPool2d, *NORMS, *DROPOUTS, *RESHAPES,
)  # fmt: skip
_RECURRENT_FIELDS = {"all_to_all", "learn_recurrent", "linear_features", "kernel_size", "conv2d_channels", "padding"}


def array(tensor: Tensor) -> FloatArray:
    """float64, as NIR files of this toolkit hold numbers."""
    found: FloatArray = tensor.detach().to(torch.float64).cpu().numpy()
    return found


def node_of(name: str, call: Call) -> nir.Node:
    """The node of a Linear, Conv1d, Conv2d or AvgPool2d.

    Raises:
        ModuleError: a setting with no counterpart.
    """
    module: Any = call.module
    _check_plain(call)
    if isinstance(module, nn.AvgPool2d):
        pool = pool_of(call)
        return nir.AvgPool2d(name, pool.kernel, pool.stride, pool.padding)
    bias = None if module.bias is None else array(module.bias)
    if isinstance(module, nn.Linear):
        return nir.Affine(name, array(module.weight), bias)
    if isinstance(module, nn.Conv1d):
        return _conv1d(name, call, bias)
    conv = conv_of(call)
    return nir.Conv2d(name, array(module.weight), bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _check_plain(call: Call) -> None:
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


def _conv1d(name: str, call: Call, bias: FloatArray | None) -> nir.Conv1d:
    module: Any = call.module
    if module.padding_mode != "zeros":
        got = f"padding_mode='{module.padding_mode}'"
        raise refuse(call, "this padding has no counterpart in NIR", got=got, allowed="padding_mode='zeros'")
    padding, span = module.padding, module.dilation[0] * (module.kernel_size[0] - 1)
    if isinstance(padding, str):
        if padding == "same" and span % 2:
            got = f"padding='same' with kernel {module.kernel_size}"
            raise refuse(call, "this padding differs between the two sides", got=got, allowed="equal padding")
        padding = (0,) if padding == "valid" else (span // 2,)
    return nir.Conv1d(
        name, array(module.weight), bias, module.stride[0], padding[0], module.dilation[0], module.groups
    )  # fmt: skip


def add_norm(nodes: dict[str, nir.Node], source: str, call: Call) -> bool:
    """Fold a batch norm into the synapse before it; False where ``call`` is none.

    Raises:
        ModuleError: it follows no synapse, has no running statistics, or other nodes read the synapse too.
    """
    if type(call.module) not in NORMS:
        return False
    norm: Any = call.module
    node = nodes[source]
    if not isinstance(node, (nir.Affine, nir.Conv1d, nir.Conv2d)) or not norm.track_running_stats:
        got = f"after {node.kind}" if norm.track_running_stats else "track_running_stats=False"
        allowed = "right after a Linear or convolution, with running statistics"
        raise refuse(call, "a batch norm that cannot be folded", got=got, allowed=allowed)
    scale = 1.0 / np.sqrt(array(norm.running_var) + norm.eps)
    if norm.affine:
        scale = scale * array(norm.weight)
    shift = (0.0 if node.bias is None else node.bias) - array(norm.running_mean)
    bias = shift * scale + (array(norm.bias) if norm.affine else 0.0)
    weight = node.weight * scale.reshape(-1, *[1] * (node.weight.ndim - 1))
    nodes[source] = replace(node, weight=weight, bias=bias)
    return True


def neuron_nodes(name: str, call: Call) -> tuple[nir.Neuron, nir.Node | None]:
    """The neuron, and what feeds its spikes back to it in the next step (None without recurrence).

    Raises:
        ModuleError: an attribute with no counterpart.
    """
    module: Any = call.module
    _check_names(call)
    _check_switches(call)
    check_spike_function(call)
    shape = tuple(call.given.shape[1:])
    alpha = _factor(call, "alpha", shape) if hasattr(module, "alpha") else None
    step = LifParameters(
        beta=_factor(call, "beta", shape), alpha=alpha, gain=np.ones(shape), leak_bias=np.zeros(shape),
        threshold=_each(call, "threshold", shape), v_reset=np.zeros(shape),
    )  # fmt: skip
    feedback = _feedback(f"{name} recurrent", call, shape) if hasattr(module, "recurrent") else None
    return neuron_from_steps(name, step, DT), feedback


def _feedback(name: str, call: Call, shape: tuple[int, ...]) -> nir.Node:
    inner: Any = call.module.recurrent
    if isinstance(inner, (nn.Linear, nn.Conv2d)):
        return node_of(name, Call(call.path, inner, 0, call.source, call.given))
    return nir.Scale(name, np.broadcast_to(array(inner.V), shape).copy())


def _factor(call: Call, name: str, shape: tuple[int, ...]) -> FloatArray:
    """A decay; snntorch clamps it to 0..1 in its forward, and so does this."""
    return np.clip(_each(call, name, shape), 0.0, 1.0)


def _each(call: Call, name: str, shape: tuple[int, ...]) -> FloatArray:
    values = array(getattr(call.module, name))
    try:
        return np.broadcast_to(values, shape).copy()
    except ValueError as error:
        got = f"{name} of shape {list(values.shape)}, neurons {list(shape)}"
        allowed = "one number, or one a neuron"
        raise refuse(call, f"'{name}' does not fit the neurons", got=got, allowed=allowed) from error


def _check_names(call: Call) -> None:
    module = call.module
    recurrent = hasattr(module, "recurrent")
    fields = KNOWN_FIELDS | (_RECURRENT_FIELDS if recurrent else set())
    tensors = KNOWN_TENSORS | {"alpha", "syn"} | ({"spk", "V"} if recurrent else set())
    unknown = sorted(set(module.__dict__) - TORCH_FIELDS - fields)
    unknown += sorted({*module._parameters, *module._buffers} - tensors)
    unknown += sorted(set(module._modules) - ({"recurrent"} if recurrent else set()))
    if unknown:
        raise refuse(
            call,
            "the neuron has an attribute this version does not know",
            got=", ".join(unknown),
            allowed=f"snntorch 1.0.0's: {', '.join(sorted(fields | tensors))}",
            next_step="remove the attribute from the neuron, or install snntorch 1.0.0",
        )


def _check_switches(call: Call) -> None:
    module: Any = call.module
    factor = module.graded_spikes_factor
    checks = (
        ("inhibition", not module.inhibition, module.inhibition, "NIR has no lateral inhibition"),
        ("state_quant", not module.state_quant, module.state_quant, "quantize with neurokd.quantize"),
        ("graded_spikes_factor", bool((factor == 1).all()), factor, "scale the weights of the layer that follows"),
    )
    for name, good, got, way in checks:
        if not good:
            what = f"'{name}' has no counterpart in NIR"
            raise refuse(call, what, got=f"{name}={got}", allowed="snntorch's default", next_step=way)


def reset_rule(call: Call) -> Reset:
    """What the neuron does when it spikes, as this snntorch computes it.

    ``leaky.py``: a delayed reset to zero acts before the next leak, so its spikes are those of the same step.
    ``synaptic.py``, ``rleaky.py``, ``rsynaptic.py``: it clears the whole next step. ``rsynaptic.py`` stores nothing of
    its reset in the same step, so RSynaptic resets late whatever ``reset_delay`` says.

    Raises:
        ModuleError: no reset at all.
    """
    module: Any = call.module
    mechanism = module._reset_mechanism
    late = bool(module.reset_delay) or type(module) is snntorch.RSynaptic
    if mechanism == "none":
        way = "use reset_mechanism='zero', reset_delay=False, and fine-tune"
        got = "reset_mechanism='none'"
        raise refuse(call, "NIR has no neuron without a reset", got=got, allowed="zero, subtract", next_step=way)
    if mechanism == "zero":
        return "late-zero" if late and type(module) is not snntorch.Leaky else "zero"
    return "late-subtract" if late else "subtract"
