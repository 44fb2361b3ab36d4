"""Two executions compared: how many spikes differ in each layer, and where they part first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploy.executions import Array, Execution


@dataclass(frozen=True)
class Place:
    """Where two executions part: earliest step, then first layer, sample, neuron.

    Attributes:
        layer, sample, step, neuron: Where; ``neuron`` is flattened row-major.
        left, right: Spike (or membrane of a readout) of the two.
        left_v, right_v: Their membranes in float units; None where none was recorded.
        threshold: The layer's, in the same units.
    """

    layer: str
    sample: int
    step: int
    neuron: int
    left: float
    right: float
    left_v: float | None
    right_v: float | None
    threshold: float | None

    def __str__(self) -> str:
        left, right, threshold = ("?" if v is None else f"{v:.6g}" for v in (self.left_v, self.right_v, self.threshold))
        return (
            f"layer {self.layer}, sample {self.sample}, step {self.step}, neuron {self.neuron}: {self.left:g} and "
            f"{self.right:g} (membranes {left} and {right}, threshold {threshold})"
        )


@dataclass(frozen=True)
class Pair:
    """Two neighbours of the chain compared.

    Attributes:
        left, right: Names.
        must_be_equal: Both are exact.
        samples: Compared.
        differing, total: Spikes that differ, and spikes there could be, by layer.
        same_answers: Samples given the same class by both.
        first: Where they part first; None where they do not.
    """

    left: str
    right: str
    must_be_equal: bool
    samples: int
    differing: Mapping[str, int]
    total: Mapping[str, int]
    same_answers: int
    first: Place | None

    def agreement(self, layer: str) -> float:
        """Agreeing spikes of a layer in percent."""
        return 100.0 * (1.0 - self.differing[layer] / self.total[layer])


def paired(left: Execution, right: Execution) -> Pair:
    """Two executions compared on the samples both have; a readout's membranes only where both are exact."""
    samples, exact = min(left.samples, right.samples), left.exact and right.exact
    layers = [n for n in left.layers if n in right.layers and (exact or n in left.threshold)]
    differs = {n: left.layers[n][:, :samples] != right.layers[n][:, :samples] for n in layers}
    return Pair(
        left.name,
        right.name,
        exact,
        samples,
        {name: int(np.count_nonzero(wrong)) for name, wrong in differs.items()},
        {name: int(wrong.size) for name, wrong in differs.items()},
        int(np.count_nonzero(left.predictions[:samples] == right.predictions[:samples])),
        _first(left, right, differs),
    )


def _first(left: Execution, right: Execution, differs: Mapping[str, Array]) -> Place | None:
    found = []
    for depth, (layer, wrong) in enumerate(differs.items()):
        flat = wrong.reshape(*wrong.shape[:2], -1)
        if flat.any():
            step, sample, neuron = (int(n) for n in np.unravel_index(int(np.argmax(flat)), flat.shape))
            found.append((step, depth, sample, neuron, layer))
    if not found:
        return None
    step, _, sample, neuron, layer = min(found)
    threshold = left.threshold.get(layer)
    if threshold is not None:
        threshold = np.asarray(threshold).reshape(-1)
    return Place(
        layer, sample, step, neuron,
        float(left.layers[layer][step, sample].reshape(-1)[neuron]),
        float(right.layers[layer][step, sample].reshape(-1)[neuron]),
        left.membrane(layer, step, sample, neuron), right.membrane(layer, step, sample, neuron),
        None if threshold is None else float(threshold[neuron if threshold.size > 1 else 0]),
    )  # fmt: skip
