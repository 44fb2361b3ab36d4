"""A fixed sample of what ``make parity`` does at length: simulator = reference = Lava, and the comparison itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy import reference, simulator
from deploy.edge_cases import EDGE, edge_case
from deploy.errors import ConfigError, NeurokdError
from deploy.loihi.client import Job, run_jobs, worker_info
from deploy.testing import Case, Kinds, differences, random_case
from deploy.trace import Trace


def simulated(case: Case, *, reset: bool = True) -> Trace:
    return simulator.run(
        case.program, case.spikes, steps=case.given_steps, record="all", record_state="all",
        reset_between_samples=reset, threads=1,
    )  # fmt: skip


@pytest.mark.parametrize("block", range(4))
def test_edge_programs_equal_the_reference(block: int) -> None:
    for seed in range(block * 30, block * 30 + 30):
        case, reset = edge_case(seed), bool(seed % 3)
        expected = reference.run(case.program, case.spikes, reset_between_samples=reset)
        assert differences(expected, simulated(case, reset=reset)) == [], f"seed {seed}"


@pytest.mark.parametrize("block", range(8))
def test_random_programs_equal_the_reference(block: int) -> None:
    """300 programs beside those of test_simulator; every third carries its state over."""
    for seed in range(20_000 + block * 38, 20_000 + block * 38 + 38):
        case, reset = random_case(seed), bool(seed % 3)
        expected = reference.run(case.program, case.spikes, steps=case.given_steps, reset_between_samples=reset)
        assert differences(expected, simulated(case, reset=reset)) == [], f"seed {seed}"


def test_edge_programs_really_reach_the_edges() -> None:
    """±2^23 of the current and its neighbours, both ends of the membrane, and the threshold exactly and by one."""
    traces = [(case, simulated(case)) for case in map(edge_case, range(30))]
    u = np.concatenate([state.ravel() for _, trace in traces for state in trace.u.values()])
    v = np.concatenate([state.ravel() for _, trace in traces for state in trace.v.values()])
    above = [
        trace.v[p.name].ravel() - (p.vth << 6) for case, trace in traces for p in case.program.populations if p.spiking
    ]
    assert {EDGE, EDGE - 1, 1 - EDGE} <= set(u.tolist())
    assert {EDGE - 1, EDGE - 2, 1 - EDGE, 2 - EDGE} <= set(v.tolist())
    assert {-1, 0} <= set(np.concatenate(above).tolist())
    assert sum(trace.wraps for _, trace in traces) > 1000
    assert sum(trace.saturations for _, trace in traces) > 1000


def test_random_programs_have_every_kind_in_them() -> None:
    cases = [random_case(seed) for seed in range(300)]
    populations = [p for case in cases for p in case.program.populations]
    synapses = [s for case in cases for s in case.program.synapses]
    assert {p.reset for p in populations} == {"zero", "subtract"}
    assert {p.spiking for p in populations} == {True, False}
    assert {0, 1, 2, 5} <= {p.refractory for p in populations}
    assert {0, 4095} <= {p.du for p in populations} & {p.dv for p in populations}
    assert {0, 131071} <= {p.vth for p in populations}
    assert {-4096, 4095} <= {int(n) for p in populations for n in p.bias_mant}
    assert set(range(8)) <= {p.bias_exp for p in populations}
    assert set(range(-8, 8)) <= {s.weight_exp for s in synapses}
    assert {(bits, mode) for bits in range(1, 9) for mode in ("mixed", "excitatory", "inhibitory")} <= {
        (s.weight_bits, s.sign_mode) for s in synapses
    }
    assert {0, 1, 3, 7} <= {s.delay for s in synapses}
    assert any(case.program.output is not case.program.populations[-1] for case in cases)
    convs = [s for s in synapses if hasattr(s, "groups")]
    assert any(c.groups > 1 for c in convs)
    assert any(c.weights.shape[2] != c.weights.shape[3] for c in convs)
    assert any(c.source == c.target for c in convs)
    assert {1, 2, 3} <= {n for c in convs for n in c.stride}
    assert {1, 2} <= {n for c in convs for n in c.dilation}
    assert {0, 1, 2} <= {n for c in convs for n in c.padding}


def test_every_difference_is_seen() -> None:
    """A comparison that cannot fail proves nothing: change one value of each kind."""
    case = next(c for c in map(edge_case, range(50)) if not c.program.output.spiking)
    trace = simulated(case)
    name = case.program.output.name
    assert differences(trace, simulated(case)) == []

    def changed(array: np.ndarray) -> np.ndarray:
        other = array.copy()
        other.flat[-1] += 1
        return other

    assert trace.membranes is not None
    counter = trace.counters[name]
    wrong = {
        f"{name}.spikes: 1 values": replace(trace, spikes={**trace.spikes, name: changed(trace.spikes[name])}),
        f"{name}.u: 1 values": replace(trace, u={**trace.u, name: changed(trace.u[name])}),
        f"{name}.v: 1 values": replace(trace, v={**trace.v, name: changed(trace.v[name])}),
        "counts: 1 values": replace(trace, counts=changed(trace.counts)),
        "membranes: 1 values": replace(trace, membranes=changed(trace.membranes)),
        f"membranes: {trace.membranes.size} values": replace(trace, membranes=None),
        "input_events: 1 values": replace(trace, input_events=changed(trace.input_events)),
        f"{name} counter wraps": replace(
            trace, counters={**trace.counters, name: replace(counter, wraps=changed(counter.wraps))}
        ),
    }
    for what, other in wrong.items():
        assert differences(trace, other) == [what]
    assert "u: recorded [] instead of" in differences(trace, replace(trace, u={}))[0]


@pytest.fixture(scope="module")
def lava() -> None:
    try:
        worker_info()
    except NeurokdError as error:
        pytest.skip(f"no Lava in the worker's interpreter: {error.what}; run `neurokd-deploy lava install`")


def compare_with_lava(cases: Sequence[Case]) -> None:
    resets = [bool(n % 3) for n in range(len(cases))]
    jobs = [
        Job(c.program, c.spikes, c.given_steps, "all", "all", reset) for c, reset in zip(cases, resets, strict=True)
    ]
    traces = run_jobs(jobs)
    for number, (case, reset, trace) in enumerate(zip(cases, resets, traces, strict=True)):
        assert differences(trace, simulated(case, reset=reset)) == [], f"case {number}"


@pytest.mark.lava
@pytest.mark.usefixtures("lava")
def test_random_programs_equal_lava() -> None:
    """All layers' spikes, u and v, in one start of the worker; every third carries its state over."""
    compare_with_lava([random_case(seed, Kinds(short_loops=False)) for seed in range(10_000, 10_015)])


@pytest.mark.lava
@pytest.mark.usefixtures("lava")
def test_edge_programs_equal_lava() -> None:
    compare_with_lava([edge_case(seed) for seed in range(10_000, 10_005)])


def test_the_long_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished blocks are not run again by the same code; other code runs them anew; a difference is an exit code."""
    from benchmarks import parity, rows

    ran: list[parity.Block] = []

    def stand_in(block: parity.Block) -> tuple[list[str], float]:
        ran.append(block)
        return (["seed 3: out.v: 1 values", "seed 3: counts: 1 values"] if block.kind == wrong else []), 2.0

    class Here:
        """An executor that runs at once, in this process."""

        def __init__(self, _: int) -> None: ...
        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, task: Callable[..., object], *given: object) -> Future[object]:
            future: Future[object] = Future()
            future.set_result(task(*given))
            return future

    monkeypatch.setattr(parity, "run_block", stand_in)
    monkeypatch.setattr(parity, "ProcessPoolExecutor", Here)
    wrong, asked = "", ["--reference", "700", "--reference-edges", "0", "--lava", "30", "--lava-edges", "10"]
    assert parity.main([*asked, "--out", str(tmp_path)]) == 0
    assert [(b.against, b.first, b.count) for b in ran] == [
        ("Lava", 0, 25), ("Lava", 25, 5), ("Lava", 0, 10), ("reference", 0, 500), ("reference", 500, 200),
    ]  # fmt: skip
    assert parity.main([*asked, "--out", str(tmp_path)]) == 0
    assert len(ran) == 5
    figures = {(row["case"], row["metric"]): row for row in rows.read(tmp_path)["parity"]}
    assert figures["simulator = reference", "programs compared"]["value"] == 700
    assert figures["simulator = reference", "programs compared"]["met"] is False
    assert figures["simulator = Lava", "differing programs"]["met"] is True
    assert figures["simulator = Lava", "programs a second, one process"]["value"] == pytest.approx(40 / 6, abs=0.01)

    monkeypatch.setattr(parity, "code", lambda: "other")
    wrong = "edge"
    assert parity.main([*asked, "--out", str(tmp_path)]) == 1
    assert len(ran) == 10
    figures = {(row["case"], row["metric"]): row for row in rows.read(tmp_path)["parity"]}
    assert figures["simulator = Lava", "differing programs"]["value"] == 1
    assert "seed 3: out.v" in str([row["value"] for key, row in figures.items() if key[1] == "differences"])
    with pytest.raises(ConfigError, match="workers must be positive"):
        parity.main(["--workers", "0", "--out", str(tmp_path)])


def test_a_block_of_the_long_run_compares_for_real() -> None:
    from benchmarks import parity

    assert parity.run_block(parity.Block("reference", "random", 0, 4))[0] == []
    assert parity.run_block(parity.Block("reference", "edge", 0, 4))[0] == []
    assert len(parity.code()) == 12
