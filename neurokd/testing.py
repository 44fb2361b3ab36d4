"""Random students with extreme parameters, and inputs for them: the food of the tests that compare torch and chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from deploy import simulator
from deploy.errors import GraphError, ProgramError, SpecError, TrainingError
from deploy.lower import lower
from deploy.program import Program
from deploy.trace import Trace
from neurokd.export import to_graph
from neurokd.network import SpikingNetwork, build
from neurokd.network_layers import SpikingLayer, present
from neurokd.neurons import LIF
from neurokd.quantized import QuantizedNetwork
from neurokd.rounding import to_integers
from neurokd.scales import SEARCHES

Rng = np.random.Generator
BETAS: Final = (0.0, 1 / 4096, 0.3, 0.9, 0.9, 4095 / 4096, 1.0)
ALPHAS: Final = (0.0, 1 / 4096, 0.5, 0.75, 0.99, 4095 / 4096)
WIDTHS: Final = (8, 8, 6, 4, 3, 2)
INPUT_BITS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 8, 8)


@dataclass(frozen=True, eq=False)
class Case:
    """A student on the chip's integers, the float one it came from, and an input.

    Attributes:
        x: float32, integers / levels: ``[B, *shape]`` held for ``network.steps``, or ``[T, B, *shape]``.
        redrawn: Draws before this one that fitted no chip.
    """

    student: SpikingNetwork
    network: QuantizedNetwork
    x: Tensor
    redrawn: int

    @property
    def held(self) -> bool:
        """Whether ``x`` is the same at every step."""
        return self.x.dim() == len(self.network.spec.input_shape) + 1


def random_case(seed: int) -> Case:
    """The case of a seed, always the same one; draws again where no chip could hold the network."""
    rng, redrawn = np.random.default_rng(seed), 0
    while True:
        try:
            student = random_student(rng)
            network = to_integers(
                student.eval(),
                weight_bits={layer.name: int(rng.choice(WIDTHS)) for layer in student.spiking_layers()},
                search=SEARCHES[rng.integers(0, len(SEARCHES))],
            )
            if rng.random() < 0.5:
                _drift(network, rng)
        except (SpecError, TrainingError, GraphError, ProgramError):
            redrawn += 1
            continue
        return Case(student, network, _input(rng, network), redrawn)


def random_student(rng: Rng) -> SpikingNetwork:
    """A float student: dense or convolutional, LIF and CUBA, with and without norm, weights and biases of any size.

    Raises:
        SpecError: its layers do not fit each other.
    """
    spec = "-".join(_image_layers(rng) if rng.random() < 0.6 else [str(rng.integers(1, 25))])
    spec = "-".join([spec, *(str(rng.integers(1, 16)) for _ in range(rng.integers(1, 4)))])
    count = sum(field[0] != "p" for field in spec.split("-")) - 1

    def each(values: tuple[Any, ...]) -> list[Any]:
        return [values[index] for index in rng.integers(0, len(values), count)]

    student = build(
        spec, seed=int(rng.integers(1 << 31)), steps=int(rng.integers(1, 13)), input_bits=int(rng.choice(INPUT_BITS)),
        neuron=each(("lif", "cuba")), beta=each(BETAS), alpha=each(ALPHAS), threshold=each((0.05, 1.0, 1.0, 30.0)),
        norm=each((True, False)), bias=each((True, True, False)),
    )  # fmt: skip
    for layer in student.spiking_layers():
        _disturb(layer, rng)
    return student


def _image_layers(rng: Rng) -> list[str]:
    """Input and the convolutions and pools after it, as fields of a specification."""
    channels = int(rng.integers(1, 4))
    fields = [f"{rng.integers(4, 12)}x{rng.integers(4, 12)}x{channels}"]
    for _ in range(rng.integers(1, 3)):
        if rng.random() < 0.4:
            window = rng.integers(1, 4, 2)
            padded = _maybe(rng, f"p{window[0] // 2}x{window[1] // 2}")
            fields.append(f"p{window[0]}x{window[1]}{_maybe(rng, f's{rng.integers(1, 4)}')}{padded}")
        groups = int(rng.choice([1, channels]))
        channels = groups * int(rng.integers(1, 4))
        kernel, stride, padding = (f"{rng.integers(low, 4)}x{rng.integers(low, 4)}" for low in (1, 1, 0))
        options = _maybe(rng, f"s{stride}") + _maybe(rng, f"p{padding}") + (f"g{groups}" if groups > 1 else "")
        fields.append(f"{channels}c{kernel}{options}{_maybe(rng, 'd2')}")
    return [*fields, f"p{rng.integers(1, 3)}"] if rng.random() < 0.3 else fields


def _maybe(rng: Rng, text: str) -> str:
    return text if rng.random() < 0.4 else ""


def _disturb(layer: SpikingLayer, rng: Rng) -> None:
    """Weights of another size, biases of all sizes, a norm that has seen something."""
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
    threshold = float(layer.neuron.threshold.detach())
    bias = layer.synapse.bias if isinstance(layer.neuron, LIF) else layer.neuron.bias
    with torch.no_grad():
        layer.synapse.weight *= float(rng.choice([0.3, 1.0, 1.0, 5.0, 40.0, 400.0]))
        if bias is not None:
            bias.normal_(0.0, threshold * float(rng.choice([0.0, 0.1, 0.5, 20.0, 2000.0])), generator=generator)
        if layer.norm is not None:
            present(layer.norm.running_mean).normal_(0.0, 0.5, generator=generator)
            present(layer.norm.running_var).uniform_(0.2, 3.0, generator=generator)
            layer.norm.weight.uniform_(-1.0, 2.0, generator=generator)
            layer.norm.bias.normal_(0.0, 0.3 * threshold, generator=generator)


def _drift(network: QuantizedNetwork, rng: Rng) -> None:
    """Move weights and biases as training does, some of them beyond what the chip can hold.

    Raises:
        TrainingError, ProgramError: the network fits the chip no more.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
    for layer in network.quantized_layers():
        far = float(rng.choice([0, 9])) * layer.grid.threshold
        for parameter, size in ((layer.weight, 100 * layer.grid.weight_unit), (layer.bias, far)):
            step: Tensor = torch.randn(parameter.shape, generator=generator) * size
            parameter.data.add_(step)
    network.check_exact()
    lower(to_graph(network))


def _input(rng: Rng, network: QuantizedNetwork) -> Tensor:
    lead = (int(rng.integers(1, 5)),) if rng.random() < 0.5 else (network.steps, int(rng.integers(1, 5)))
    shape = (*lead, *network.spec.input_shape)
    values = rng.integers(0, network.levels + 1, shape) * (rng.random(shape) < rng.choice([0.1, 0.5, 1.0]))
    return torch.from_numpy(values).float() / network.levels


def simulated(program: Program, network: QuantizedNetwork, x: Tensor) -> Trace:
    """The integer simulator's run of an input of the network, every layer recorded."""
    integers, held = network.integers(x)
    return simulator.run(program, integers.to(torch.int64).numpy(), steps=held or len(x), record="all")


def differing_spikes(trace: Trace, network: QuantizedNetwork, x: Tensor) -> dict[str, int]:
    """Spikes in which the network's own forward pass in torch differs from a trace, by layer."""
    with torch.no_grad():
        recorded = network(x, record=True)[1]
    return {name: int((spikes.numpy() != trace.spikes[name]).sum()) for name, spikes in recorded.items()}
