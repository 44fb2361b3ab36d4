"""The options of a network beside its specification: plain values, checked, one a layer or one for all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from deploy.errors import ConfigError
from neurokd.surrogates import surrogate_names

NEURONS = ("lif", "cuba")


class NeuronFlags(TypedDict):
    """What both neuron models take beside their constants."""

    learn_beta: bool
    learn_threshold: bool
    surrogate: str
    slope: float
    detach_reset: bool


@dataclass(frozen=True)
class LayerOptions:
    """Options of one layer.

    Args:
        neuron: ``lif`` or ``cuba``.
        beta: Membrane decay a step, 0 to 1; the neuron rounds it to the chip's grid of 1/4096.
        alpha: Decay of the synaptic current a step (``cuba`` only), 0 to below 1; rounded likewise.
        threshold: Firing threshold, above 0.
        norm: Whether a batch norm follows the synapse.
        bias: Whether there is a bias (LIF: on the synapse, CUBA: on the membrane); None: where there is no norm.
        learn_beta: Whether beta is trained.
        learn_alpha: Whether alpha is trained (``cuba`` only).
        learn_threshold: Whether the threshold is trained.
        surrogate: Name of the surrogate gradient. The default beat ``fast_sigmoid``, snntorch's, by 1.3 points on
            Fashion-MNIST's validation images (784-64-10) and by 0.8 on MNIST's (784-128-10).
        slope: Its slope; 0 takes the surrogate's default.
        detach_reset: No gradient through the reset (snntorch: False).
        norm_eps: The batch norm's epsilon.
        norm_momentum: The batch norm's momentum; None averages over all batches.
        norm_affine: Whether the batch norm has a scale and shift of its own.

    Raises:
        ConfigError: a value of another type or out of range.
    """

    neuron: str = "lif"
    beta: float = 0.9
    alpha: float = 0.75
    threshold: float = 1.0
    norm: bool = True
    bias: bool | None = None
    learn_beta: bool = False
    learn_alpha: bool = False
    learn_threshold: bool = False
    surrogate: str = "triangular"
    slope: float = 0.0
    detach_reset: bool = False
    norm_eps: float = 1e-5
    norm_momentum: float | None = 0.1
    norm_affine: bool = True

    def __post_init__(self) -> None:
        for name in ("norm", "learn_beta", "learn_alpha", "learn_threshold", "detach_reset", "norm_affine"):
            _check(name, getattr(self, name), type(getattr(self, name)) is bool, "true or false")
        _check("neuron", self.neuron, self.neuron in NEURONS, ", ".join(NEURONS))
        _check("bias", self.bias, self.bias in (None, True, False), "true, false or none")
        _check("surrogate", self.surrogate, self.surrogate in surrogate_names(), ", ".join(surrogate_names()))
        _check_number("beta", self.beta, 0.0, 1.0)
        _check_number("alpha", self.alpha, 0.0, 1.0, open_end=True)
        _check_number("threshold", self.threshold, 0.0, math.inf, open_start=True, open_end=True)
        _check_number("slope", self.slope, 0.0, math.inf, open_end=True)
        _check_number("norm_eps", self.norm_eps, 0.0, 1.0)
        if self.norm_momentum is not None:
            _check_number("norm_momentum", self.norm_momentum, 0.0, 1.0)

    @property
    def has_bias(self) -> bool:
        """Whether the layer has a bias of its own."""
        return not self.norm if self.bias is None else self.bias

    def neuron_flags(self) -> NeuronFlags:
        """Keyword arguments that both neuron models take."""
        return {
            "learn_beta": self.learn_beta,
            "learn_threshold": self.learn_threshold,
            "surrogate": self.surrogate,
            "slope": self.slope,
            "detach_reset": self.detach_reset,
        }


@dataclass(frozen=True)
class NetworkOptions:
    """Options of a whole network.

    Args:
        steps: Time steps T of direct encoding, 1 to 32768.
        input_bits: Width of the input's integers; the network sees integer / (2**bits - 1). 1 for binary spikes.
        seed: Seed of the first weights, 0 .. 2**63 - 1.
        population: Output neurons a class, a power of two (:mod:`neurokd.population`).
        source: Where each layer came from in a user's module: a dict of module paths a layer; empty otherwise.
        notes: What was changed or left out in taking a user's module.

    Raises:
        ConfigError: a value of another type or out of range.
    """

    steps: int = 8
    input_bits: int = 8
    seed: int = 0
    population: int = 1
    source: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 2**15),
            ("input_bits", 1, 16),
            ("seed", 0, 2**63 - 1),
            ("population", 1, 128),
        ):
            value = getattr(self, name)
            _check(name, value, type(value) is int and low <= value <= high, f"a whole number from {low} to {high}")

    def plain(self) -> dict[str, Any]:
        """The options as plain values and lists."""
        return {
            "steps": self.steps,
            "input_bits": self.input_bits,
            "seed": self.seed,
            **({"population": self.population} if self.population > 1 else {}),
            "source": [dict(paths) for paths in self.source],
            "notes": list(self.notes),
        }


_LAYER_NAMES = tuple(field.name for field in dataclasses.fields(LayerOptions))
_NETWORK_NAMES = tuple(field.name for field in dataclasses.fields(NetworkOptions))


def split_options(options: Mapping[str, Any], count: int) -> tuple[NetworkOptions, list[LayerOptions], dict[str, Any]]:
    """Check all options of a network of ``count`` layers.

    Returns:
        The network's options, each layer's options, and the layer options in plain form: one value where all layers
        agree, else a list with one value a layer.

    Raises:
        ConfigError: an unknown name, a list of another length, a value out of range (``where`` names the layer).
    """
    unknown = [name for name in options if name not in _LAYER_NAMES + _NETWORK_NAMES]
    if unknown:
        allowed = ", ".join(_LAYER_NAMES + _NETWORK_NAMES)
        raise ConfigError("unknown network option", where="build", got=unknown[0], allowed=allowed)
    network = NetworkOptions(**{name: _frozen(options[name]) for name in _NETWORK_NAMES if name in options})
    given = {name: _spread(name, options[name], count) for name in _LAYER_NAMES if name in options}
    layers = [_layer_options(place, {name: values[place] for name, values in given.items()}) for place in range(count)]
    columns = {name: [getattr(layer, name) for layer in layers] for name in _LAYER_NAMES}
    columns["bias"] = [layer.has_bias for layer in layers]
    uniform = {name: values[0] if values.count(values[0]) == count else values for name, values in columns.items()}
    return network, layers, uniform


def _layer_options(place: int, values: dict[str, Any]) -> LayerOptions:
    try:
        return LayerOptions(**values)
    except ConfigError as error:
        raise ConfigError(error.what, where=f"layer {place + 1}", got=error.got, allowed=error.allowed) from None


def _spread(name: str, value: Any, count: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        allowed = f"one value, or a list of {count}, one a layer of neurons"
        raise ConfigError(
            f"the list of '{name}' does not fit the network", where=name, got=list(value), allowed=allowed
        )
    return list(value)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise ConfigError(f"the network option '{name}' is not usable", where=name, got=repr(value), allowed=allowed)


def _check_number(
    name: str, value: object, low: float, high: float, *, open_start: bool = False, open_end: bool = False
) -> None:
    number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    good = low <= number <= high and not (open_start and number == low) and not (open_end and number == high)
    start, end = "above " if open_start else "", "below " if open_end else ""
    _check(name, value, good, f"a number from {start}{low:g} to {end}{high:g}")
