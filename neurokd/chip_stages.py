"""The chip side of a run: export, lower, simulate the whole test set, verify, profile, report.

Equality is measured against what was trained: the quantized student's own spikes. The simulator and the network that
the ``.nir`` file gives back are compared with it on every test image, the reference interpreter and Lava on the first
``lava.samples`` of them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from typing import Final

import numpy as np
import torch

from deploy import rules, simulator
from deploy.chip import load_chip
from deploy.errors import VerifyError
from deploy.files import read_json, write_json
from deploy.lower import lower
from deploy.place import place
from deploy.profile import profile
from deploy.program import Program
from deploy.report import accuracy_by_stage, activity_by_layer, energy_by_event, render, spike_raster
from deploy.runfolder import NIR, PROGRAM, STUDENT_SPIKES, TEST_SPIKES, Samples, save_layers, save_samples
from deploy.trace import Trace, by_class, concatenate
from deploy.verify import compare, verify
from neurokd import networks
from neurokd.energy import ENERGY_CHIP
from neurokd.export import export
from neurokd.feed import Batch, Feed
from neurokd.from_nir import from_nir
from neurokd.pipeline import Facts, Run
from neurokd.progress import ProgressEvent
from neurokd.quantized import QuantizedNetwork

RECORDED_SAMPLES: Final = 256
BATCH: Final = 500
PACKAGES: Final = ("neurokd", "numpy", "numba", "nir", "torch", "snntorch", "lava-nc")
Layers = dict[str, np.ndarray]


def export_student(run: Run) -> Facts:
    """Write ``student.nir``, the encoded test images and the quantized student's own spikes."""
    return run.stage("export", lambda: _export(run))


def _export(run: Run) -> Facts:
    network = run.quantized()
    graph = export(network, run.folder / NIR, run.encoding.kind)
    spikes = run.encoding.encode(run.data.test.images, np.arange(len(run.data.test)))
    shape = tuple(network.spec.input_shape)
    lead = spikes.shape[:1] if run.encoding.kind == "direct" else spikes.shape[:2]
    steps = run.encoding.steps if run.encoding.kind == "direct" else None
    save_samples(run.folder / TEST_SPIKES, Samples(spikes.reshape(*lead, *shape), run.data.test.labels, steps))
    first = next(_recorded(network, run, min(RECORDED_SAMPLES, len(run.data.test))))
    save_layers(run.folder / STUDENT_SPIKES, first[1])
    return {"nodes": [node.name for node in graph.nodes], "bytes": (run.folder / NIR).stat().st_size}


def _recorded(network: QuantizedNetwork, run: Run, size: int) -> Iterator[tuple[Batch, Layers]]:
    """Every test image in order: the batch and each layer's spikes ``[T, B, *shape]``, uint8."""
    steps = run.encoding.steps if run.encoding.kind == "direct" else None
    network.eval()
    for batch in Feed(run.data.test, run.encoding).in_order(size=size):
        with torch.no_grad():  # not around the yield: two such generators at once would leave gradients off
            out = network(batch.inputs, steps, record=True)
        assert isinstance(out, tuple)
        yield batch, {name: spikes.to(torch.uint8).numpy() for name, spikes in out[1].items()}


def lower_student(run: Run) -> Facts:
    """Read ``student.nir`` again, lower it, check the chip's rules, place it on cores."""
    return run.stage("lower", lambda: _lower(run))


def _lower(run: Run) -> Facts:
    program = lower(run.folder / NIR, run.config.chip)
    program.save(run.folder / PROGRAM)
    placement = place(program, run.config.chip)
    write_json(run.folder / "placement.json", placement.to_json())
    findings = rules.check(program, load_chip(run.config.chip))
    return {
        "program": program.digest,
        "neurons": program.neurons,
        "synapses": int(sum(np.count_nonzero(s.weights) for s in program.synapses)),
        "cores": len(placement.cores),
        "findings": [finding.as_dict() for finding in findings],
    }


def simulate_test_set(run: Run) -> Facts:
    """The whole test set on the integer simulator, compared with the trained student layer by layer."""
    return run.stage("simulate", lambda: _simulate(run))


def _simulate(run: Run) -> Facts:
    program = Program.load(run.folder / PROGRAM)
    student, again = run.quantized(), from_nir(run.folder / NIR)
    assert isinstance(again, QuantizedNetwork)
    differing, traces = {"nir": 0, "simulator": 0}, []
    batches = zip(_recorded(student, run, BATCH), _recorded(again, run, BATCH), strict=True)
    for done, ((batch, trained), (_, reread)) in enumerate(batches, start=1):
        trace = simulator.run(program, _integers(batch, run, program), steps=run.encoding.steps, record="all")
        differing["nir"] += compare(program, trained, "nir", reread).differing_spikes
        differing["simulator"] += compare(program, trained, "simulator", trace.spikes).differing_spikes
        traces.append(_without_spikes(trace))
        run.progress(ProgressEvent("simulate", "images", done, -(-len(run.data.test) // BATCH)))
    whole = concatenate(traces)
    return {
        **_profile(run, program, whole),
        "accuracy": whole.accuracy(run.data.test.labels),
        "samples": whole.samples,
        "differing_spikes": differing,
        "wraps": whole.wraps,
        "saturations": whole.saturations,
    }


def _integers(batch: Batch, run: Run, program: Program) -> np.ndarray:
    integers = torch.round(batch.inputs * run.encoding.levels).to(torch.uint8).numpy()
    lead = integers.shape[:1] if run.encoding.kind == "direct" else integers.shape[:2]
    return integers.reshape(*lead, *program.input.shape)


def _without_spikes(trace: Trace) -> Trace:
    return replace(trace, spikes={})


def _profile(run: Run, program: Program, trace: Trace) -> Facts:
    """Write ``profile.json`` and its plots; gives ``activity`` and ``modelled``."""
    result = profile(program, trace, ENERGY_CHIP, place(program, run.config.chip))
    write_json(run.folder / "profile.json", result.to_json())
    activity_by_layer(
        {x.name: (x.spikes.mean or 0.0, x.synops.mean or 0.0) for x in result.layers[1:]}, run.folder / "activity.png"
    )
    energy_by_event(
        {e.to_json()["label"]: e.energy for e in result.events}, run.folder / "energy.png", chip=result.chip_title
    )
    return result.summary()


def verify_student(run: Run, *, with_lava: bool = True) -> Facts:
    """The proof of equality on the first ``lava.samples`` test images: reference, simulator and Lava.

    Raises:
        VerifyError: a spike differs.
        LavaMissing, WorkerError: from Lava.
    """
    if with_lava and run.done("verify") and "lava" not in run.facts("verify")["differing_spikes"]:
        run.forget("verify")  # an earlier run left Lava out
    return run.stage("verify", lambda: _verify(run, with_lava))


def _verify(run: Run, with_lava: bool) -> Facts:
    program = Program.load(run.folder / PROGRAM)
    count = min(run.config.lava.samples, len(run.data.test))
    batch, trained = next(_recorded(run.quantized(), run, count))
    again = from_nir(run.folder / NIR)
    assert isinstance(again, QuantizedNetwork)
    reread = next(_recorded(again, run, count))[1]
    against = ("reference", "simulator", *(("lava",) if with_lava else ()))
    result = verify(
        program, _integers(batch, run, program), against=against, trained=trained, recorded={"nir": reread},
        steps=run.encoding.steps,
    )  # fmt: skip
    write_json(run.folder / "verify.json", result.to_json())
    spike_raster(
        run.data.test.images[0], {name: spikes[:, 0] for name, spikes in trained.items()}, run.folder / "raster.png",
        label=int(run.data.test.labels[0]), population=program.population,
        prediction=int(by_class(trained[program.output.name][:, 0].sum(0).reshape(-1), program.population).argmax()),
    )  # fmt: skip
    result.raise_if_different()
    return {"samples": count, "differing_spikes": {c.name: c.differing_spikes for c in result.comparisons}}


def report(run: Run) -> Facts:
    """``summary.json``, the plots and ``report.html``, from what the stages left; gives the summary.

    Raises:
        VerifyError: the simulator or the re-read file differed from the trained student on the test set.
    """
    summary = summarize(run)
    write_json(run.folder / "summary.json", summary)
    networks.write(run)
    accuracy_by_stage(summary["accuracy"], run.folder / "accuracy.png")
    render(run.folder)
    broken = {name: n for name, n in summary["equality"]["differing_spikes"].items() if n}
    if broken:
        raise VerifyError(
            "what runs on the chip is not what was trained",
            where=run.folder / "verify.json",
            got=", ".join(f"{name}: {n} spikes differ" for name, n in broken.items()),
            allowed="0 differing spikes",
        )
    return summary


def summarize(run: Run) -> Facts:
    """The figures of a finished run, as ``summary.json`` holds them."""
    simulated, verified = run.facts("simulate"), run.facts("verify")
    trained = {name: run.facts(name) for name in ("teacher", "assistant", "student_plain", "student", "quantized")}
    differing = {**verified["differing_spikes"]}
    for name, count in simulated["differing_spikes"].items():
        differing[name] = differing.get(name, 0) + count
    accuracy = {name: facts["accuracy"] for name, facts in trained.items()}
    return {
        "data": run.config.data,
        "title": run.data.title,
        "seed": run.config.seed,
        "accuracy": {**accuracy, "chip": simulated["accuracy"]},
        "equality": {
            "samples": verified["samples"],
            "samples_simulated": simulated["samples"],
            "differing_spikes": {name: differing.get(name) for name in ("nir", "reference", "simulator", "lava")},
            "wraps": simulated["wraps"],
            "saturations": simulated["saturations"],
        },
        "activity": simulated["activity"],
        "modelled": simulated["modelled"],
        "networks": {n: {k: f[k] for k in ("spec", "parameters")} for n, f in trained.items() if "spec" in f},
        "chip": {"name": run.config.chip, **{k: run.facts("lower")[k] for k in ("cores", "neurons", "synapses")}},
        "seconds": {p.stem: read_json(p)["seconds"] for p in sorted((run.folder / "stages").glob("*.json"))},
        "versions": versions(),
        "dataset": run.data.facts(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of what the figures depend on; packages that are absent are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
