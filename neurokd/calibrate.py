"""Onto the chip's integers without training: images say what rounding costs on average, the biases give it back."""

from __future__ import annotations

from typing import Any

import torch

from deploy.chip import Chip, load_chip
from deploy.errors import TrainingError
from neurokd.arriving import arriving, mean_brought
from neurokd.data import Dataset
from neurokd.encoding import Encoding
from neurokd.feed import Feed, accuracy
from neurokd.network import SpikingNetwork
from neurokd.quantized import QuantizedNetwork
from neurokd.rounding import check_lowers, to_integers


def round_off(student: SpikingNetwork, data: Dataset, encoding: Encoding, **grids: Any) -> QuantizedNetwork:
    """A student on the chip's integers without training: rounded, the mean error taken out of the biases.

    The means are seen on training images; where the validation images then are worse off, as at 8 bits for lack of an
    error, the biases stay as rounded.

    Args:
        student: A trained float student; it stays as it is.
        data, encoding: Images, and how they become spikes.
        **grids: Options of :func:`neurokd.rounding.to_integers`.

    Raises:
        TrainingError: the encoding is not the student's.
        ConfigError, ModuleError, UnsupportedNode, ProgramError, RuleError: as :func:`to_integers`.
    """
    plain, mended = to_integers(student, **grids), to_integers(student, **grids)
    check_levels(mended, encoding)
    keep_means(mended, Feed(data.train, encoding))
    chip = grids.get("chip", "loihi2")
    check_lowers(mended, chip if isinstance(chip, Chip) else load_chip(chip))
    seen = Feed(data.validation, encoding)
    return mended if accuracy(mended, seen) > accuracy(plain, seen) else plain


def keep_means(network: QuantizedNetwork, feed: Feed, images: int = 1000) -> None:
    """Take out of the biases what rounding the weights adds to the membranes on average, layer by layer, in place.

    At 3 bits, without training, CIFAR-10's student of the grid then keeps 55 % instead of 34, at 4 bits 63 instead of
    51; at 8 bits there is nothing to gain (``docs/quantization.md``).

    Args:
        network: As rounded: from :func:`neurokd.rounding.to_integers`.
        feed: Images, their labels are not read; the first ``images`` are seen once a layer.
        images: How many.
    """
    for layer in network.quantized_layers():
        seen = arriving(network, feed, images)[layer.name]  # behind layers that are mended already
        with torch.no_grad():
            lost = layer.weight - layer.integer_weights() * layer.grid.weight_unit
            layer.bias += mean_brought(layer, lost, seen).flatten(1).sum(1)


def check_levels(network: QuantizedNetwork, encoding: Encoding) -> None:
    """Refuse grey levels that the student was not trained with."""
    if encoding.levels != network.levels:
        raise TrainingError(
            "the encoding is not the one the student was trained with",
            where="encoding",
            got=f"integers up to {encoding.levels}",
            allowed=f"up to {network.levels} ({network.input_bits} bits)",
            next_step=f"set encoding.bits = {network.input_bits}, or build the student with other input_bits",
        )
