"""Reading snn.Leaky and snn.Synaptic: every attribute is used or refused by name, none is passed over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import snntorch  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from neurokd.accept_chain import refuse
from neurokd.accept_origin import STATES, Call
from neurokd.neurons import MIN_THRESHOLD, alpha_on_grid, on_grid

#: All that an instance of snntorch 1.0.0 holds, beside torch's own fields. Another name means another snntorch, or a
#: subclass in disguise, whose forward may depend on it.
KNOWN_FIELDS = {
    "spike_grad", "surrogate_disable", "init_hidden", "inhibition", "output", "_reset_mechanism", "state_quant",
    "state_function", "reset_delay", "reset",
}  # fmt: skip
KNOWN_TENSORS = {"beta", "threshold", "graded_spikes_factor", "reset_mechanism_val", "mem"}
TORCH_FIELDS = set(nn.Module().__dict__)
#: snntorch's own spike functions that neurokd has by name: the free variable that is the slope, if any.
_SURROGATES = {
    "atan": ("atan", "alpha"),
    "fast_sigmoid": ("fast_sigmoid", "slope"),
    "sigmoid": ("sigmoid", "slope"),
    "straight_through_estimator": ("straight_through", ""),
}
_RESET_CODES = {"subtract": 0, "zero": 1, "none": 2}
RESET_WAY_OUT = (
    "set reset_mechanism='zero', reset_delay=False and fine-tune; or accept(..., convert_reset=True), which takes the "
    "trained weights under the zero reset, says so in network.notes, and wants fine-tuning too"
)


_SAME_SPIKES = "set reset_delay=False: this neuron's spikes stay the same; or accept(..., convert_reset=True)"


@dataclass(frozen=True)
class NeuronReading:
    """One neuron as options of ``build``; ``changes`` are attributes that differ in the network from the user's."""

    options: dict[str, Any]
    notes: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)


def read_neuron(call: Call, *, convert_reset: bool) -> NeuronReading:
    """Read one neuron.

    Args:
        call: A call of it.
        convert_reset: Whether another reset rule is switched to zero reset without delay, with a note.

    Raises:
        ModuleError: an attribute with no counterpart; names it, with what is allowed and the way out.
    """
    module: Any = call.module
    _check_names(call)
    _check_plain_switches(call)
    notes: list[str] = []
    changes: dict[str, Any] = {}
    if _another_reset(call):
        _convert_reset(call, convert_reset, notes, changes)
    options: dict[str, Any] = {"neuron": "cuba" if hasattr(module, "alpha") else "lif"}
    for name in ("alpha", "beta"):
        if hasattr(module, name):
            options |= _decay(call, name, notes, changes)
    options |= _threshold(call)
    options |= _surrogate(call, notes)
    return NeuronReading(options, tuple(notes), changes)


def apply_changes(module: nn.Module, changes: dict[str, Any]) -> None:
    """Give the user's neuron the ``changes`` of a reading, for a proof run; the caller restores the module."""
    changes = dict(changes)
    neuron: Any = module
    if changes.pop("reset", None) == "zero":
        neuron.__dict__.update(_reset_mechanism="zero", reset_delay=False, state_function=neuron._base_zero)
        neuron._buffers["reset_mechanism_val"] = torch.tensor(_RESET_CODES["zero"])
    for name, value in changes.items():
        old = getattr(module, name).detach()
        holder: dict[str, Any] = module._parameters if name in module._parameters else module._buffers
        new = torch.full_like(old, value)
        holder[name] = nn.Parameter(new) if name in module._parameters else new


def _check_names(call: Call) -> None:
    module = call.module
    tensors = KNOWN_TENSORS | ({"alpha", "syn"} if "syn" in STATES[type(module)] else set())
    unknown = sorted(set(module.__dict__) - TORCH_FIELDS - KNOWN_FIELDS)
    unknown += sorted({*module._parameters, *module._buffers} - tensors) + sorted(module._modules)
    if unknown:
        raise refuse(
            call,
            "the neuron has an attribute this version does not know",
            got=", ".join(unknown),
            allowed=f"snntorch 1.0.0's: {', '.join(sorted(KNOWN_FIELDS | tensors))}",
            next_step="remove the attribute from the neuron, or install snntorch 1.0.0",
        )


def _check_plain_switches(call: Call) -> None:
    module: Any = call.module
    factor = module.graded_spikes_factor
    _require(
        call, not module.inhibition, "inhibition", module.inhibition, "False", "lateral inhibition has no chip neuron"
    )
    _require(call, not module.state_quant, "state_quant", module.state_quant, "False", "quantize with neurokd.quantize")
    learned = isinstance(factor, nn.Parameter)
    way = "scale the weights of the layer that follows instead"
    _require(call, not learned, "learn_graded_spikes_factor", learned, "False", way)
    unit = factor.numel() == 1 and float(factor) == 1.0
    _require(call, unit, "graded_spikes_factor", _brief(factor), "1.0", way)


def _require(call: Call, good: bool, name: str, got: object, allowed: str, way: str) -> None:
    if not good:
        raise refuse(
            call, f"'{name}' has no counterpart", got=f"{name}={got}", allowed=f"{name}={allowed}", next_step=way
        )


# Reset rule -------------------------------------------------------------------------------------------------------


def _another_reset(call: Call) -> str:
    """What the neuron's reset rule is, where it is not zero reset in the same step; else empty."""
    module: Any = call.module
    code = int(module.reset_mechanism_val)
    if code != _RESET_CODES[module._reset_mechanism]:
        return (
            f"reset_mechanism='{module._reset_mechanism}' but reset_mechanism_val={code} (loaded from another module?)"
        )
    if module._reset_mechanism != "zero" or module.reset_delay:
        return f"reset_mechanism='{module._reset_mechanism}', reset_delay={bool(module.reset_delay)}"
    function = module.state_function
    if getattr(function, "__self__", None) is not module or function.__name__ != "_base_zero":
        # Set after construction: snntorch chose the state function in __init__. The same spikes follow with another one
        # of its own (the membrane is never above the threshold when a step begins), but not with a foreign one.
        name = getattr(function, "__name__", str(function))
        own = getattr(function, "__self__", None) is module and name in ("_base_sub", "_base_int")
        return "" if own else f"state_function={name}"
    return ""


def _delay_only(call: Call) -> bool:
    """Whether the rule is snn.Leaky's delayed zero reset, whose spikes are those of the reset in the same step.

    ``leaky.py``: it sets mem to 0 before the next leak, ``beta * 0 + I``; until then only the returned mem differs.
    snn.Synaptic is another matter: there the delayed reset also drops the next step's current.
    """
    module: Any = call.module
    return type(module) is snntorch.Leaky and module._reset_mechanism == "zero" and int(module.reset_mechanism_val) == 1


def _convert_reset(call: Call, allowed: bool, notes: list[str], changes: dict[str, Any]) -> None:
    got = _another_reset(call)
    if not allowed:
        raise refuse(
            call,
            "this reset rule is not on the chip",
            got=got,
            allowed="reset_mechanism='zero', reset_delay=False",
            next_step=_SAME_SPIKES if _delay_only(call) else RESET_WAY_OUT,
        )
    if got.startswith("state_function"):
        raise refuse(call, "the neuron computes its state by a function of its own", got=got, allowed="snntorch's own")
    notes.append(f"{call}: {got} was switched to reset_mechanism='zero', reset_delay=False as asked (convert_reset)")
    changes["reset"] = "zero"


# Constants --------------------------------------------------------------------------------------------------------


def _decay(call: Call, name: str, notes: list[str], changes: dict[str, Any]) -> dict[str, Any]:
    value: Tensor = getattr(call.module, name)
    number = _one_number(call, name, value)
    if not 0.0 <= number <= 1.0:
        way = "snntorch clamps it to that range in its forward: set the clamped value"
        raise refuse(call, f"'{name}' is no decay", got=f"{name}={number:g}", allowed="0 to 1", next_step=way)
    kept = on_grid(number) if name == "beta" else alpha_on_grid(number)
    if name == "beta" and isinstance(value, nn.Parameter):
        kept = min(kept, 4095 / 4096)
    if kept != number:
        notes.append(f"{call}: {name} {number:.6g} became {kept:.9g}, the nearest on the chip's grid of 1/4096")
        changes[name] = kept
    return {name: kept, f"learn_{name}": isinstance(value, nn.Parameter)}


def _threshold(call: Call) -> dict[str, Any]:
    value: Tensor = call.module.threshold  # type: ignore[assignment]
    number = _one_number(call, "threshold", value)
    learned = isinstance(value, nn.Parameter)
    lowest = MIN_THRESHOLD if learned else 0.0
    if not lowest <= number < float("inf") or number == 0.0:
        allowed = f"at least {MIN_THRESHOLD} where it is learned" if learned else "a finite number above 0"
        raise refuse(call, "the threshold is out of range", got=f"threshold={number:g}", allowed=allowed)
    return {"threshold": number, "learn_threshold": learned}


def _one_number(call: Call, name: str, value: Tensor) -> float:
    if value.numel() != 1:
        raise refuse(
            call,
            f"'{name}' differs from neuron to neuron",
            got=f"{name} of shape {list(value.shape)}",
            allowed="one number a layer",
            next_step=f"use one {name} for the layer (learn_{name}=True trains it), and fine-tune",
        )
    return float(value.detach().to(torch.float32))


# Spike function ---------------------------------------------------------------------------------------------------


def _surrogate(call: Call, notes: list[str]) -> dict[str, Any]:
    module: Any = call.module
    check_spike_function(call)
    parts = str(getattr(module.spike_grad, "__qualname__", "")).split(".")
    if getattr(module.spike_grad, "__module__", "") == "snntorch.surrogate" and parts[0] in _SURROGATES:
        name, variable = _SURROGATES[parts[0]]
        cells = dict(zip(module.spike_grad.__code__.co_freevars, module.spike_grad.__closure__ or (), strict=True))
        slope = float(cells[variable].cell_contents) if variable else 1.0
        if 0.0 < slope < float("inf"):
            return {"surrogate": name, "slope": slope}
    reason = (
        "surrogate_disable=True" if module.surrogate_disable else f"spike_grad={'.'.join(parts) or module.spike_grad}"
    )
    notes.append(f"{call}: {reason} is not kept; training here uses atan, alpha 2, snntorch's default (same spikes)")
    return {"surrogate": "atan", "slope": 2.0}


def check_spike_function(call: Call) -> None:
    """Refuse a spike function that is not the step function, tried on numbers around zero."""
    tiny = torch.finfo(torch.float32).tiny
    probe = torch.tensor([-1e9, -1.0, -1e-3, -tiny, -0.0, 0.0, tiny, 1e-3, 0.5, 1.0, 2.0, 1e9]).repeat(64)
    try:
        spikes = call.module.spike_grad(probe)  # type: ignore[operator]
        good = torch.equal(spikes, (probe > 0).float())
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise refuse(
            call, "the spike function fails", got=f"{type(error).__name__}: {error}", allowed="a callable"
        ) from error
    if not good:
        raise refuse(
            call,
            "the spike function is not the step function",
            got=f"spike_grad({_brief(probe[:12])}) = {_brief(spikes[:12]) if isinstance(spikes, Tensor) else spikes}",
            allowed="1.0 where its input is above 0, else 0.0",
            next_step="use one of snntorch.surrogate, or a torch.autograd.Function with that forward",
        )


def _brief(value: Tensor) -> str:
    return str([float(f"{number:.3g}") for number in value.detach().reshape(-1)[:12].tolist()])
