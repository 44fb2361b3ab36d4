"""What our own files say about the integers behind their floats (the ``neurokd`` metadata block), typed.

The floats of a file mean the same network as its integers. With ``S`` the value of one integer unit of
membrane input (:attr:`NeuronGrid.scale`):

    chip:   a = shift(sum(w_int * x_int), weight_exp)      v, vth in units of 1/64 of a
    float:  I = S * a,   weight = w_int * S * 2**weight_exp,   v_threshold = vth * S,   bias = bias_int / 64 * S

The floats are stored as float64, so the integers come back exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from deploy.errors import GraphError

SCHEMA = 1
"""Version of the metadata block this code reads and writes."""

SignMode = Literal["mixed", "excitatory", "inhibitory"]
Encoding = Literal["direct", "rate", "latency"]
Reset = Literal["zero", "value", "subtract", "late-zero", "late-subtract"]
"""What a spike does: in the same step ``v = 0``, ``v = v_reset`` or ``v -= v_threshold``; or (snntorch's
``reset_delay``) in the step after it the membrane is 0 throughout, or ``v_threshold`` is taken off after the decay."""


@dataclass(frozen=True)
class NeuronGrid:
    """The integer grid of a neuron node.

    Attributes:
        scale: Float value of one integer unit of membrane input (``S``), finite and positive.
    """

    scale: float

    def __post_init__(self) -> None:
        _require(math.isfinite(self.scale) and self.scale > 0, "scale", self.scale, "a finite number above 0")


@dataclass(frozen=True)
class SynapseGrid:
    """The integer grid of a synapse node.

    Attributes:
        weight_exp: The sum of a synapse block is shifted by this many bits (negative: to the right).
        weight_bits: Width of a stored weight, 1 to 8.
        sign_mode: ``mixed``, ``excitatory`` or ``inhibitory``, as the chip stores the block.
    """

    weight_exp: int
    weight_bits: int
    sign_mode: SignMode

    def __post_init__(self) -> None:
        _require(-31 <= self.weight_exp <= 31, "weight_exp", self.weight_exp, "-31 to 31")
        _require(1 <= self.weight_bits <= 8, "weight_bits", self.weight_bits, "1 to 8")
        _require(self.sign_mode in get_args(SignMode), "sign_mode", self.sign_mode, get_args(SignMode))


@dataclass(frozen=True)
class RunSettings:
    """How the network was trained and is to be fed, as far as the file says.

    Attributes:
        steps: Time steps per sample.
        encoding: How images become spikes.
        input_bits: Width of the graded input integers (0 .. 2**bits - 1).
        chip: Name of the chip the integers were chosen for.
        population: Output neurons a class: neuron ``n`` belongs to class ``n // population``. None means 1, and 1 is
            kept as None.
    """

    steps: int | None = None
    encoding: Encoding | None = None
    input_bits: int | None = None
    chip: str | None = None
    population: int | None = None

    def __post_init__(self) -> None:
        _require(self.steps is None or self.steps >= 1, "steps", self.steps, "1 or more")
        _require(
            self.encoding is None or self.encoding in get_args(Encoding),
            "encoding",
            self.encoding,
            get_args(Encoding),
        )
        _require(self.input_bits is None or 1 <= self.input_bits <= 24, "input_bits", self.input_bits, "1 to 24")
        _require(self.chip is None or bool(self.chip), "chip", repr(self.chip), "a chip's name")
        given = self.population
        whole = isinstance(given, (int, np.integer)) and not isinstance(given, bool) and given >= 1
        _require(given is None or whole, "population", repr(given), "a whole number of at least 1")
        object.__setattr__(self, "population", None if given is None or given == 1 else int(given))


@dataclass(frozen=True)
class Quantization:
    """Every grid of a graph, by node name.

    Attributes:
        neurons: Grid of each neuron node that has one.
        synapses: Grid of each synapse node that has one.
    """

    neurons: Mapping[str, NeuronGrid]
    synapses: Mapping[str, SynapseGrid]


def _require(holds: bool, field: str, got: object, allowed: object) -> None:
    if not holds:
        raise GraphError(
            f"the neurokd metadata field {field!r} is out of range",
            where=f"metadata field {field!r}",
            got=got,
            allowed=allowed,
            next_step="export the network again; this block is written by neurokd's exporter",
        )
