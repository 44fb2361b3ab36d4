"""Modelled energy of a student on the chip's integers."""

from __future__ import annotations

from typing import Final

import numpy as np

from deploy import simulator
from deploy.lower import lower
from deploy.place import place
from deploy.profile import profile
from neurokd.data import Dataset
from neurokd.encoding import Encoding
from neurokd.export import to_graph
from neurokd.quantized import QuantizedNetwork

#: Energies of Loihi 2 are not published; shares of the start are modelled with Loihi 1's.
ENERGY_CHIP: Final = "loihi1"
PROFILED: Final = 500  # validation images an energy is modelled on


def modelled_energy(network: QuantizedNetwork, data: Dataset, encoding: Encoding) -> float:
    """Dynamic energy in joules of a validation image: events counted on the simulator, constants of Loihi 1."""
    program = lower(to_graph(network, encoding.kind), network.chip)
    rows = np.arange(min(PROFILED, len(data.validation)))
    spikes = encoding.encode(data.validation.images[rows], rows)
    lead = spikes.shape[:1] if encoding.kind == "direct" else spikes.shape[:2]
    trace = simulator.run(program, spikes.reshape(*lead, *program.input.shape), steps=encoding.steps)
    energy = profile(program, trace, ENERGY_CHIP, place(program, network.chip)).energy.mean
    assert energy is not None, "Loihi 1's energies are published"
    return energy
