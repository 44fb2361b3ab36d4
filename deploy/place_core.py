"""What a slice of a layer needs of a core, and how a layer is cut into slices that fit.

The encodings follow nengo-loihi's ``SynapseConfig.bits_per_axon``: a source neuron's synapses on a core are a list in
blocks, each with a header and rounded up to a memory word; a list names every target (no index) or only the connected
ones (with an index), whichever takes less for all sources together. A convolution's kernel is shared: sources with the
same taps on the core have one list, whose targets are relative to a base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deploy.chip import Chip
from deploy.contacts import Counts, Mask, synapses_at, synapses_onto
from deploy.program import Conv, Population, Program, Synapse

Order = Literal["row-major", "pixel-major"]
RESOURCES = ("neurons", "synaptic_memory_bits", "input_axons", "output_axons", "fan_in", "fan_out")


@dataclass(frozen=True)
class Slice:
    """Neurons ``start`` to ``stop`` of a layer, in an order.

    Attributes:
        order: ``row-major`` as the program flattens them, or ``pixel-major``: all channels of a pixel together.
    """

    layer: str
    order: Order
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of neurons."""
        return self.stop - self.start

    def mask(self, population: Population) -> Mask:
        """Which neurons of the layer are in it, bool ``[n]``, row-major."""
        chosen = np.zeros(population.size, dtype=np.bool_)
        chosen[neuron_order(population, self.order)[self.start : self.stop]] = True
        return chosen


def neuron_order(population: Population, order: Order) -> npt.NDArray[np.int64]:
    """The layer's neurons, as row-major indices, in the order in which they are cut."""
    numbers = np.arange(population.size, dtype=np.int64)
    if order == "row-major":
        return numbers
    by_pixel: npt.NDArray[np.int64] = numbers.reshape(population.shape).transpose(1, 2, 0).reshape(-1)
    return by_pixel


@dataclass(frozen=True)
class Need:
    """What a slice needs at its input, before it is known where its spikes go."""

    neurons: int
    synaptic_memory_bits: int
    input_axons: int
    synapses: int

    def __add__(self, other: Need) -> Need:
        return Need(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def need(program: Program, chip: Chip, part: Slice) -> Need:
    """Memory, axons and synapses of a slice."""
    population = program.node(part.layer)
    assert isinstance(population, Population)
    chosen = part.mask(population)
    bits = axons = synapses = 0
    for synapse in program.incoming(part.layer):
        contacts = synapses_onto(program, synapse, chosen)
        bits += memory_bits(program, chip, synapse, chosen, contacts)
        axons += int(np.count_nonzero(contacts))
        synapses += int(contacts.sum())
    return Need(part.size, bits, axons, synapses)


def memory_bits(program: Program, chip: Chip, synapse: Synapse, chosen: Mask, contacts: Counts) -> int:
    """Synaptic memory of one block on a core.

    Args:
        chosen: bool ``[n_target]``, the neurons that live there.
        contacts: int64 ``[n_source]``, synapses of each source onto them.
    """
    width = _at_least(chip.formats["weight_bits_allowed"].value, synapse.weight_bits)
    neurons = int(np.count_nonzero(chosen))
    index = _at_least(chip.formats["index_bits_allowed"].value, max(1, (neurons - 1).bit_length()))
    if isinstance(synapse, Conv):
        return int(_list_bits(chip, _kernel_lists(program, synapse, chosen), width + index).sum())
    used = contacts[contacts > 0]
    every = int(_list_bits(chip, np.full_like(used, neurons), width).sum())
    connected = int(_list_bits(chip, used, width + index).sum())
    return min(every, connected)


def _kernel_lists(program: Program, conv: Conv, chosen: Mask) -> Counts:
    """Lengths of the different synapse lists a convolution needs on a core, for the output channels that live there.

    A source's list names its targets relative to a base, so sources with the same taps share one. A source at the edge
    of the image or of the core's part has fewer taps, and with a stride the taps alternate: each such pattern of rows
    and columns is a list of its own, as in nengo-loihi's ``conv2d_loihi_weights``.
    """
    here = chosen.reshape(program.node(conv.target).shape)
    channels = here.any(axis=(1, 2)).reshape(conv.groups, -1)
    kernel = conv.weights.reshape(conv.groups, channels.shape[1], conv.weights.shape[1], *conv.weights.shape[2:])
    taps = ((kernel != 0) * channels[:, :, None, None, None]).sum(axis=1)
    spans = [np.flatnonzero(here.any(axis=axes)) for axes in ((0, 2), (0, 1))]
    sides = program.node(conv.source).shape[1:]
    rows, columns = (_patterns(conv, axis, sides[axis], int(s[0]), int(s[-1])) for axis, s in enumerate(spans))
    lists: Counts = np.einsum("gihw,rh,cw->girc", taps, rows, columns).reshape(-1).astype(np.int64)
    return lists[lists > 0]


def _patterns(conv: Conv, axis: int, side: int, first: int, last: int) -> npt.NDArray[np.int64]:
    """Different sets of kernel positions by which inputs reach the outputs ``first .. last``, 0/1 ``[patterns, k]``."""
    size = conv.weights.shape[2 + axis]
    stride, padding, dilation = conv.stride[axis], conv.padding[axis], conv.dilation[axis]
    outputs = np.arange(first, last + 1)
    reached = outputs[:, None] * stride - padding + np.arange(size) * dilation
    inputs = np.arange(max(0, int(reached.min())), min(side - 1, int(reached.max())) + 1)
    sets = (inputs[:, None, None] == reached).any(axis=1)
    return np.unique(sets[sets.any(axis=1)], axis=0).astype(np.int64)


def _list_bits(chip: Chip, lengths: Counts, width: int) -> Counts:
    """Bits of lists of synapses of ``width`` bits each; unpublished headers, blocks and words count as none."""
    header = chip.formats["synapse_header_bits"].value or 0
    block = chip.formats["synapses_per_header"].value or int(lengths.max(initial=1))
    word = chip.limits["synaptic_memory_word_bits"].value or 1
    full, rest = np.divmod(lengths, block)
    last = -(-(rest * width + header) // word) * word
    bits: Counts = full * (-(-(block * width + header) // word) * word) + np.where(rest > 0, last, 0)
    return bits


def _at_least(allowed: tuple[int, ...] | None, bits: int) -> int:
    """The narrowest width the chip has for ``bits``; the width itself where the chip publishes none that wide."""
    return min((width for width in allowed or () if width >= bits), default=bits)


def largest_fan_in(program: Program, layer: str) -> int:
    """Most synapses that end on one neuron of a layer."""
    total = sum((synapses_at(program, synapse) for synapse in program.incoming(layer)), np.zeros(1, dtype=np.int64))
    return int(total.max())


def cut(size: int, cap: int, fits: Callable[[int, int], bool], most: int | None = None) -> list[tuple[int, int]]:
    """Cut ``0 .. size`` greedily into the longest pieces that fit, then even them out if the even pieces fit too.

    Args:
        cap: Longest piece to try.
        fits: Whether neurons ``start`` to ``stop`` fit on a core; true of every part of a piece that fits.
        most: Pieces beyond which another cut is better anyway.

    Returns:
        The pieces; none when a neuron does not fit even alone, or where they would be more than ``most``.
    """
    pieces: list[tuple[int, int]] = []
    start, guess = 0, cap
    while start < size:
        length = _longest(start, min(cap, size - start), min(guess, size - start), fits)
        if length == 0 or len(pieces) == most:
            return []
        pieces.append((start, start + length))
        start, guess = start + length, length
    count = len(pieces)
    even = [(size * k // count, size * (k + 1) // count) for k in range(count)]
    return even if all(piece in pieces or fits(*piece) for piece in even) else pieces


def _longest(start: int, cap: int, guess: int, fits: Callable[[int, int], bool]) -> int:
    """Length of the longest piece from ``start`` that fits, by bisection from a guess; 0 if not one neuron fits."""
    low, high = 0, cap + 1
    trial = guess
    while high - low > 1:
        if fits(start, start + trial):
            low = trial
        else:
            high = trial
        trial = min(low + 1, cap) if trial == guess and low == guess else (low + high) // 2
    return low
