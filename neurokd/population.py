"""Population-coded outputs: k output neurons a class, whose spikes are counted together.

With one neuron a class a score is a spike count of at most T, and at few steps many samples end in a tie: a
Fashion-MNIST teacher at T = 4 ties on 11.7 % of the validation images. With k neurons a class it is one of
``k * T + 1``. Output neuron n belongs to class ``n // k``.

The SAT of such a network is ``[T, B, classes]``: at each step the share of a class's neurons that spike. k is a power
of two, so shares and their sums over time are exact in float32, and ties are the ones of the spike counts.
"""

from __future__ import annotations

from torch import Tensor

from neurokd.outputs import Outputs


def by_class(spikes: Tensor, population: int) -> Tensor:
    """Mean over each class's neurons.

    Args:
        spikes: ``[..., classes * population]``: spikes, logits, currents or membranes.
        population: k.

    Returns:
        ``[..., classes]``.
    """
    return spikes if population == 1 else spikes.unflatten(-1, (-1, population)).mean(-1)


def outputs_by_class(told: Outputs, population: int) -> Outputs:
    """What a network said, by class; the layers' spikes stay by neuron."""
    if population == 1:
        return told
    parts = (told.sat, told.logits, told.currents, told.membranes)
    return Outputs(*(None if part is None else by_class(part, population) for part in parts), layers=told.layers)
