"""Threads by the size of the work: two threads on a tiny network spend their time waiting for each other.

Measured on two busy cores: the stages of the digits chain took 475 s on two threads and 51 s on one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from neurokd.spec import Block, NetworkSpec
from neurokd.spec_layers import Dense

WORTH_SHARING: Final = 30_000_000  # multiply-adds of a training step's forward pass


@contextmanager
def suited_threads(spec: NetworkSpec, batch: int, steps: int) -> Iterator[int]:
    """One torch thread inside where a step is small, else as many as before; gives how many.

    The rule depends on the network, the batch and the steps alone, so a resumed run uses as many as the first.
    """
    before = torch.get_num_threads()
    chosen = before if work(spec, steps) * batch >= WORTH_SHARING else 1
    torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)


def work(spec: NetworkSpec, steps: int) -> int:
    """Multiply-adds of one image: the first layer once (direct encoding), the others at every step."""
    first, *others = (_multiply_adds(block) for block in spec.blocks())
    return first + steps * sum(others)


def _multiply_adds(block: Block) -> int:
    if isinstance(block.synapse, Dense):
        return block.synapse.units * math.prod(block.synapse_shape)
    fan_in = block.synapse_shape[0] // block.synapse.groups * math.prod(block.synapse.kernel)
    return fan_in * math.prod(block.out_shape)
