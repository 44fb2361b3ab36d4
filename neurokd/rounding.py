"""A float student on the chip's grid: what is rounded, and what no chip could hold."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from deploy.chip import Chip, load_chip
from deploy.errors import ConfigError, ModuleError, ProgramError, TrainingError
from deploy.lower import lower
from neurokd.export import to_graph
from neurokd.layer_grid import LayerGrid
from neurokd.network import SpikingNetwork
from neurokd.network_layers import SpikingLayer
from neurokd.neurons import CubaLIF
from neurokd.quantized import QuantizedNetwork
from neurokd.quantized_layer import QuantizedLayer
from neurokd.scales import ScaleSearch, choose_grid

WeightBits = int | Mapping[str, int] | None


def to_integers(
    network: SpikingNetwork,
    chip: Chip | str = "loihi2",
    *,
    weight_bits: WeightBits = None,
    search: ScaleSearch = "mse",
    power_of_two: bool = False,
) -> QuantizedNetwork:
    """Put a float student on the chip's grid (post-training quantization; the start of fine-tuning).

    Args:
        network: Trained student; it stays as it is.
        chip: Chip or its name; widths come from its file.
        weight_bits: For all layers, or by layer name; the chip's widest where not given.
        search, power_of_two: See :func:`neurokd.scales.choose_grid`.

    Raises:
        ConfigError, TrainingError, ModuleError: what cannot be represented, with the layer and the number.
        UnsupportedNode, ProgramError, RuleError: what lowering would refuse: pools that do not fold, rules of the chip.
    """
    target = chip if isinstance(chip, Chip) else load_chip(chip)
    layers, widths = network.spiking_layers(), _widths(network, weight_bits, target)
    units = [1.0 / ((1 << network.input_bits) - 1), *[1.0] * (len(layers) - 1)]
    grids = {
        layer.name: _grid_of(layer, unit, widths[layer.name], target, search, power_of_two)
        for layer, unit in zip(layers, units, strict=True)
    }
    quantized = QuantizedNetwork(network, grids, target.name)
    quantized.check_exact()
    check_lowers(quantized, target)
    return quantized.train(network.training)


def check_lowers(network: QuantizedNetwork, chip: Chip) -> None:
    """What the chip's side would refuse is refused here."""
    overlapping = overlapping_pools(network)
    try:
        lower(to_graph(network), chip)
    except ProgramError as error:
        if not overlapping:
            raise
        raise overlap_error(overlapping[0], f"weights {error.got}", error.allowed) from error


def overlapping_pools(network: QuantizedNetwork) -> list[QuantizedLayer]:
    return [layer for layer in network.quantized_layers() if layer.windows_overlap]


def overlap_error(layer: QuantizedLayer, got: str, allowed: str) -> TrainingError:
    return TrainingError(
        "the pool's windows overlap: several weights meet on one pixel, and their sum can leave the chip's grid",
        where=f"layer {layer.name}, pool {layer.block.pool}",
        got=got,
        allowed=allowed,
        next_step="train the student with windows side by side (stride at least the kernel)",
    )


def _widths(network: SpikingNetwork, given: WeightBits, chip: Chip) -> dict[str, int]:
    names = [layer.name for layer in network.spiking_layers()]
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, chip.formats.weight_bits if given is None else given)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ConfigError(
            "there is no layer of this name", where="weight_bits", got=", ".join(unknown), allowed=", ".join(names)
        )
    return {name: given.get(name, chip.formats.weight_bits) for name in names}


def _grid_of(
    layer: SpikingLayer, unit: float, bits: int, chip: Chip, search: ScaleSearch, power_of_two: bool
) -> LayerGrid:
    weight, bias = layer.folded()
    neuron, pool = layer.neuron, layer.block.pool
    return choose_grid(
        layer.name, weight, bias,
        threshold=_one(layer, "threshold", neuron.threshold), beta=_one(layer, "beta", neuron.beta),
        alpha=_one(layer, "alpha", neuron.alpha) if isinstance(neuron, CubaLIF) else None,
        unit=unit if pool is None else unit / math.prod(pool.kernel), chip=chip, weight_bits=bits, search=search,
        power_of_two=power_of_two,
    )  # fmt: skip


def _one(layer: SpikingLayer, what: str, value: Tensor) -> float:
    """The one value all neurons of a layer share."""
    values = value.detach().double().flatten()
    if not bool((values == values[0]).all()):
        raise ModuleError(
            f"the {what} differs between the neurons of one layer",
            where=f"layer {layer.name}",
            got=f"{float(values.min()):g}..{float(values.max()):g}",
            allowed="one value a layer, as a population on the chip has",
            next_step=f"train with one shared {what}, or split the layer",
        )
    return float(values[0])
