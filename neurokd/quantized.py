"""The student in the chip's integers: its forward pass *is* the chip's arithmetic, its backward pass learns.

Synaptic sums are float32 matrix products and convolutions of whole numbers. They are exact as long as no partial sum
reaches 2^24, which :meth:`QuantizedLayer.check_exact` demands. The neurons run in the simulator's own compiled integer
rules (24-bit state times 12-bit decay would not fit a float). Gradients: straight through every rounding, surrogate
through the spike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from deploy import fixed_point as fp
from deploy.chip import Chip, load_chip
from deploy.errors import ModuleError, TrainingError
from deploy.simulator import neurons
from neurokd.network import SpikingNetwork
from neurokd.network_layers import SpikingLayer
from neurokd.neurons import LIF, CubaLIF
from neurokd.scales import LayerGrid, ScaleSearch, choose_grid, round_to_grid
from neurokd.scans import cuba_lif_backward, lif_backward
from neurokd.surrogates import Surrogate

EXACT_FLOAT: Final = 1 << 24
_PARALLEL_FROM: Final = 1 << 15  # elements of one step; below, a second thread costs more than it brings


class _ToGrid(torch.autograd.Function):
    """Round weights (in integer units) to the grid; the gradient passes where nothing was clipped."""

    @staticmethod
    def forward(ctx: Any, units: Tensor, bits: int, sign_mode: str) -> Tensor:
        low, high = fp.weight_limits(bits, sign_mode)
        step = fp.weight_step(bits, sign_mode)
        ctx.save_for_backward((units >= low - step / 2) & (units <= high + step / 2))
        return round_to_grid(units, bits, sign_mode)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


class _ShiftRight(torch.autograd.Function):
    """``floor(sum * 2^exponent)`` for ``exponent <= 0``: the chip's shift; gradient of the product."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, exponent: int) -> Tensor:
        ctx.factor = 2.0**exponent
        return torch.floor(sums * ctx.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


class _IntegerNeurons(torch.autograd.Function):
    """All steps of one layer in the chip's integers.

    Args (forward):
        sums: float32 whole numbers ``[T, B, *shape]``, or ``[B, *shape]`` with ``steps`` (the same at every step).
        bias: float32 ``[C]`` in 1/64 units of a sum, before rounding to mantissa and exponent.
    """

    @staticmethod
    def forward(
        ctx: Any, sums: Tensor, bias: Tensor, steps: int | None, grid: LayerGrid, surrogate: Surrogate
    ) -> Tensor:
        held = steps is not None
        batch, shape = (sums.shape[0], sums.shape[1:]) if held else (sums.shape[1], sums.shape[2:])
        count = steps if steps is not None else sums.shape[0]
        spikes, membranes = torch.empty(count, batch, *shape), torch.empty(count, batch, *shape)
        per_neuron = effective_bias(bias).view(-1, *[1] * (len(shape) - 1)).expand(shape).reshape(-1)
        _scan(sums.contiguous(), held, per_neuron.to(torch.int32).numpy(), grid, spikes, membranes)
        ctx.save_for_backward(spikes, membranes)
        ctx.held, ctx.grid, ctx.surrogate = held, grid, surrogate
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        spikes, membranes = ctx.saved_tensors
        grid: LayerGrid = ctx.grid
        unity = float(1 << fp.DECAY_BITS)
        threshold, beta = grid.vth * grid.scale, 1.0 - grid.dv / unity
        membranes = membranes * grid.scale
        common = (beta, threshold, ctx.surrogate)
        if grid.du == (1 << fp.DECAY_BITS) - 1:
            current = lif_backward(grads[0].contiguous(), membranes, spikes, *common, held=ctx.held)
            on_bias = current if ctx.held else current.sum(0)
        else:
            alpha = 1.0 - (grid.du + fp.CURRENT_DECAY_OFFSET) / unity
            current, on_bias = cuba_lif_backward(
                grads[0].contiguous(), membranes, spikes, alpha, *common, held=ctx.held
            )
        per_channel = on_bias.sum([0, *range(2, on_bias.dim())])
        return current * grid.scale, per_channel * (grid.scale / 64.0), None, None, None


def _scan(sums: Tensor, held: bool, bias: np.ndarray, grid: LayerGrid, spikes: Tensor, membranes: Tensor) -> None:
    steps = len(spikes)
    flat = sums.detach().view(1 if held else steps, -1).numpy()
    outputs = spikes.view(steps, -1).numpy(), membranes.view(steps, -1).numpy()
    elements = flat.shape[1]
    threads = torch.get_num_threads() if elements >= _PARALLEL_FROM else 1
    edges = [elements * part // threads for part in range(threads + 1)]

    def part(start: int, stop: int) -> None:
        neurons.training_scan(flat, held, bias, grid.du, grid.dv, grid.vth, *outputs, start, stop)

    if threads == 1:
        part(0, elements)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, edges[:-1], edges[1:]))


def mantissa(bias: Tensor) -> tuple[Tensor, int]:
    """Whole-number mantissas and their common exponent for biases in 1/64 units; halves round up."""
    exponent = fp.bias_exponent(int(torch.floor(bias.detach().abs().max() + 0.5)))
    limit = 1 << (fp.BIAS_MANTISSA_BITS - 1)
    rounded = torch.floor(bias.detach().double() / 2.0**exponent + 0.5).clamp(-limit, limit - 1)
    return rounded, exponent


def effective_bias(bias: Tensor) -> Tensor:
    """The biases the chip adds, ``bias_mant << bias_exp``, float64 whole numbers in 1/64 units."""
    rounded, exponent = mantissa(bias)
    return rounded * 2.0 ** min(exponent, fp.BIAS_EXPONENT_MAX)


class QuantizedLayer(nn.Module):
    """One layer: latent float weight and bias on a fixed :class:`LayerGrid`."""

    def __init__(self, layer: SpikingLayer, grid: LayerGrid, surrogate: Surrogate) -> None:
        super().__init__()
        weight, bias = layer.folded()
        self.name, self.grid, self.surrogate = layer.name, grid, surrogate
        self.block, self.pool, self.synapse = layer.block, layer.pool, _geometry(layer.synapse)
        self.cuba = isinstance(layer.neuron, CubaLIF)
        self.weight = nn.Parameter(weight.float().clone())
        self.bias = nn.Parameter(bias.float().clone())

    def weights(self) -> Tensor:
        """Integer weights as float32 whole numbers, with a straight-through gradient to ``weight``."""
        units = self.weight / self.grid.weight_unit
        quantized: Tensor = _ToGrid.apply(units, self.grid.weight_bits, self.grid.sign_mode)
        return quantized

    def biases(self) -> Tensor:
        """Biases in 1/64 units of a synaptic sum, not yet rounded."""
        return self.bias * (64.0 / self.grid.scale)

    def sums(self, x: Tensor) -> Tensor:
        """Synaptic sums after ``weight_exp`` of N step-samples of whole numbers ``[N, *in_shape]``."""
        if self.pool is not None:
            x = functional.avg_pool2d(x, self.pool.kernel_size, self.pool.stride, self.pool.padding, divisor_override=1)
        weights = self.weights()
        if isinstance(self.synapse, dict):
            raw = functional.conv2d(x, weights, **self.synapse)
        else:
            raw = functional.linear(x.flatten(1), weights)
        shifted: Tensor = _ShiftRight.apply(raw, self.grid.weight_exp) if self.grid.weight_exp else raw
        return shifted

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        """Spikes ``[T, B, *out_shape]`` of whole numbers ``[T, B, *in_shape]``, or ``[B, *in_shape]`` held."""
        if steps is None:
            sums = self.sums(x.flatten(0, 1))
            sums = sums.reshape(*x.shape[:2], *sums.shape[1:])
        else:
            sums = self.sums(x)
        spikes: Tensor = _IntegerNeurons.apply(sums, self.biases(), steps, self.grid, self.surrogate)
        return spikes

    def check_exact(self, largest: int) -> None:
        """Refuse a layer whose sums float32 could not hold exactly, for inputs ``0..largest``.

        Raises:
            TrainingError: with the bound and the way out.
        """
        per_neuron = math.prod(self.weight.shape[1:])
        windows = 1 if self.pool is None else math.prod(pair(self.pool.kernel_size))
        low, _ = fp.weight_limits(self.grid.weight_bits, self.grid.sign_mode)
        worst = per_neuron * windows * largest * -low
        if worst >= EXACT_FLOAT:
            worst = int(self.weights().detach().double().abs().flatten(1).sum(1).max()) * windows * largest
        if worst >= EXACT_FLOAT:
            raise TrainingError(
                "the layer's synaptic sums could leave the accumulator",
                where=f"layer {self.name}",
                got=f"{worst} at most",
                allowed=f"below {EXACT_FLOAT}",
                next_step="use fewer input bits (encoding.bits) or a smaller fan-in",
            )


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """torch's ``int or (height, width)`` as a pair."""
    return value if isinstance(value, tuple) else (value, value)


def _geometry(synapse: nn.Linear | nn.Conv2d) -> dict[str, Any] | None:
    if isinstance(synapse, nn.Linear):
        return None
    return {
        "stride": synapse.stride, "padding": synapse.padding, "dilation": synapse.dilation, "groups": synapse.groups
    }  # fmt: skip


class QuantizedNetwork(nn.Module):
    """A student on the chip's integers; takes the same input and gives the same SAT form as :class:`SpikingNetwork`.

    Attributes:
        spec: The network's specification.
        grids: One :class:`LayerGrid` a layer.
        chip: Name of the chip the widths were taken from.
    """

    def __init__(self, network: SpikingNetwork, grids: Mapping[str, LayerGrid], chip: str) -> None:
        super().__init__()
        self.spec, self.options, self.chip = network.spec, dict(network.options), chip
        self.steps, self.input_bits = network.steps, network.input_bits
        self.layers = nn.ModuleList(
            QuantizedLayer(layer, grids[layer.name], _surrogate(layer)) for layer in network.spiking_layers()
        )
        largest = self.levels
        for layer in self.quantized_layers():
            layer.check_exact(largest)
            largest = 1

    @property
    def levels(self) -> int:
        """Largest integer an input carries."""
        return int((1 << self.input_bits) - 1)

    @property
    def spec_text(self) -> str:
        """The specification as canonical text."""
        return str(self.spec)

    @property
    def classes(self) -> int:
        """Number of output neurons."""
        return self.spec.classes

    @property
    def grids(self) -> dict[str, LayerGrid]:
        """The fixed integers of each layer, by name."""
        return {layer.name: layer.grid for layer in self.quantized_layers()}

    def quantized_layers(self) -> list[QuantizedLayer]:
        """The layers, in order, typed."""
        return [layer for layer in self.layers if isinstance(layer, QuantizedLayer)]

    def forward(
        self, x: Tensor, steps: int | None = None, record: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Run all steps in integers.

        Args:
            x: As :meth:`SpikingNetwork.forward`: float, integer / ``levels``; ``[T, B, *shape]`` or ``[B, *shape]``.
            steps: T of direct encoding; the network's own if absent.
            record: Whether to return every layer's spikes too.

        Returns:
            SAT ``[T, B, C]``; with ``record`` ``(sat, {layer name: spikes [T, B, *shape]})``.
        """
        timed = x.dim() == len(self.spec.input_shape) + 2
        if len(self.spec.input_shape) == 1 and x.dim() >= 4:
            timed = x.dim() == 5
            x = x.flatten(2) if timed else x.flatten(1)
        spikes, held = torch.round(x * self.levels), None if timed else (steps or self.steps)
        recorded: dict[str, Tensor] = {}
        for layer in self.quantized_layers():
            spikes = layer(spikes, held)
            recorded[layer.name], held = spikes, None
        return (spikes, recorded) if record else spikes

    def sat(self, x: Tensor, steps: int | None = None) -> Tensor:
        """The SAT alone, ``[T, B, C]``."""
        out = self(x, steps)
        return out if isinstance(out, Tensor) else out[0]


def _surrogate(layer: SpikingLayer) -> Surrogate:
    given = layer.neuron.surrogate
    return given if isinstance(given, Surrogate) else Surrogate()


def _number(layer: SpikingLayer, what: str, value: Tensor) -> float:
    values = value.detach().double()
    if values.numel() > 1 and not bool((values == values.flatten()[0]).all()):
        raise ModuleError(
            f"the {what} differs between the neurons of one layer",
            where=f"layer {layer.name}",
            got=f"{float(values.min()):g}..{float(values.max()):g}",
            allowed="one value a layer, as a population on the chip has",
            next_step=f"train with one shared {what}, or split the layer",
        )
    return float(values.flatten()[0])


def to_integers(
    network: SpikingNetwork,
    chip: Chip | str = "loihi2",
    *,
    weight_bits: int | Mapping[str, int] = 8,
    search: ScaleSearch = "mse",
) -> QuantizedNetwork:
    """Put a float student on the chip's grid (post-training quantization; the start of fine-tuning).

    Args:
        network: Trained student.
        chip: Chip or its name; widths come from its file.
        weight_bits: For all layers, or by layer name (others 8).
        search: See :func:`neurokd.scales.choose_grid`.

    Raises:
        ConfigError, TrainingError, ModuleError: what cannot be represented, with the layer and the number.
    """
    target = chip if isinstance(chip, Chip) else load_chip(chip)
    grids: dict[str, LayerGrid] = {}
    unit = 1.0 / ((1 << network.input_bits) - 1)
    for layer in network.spiking_layers():
        weight, bias = layer.folded()
        neuron = layer.neuron
        windows = 1 if layer.pool is None else math.prod(pair(layer.pool.kernel_size))
        grids[layer.name] = choose_grid(
            layer.name, weight, bias,
            threshold=_number(layer, "threshold", neuron.threshold), beta=_number(layer, "beta", neuron.beta),
            alpha=None if isinstance(neuron, LIF) else _number(layer, "alpha", neuron.alpha),
            unit=unit / windows, chip=target, search=search,
            weight_bits=weight_bits if isinstance(weight_bits, int) else weight_bits.get(layer.name, 8),
        )  # fmt: skip
        unit = 1.0
    return QuantizedNetwork(network, grids, target.name)
