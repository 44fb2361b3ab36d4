"""The same network through SANA-FE (GPL, a process of its own) and through our profile, event for event.

SANA-FE gets our Program, our placement and our chip file's constants; it simulates the spikes again by itself. Inputs
stand on a host tile of their own beside the mesh, which costs nothing: ours enter at their destination.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy import simulator
from deploy.chip import Chip, load_chip
from deploy.errors import DataError
from deploy.place import place
from deploy.placement import Placement
from deploy.profile import Profile, profile
from deploy.program import Conv, Dense, Program, Synapse

PYTHON = "NEUROKD_SANAFE_PYTHON"
CHIP = "loihi1_sanafe"
WORKER = Path(__file__).with_name("sanafe_worker.py")
FAR = -1e30  # a reverse threshold nothing reaches


@dataclass(frozen=True)
class Comparison:
    """Both sides of one network: name of an event or figure to (SANA-FE, ours)."""

    name: str
    counts: dict[str, tuple[float, float]]
    energy: tuple[float, float]
    latency: tuple[float, float]
    placement: Placement


def interpreter() -> str:
    """SANA-FE's Python.

    Raises:
        DataError: it is not set.
    """
    found = os.environ.get(PYTHON, "")
    if not found or not Path(found).is_file():
        raise DataError(
            "SANA-FE's Python is not known",
            got=found or "nothing",
            allowed="the interpreter of an environment with SANA-FE",
            next_step=f"python3 -m venv ENV; ENV/bin/pip install sanafe; export {PYTHON}=ENV/bin/python",
        )
    return found


def compare(name: str, program: Program, spikes: npt.NDArray[np.uint8], timing: str = "simple") -> Comparison:
    """Run plain spikes ``[T, B, *shape]`` on both sides."""
    chip = load_chip(CHIP)
    placement = place(program, chip)
    ours = profile(
        program, simulator.run(program, spikes, record="all", record_state="all"), chip, placement, spikes=spikes
    )
    theirs = _sanafe(program, chip, placement, spikes, timing)
    samples = len(theirs)

    def total(key: str) -> float:
        return sum(sum(sample["perf"][key]) for sample in theirs) / samples

    hops = [sum(sample["hops"][k] for sample in theirs) / samples for k in (0, 1)]
    host = [sum(sample["input_hops"][k] for sample in theirs) / samples for k in (0, 1)]
    mine = {event.event: event.count for event in ours.events}
    entering = ours.layers[0].spikes.mean or 0.0
    synops = mine["synop"] + mine.get("synop_conv", 0.0)
    counts = {
        "spikes": (total("fired") - entering, ours.spikes.mean or 0.0),
        "synaptic operations": (total("spikes"), synops),
        "spike messages": (sum(sample["messages"] for sample in theirs) / samples, mine["axon_in"]),
        "hops east-west": (hops[0], mine["hop_east_west"]),
        "hops north-south": (hops[1], mine["hop_north_south"]),
        "neurons updated": (total("updated") - entering, touched(program, spikes) / samples),
    }
    theirs_energy = total("total_energy") - 1e-12 * (
        host[0] * chip.energy.hop_east_west + host[1] * chip.energy.hop_north_south
    )
    energy = (theirs_energy, _with_idle_tail(ours, program, chip))
    return Comparison(name, counts, energy, (total("sim_time"), ours.latency.mean or 0.0), placement)


def touched(program: Program, spikes: npt.NDArray[np.uint8]) -> int:
    """Neurons SANA-FE calls updated: membrane not zero before the step, or an event in it; until the pipeline is empty.

    Ours are the neurons whose state is not zero after the step, while their layer works: a neuron that decays to zero
    in the step, or whose weights cancel, is idle to us, and so is a layer that has done all its steps.
    """
    deepest = max(program.depth.values())
    longer = np.concatenate([spikes, np.zeros((deepest, *spikes.shape[1:]), np.uint8)])
    trace = simulator.run(program, longer, record="all", record_state="all")
    found = 0
    for population in program.populations:
        steps = len(longer) - program.depth[population.name]
        membrane = trace.v[population.name].reshape(len(longer), spikes.shape[1], -1)
        busy = np.zeros(membrane.shape, bool)
        busy[1:] = membrane[:-1] != 0
        for block in program.incoming(population.name):
            source = longer if block.source == program.input.name else trace.spikes[block.source]
            pairs = _pairs(program, block)[0]
            events = source.reshape(*membrane.shape[:2], -1)[:, :, pairs[:, 0]]
            hit = np.zeros((population.size, *membrane.shape[:2]), bool)
            np.logical_or.at(hit, pairs[:, 1], np.moveaxis(events, 2, 0) != 0)
            busy |= np.moveaxis(hit, 0, 2)
        found += int(busy[:steps].sum())
    return found


def _with_idle_tail(ours: Profile, program: Program, chip: Chip) -> float:
    """Our energy, with the idle updates of the steps in which the pipeline fills and empties, which SANA-FE sees."""
    extra = (ours.pipeline - ours.steps) * program.neurons * chip.energy.neuron_inactive * 1e-12
    return (ours.energy.mean or 0.0) + extra


def _sanafe(
    program: Program, chip: Chip, placement: Placement, spikes: npt.NDArray[np.uint8], timing: str
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="neurokd-sanafe-") as folder:
        files = [Path(folder) / name for name in ("arch.yaml", "network.npz", "out.json")]
        files[0].write_text(architecture(chip), encoding="utf-8")
        np.savez(files[1], **_network(program, placement, spikes, timing))
        done = subprocess.run(
            [interpreter(), "-I", str(WORKER), *map(str, files)], capture_output=True, text=True, timeout=900
        )
        if done.returncode or not files[2].exists():
            tail = "\n".join((done.stderr or done.stdout).splitlines()[-12:])
            raise DataError("SANA-FE failed", where=WORKER.name, got=tail or f"exit code {done.returncode}")
        found: list[dict[str, Any]] = json.loads(files[2].read_text(encoding="utf-8"))
        return found


def _network(
    program: Program, placement: Placement, spikes: npt.NDArray[np.uint8], timing: str
) -> dict[str, npt.NDArray[Any]]:
    """Places, connections and input spikes as arrays; a core's index in SANA-FE's order of tiles."""
    assert placement.mesh is not None
    columns, rows, per_tile = placement.mesh
    deepest = max(program.depth.values())
    arrays: dict[str, npt.NDArray[Any]] = {"spikes": spikes.reshape(*spikes.shape[:2], -1)}
    host = columns * rows * per_tile
    arrays["core.in"] = host + np.arange(program.input.size) // 1024
    layers: list[dict[str, Any]] = [{"name": "in", "size": program.input.size, "quiet": deepest}]
    for population in program.populations:
        where = np.zeros(population.size, np.int64)
        for core in placement.of(population.name):
            tile, within = divmod(core.number, per_tile)
            row, column = divmod(tile, columns)
            mask = next(part for part in core.parts if part.layer == population.name).mask(population)
            where[mask] = (column * rows + row) * per_tile + within
        arrays[f"core.{population.name}"] = where
        convolved = any(isinstance(s, Conv) for s in program.incoming(population.name))
        attributes = {
            "threshold": float(population.vth),
            "reset": 0.0,
            "reset_mode": "hard",
            "reverse_threshold": FAR,
            "reverse_reset_mode": "none",
            "leak_decay": (4096 - population.dv) / 4096,
            "input_decay": 0.0,
            "bias": 0.0,
        }
        synapse = "loihi_conv_synapse" if convolved else "loihi_dense_synapse"
        layers.append({"name": population.name, "size": population.size, "attributes": attributes, "synapse": synapse})
    blocks = []
    for synapse_block in program.synapses:
        pairs, weights = _pairs(program, synapse_block)
        arrays[f"pairs.{synapse_block.name}"], arrays[f"weights.{synapse_block.name}"] = pairs, weights
        source = "in" if synapse_block.source == program.input.name else synapse_block.source
        blocks.append({"name": synapse_block.name, "source": source, "target": synapse_block.target})
    facts = {
        "layers": layers,
        "synapses": blocks,
        "samples": int(spikes.shape[1]),
        "steps": int(spikes.shape[0]) + deepest,
        "timing": timing,
        "mesh_rows": rows,
    }
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    return arrays


def _pairs(program: Program, synapse: Synapse) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Every nonzero connection ``[n, 2]`` (source, target) with its weight."""
    if isinstance(synapse, Dense):
        targets, sources = np.nonzero(synapse.weights)
        return np.stack([sources, targets], axis=1), synapse.weights[targets, sources] * 2.0**synapse.weight_exp
    channels, rows, columns = program.node(synapse.source).shape
    outputs, out_rows, out_columns = program.node(synapse.target).shape
    found: list[tuple[npt.NDArray[Any], ...]] = []
    o, i, ky, kx = np.nonzero(synapse.weights)
    value = synapse.weights[o, i, ky, kx]
    group = o // (outputs // synapse.groups)
    channel = group * synapse.weights.shape[1] + i
    for y in range(out_rows):
        for x in range(out_columns):
            r = y * synapse.stride[0] + ky * synapse.dilation[0] - synapse.padding[0]
            c = x * synapse.stride[1] + kx * synapse.dilation[1] - synapse.padding[1]
            inside = (r >= 0) & (r < rows) & (c >= 0) & (c < columns)
            source = (channel * rows + r) * columns + c
            target = (o * out_rows + y) * out_columns + x
            found.append((source[inside], target[inside], value[inside]))
    sources, targets, weights = (np.concatenate([part[k] for part in found]) for k in range(3))
    return np.stack([sources, targets], axis=1), weights * 2.0**synapse.weight_exp


def architecture(chip: Chip) -> str:
    """Our chip file as SANA-FE's architecture, with one more column of tiles for a host that costs nothing."""
    limits = chip.limits
    tiles = limits.mesh_columns * limits.mesh_rows
    table = [(tiles_used + 1, 1e-9 * time) for tiles_used, time in chip.time.barrier]
    sync = ", ".join(f"{int(tiles_used)}: {time:.6e}" for tiles_used, time in table)
    hosts = limits.mesh_rows
    return f"""architecture:
  name: ours
  attributes:
    topology: mesh
    width: {limits.mesh_columns + 1}
    height: {limits.mesh_rows}
    link_buffer_size: 16
    sync_model: table
    latency_sync: {{ {sync} }}
  tile:
{_tile(chip, f"chip[0..{tiles - 1}]", limits.cores_per_tile, 1.0)}
{_tile(chip, f"host[0..{hosts - 1}]", limits.cores_per_tile, 0.0)}
"""


def _tile(chip: Chip, name: str, cores: int, factor: float) -> str:
    """One kind of tile; ``factor`` 0 makes it a host, whose work costs nothing."""
    energy, time = chip.energy, chip.time

    def joule(value: float) -> str:
        return f"{factor * value * 1e-12:.6e}"

    def second(value: float) -> str:
        return f"{factor * value * 1e-9:.6e}"

    hops = "\n".join(
        f"        energy_{side}_hop: {value * 1e-12:.6e}\n        latency_{side}_hop: {latency * 1e-9:.6e}"
        for side, value, latency in (
            ("north", energy.hop_north_south, time.hop_north_south),
            ("south", energy.hop_north_south, time.hop_north_south),
            ("east", energy.hop_east_west, time.hop_east_west),
            ("west", energy.hop_east_west, time.hop_east_west),
        )
    )
    synapses = "\n".join(
        f"""            - name: {unit}
              attributes:
                model: current_based
                energy_process_spike: {joule(cost)}
                latency_process_spike: {second(spent)}"""
        for unit, cost, spent in (
            ("loihi_dense_synapse", energy.synop, time.synop),
            ("loihi_conv_synapse", energy.synop_conv, time.synop_conv),
        )
    )
    return f"""    - name: {name}
      attributes:
{hops}
      core:
        - name: core[0..{cores - 1}]
          attributes:
            buffer_position: soma
            buffer_inside_unit: false
            max_neurons_supported: 1024
          axon_in:
            - name: in
              attributes:
                energy_message_in: {joule(energy.axon_in)}
                latency_message_in: {second(time.axon_in)}
          soma:
            - name: loihi_lif
              attributes:
                model: leaky_integrate_fire
                energy_access_neuron: {joule(energy.neuron_inactive)}
                latency_access_neuron: {second(time.neuron_inactive)}
                energy_update_neuron: {joule(energy.neuron_active - energy.neuron_inactive)}
                latency_update_neuron: {second(time.neuron_active - time.neuron_inactive)}
                energy_spike_out: {joule(energy.spike_generate)}
                latency_spike_out: {second(time.spike_generate)}
            - name: loihi_inputs[0..1023]
              attributes:
                model: input
                energy_access_neuron: 0.0
                latency_access_neuron: 0.0
                energy_update_neuron: 0.0
                latency_update_neuron: 0.0
                energy_spike_out: 0.0
                latency_spike_out: 0.0
          dendrite:
            - name: dendrites
              attributes:
                model: accumulator
                energy_update: 0.0
                latency_update: 0.0
          synapse:
{synapses}
          axon_out:
            - name: out
              attributes:
                energy_message_out: {joule(energy.axon_out)}
                latency_message_out: {second(time.axon_out)}"""
