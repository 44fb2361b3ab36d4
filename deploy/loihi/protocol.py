"""A Program as Lava processes and wires: what ``client.py`` writes and ``worker.py`` reads.

One ``.npz`` each way, with one run or several: ``headers`` (a JSON list as bytes), and plain arrays named
``<run>/<process>.<part>``. A header says:

``processes``
    In the order they are built; ``kind`` is a key of the worker's builder table (``stream``, ``lif``, ``dense``,
    ``conv``, ``sparse``, ``delay``, ``sink``), ``name`` is unique, the rest are that builder's scalars.
``wires``
    ``from``/``from_port`` to ``to``/``to_port``. Populations are flat, row-major ``(C, H, W)``; ``to_image`` and
    ``from_image`` mark where a Conv wants Lava's ``(W, H, C)``. Several wires into one port add up, so a population
    takes any number of synapses from any population.
``steps``, ``state``, ``target``
    Lava steps to run; the populations whose u and v are recorded beside the spikes; ``lava`` or ``loihi2``, where
    ``adapter`` processes of Intel's stand between the host's processes (stream, sinks) and the chip's.

The answer holds one array a recording, again behind ``<run>/``: ``sink:<population>`` uint8 ``[rows, n]``, and where
asked for ``<population>.u`` and ``.v`` int32 ``[rows, n]``, row ``b * T + t`` for step t of sample b.

**Time.** A Lava synapse sends what it summed one step before, so population P runs ``lag(P)`` steps behind the input:
the longest path to it, each synapse counting ``1 - delay``. Samples follow each other without a gap; P's LIFReset
clears it at its own first step of each sample, which also discards the bias it integrated while the pipeline filled.
The run lasts ``B * T + max(lag)`` steps and each recording starts at its population's lag: what is recorded *is* the
undelayed run. A synapse that would arrive early (a skip connection, or one with a delay) passes a delay line of ours,
which also drops spikes that were still on their way when their sample ended.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.errors import ProgramError
from deploy.program import Conv, Input, Population, Program, Synapse
from deploy.spikes import Stimulus

Array = npt.NDArray[Any]
Entry = dict[str, Any]
CONV_FIELD_MAX: Final = 127  # Lava's Conv keeps stride, padding, dilation, kernel size and groups in int8
PREFIX_SINK: Final = "sink:"
_FOREVER: Final = 2**31 - 2  # Lava's step counter and LIFReset's interval are 32 bit
_NEURON_SCALARS: Final = ("du", "dv", "vth", "bias_exp", "reset", "refractory", "spiking")


@dataclass
class Request:
    """One run: the JSON header's lists and the arrays they name."""

    processes: list[Entry] = field(default_factory=list)
    wires: list[Entry] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    steps: int = 0
    state: frozenset[str] = frozenset()
    target: str = "lava"

    def header(self) -> Entry:
        """The part that travels as JSON."""
        rest = {"steps": self.steps, "state": sorted(self.state), "target": self.target}
        return {"processes": self.processes, "wires": self.wires, **rest}

    def recordings(self) -> dict[str, tuple[int, int]]:
        """Name and shape of every array the worker gives back."""
        shapes = {}
        for entry in self.processes:
            names = [entry["name"]] if entry["kind"] == "sink" else []
            names += [f"{entry['name']}.{part}" for part in ("u", "v")] if entry.get("watch") else []
            shapes.update({name: (entry["rows"], entry["size"]) for name in names})
        return shapes

    def wire(self, source: tuple[str, str], target: tuple[str, str], **options: Any) -> None:
        """Connect ``(process, port)`` to ``(process, port)``."""
        ends = {"from": source[0], "from_port": source[1], "to": target[0], "to_port": target[1]}
        self.wires.append({**ends, **options})


def lags(program: Program) -> dict[str, int]:
    """Steps by which each node runs behind the input in Lava: the longest path, a synapse counting ``1 - delay``.

    Raises:
        ProgramError: a cycle whose delays are shorter than the cycle: no pipeline can run it.
    """
    lag = {program.input.name: 0, **{p.name: 0 for p in program.populations}}
    for _ in range(len(lag) + 1):
        late = [s for s in program.synapses if lag[s.source] + 1 - s.delay > lag[s.target]]
        if not late:
            return lag
        for synapse in late:
            lag[synapse.target] = max(lag[synapse.target], lag[synapse.source] + 1 - synapse.delay)
    raise ProgramError(
        "a recurrent loop is too short for Lava, where every synapse takes one step",
        where=", ".join(s.name for s in late),
        got="delays that add up to less than the number of synapses in the loop",
        allowed="at least one step of delay for each synapse in a loop",
        next_step="lengthen the delays, or run on the simulator",
    )


def request(
    program: Program,
    given: Stimulus,
    record: Collection[str],
    *,
    state: frozenset[str] = frozenset(),
    reset: bool = True,
    target: str = "lava",
) -> Request:
    """Lay a Program and its input out as Lava processes.

    Args:
        record: Names of the populations whose spikes are recorded.
        state: Names of the populations whose u and v are recorded.
        reset: Clear every population between samples.
        target: ``lava``, or ``loihi2``: the same processes, with adapters between the host's and the chip's.

    Raises:
        ProgramError: the program's loops are too short for Lava.
    """
    lag = lags(program)
    rows = given.samples * given.steps
    made = Request(steps=rows + max(lag.values()), state=state, target=target)
    _add_stream(made, program.input, given)
    _add_network(made, program, lag, given.steps if reset else 0, rows)
    for population in program.populations:
        if population.name in record:
            _add_sink(made, population, lag[population.name], rows)
    return made if target == "lava" else _with_adapters(made, program)


def network(program: Program, steps: int | None) -> Request:
    """A Program alone, without input and recordings: the wires that begin at its input are open.

    Args:
        steps: Steps a sample lasts; every population is cleared between samples. None: it never is.

    Raises:
        ProgramError: the program's loops are too short for Lava.
    """
    made = Request(steps=_FOREVER)
    _add_network(made, program, lags(program), steps or 0, 0)
    return made


def _add_network(made: Request, program: Program, lag: dict[str, int], period: int, rows: int) -> None:
    for population in program.populations:
        _add_population(made, population, lag[population.name], period, rows)
    for synapse in program.synapses:
        _add_synapse(made, program, synapse, lag, period)


def _with_adapters(made: Request, program: Program) -> Request:
    """Put an adapter into every wire that leads from the host's stream to the chip or from the chip to a sink."""
    kinds = {entry["name"]: entry for entry in made.processes}
    wires, made.wires = made.wires, []
    for wire in wires:
        inward, outward = wire["from"] == program.input.name, kinds[wire["to"]]["kind"] == "sink"
        if not (inward or outward):
            made.wires.append(wire)
            continue
        image, name = wire.get("to_image"), f"adapter:{wire['from']}:{wire['to']}"
        shape = list(reversed(image)) if image else [kinds[wire["from"]]["size"]]
        kind = ("PyToN3ConvAdapter" if image else "PyToNxAdapter") if inward else "NxToPyAdapter"
        bits = program.input.bits if inward and program.input.bits > 1 else 0
        made.processes.append({"kind": "adapter", "name": name, "adapter": kind, "shape": shape, "message_bits": bits})
        made.wire((wire["from"], wire["from_port"]), (name, "inp"), to_image=image)
        made.wire((name, "out"), (wire["to"], wire["to_port"]))
    return made


def _add_stream(made: Request, source: Input, given: Stimulus) -> None:
    frames = given.values if given.constant else given.values.swapaxes(0, 1)
    made.arrays[f"{source.name}.frames"] = np.ascontiguousarray(frames).reshape(-1, source.size)
    repeat = given.steps if given.constant else 1
    made.processes.append({"kind": "stream", "name": source.name, "size": source.size, "repeat": repeat})


def _add_population(made: Request, population: Population, lag: int, period: int, rows: int) -> None:
    """A LIFReset that clears itself at Lava step ``1 + lag``, and again every ``period`` steps if that is not 0."""
    made.arrays[f"{population.name}.bias_mant"] = population.bias_mant
    made.processes.append(
        {
            "kind": "lif",
            "name": population.name,
            "size": population.size,
            **{key: getattr(population, key) for key in _NEURON_SCALARS},
            "period": period or made.steps + 1,
            "offset": 1 + lag,
            "watch": population.name in made.state,
            "rows": rows,
            "skip": lag,
        }
    )


def _add_sink(made: Request, population: Population, lag: int, rows: int) -> None:
    name = PREFIX_SINK + population.name
    made.processes.append({"kind": "sink", "name": name, "size": population.size, "rows": rows, "skip": lag})
    made.wire((population.name, "s_out"), (name, "a_in"))


def _add_synapse(made: Request, program: Program, synapse: Synapse, lag: dict[str, int], period: int) -> None:
    source = program.node(synapse.source)
    entry = {
        "name": synapse.name,
        "weight_exp": synapse.weight_exp,
        "weight_bits": synapse.weight_bits,
        "sign_mode": synapse.sign_mode,
        "message_bits": source.bits if isinstance(source, Input) and source.bits > 1 else 0,
    }
    spikes = _delayed(made, source, synapse, lag, period)
    turned = isinstance(synapse, Conv) and _fits_lavas_conv(synapse)
    if isinstance(synapse, Conv):
        (_add_conv if turned else _add_conv_as_sparse)(made, entry, synapse, source.shape)
    else:
        made.arrays[f"{synapse.name}.weights"] = synapse.weights
        made.processes.append({"kind": "dense", **entry})
    image = list(source.shape) if turned else None
    made.wire(spikes, (synapse.name, "s_in"), to_image=image)
    made.wire((synapse.name, "a_out"), (synapse.target, "a_in"), from_image=turned)


def _delayed(
    made: Request, source: Input | Population, synapse: Synapse, lag: dict[str, int], period: int
) -> tuple[str, str]:
    """The port the synapse listens to: the source itself, or a delay line behind it."""
    wait = synapse.delay + lag[synapse.target] - lag[synapse.source] - 1
    if wait == 0 and synapse.delay == 0:
        return source.name, "s_out"
    name, start = f"delay:{synapse.name}", wait + lag[synapse.source]
    ends = range(max(period - synapse.delay, 0), period)
    silent = sorted((phase + start) % period for phase in ends)
    line = {"kind": "delay", "name": name, "size": source.size, "steps": wait, "start": start}
    made.processes.append({**line, "period": max(period, 1), "silent": silent})
    made.wire((source.name, "s_out"), (name, "s_in"))
    return name, "s_out"


def _fits_lavas_conv(conv: Conv) -> bool:
    """Lava's Conv ignores ``weight_exp`` (a positive one can be put into the weights) and has int8 fields."""
    largest = max(*conv.weights.shape[2:], *conv.stride, *conv.padding, *conv.dilation, conv.groups)
    return conv.weight_exp >= 0 and largest <= CONV_FIELD_MAX


def _add_conv(made: Request, entry: Entry, conv: Conv, shape: tuple[int, ...]) -> None:
    made.arrays[f"{conv.name}.weights"] = conv.weights
    geometry = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
    made.processes.append({"kind": "conv", **entry, "input_shape": shape, **geometry})


def _add_conv_as_sparse(made: Request, entry: Entry, conv: Conv, shape: tuple[int, ...]) -> None:
    rows, columns, weights = conv_connections(conv, shape)
    made.arrays.update({f"{conv.name}.rows": rows, f"{conv.name}.columns": columns, f"{conv.name}.weights": weights})
    size = [int(np.prod(conv.output_shape(shape))), int(np.prod(shape))]
    made.processes.append({"kind": "sparse", **entry, "shape": size})


def conv_connections(conv: Conv, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Every nonzero synapse of a Conv on a ``(C, H, W)`` source: target, source (flat, row-major) and weight.

    Returns:
        int32 targets, int32 sources, int16 weights, all ``[connections]``.
    """
    out_channels, out_height, out_width = conv.output_shape(shape)
    per_group = conv.weights.shape[1]
    margin = [(0, 0), *((pad, pad) for pad in conv.padding)]
    sources = np.pad(np.arange(np.prod(shape), dtype=np.int32).reshape(shape), margin, constant_values=-1)
    targets = np.arange(out_channels * out_height * out_width, dtype=np.int32).reshape(
        out_channels, out_height, out_width
    )
    parts = []
    for (o, c, ky, kx), weight in np.ndenumerate(conv.weights):
        if weight == 0:
            continue
        channel = o // (out_channels // conv.groups) * per_group + c
        top, left = ky * conv.dilation[0], kx * conv.dilation[1]
        seen = sources[channel, top :: conv.stride[0], left :: conv.stride[1]][:out_height, :out_width]
        inside = seen >= 0
        parts.append((targets[o][inside], seen[inside], np.full(int(inside.sum()), weight, np.int16)))
    if not parts:
        return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int16)
    rows, columns, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, columns, weights
