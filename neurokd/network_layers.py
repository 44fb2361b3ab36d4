"""One layer of a spiking network: pool, synapse, batch norm, neuron; how it starts, computes and folds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy.errors import TrainingError
from neurokd import parallel
from neurokd.lif_scans import LifMode, norm_lif
from neurokd.network_options import LayerOptions
from neurokd.neurons import LIF, CubaLIF, cuba_lif
from neurokd.spec import Block
from neurokd.spec_layers import Conv, Dense
from neurokd.surrogates import Surrogate

Neuron = LIF | CubaLIF
Norm = nn.BatchNorm1d | nn.BatchNorm2d

#: Spikes a neuron and step that currents of one threshold's deviation cause (measured: 0.14 to 0.19 in deep layers).
FRESH_RATE = 0.15


class SpikingLayer(nn.Module):
    """One layer of neurons and what feeds it: ``pool -> synapse -> norm -> neuron``.

    In a LIF layer the synapse holds the bias (if any). In a CUBA-LIF layer it is on the membrane (``neuron.bias``), as
    on the chip, never filtered by alpha; a norm is split there: its scale multiplies the current, its whole shift
    (``bias - mean * scale``) goes to the membrane. Subtracting ``mean / (1 - alpha)``, the mean as the membrane sees
    it after the filter, trains worse: 88 % against 92.5 % on digits after 15 epochs (64-64-64-10, 3 seeds each).
    """

    def __init__(
        self, block: Block, pool: nn.AvgPool2d | None, synapse: nn.Linear | nn.Conv2d, norm: Norm | None, neuron: Neuron
    ) -> None:
        super().__init__()
        self.name, self.block = block.name, block
        self.pool, self.synapse, self.norm, self.neuron = pool, synapse, norm, neuron
        #: Types the synapse computes in on spikes of every step, and of the layer's spikes, while it trains.
        self.synapse_type, self.spike_type = torch.float32, torch.float32

    def current(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Currents of N step-samples, and the membrane bias a norm in a CUBA-LIF layer adds.

        Args:
            x: [N, *in_shape]; a dense layer flattens images row-major (C, H, W).

        Returns:
            [N, *out_shape], and [C] or [C, 1, 1] or None.
        """
        raw = self._raw(x)
        if self.norm is None:
            return raw, None
        self._check_batch(raw)
        if isinstance(self.neuron, LIF):
            return normed(raw.float() if raw.dtype == torch.bfloat16 else raw, self.norm), None
        return self._split_norm(raw, self.norm, self.neuron)

    def _raw(self, x: Tensor) -> Tensor:
        """What the synapse makes of [N, *in_shape] in x's type; images channels last, which convolutions are fastest
        on."""
        x = x if self.pool is None else self.pool(x)
        weight, bias = self.synapse.weight, self.synapse.bias
        if x.dtype == torch.bfloat16:
            weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        return self.product(x, weight, bias)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The synapse's product with these weights; with its own it is called as a module, so that hooks see it."""
        synapse, own = self.synapse, weight is self.synapse.weight
        if isinstance(synapse, nn.Conv2d):
            x = x.contiguous(memory_format=torch.channels_last)
            how = (synapse.stride, synapse.padding, synapse.dilation, synapse.groups)
            raw = synapse(x) if own else functional.conv2d(x, weight, bias, *how)
            return raw.contiguous(memory_format=torch.channels_last)
        if x.dim() == 4 and not x.is_contiguous():  # channels innermost: the small weight is put in order, not x
            ordered = weight.reshape(-1, *x.shape[1:]).movedim(1, -1).flatten(1)
            return functional.linear(x.movedim(1, -1).flatten(1), ordered, bias)
        return synapse(x.flatten(1)) if own else functional.linear(x.flatten(1), weight, bias)

    def _check_batch(self, raw: Tensor) -> None:
        if self.training and raw.numel() == raw.shape[1] and not parallel.active():
            raise TrainingError(
                "a batch norm cannot train on one value a channel",
                where=f"layer {self.name}",
                got=f"{len(raw)} sample",
                allowed="at least two samples (or steps of a time-first input) in a batch",
                next_step="raise the batch size, or drop the last incomplete batch",
            )

    def _split_norm(self, raw: Tensor, norm: Norm, neuron: CubaLIF) -> tuple[Tensor, Tensor]:
        mean, variance = batch_statistics(norm, raw)
        scale = torch.rsqrt(variance + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight
        shift = -mean * scale
        shift = shift if norm.bias is None else shift + norm.bias
        shape = (-1, *[1] * (raw.dim() - 2))
        bias = shift.reshape(shape) if neuron.bias is None else shift.reshape(shape) + neuron.bias
        return raw * scale.reshape(shape), bias

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        """Spikes [T, B, *out_shape] of ``x`` [T, B, *in_shape], or of [B, *in_shape] held for ``steps`` steps."""
        if steps is None and self._fuses_norm(x):
            return self._norm_and_fire(x)
        return self.fire(*self.currents(x, steps), steps)

    def _fuses_norm(self, x: Tensor) -> bool:
        """Whether norm and neurons can be one scan: a trained convolution on every step, plain LIF, on the CPU."""
        norm, neuron = self.norm, self.neuron
        if norm is None or norm.weight is None or not self.training or not isinstance(self.synapse, nn.Conv2d):
            return False
        plain = isinstance(neuron, LIF) and not (neuron.learn_beta or neuron.learn_threshold)
        one = neuron.raw_beta.numel() == neuron.raw_threshold.numel() == 1
        known = isinstance(neuron.surrogate, Surrogate) and x.dtype in (torch.float32, torch.bfloat16)
        return plain and one and known and x.device.type == "cpu" and norm.weight.dtype == torch.float32

    def _norm_and_fire(self, x: Tensor) -> Tensor:
        norm, neuron, surrogate = self.norm, self.neuron, self.neuron.surrogate
        assert norm is not None
        assert isinstance(surrogate, Surrogate)
        narrow = self._at_width(x)
        raw = self._raw(narrow.flatten(0, 1))
        self._check_batch(raw)
        mode = LifMode(
            len(x), float(neuron.beta), float(neuron.threshold), surrogate, neuron.detach_reset, self.spike_type
        )
        spikes, mean, variance, count = norm_lif(raw, norm.weight, norm.bias, norm.eps, mode)
        track(norm, mean, variance, count)
        return spikes

    def _at_width(self, x: Tensor) -> Tensor:
        """Spikes of every step in the type the synapse computes in; only training is narrowed."""
        narrow = self.training and self.synapse_type == torch.bfloat16 and x.dtype == torch.float32
        return x.to(torch.bfloat16) if narrow else x

    def currents(self, x: Tensor, steps: int | None = None) -> tuple[Tensor, Tensor | None]:
        """:meth:`current` of ``x`` [T, B, *in_shape], or of [B, *in_shape] held for ``steps`` steps, in x's form."""
        if steps is not None:
            return self.current(x)
        current, bias = self.current(self._at_width(x).flatten(0, 1))
        if current.dtype == torch.bfloat16 and self.spike_type == torch.float32:
            current = current.float()
        return current.reshape(*x.shape[:2], *current.shape[1:]), bias

    def fire(self, current: Tensor, bias: Tensor | None, steps: int | None = None) -> Tensor:
        """Spikes [T, B, *out_shape] from what :meth:`currents` gave."""
        if bias is None or isinstance(self.neuron, LIF):
            kind = self.spike_type if self.training and current.dtype in (torch.float32, torch.bfloat16) else None
            spikes: Tensor = self.neuron(current, steps=steps, spikes=kind)[0]
            return spikes
        neuron = self.neuron
        return cuba_lif(
            current, alpha=neuron.alpha, beta=neuron.beta, threshold=neuron.threshold, bias=bias, steps=steps,
            surrogate=neuron.surrogate, detach_reset=neuron.detach_reset,
        )[0]  # fmt: skip

    def folded(self) -> tuple[Tensor, Tensor]:
        """The weight and bias of the same layer without norm, in evaluation: float64, computed in float64.

        Returns:
            weight of the synapse's shape; bias [C], of the synapse (LIF) or of the membrane (CUBA-LIF), zeros if none.
        """
        weight = self.synapse.weight.detach().double()
        held = self.synapse.bias if isinstance(self.neuron, LIF) else self.neuron.bias
        bias = weight.new_zeros(len(weight)) if held is None else held.detach().double().reshape(-1)
        if self.norm is None:
            return weight, bias
        scale, mean, shift = norm_constants(self.norm)
        spread = scale.reshape(-1, *[1] * (weight.dim() - 1))
        if isinstance(self.neuron, LIF):
            return weight * spread, (bias - mean) * scale + shift
        return weight * spread, bias + shift - mean * scale


def batch_statistics(norm: Norm, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance a channel that ``norm`` would use on ``raw`` [N, C, ...], each [C].

    In training those of the batch, and the running ones are updated exactly as torch's batch norm does.
    """
    running_mean, running_var = present(norm.running_mean), present(norm.running_var)
    if not norm.training:
        return running_mean, running_var
    axes = [axis for axis in range(raw.dim()) if axis != 1]
    count = raw.numel() // raw.shape[1]
    if parallel.active():
        count = int(parallel.total(torch.tensor(float(count), dtype=torch.float64)))
        mean = parallel.total(raw.sum(axes)) / count
        shape = (-1, *[1] * (raw.dim() - 2))
        variance = parallel.total((raw - mean.reshape(shape)).square().sum(axes)) / count
    else:
        variance, mean = torch.var_mean(raw, axes, correction=0)
    track(norm, mean, variance, count)
    return mean, variance


def track(norm: Norm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics from a batch's mean and biased variance a channel, as torch's batch norm does."""
    running_mean, running_var = present(norm.running_mean), present(norm.running_var)
    with torch.no_grad():
        seen = present(norm.num_batches_tracked).add_(1)
        momentum = 1.0 / float(seen) if norm.momentum is None else norm.momentum
        running_mean.lerp_(mean.detach().to(running_mean), momentum)
        running_var.lerp_(variance.detach().to(running_var) * (count / max(count - 1, 1)), momentum)


def normed(raw: Tensor, norm: Norm) -> Tensor:
    """``norm(raw)``; in a group of processes with the statistics of the whole batch."""
    if not (norm.training and parallel.active()):
        out: Tensor = norm(raw)
        return out
    mean, variance = batch_statistics(norm, raw)
    scale = torch.rsqrt(variance + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
    shape = (-1, *[1] * (raw.dim() - 2))
    return raw * scale.reshape(shape) + shift.reshape(shape)


def in_plain_form(spikes: Tensor) -> Tensor:
    """Spikes as they are told to others: at least float32, in the order of their axes in memory."""
    return (spikes.float() if spikes.dtype == torch.bfloat16 else spikes).contiguous()


def norm_constants(norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """(scale, mean, shift) of a norm in evaluation, ``(x - mean) * scale + shift``, float64 [C] each."""
    mean, variance = present(norm.running_mean).double(), present(norm.running_var).double()
    scale = 1.0 / torch.sqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach().double()
    return scale, mean, shift


def present(tensor: Tensor | None) -> Tensor:
    """``tensor``, known by the layer's construction to be there."""
    assert tensor is not None
    return tensor


def make_layer(block: Block, options: LayerOptions) -> SpikingLayer:
    """A layer with fresh weights, drawn from torch's global generator.

    Without norm the weights are normal with a variance that gives currents of one threshold's deviation when the
    input spikes at :data:`FRESH_RATE` (in a CUBA-LIF layer times ``sqrt(1 - alpha)``, between the filter's gains on
    steady and on white input). With a norm they have variance 2 / fan-in (He et al. 2015), the norm's scale is that
    deviation, and its running variance starts where such an input puts it. So a fresh network spikes in every layer,
    in training and in evaluation (test_network).
    """
    synapse, norm = _synapse(block, options), _norm(block, options)
    deviation = options.threshold * (math.sqrt(1 - options.alpha) if options.neuron == "cuba" else 1.0)
    fan_in, power = math.prod(synapse.weight.shape[1:]), _fresh_power(block)
    with torch.no_grad():
        if synapse.bias is not None:
            synapse.bias.zero_()
        if norm is None:
            synapse.weight.normal_(0.0, deviation / math.sqrt(power * fan_in))
        else:
            synapse.weight.normal_(0.0, math.sqrt(2.0 / fan_in))
            present(norm.running_var).fill_(2.0 * power)
            if options.norm_affine:
                norm.weight.fill_(deviation)
    return SpikingLayer(block, _pool(block), synapse, norm, _neuron(block, options))


def _fresh_power(block: Block) -> float:
    """Mean square of the synapse's input: spikes at FRESH_RATE, independent where a pool averages them."""
    area = 1 if block.pool is None else math.prod(block.pool.kernel)
    return FRESH_RATE**2 + FRESH_RATE * (1 - FRESH_RATE) / area


def _synapse(block: Block, options: LayerOptions) -> nn.Linear | nn.Conv2d:
    bias = options.has_bias and options.neuron == "lif"
    if isinstance(block.synapse, Dense):
        return nn.Linear(math.prod(block.synapse_shape), block.synapse.units, bias=bias)
    conv: Conv = block.synapse
    return nn.Conv2d(
        block.synapse_shape[0], conv.channels, conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups, bias
    )


def _pool(block: Block) -> nn.AvgPool2d | None:
    if block.pool is None:
        return None
    return nn.AvgPool2d(block.pool.kernel, block.pool.stride, block.pool.padding)


def _norm(block: Block, options: LayerOptions) -> Norm | None:
    if not options.norm:
        return None
    kind = nn.BatchNorm1d if isinstance(block.synapse, Dense) else nn.BatchNorm2d
    return kind(block.out_shape[0], options.norm_eps, options.norm_momentum, options.norm_affine)


def _neuron(block: Block, options: LayerOptions) -> Neuron:
    if options.neuron == "lif":
        return LIF(options.beta, options.threshold, **options.neuron_flags())
    shape = (block.out_shape[0], *[1] * (len(block.out_shape) - 1)) if options.has_bias else None
    return CubaLIF(
        options.alpha, options.beta, options.threshold, shape, learn_alpha=options.learn_alpha, **options.neuron_flags()
    )
