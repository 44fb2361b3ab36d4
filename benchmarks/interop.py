"""NIR files between neurokd and the tools that write and read them, each run in its own environment beside ours.

    python -m benchmarks.interop --envs FOLDER --repos FOLDER

``--envs`` holds ``env-norse/bin/python`` and so on (docs/interop.md says what to install); ``--repos`` holds clones
named ``owner+name``. Three directions: *from*: the tool's own modules, written by the tool's own exporter, read and run
by us; *to*: every node in our convention, read and run by the tool; *published*: the files in public repositories.
Everything is compared output by output; figures go to benchmarks/results/interop.json, the matrix to docs/interop.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.interop_cases import PUBLISHED, Published, example, graphs, shape_of
from benchmarks.interop_page import write_page
from benchmarks.rows import Row
from benchmarks.rows import versions as our_versions
from benchmarks.rows import write as write_rows
from deploy import graph as nir
from deploy.errors import NeurokdError
from deploy.float_model import FloatTrace, run
from deploy.reading import READINGS, Reading

WORKER: Final = Path(__file__).with_name("interop_worker.py")
ENVIRONMENTS: Final = {
    "snntorch": "env-nirtorch", "norse": "env-norse", "sinabs": "env-sinabs", "spikingjelly": "env-spikingjelly",
    "rockpool": "env-rockpool", "snntorch 0.9.4": "env-snntorch-0.9.4",
    "nengo": "env-nengo", "lava-dl": "env-lava-dl",
}  # fmt: skip
TOLERANCE: Final = 1e-5
"""Graded outputs of float32 sums of some hundred terms of size 1; a spike may flip where a membrane is this near."""


@dataclass(frozen=True)
class Way:
    """How a tool's own files are read: the reading, and what they do not say."""

    how: Reading | str
    dt: float | None = None
    reset: str | None = None


FROM: Final[Mapping[str, Mapping[str, Way]]] = {
    "snntorch": {"": Way("snntorch", None, "zero"), "LIF, default reset": Way("snntorch", None, "late-subtract"),
                 "recurrent CubaLIF": Way("snntorch", None, "late-zero")},
    "norse": {"": Way("norse", 1e-6, "zero"), "IF": Way("norse", None, "zero")},
    "sinabs": {"": Way(replace(READINGS["sinabs"], floor=False), 1.0, "subtract")},
    "spikingjelly": {"": Way("spikingjelly", None, "zero"), "LIF": Way("spikingjelly", 1e-4, "zero"),
                     "LIF, v_reset": Way("spikingjelly", None, "value")},
    "rockpool": {"": Way("rockpool", 1e-3, "subtract")},
    "nengo": {"": Way("nengo", None, "zero")},
    "lava-dl": {"": Way("lava-dl", None, "zero")},
}  # fmt: skip


@dataclass
class Job:
    """One thing to ask of a framework, and what we make of the same."""

    direction: str
    framework: str
    case: str
    nir: Path
    x: Path
    out: Path
    do: str
    way: Way
    truth: Path | None = None
    answer: dict[str, Any] = field(default_factory=dict)

    def asked(self, number: int) -> dict[str, Any]:
        """The job as the worker reads it."""
        return {
            "id": str(number), "do": self.do, "case": self.case, "nir": str(self.nir), "x": str(self.x),
            "out": str(self.out), "dt": self.way.dt or 1e-4, "reset": self.way.reset or "zero",
        }  # fmt: skip


def tool(framework: str) -> str:
    """The framework without its version."""
    return framework.split()[0]


def ask(python: Path, framework: str, jobs: list[Job], folder: Path) -> dict[str, str]:
    """Run the worker on the jobs of one framework; answers go into the jobs, versions come back."""
    (folder / "jobs.json").write_text(json.dumps([job.asked(n) for n, job in enumerate(jobs)]))
    done = subprocess.run(
        [str(python), "-I", str(WORKER), framework, str(folder / "jobs.json"), str(folder / "answers.json")],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{framework}: {done.stderr[-2000:]}")
    found = json.loads((folder / "answers.json").read_text())
    for number, job in enumerate(jobs):
        job.answer = found["answers"][str(number)]
    versions: dict[str, str] = found["versions"]
    return versions


def cases(python: Path, framework: str) -> list[str]:
    """Names of the framework's own modules."""
    done = subprocess.run(
        [str(python), "-I", str(WORKER), framework, "--cases"], capture_output=True, text=True, timeout=300, check=True
    )
    names: list[str] = json.loads(done.stdout.splitlines()[-1])["cases"]
    return names


def jobs_of(framework: str, python: Path, folder: Path, repos: Path | None) -> Iterator[Job]:
    """Everything to ask of one framework."""
    for case in cases(python, framework):
        way = FROM[tool(framework)].get(case, FROM[tool(framework)][""])
        yield _job("from", framework, case, folder, "export", way, example(shape_of(case)))
    for name, graph in graphs().items():
        job = _job(
            "to", framework, name, folder, "run", Way("euler", graph.dt, graph.reset), example(graph.inputs[0].shape)
        )
        nir.write(graph, job.nir)
        yield job
        if (rewritten := _rewritten(graph, tool(framework))) is not None:
            again = _job("to", framework, f"{name}; written for it", folder, "run", job.way, np.load(job.x))
            again.truth = job.nir
            nir.write(rewritten, again.nir)
            yield again
    for file in PUBLISHED if repos is not None else ():
        if tool(framework) in file.frameworks and repos is not None:
            way = Way(tool(framework), file.dt, file.reset)
            x = example(file.shape, file.steps)
            job = _job("published", framework, f"{file.repo}: {file.path}", folder, "run", way, x)
            job.nir.write_bytes(content(repos, file))
            yield job
            if framework == "rockpool":
                yield replace(job, case=f"{job.case}; modules by hand", do="by hand", answer={},
                              out=job.out.with_name("by hand.npy"))  # fmt: skip


def _rewritten(graph: nir.Graph, name: str) -> nir.Graph | None:
    """The graph as :func:`deploy.graph.for_tool` writes it; None where that changes nothing or is refused."""
    try:
        made = nir.for_tool(graph, name)
    except NeurokdError:
        return None
    return None if made == graph else made


def _job(direction: str, framework: str, case: str, folder: Path, do: str, way: Way, x: Any) -> Job:
    stem = folder / "".join(c if c.isalnum() else "_" for c in f"{direction} {framework} {case}")
    np.save(stem.with_suffix(".x.npy"), x)
    return Job(
        direction, framework, case, stem.with_suffix(".nir"), stem.with_suffix(".x.npy"), stem.with_suffix(".out.npy"),
        do, way,
    )  # fmt: skip


def content(repos: Path, file: Published) -> bytes:
    """The file at the head of its repository's clone."""
    clone = repos / file.repo.replace("/", "+")
    clone = clone / "repo" if (clone / "repo").is_dir() else clone
    done = subprocess.run(["git", "-C", str(clone), "show", f"HEAD:{file.path}"], capture_output=True, check=True)
    return done.stdout


# Comparison -------------------------------------------------------------------------------------------------------


def judged(job: Job) -> str:
    """What came of a job, in words that the matrix shows."""
    if job.answer["error"]:
        side = "the tool cannot write it" if job.do == "export" else "the tool refuses it"
        ours = "" if job.do == "export" else _refused(job)
        return f"{side}: {job.answer['error'][:160]}" + (f"; neurokd: {ours}" if ours else "")
    try:
        trace = _ours(job, job.way.how)
    except NeurokdError as error:
        return f"refused by neurokd: {error.what}" + (f" ({error.got})" if error.got else "")
    theirs = np.load(job.out).astype(np.float64)
    verdict = compared(trace, theirs)
    if job.direction != "to" or verdict.startswith(("exact", "tolerance")):
        return verdict
    try:
        own = compared(_ours(job, tool(job.framework)), theirs)
    except NeurokdError:
        return verdict
    return (
        f"{verdict}; {own} when neurokd reads it {tool(job.framework)}'s way"
        if own.startswith(("exact", "tol"))
        else verdict
    )


def _refused(job: Job) -> str:
    try:
        _ours(job, job.way.how)
    except NeurokdError as error:
        return f"refuses it too ({error.what})"
    return "reads and runs it"


def _ours(job: Job, how: Reading | str) -> FloatTrace:
    graph = nir.read(job.truth or job.nir, dt=job.way.dt, reset=None if job.direction == "to" else job.way.reset)
    return run(graph, np.load(job.x), how=how)


def compared(trace: FloatTrace, theirs: Any) -> str:
    """``exact``, ``tolerance`` with its size, or what differs."""
    ours = trace.outputs[trace.output]
    if theirs.shape != ours.shape:
        if theirs.size != ours.size:
            return f"differs: the tool gives the shape {list(theirs.shape)}, the file says {list(ours.shape)}"
        theirs = theirs.reshape(ours.shape)
    if trace.output not in trace.spiking:
        largest = float(np.abs(ours - theirs).max())
        return "exact" if largest == 0 else _graded(largest, float(np.abs(ours).max()))
    wrong = ours != theirs
    if not wrong.any():
        return f"exact: {int(ours.sum())} spikes"
    share = (
        f"{int(wrong.sum())} of {wrong.size} outputs differ ({int(ours.sum())} spikes, {int(theirs.sum())} in the tool)"
    )
    return (
        f"tolerance: {share}, first at a membrane within {TOLERANCE:g} of its threshold"
        if _at_threshold(trace, wrong)
        else f"differs: {share}"
    )


def _graded(largest: float, size: float) -> str:
    near = largest <= TOLERANCE * max(1.0, size)
    return f"tolerance: {largest:.1e} of {size:.3g}" if near else f"differs: by up to {largest:.3g} of {size:.3g}"


def _at_threshold(trace: FloatTrace, wrong: Any) -> bool:
    """Whether each sample's first difference in the output is a membrane at its threshold (float32 decides there)."""
    membrane, threshold = trace.charged[trace.output], trace.threshold[trace.output]
    levels = np.maximum(np.round(membrane / threshold), 1.0) if trace.reading.spikes == "many" else 1.0
    margin = np.abs(membrane - levels * threshold)
    flat, near = (a.reshape(*wrong.shape[:2], -1) for a in (wrong, margin <= TOLERANCE))
    for sample in np.flatnonzero(flat.any(axis=(0, 2))):
        step = int(np.argmax(flat[:, sample].any(axis=1)))
        if not near[step, sample][flat[step, sample]].all():
            return False
    return True


def main() -> None:
    """Ask every framework that is there, write the rows and the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", type=Path, required=True, help="folder with env-norse, env-sinabs, ...")
    parser.add_argument("--repos", type=Path, help="folder with clones named owner+name")
    parser.add_argument("--only", help="one framework")
    options = parser.parse_args()
    for framework, name in ENVIRONMENTS.items():
        python = options.envs / name / "bin" / "python"
        if not python.exists() or options.only not in (None, framework):
            print(f"{framework}: not run ({python} is {'there' if python.exists() else 'not there'})")
            continue
        with tempfile.TemporaryDirectory() as folder:
            write_rows("interop", rows_of(framework, python, Path(folder), options.repos))
    write_page()


def rows_of(framework: str, python: Path, folder: Path, repos: Path | None) -> list[Row]:
    """One row a job."""
    jobs = list(jobs_of(framework, python, folder, repos))
    ours = {f"neurokd's {name}": version for name, version in our_versions("nir", "numpy").items() if name != "python"}
    versions = {**ask(python, framework, jobs, folder), **ours}
    rows = []
    for job in jobs:
        verdict = judged(job)
        print(f"{framework:13}{job.direction:10}{job.case:50} {verdict}", flush=True)
        rows.append(
            Row(
                case=f"{framework}: {job.case}", metric=job.direction, value=verdict, seed=0, versions=versions,
                command="python -m benchmarks.interop --envs FOLDER --repos FOLDER",
            )
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
