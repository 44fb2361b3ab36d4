"""The spiking network: layers of pool, synapse, batch norm and neuron, computed for all time steps at once.

    input [T, B, *shape] or [B, *shape]  ->  SAT [T, B, classes]

Pool, synapse and norm see the ``T * B`` step-samples as one batch; only the neuron's scan walks over time. Direct
encoding ([B, *shape], the same at every step) computes the first layer's current once an image.

Batch norm is there for training and folds exactly into the synapse (:meth:`SpikingLayer.folded`): in training its
statistics are taken over time and batch together, so one scale and one shift a channel hold for all steps.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deploy.errors import SpikesError
from neurokd.membranes import fire_and_tell
from neurokd.network_layers import SpikingLayer, in_plain_form, make_layer, present
from neurokd.network_options import split_options
from neurokd.neurons import LIF, CubaLIF
from neurokd.outputs import Outputs, check_wanted, readout
from neurokd.population import by_class, outputs_by_class
from neurokd.spec import NetworkSpec, check_population
from neurokd.spec_layers import Shape

__all__ = ["SpikingLayer", "SpikingNetwork", "build", "predict"]


class SpikingNetwork(nn.Module):
    """A chain of :class:`SpikingLayer`; make one with :func:`build` or :func:`neurokd.accept.accept`.

    ``build(network.spec_text, **network.options)`` makes the same network again, to be filled by
    ``load_state_dict``. ``options`` holds plain numbers, texts, lists and dicts only.
    """

    def __init__(self, spec: NetworkSpec, layers: Sequence[SpikingLayer], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(layers)
        self.options: dict[str, Any] = dict(options)
        self.steps: int = options["steps"]
        self.input_bits: int = options["input_bits"]
        self.population: int = options.get("population", 1)
        check_population(spec.classes, self.population)

    @property
    def spec_text(self) -> str:
        """The specification as canonical text."""
        return str(self.spec)

    @property
    def classes(self) -> int:
        """Number of classes: the output neurons, or those a class's population stands for."""
        return self.spec.classes // self.population

    @property
    def notes(self) -> list[str]:
        """What was changed or left out when a user's module was taken; empty for a network of our own."""
        return list(self.options["notes"])

    def spiking_layers(self) -> list[SpikingLayer]:
        """The layers, in order, typed."""
        return [layer for layer in self.layers if isinstance(layer, SpikingLayer)]

    def forward(
        self, x: Tensor, steps: int | None = None, record: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Run all steps.

        Args:
            x: float spikes [T, B, *shape], or [B, *shape] for direct encoding (the same at every step). ``shape`` is
                the spec's (N,) or (C, H, W); where the spec is flat also (C, H, W) with N values, read row-major.
            steps: T of direct encoding; ``network.steps`` if absent. A time-first input has its own T.
            record: Whether to return every layer's spikes too.

        Returns:
            SAT [T, B, C], with a population the share of a class's neurons that spike; with ``record``
            ``(sat, {layer name: spikes [T, B, *shape]})``.

        Raises:
            SpikesError: the input's shape or type does not fit the network, or ``steps`` does not fit the input.
        """
        held = self._held_steps(x, steps)
        recorded: dict[str, Tensor] = {}
        spikes = x
        for place, layer in enumerate(self.spiking_layers()):
            spikes = layer(spikes, held if place == 0 else None)
            if record:
                recorded[layer.name] = in_plain_form(spikes)
        sat = by_class(spikes, self.population)
        return (sat, recorded) if record else sat

    def sat(self, x: Tensor, steps: int | None = None) -> Tensor:
        """The SAT alone, [T, B, C]; as ``forward(x, steps)``."""
        out = self(x, steps)
        return out if isinstance(out, Tensor) else out[0]

    def outputs(self, x: Tensor, steps: int | None = None, want: Collection[str] = ("logits",)) -> Outputs:
        """The SAT and what else is wanted, computed once.

        Args:
            x: As :meth:`forward`.
            steps: As :meth:`forward`.
            want: Of ``logits``, ``currents``, ``membranes``, ``layers``; see :class:`neurokd.outputs.Outputs`.

        Raises:
            SpikesError: as :meth:`forward`.
            TrainingError: something else is wanted.
        """
        check_wanted(want)
        held = self._held_steps(x, steps)
        *hidden, last = self.spiking_layers()
        spikes, layers = x, {}
        for layer in hidden:
            spikes, held = layer(spikes, held), None
            if "layers" in want:
                layers[layer.name] = in_plain_form(spikes)
        current, bias = last.currents(spikes, held)
        membranes = None
        if "membranes" in want:
            sat, membranes = fire_and_tell(last, current, bias, held)
        else:
            sat = last.fire(current, bias, held)
        own = last.neuron.bias if bias is None and isinstance(last.neuron, CubaLIF) else bias
        logits, currents = readout(current, own, held)
        told = Outputs(
            sat, logits if "logits" in want else None, currents if "currents" in want else None, membranes,
            {**layers, last.name: sat} if "layers" in want else None,
        )  # fmt: skip
        return outputs_by_class(told, self.population)

    def _held_steps(self, x: Tensor, steps: int | None) -> int | None:
        """T for an input that is held, None for one that is time first."""
        shape = tuple(self.spec.input_shape)
        flat_images = len(shape) == 1 and x.dim() in (4, 5) and math.prod(x.shape[-3:]) == shape[0]
        lead = x.dim() - (3 if flat_images else len(shape))
        fits = flat_images or tuple(x.shape[lead:] if lead > 0 else ()) == shape
        if not fits or lead not in (1, 2) or not x.is_floating_point() or 0 in x.shape:
            raise _wrong_input(shape, x)
        if lead == 1:
            return self.steps if steps is None else self._positive(steps)
        if steps not in (None, len(x)):
            raise SpikesError(
                "steps does not fit a time-first input",
                got=f"steps={steps}",
                allowed=f"{len(x)}, the input's first axis",
            )
        return None

    @staticmethod
    def _positive(steps: int) -> int:
        if steps < 1:
            raise SpikesError("the number of steps is not positive", got=f"steps={steps}", allowed="1 or more")
        return steps

    def folded(self) -> SpikingNetwork:
        """A copy without norms, each folded into its layer's weight and bias (rounded to this network's dtype)."""
        network = build(self.spec, **{**self.options, "norm": False, "bias": True})
        network.to(self.spiking_layers()[0].synapse.weight)
        for old, new in zip(self.spiking_layers(), network.spiking_layers(), strict=True):
            weight, bias = old.folded()
            target = new.synapse.bias if isinstance(new.neuron, LIF) else new.neuron.bias
            new.neuron.load_state_dict(old.neuron.state_dict(), strict=False)
            with torch.no_grad():
                new.synapse.weight.copy_(weight)
                present(target).copy_(bias.reshape(present(target).shape))
        return network.train(self.training)

    def describe(self) -> str:
        """A text table: layers, neuron, shapes, parameters (norms folded)."""
        rows: list[tuple[str, ...]] = [("layer", "pool", "synapse", "neuron", "in", "out", "parameters")]
        for layer in self.spiking_layers():
            block, neuron = layer.block, layer.neuron
            beta = f"beta {float(neuron.beta.detach()):.5g}, threshold {float(neuron.threshold.detach()):.5g}"
            kind = (
                f"LIF {beta}" if isinstance(neuron, LIF) else f"CUBA alpha {float(neuron.alpha.detach()):.5g}, {beta}"
            )
            norm = "" if layer.norm is None else " + norm"
            shapes = [" x ".join(map(str, shape)) for shape in (block.in_shape, block.out_shape)]
            pool = "" if block.pool is None else str(block.pool)
            rows.append((block.name, pool, f"{block.synapse}{norm}", kind, *shapes, f"{block.parameters():,}"))
        rows.append(
            ("sum", "", "", f"{self.steps} steps, {self.input_bits}-bit input", "", "", f"{self.spec.parameters():,}")
        )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self.spec_text, *lines, *(f"note: {note}" for note in self.notes)])


def build(spec: str | NetworkSpec, **options: Any) -> SpikingNetwork:
    """Make a network with fresh weights.

    Args:
        spec: A specification or its text, e.g. ``"784-800-10"``.
        **options: See :class:`neurokd.network_options.LayerOptions` for those of a layer (``neuron``, ``beta``,
            ``alpha``, ``threshold``, ``norm``, ...), each one value or a list with one value a layer; and of the whole
            network ``steps=8``, ``input_bits=8``, ``seed=0``, ``population=1`` (:class:`NetworkOptions`).

    Raises:
        SpecError: the specification cannot be read.
        ConfigError: an option is unknown or out of range.
    """
    spec = spec if isinstance(spec, NetworkSpec) else NetworkSpec.parse(spec)
    blocks = spec.blocks()
    network_options, layer_options, plain_layers = split_options(options, len(blocks))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(network_options.seed)
        layers = [make_layer(block, option) for block, option in zip(blocks, layer_options, strict=True)]
    return SpikingNetwork(spec, layers, {**network_options.plain(), **plain_layers})


def predict(sat: Tensor) -> Tensor:
    """Class of each sample: the output neuron with the most spikes; of equal ones the lowest index (so does the chip).

    Args:
        sat: [T, B, C].

    Returns:
        [B], int64.
    """
    return sat.sum(0).argmax(-1)


def _wrong_input(shape: Shape, x: Tensor) -> SpikesError:
    size = ", ".join(map(str, shape))
    images = f"; or [B, C, H, W], [T, B, C, H, W] with C * H * W = {size}" if len(shape) == 1 else ""
    return SpikesError(
        "the input does not fit the network",
        where=f"input of a network on ({size})",
        got=f"{x.dtype} of shape {list(x.shape)}",
        allowed=f"float [B, {size}] (direct) or [T, B, {size}]{images}; no axis of size 0",
    )
