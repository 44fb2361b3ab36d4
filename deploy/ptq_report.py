"""What post-training quantization lost: the simulator's spikes beside those of the float graph, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy import simulator
from deploy.program import Population, Program
from deploy.ptq_float import Layer, Seen
from deploy.trace import Trace, by_class

CHUNK = 256


@dataclass(frozen=True)
class LayerLoss:
    """One population on the calibration spikes.

    Attributes:
        layer: Its name.
        bits: Widths of the weights into it.
        weight_exp: Their exponents.
        vth: Threshold mantissa; scale: float value of one unit of synaptic sum.
        weight_error: Root mean square error of the weights over their root mean square.
        float_rate, chip_rate: Spikes a neuron and step; None of a readout.
        agreement: Share of (neuron, step, sample) where float and chip agree, in percent; of a readout the share of
            samples with the same answer.
        waking_vth: For a layer that never spikes on the chip: the largest vth at which it does; 0 where none helps.
    """

    layer: str
    bits: tuple[int, ...]
    weight_exp: tuple[int, ...]
    vth: int
    scale: float
    weight_error: float
    float_rate: float | None
    chip_rate: float | None
    agreement: float
    waking_vth: int | None = None

    @property
    def dead(self) -> bool:
        """Whether it never spikes on the chip."""
        return self.chip_rate == 0

    @property
    def note(self) -> str:
        """What to do about a dead layer; empty for a living one."""
        if not self.dead:
            return ""
        if self.float_rate == 0:
            return f"layer {self.layer} never spikes, in floats neither: check input unit, dt and the file's thresholds"
        if not self.waking_vth:
            return f"layer {self.layer} never spikes: nothing arrives; look at the layer before it, or use more bits"
        times = self.vth / self.waking_vth
        return (
            f"layer {self.layer} never spikes at vth {self.vth}; vth {self.waking_vth} wakes it (a threshold of "
            f"{self.waking_vth * self.scale:.4g}, or weights {times:.3g} times as large)"
        )


@dataclass(frozen=True)
class Losses:
    """Every layer, and the answer.

    Attributes:
        layers: In program order.
        samples, steps: Of the calibration spikes.
        same_answer: Share of samples that get the float graph's answer on the chip, in percent.
        wraps, saturations: How often the current wrapped or the membrane saturated.
    """

    layers: tuple[LayerLoss, ...]
    samples: int
    steps: int
    same_answer: float
    wraps: int
    saturations: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Dead layers, wraps and saturations, in words."""
        notes = [layer.note for layer in self.layers if layer.note]
        for count, what in ((self.wraps, "currents wrapped"), (self.saturations, "membranes saturated")):
            if count:
                notes.append(
                    f"{count} {what} on the calibration spikes: quantize with search='max' or fewer input bits"
                )
        return tuple(notes)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "notes": list(self.notes)}

    def table(self) -> str:
        """Aligned text: one line a layer, then the answer and the notes."""
        head = ("layer", "bits", "weight_exp", "vth", "scale", "weight error", "float rate", "chip rate", "agreement")
        rows = [head, *(_cells(layer) for layer in self.layers)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        answer = (
            f"same answer as the float network: {self.same_answer:.2f} % of {self.samples} samples, T = {self.steps}"
        )
        return "\n".join([*lines, answer, *(f"note: {note}" for note in self.notes)])


def _cells(layer: LayerLoss) -> tuple[str, ...]:
    rates = ["" if rate is None else f"{rate:.4f}" for rate in (layer.float_rate, layer.chip_rate)]
    bits, exponents = (", ".join(map(str, values)) for values in (layer.bits, layer.weight_exp))
    error, agreement = f"{100 * layer.weight_error:.2f} %", f"{layer.agreement:.3f} %"
    return (layer.layer, bits, exponents, str(layer.vth), f"{layer.scale:.4g}", error, *rates, agreement)


def measure(
    program: Program,
    found: tuple[Layer, ...],
    seen: Seen,
    frames: npt.NDArray[np.uint8],
    weight_errors: Mapping[str, float],
) -> Losses:
    """Run the program on the calibration spikes and compare.

    Args:
        program: Lowered from the quantized graph.
        found: The float populations; seen: what they did.
        frames: ``[T, B, *input shape]``.
        weight_errors: By population.
    """
    totals = _Totals(program, found, seen, weight_errors)
    for start in range(0, frames.shape[1], CHUNK):
        part = np.ascontiguousarray(frames[:, start : start + CHUNK])
        totals.add(simulator.run(program, part, record="all", record_state="all"), start)
    return totals.losses(frames.shape[1], len(frames))


class _Totals:
    """Agreement summed over chunks."""

    def __init__(
        self, program: Program, found: tuple[Layer, ...], seen: Seen, weight_errors: Mapping[str, float]
    ) -> None:
        self.program, self.found, self.seen, self.weight_errors = program, found, seen, weight_errors
        self.agreeing = dict.fromkeys((layer.name for layer in found), 0)
        self.spikes, self.same, self.wraps, self.saturations = dict(self.agreeing), 0, 0, 0
        self.highest = dict.fromkeys(self.agreeing, -(1 << fp.STATE_BITS))

    def add(self, trace: Trace, start: int) -> None:
        part = slice(start, start + trace.samples)
        for name, ours in self.seen.spikes.items():
            self.agreeing[name] += int((trace.spikes[name] == ours[:, part]).sum())
            self.spikes[name] += int(trace.spikes[name].sum())
        for name, values in trace.v.items():
            self.highest[name] = max(self.highest[name], int(values.max()))
        self.same += int((trace.predictions() == self._answers(trace.output)[part]).sum())
        self.wraps, self.saturations = self.wraps + trace.wraps, self.saturations + trace.saturations

    def _answers(self, output: str) -> npt.NDArray[np.int64]:
        last = self.seen.last.get(output)
        counts = self.seen.spikes[output].sum(0, dtype=np.int64) if last is None else last
        scores = by_class(counts.reshape(len(counts), -1), self.program.population)
        answers: npt.NDArray[np.int64] = scores.argmax(1)
        return answers

    def losses(self, samples: int, steps: int) -> Losses:
        layers = tuple(self._layer(layer, samples, steps) for layer in self.found)
        same = 100.0 * self.same / samples
        return Losses(layers, samples, steps, same, self.wraps, self.saturations)

    def _layer(self, layer: Layer, samples: int, steps: int) -> LayerLoss:
        name = layer.name
        population = self.program.node(name)
        assert isinstance(population, Population)
        blocks = self.program.incoming(name)
        spiking, count = layer.threshold is not None, samples * steps * population.size
        chip_rate = self.spikes[name] / count if spiking else None
        waking = max(0, (self.highest[name] - 1) >> fp.ACTIVATION_SHIFT) if spiking and not self.spikes[name] else None
        return LayerLoss(
            name, tuple(block.weight_bits for block in blocks), tuple(block.weight_exp for block in blocks),
            population.vth, float(population.scale or 0.0), self.weight_errors[name],
            float(self.seen.spikes[name].mean()) if spiking else None, chip_rate,
            100.0 * (self.agreeing[name] / count if spiking else self.same / samples), waking,
        )  # fmt: skip
