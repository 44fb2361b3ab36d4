"""Neuron nodes in continuous time to one step of ``dt``, and back.

Forward Euler, as the NIR paper's tools discretise (snntorch ``import_nir.py``, norse, the paper's section
"Methods"):

    LIF, LI:         v = beta * v + gain * I + leak_bias        beta = 1 - dt / tau
                     gain = r * dt / tau                        leak_bias = v_leak * dt / tau
    CubaLIF, CubaLI: i = alpha * i + gain * I                   alpha = 1 - dt / tau_syn
                     v = beta * v + i + leak_bias               beta = 1 - dt / tau_mem
                     gain = (w_in * dt / tau_syn) * (r * dt / tau_mem)
    IF, I:           v = v + gain * I                           gain = r * dt
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploy.errors import GraphError
from deploy.graph.coerce import FloatArray
from deploy.graph.neurons import IF, LI, LIF, CubaLI, CubaLIF, I, Neuron
from deploy.graph.quantization import NeuronGrid

UNIT_GAIN_TOLERANCE = 2.0**-20
"""A gain this near to 1 is 1: ``r = tau / dt`` in float32 takes three roundings, at most 3 * 2**-24 apart."""

_LONGEST = 2.0**60
"""Time constant, in steps, that stands for no decay: 1 - 2**-60 is 1 in float64, and float32 still holds it."""


@dataclass(frozen=True, eq=False)
class LifParameters:
    """One step of a population; every array has the population's shape.

    Attributes:
        beta: Factor of the membrane, 0 to 1.
        alpha: Factor of the synaptic current, 0 to 1; None without one.
        gain: Factor of the input.
        leak_bias: Added to the membrane at each step.
        threshold: Spike when the membrane is above; None for neurons that do not spike.
        v_reset: Membrane after a spike; None for neurons that do not spike.
    """

    beta: FloatArray
    alpha: FloatArray | None
    gain: FloatArray
    leak_bias: FloatArray
    threshold: FloatArray | None
    v_reset: FloatArray | None


def discretize(node: Neuron, dt: float) -> LifParameters:
    """One step of ``dt`` seconds of ``node``.

    Raises:
        GraphError: ``dt`` is longer than a time constant (the factor would be negative).
    """
    threshold = getattr(node, "v_threshold", None)
    v_reset = getattr(node, "v_reset", None)
    if isinstance(node, (IF, I)):
        ones, zeros = np.ones(node.r.shape), np.zeros(node.r.shape)
        return LifParameters(ones, None, _snapped(node.r * dt), zeros, threshold, v_reset)
    if isinstance(node, (LIF, LI)):
        rate = _rate(node, "tau", dt)
        return LifParameters(1 - rate, None, _snapped(node.r * rate), node.v_leak * rate, threshold, v_reset)
    if isinstance(node, (CubaLIF, CubaLI)):
        rate, current = _rate(node, "tau_mem", dt), _rate(node, "tau_syn", dt)
        gain = _snapped(_snapped(node.w_in * current) * _snapped(node.r * rate))
        return LifParameters(1 - rate, 1 - current, gain, node.v_leak * rate, threshold, v_reset)
    raise TypeError(f"{node.kind} is no neuron that steps in time")


def check_rates(node: Neuron, dt: float) -> None:
    """Check that no time constant of ``node`` is shorter than ``dt``.

    Raises:
        GraphError: one is.
    """
    for name in node.times:
        _rate(node, name, dt)


def _rate(node: Neuron, name: str, dt: float) -> FloatArray:
    rate: FloatArray = dt / getattr(node, name)
    if (rate > 1 + UNIT_GAIN_TOLERANCE).any():
        raise GraphError(
            f"the time step is longer than the time constant {name!r}, so the state would change its sign",
            where=f"node {node.name!r}, field {name!r}",
            got=f"dt {dt:g} s, {name} from {getattr(node, name).min():g} s",
            allowed=f"dt of at most {getattr(node, name).min():g} s",
            next_step="give the time step the network was trained with: --dt SECONDS",
        )
    return np.minimum(rate, 1.0)


def _snapped(gain: FloatArray) -> FloatArray:
    return np.where(np.abs(gain - 1) <= UNIT_GAIN_TOLERANCE, 1.0, gain)


def neuron_from_steps(
    name: str, parameters: LifParameters, dt: float, quantization: NeuronGrid | None = None
) -> LIF | CubaLIF:
    """The spiking node whose :func:`discretize` gives ``parameters`` back; other tools read it with gain 1.

    Writes ``r = tau / dt`` (and ``w_in = tau_syn / dt``), so that the gain is 1 at ``dt``. No decay (a factor
    of 1) becomes a time constant of 2**60 steps.

    Raises:
        GraphError: a factor outside 0..1, a gain other than 1, or no threshold.
    """
    _check_steps(parameters)
    steps = _time_constant(parameters.beta)
    common = {
        "v_leak": parameters.leak_bias * steps,
        "v_threshold": parameters.threshold,
        "v_reset": 0.0 if parameters.v_reset is None else parameters.v_reset,
        "r": steps,
    }
    if parameters.alpha is None:
        return LIF(name, tau=steps * dt, quantization=quantization, **common)  # type: ignore[arg-type]
    current = _time_constant(parameters.alpha)
    return CubaLIF(
        name,
        tau_mem=steps * dt,
        tau_syn=current * dt,
        w_in=current,
        quantization=quantization,
        **common,  # type: ignore[arg-type]
    )


def _time_constant(factor: FloatArray) -> FloatArray:
    return 1 / np.maximum(1 - np.asarray(factor, dtype=np.float64), 1 / _LONGEST)


def _check_steps(parameters: LifParameters) -> None:
    for field, values in (("beta", parameters.beta), ("alpha", parameters.alpha)):
        if values is not None and not ((np.asarray(values) >= 0) & (np.asarray(values) <= 1)).all():
            raise GraphError(f"the factor {field!r} is outside 0 to 1", got=f"{values}", allowed="0 to 1")
    if not (np.asarray(parameters.gain) == 1).all():
        raise GraphError("only neurons with an input gain of 1 are written", got=f"{parameters.gain}", allowed="1")
    if parameters.threshold is None:
        raise GraphError("only neurons with a threshold are written", got="none", allowed="a threshold")
