"""What is measured of a network of the fine-tuning grid: its answers, and what it costs on the simulator."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch

from deploy import simulator
from deploy.lower import lower
from deploy.place import place
from deploy.profile import profile
from neurokd.data import Dataset
from neurokd.encoding import Encoding
from neurokd.energy import ENERGY_CHIP
from neurokd.export import to_graph
from neurokd.feed import Feed, Network, outputs
from neurokd.network import predict
from neurokd.quantized import QuantizedNetwork

PROFILED = 1000  # test images, evenly spread
Cell = dict[str, Any]


def right_answers(network: Network, data: Dataset, encoding: Encoding) -> np.ndarray:
    """bool ``[N]``: which test images are predicted as labelled."""
    found = outputs(network, Feed(data.test, encoding))
    return np.concatenate([(predict(sat) == batch.labels).numpy() for batch, sat in found])


def packed(right: np.ndarray) -> str:
    """Booleans as text; :func:`unpacked` gives them back."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, count: int) -> np.ndarray:
    """The inverse of :func:`packed`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)


def costs(network: QuantizedNetwork, data: Dataset, encoding: Encoding) -> Cell:
    """Counted on the simulator over evenly spread test images: spikes, synops, modelled energy; and the torch forward's
    differing spikes there."""
    program = lower(to_graph(network))
    rows = np.linspace(0, len(data.test) - 1, PROFILED).astype(np.int64)
    images = encoding.encode(data.test.images[rows], rows).reshape(len(rows), *program.input.shape)
    trace = simulator.run(program, images, steps=encoding.steps, record="all")
    result = profile(program, trace, ENERGY_CHIP, place(program, network.chip))
    with torch.no_grad():
        x = torch.from_numpy(images).float() / encoding.levels
        recorded = network(x, encoding.steps, record=True)[1]
    differing = sum(int((s.numpy() != trace.spikes[name]).sum()) for name, s in recorded.items())
    return {
        "spikes": result.spikes.mean,
        "synops": result.synops.mean,
        "energy_J": result.energy.mean,
        "weights": int(sum(np.count_nonzero(synapse.weights) for synapse in program.synapses)),
        "differing_spikes": differing,
        "profiled": len(rows),
    }
