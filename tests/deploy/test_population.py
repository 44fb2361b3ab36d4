"""Several output neurons a class: the answer is the class whose neurons spike most together, wherever it is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import float_model, lower, reference, runfolder, simulator
from deploy import graph as nir
from deploy.check import check
from deploy.early_exit import early_exit
from deploy.errors import GraphError, ProgramError, SimulatorError, VerifyError
from deploy.program import Program
from deploy.ptq import quantize
from deploy.testing import differences
from deploy.trace import Trace, by_class, concatenate
from deploy.verify_chain import chain
from deploy.verify_switch import switches
from tests.deploy.graphs import DT, ONE_EACH, affine, graph, integrator, populated

STEPS, ANSWERS, LABELS = 6, [1, 0], np.array([1, 0])
PER_CLASS = [[6, 12], [12, 6]]
SMALL: dict[str, Any] = {"against": ("reference", "simulator")}


def ran(program: Program, run: Any = simulator.run, **options: Any) -> Trace:
    trace: Trace = run(program, np.broadcast_to(ONE_EACH, (STEPS, 2, 2)), **options)
    return trace


# The graph and its file -------------------------------------------------------------------------------------------


def test_a_file_says_how_many_neurons_a_class_has(tmp_path: Path) -> None:
    original = populated()
    nir.write(original, tmp_path / "p.nir")
    again = nir.read(tmp_path / "p.nir")
    assert again == original
    assert again.settings.population == 4
    assert nir.from_nir(nir.to_nir(original)).settings.population == 4


def test_one_neuron_a_class_is_not_written_and_one_is_what_silence_means() -> None:
    plain, one = populated(population=None), populated(population=1)
    assert plain == one
    assert one.settings.population is None
    assert "population" not in nir.to_nir(one).metadata["neurokd"]
    program = lower(one)
    assert "population" not in program.meta
    assert (program.population, program.classes) == (1, 8)
    assert ran(program).predictions().tolist() == [0, 4]


@pytest.mark.parametrize("wrong", [0, -4, "2", 2.0, True, float("nan")])
def test_settings_take_whole_numbers_above_0(wrong: Any) -> None:
    with pytest.raises(GraphError, match="'population' is out of range") as caught:
        nir.RunSettings(population=wrong)
    assert caught.value.got == repr(wrong)


def test_settings_take_numpys_integers_as_pythons() -> None:
    population: Any = nir.RunSettings(population=np.int64(4)).population  # type: ignore[arg-type]
    assert type(population) is int


@pytest.mark.parametrize("wrong", [0, "2", 2.5, [2, 2]])
def test_files_with_other_values_are_refused(wrong: Any) -> None:
    made = nir.to_nir(populated())
    made.metadata["neurokd"]["population"] = wrong
    with pytest.raises(GraphError, match="population"):
        nir.from_nir(made)


def test_the_outputs_neurons_must_be_shareable(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="'population' does not divide") as caught:
        populated(population=3)
    assert "'out'" in str(caught.value.where)
    assert caught.value.got == "8 neurons, population 3"
    made = nir.to_nir(populated())
    made.metadata["neurokd"]["population"] = 3
    nir.write(populated(), tmp_path / "p.nir")
    with pytest.raises(GraphError, match="'population' does not divide"):
        nir.from_nir(made)


# The program and its file -----------------------------------------------------------------------------------------


def test_a_program_keeps_it_through_lowering_and_its_file(tmp_path: Path) -> None:
    program = lower(populated())
    assert program.meta["population"] == 4
    program.save(tmp_path / "p.npz")
    again = Program.load(tmp_path / "p.npz")
    assert (again.population, again.classes) == (4, 2)
    assert again.meta == program.meta
    assert again.digest == program.digest == lower(populated(population=None)).digest


def test_a_program_file_holds_no_population_of_one(tmp_path: Path) -> None:
    program = lower(populated(population=None))
    for population in (1, np.int64(1), None):
        replace(program, meta={"population": population, "steps": 6}).save(tmp_path / "p.npz")
        assert Program.load(tmp_path / "p.npz").meta == {"steps": 6}
    replace(program, meta={"population": np.int64(2)}).save(tmp_path / "p.npz")
    assert Program.load(tmp_path / "p.npz").meta == {"population": 2}


@pytest.mark.parametrize("wrong", [0, -1, "2", 2.0, True])
def test_a_program_takes_whole_numbers_above_0(wrong: Any) -> None:
    with pytest.raises(ProgramError, match="population is out of range") as caught:
        replace(lower(populated()), meta={"population": wrong})
    assert caught.value.got == repr(wrong)


def test_a_programs_output_must_be_shareable() -> None:
    ten = lower(graph((2,), [affine("w", np.full((10, 2), 2)), integrator("cells")]))
    with pytest.raises(ProgramError, match="population does not divide") as caught:
        replace(ten, meta={"population": 3})
    assert (caught.value.where, caught.value.got) == ("cells", "10 neurons, population 3")
    assert replace(ten, meta={"population": 5}).classes == 2


# Runs -------------------------------------------------------------------------------------------------------------


def test_the_answer_is_the_class_and_not_the_busiest_neuron() -> None:
    trace = ran(lower(populated()))
    assert trace.counts.argmax(axis=1).tolist() == [0, 4]
    assert trace.counts.shape == (2, 8)
    assert trace.scores.tolist() == PER_CLASS
    assert trace.predictions().tolist() == ANSWERS
    assert trace.accuracy(LABELS) == 100.0


def test_membranes_of_readouts_are_added_up_too() -> None:
    program = lower(populated(spiking=False))
    for run in (simulator.run, reference.run):
        trace = ran(program, run)
        assert trace.membranes is not None
        assert trace.membranes.argmax(axis=1).tolist() == [0, 4]
        assert (trace.scores // 64).tolist() == [[6 * 22, 6 * 48], [6 * 48, 6 * 22]]
        assert trace.predictions().tolist() == ANSWERS


def test_every_way_to_run_gives_the_same_classes() -> None:
    program = lower(populated())
    wanted = ran(program, reference.run)
    traces = [
        ran(program, record="all", record_state="all"), ran(program, reset_between_samples=False),
        ran(program, record_as="bits"),
        *simulator.stream(program, [ONE_EACH], steps=STEPS),
        concatenate([simulator.run(program, ONE_EACH[n : n + 1], steps=STEPS) for n in range(2)]),
    ]  # fmt: skip
    assert differences(wanted, traces[0]) == []
    for trace in (wanted, *traces):
        assert (trace.population, trace.predictions().tolist()) == (4, ANSWERS)


def test_traces_that_count_classes_differently_are_told_apart_and_not_joined() -> None:
    trace = ran(lower(populated()))
    other = replace(trace, population=2)
    assert differences(trace, other) == ["population: 1 values"]
    with pytest.raises(SimulatorError, match="only runs of one program"):
        concatenate([trace, other])


def test_ties_go_to_the_lowest_class() -> None:
    trace = replace(ran(lower(populated())), counts=np.array([[0, 2, 1, 1], [1, 0, 0, 3]]), population=2)
    assert trace.predictions().tolist() == [0, 1]


@pytest.mark.parametrize("wrong", [0, 3, "2", True, 2.0])
def test_sums_by_class_need_a_divisor(wrong: Any) -> None:
    with pytest.raises(SimulatorError, match="cannot be shared out among classes") as caught:
        by_class(np.zeros((2, 8), np.int64), wrong)
    assert caught.value.got == f"8 neurons, population {wrong!r}"


def test_the_float_network_answers_by_class() -> None:
    for spiking in (True, False):
        trace = float_model.run(populated(spiking=spiking), ONE_EACH)
        assert trace.population == 4
        assert trace.scores.shape == (2, 2)
        assert trace.predictions().tolist() == ANSWERS
        assert trace.accuracy(LABELS) == 100.0


def test_a_saved_trace_holds_scores_by_class(tmp_path: Path) -> None:
    runfolder.save_trace(tmp_path / "t.npz", ran(lower(populated())))
    with np.load(tmp_path / "t.npz") as saved:
        assert saved["scores"].tolist() == PER_CLASS
        assert (int(saved["population"]), saved["predictions"].tolist()) == (4, ANSWERS)
    runfolder.save_trace(tmp_path / "one.npz", ran(lower(populated(population=None))))
    with np.load(tmp_path / "one.npz") as saved:
        np.testing.assert_array_equal(saved["scores"], saved["counts"])
        assert "population" not in saved


def test_early_exit_compares_classes() -> None:
    program = lower(populated())
    found = early_exit(program, ran(program), LABELS, margins=(1, 3, 7))
    # After steps 1..6 the wrong class has 1, 2, 3, ... spikes, the right one 0, 4, 4, 8, 8, 12.
    assert found.accuracy == (0.0, *[100.0] * 5)
    assert [(rule.margin, rule.steps) for rule in found.exits] == [(None, 6.0), (1, 1.0), (3, 4.0), (7, 6.0)]


def test_by_default_a_class_of_several_neurons_may_be_further_ahead() -> None:
    for population, largest in ((4, 32), (None, 8)):
        program = lower(populated(population=population))
        assert early_exit(program, ran(program), LABELS).exits[-1].margin == largest


# Verifying and quantizing -----------------------------------------------------------------------------------------


def test_every_execution_of_the_chain_answers_by_class() -> None:
    student = populated()
    trained = ran(lower(student), record="all").spikes
    report = chain(
        student, ONE_EACH, against=("reference", "simulator"), float_source=student, trained=dict(trained),
        labels=LABELS, steps=STEPS,
    )  # fmt: skip
    assert report.equal
    assert [run.predictions.tolist() for run in report.executions] == [ANSWERS] * 6
    assert set(report.accuracy.values()) == {100.0}
    assert "an answer is one of 2 classes of 4 output neurons each" in str(report)
    assert "output neurons each" not in str(chain(lower(populated(population=None)), ONE_EACH, steps=STEPS, **SMALL))


def test_a_float_file_that_does_not_say_is_read_as_the_program_says() -> None:
    silent, other = populated(population=None), populated(population=2)
    report = chain(populated(), ONE_EACH, against=("reference",), float_source=silent, labels=LABELS, steps=STEPS)
    assert report.accuracy["float student"] == 100.0
    with pytest.raises(VerifyError, match="another number of output neurons a class") as caught:
        chain(populated(), ONE_EACH, against=("reference",), float_source=other, steps=STEPS)
    assert (caught.value.got, caught.value.allowed) == ("2", "4")


def floating(population: int | None = 4) -> nir.Graph:
    """The same network without its grid."""
    weights = np.array([[22, 12], [0, 12], [0, 12], [0, 12], [12, 22], [12, 0], [12, 0], [12, 0]]) / 20
    nodes = [nir.Affine("w", weights), nir.IF("cells", 1 / DT, v_threshold=1.0)]
    made = graph((2,), nodes)
    return replace(made, settings=nir.RunSettings(steps=STEPS, population=population))


@pytest.mark.parametrize("given", [None, 4])
def test_quantizing_keeps_the_files_population_or_takes_the_one_given(given: int | None) -> None:
    source = floating(None if given else 4)
    result = quantize(source, ONE_EACH, population=given)
    assert result.graph.settings.population == result.program.population == 4
    assert result.losses.same_answer == 100.0
    assert ran(result.program).predictions().tolist() == ANSWERS


def test_quantizing_counts_the_same_answers_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chip's answers, turned round, are 0 % of the float network's, whichever neurons are busiest."""
    predictions = Trace.predictions
    monkeypatch.setattr(Trace, "predictions", lambda trace: 1 - predictions(trace))
    assert quantize(floating(), ONE_EACH).losses.same_answer == 0.0


def test_quantizing_refuses_a_population_that_does_not_divide() -> None:
    with pytest.raises(GraphError, match="'population' does not divide"):
        quantize(floating(None), ONE_EACH, population=3)


def test_switches_answer_by_class() -> None:
    quantized = quantize(floating(), ONE_EACH).graph
    found = switches(floating(), quantized, ONE_EACH, labels=LABELS, steps=STEPS)
    assert found.accuracy == 100.0
    assert {switch.accuracy for switch in found.switches} == {100.0}


def test_check_names_a_population_that_does_not_divide(tmp_path: Path) -> None:
    import h5py

    nir.write(populated(), tmp_path / "p.nir")
    with h5py.File(tmp_path / "p.nir", "r+") as file:
        del file["node/metadata/neurokd/population"]
        file["node/metadata/neurokd/population"] = 3
    errors = [finding for finding in check(tmp_path / "p.nir", "loihi2") if finding.severity == "error"]
    assert len(errors) == 1
    assert "'population' does not divide" in str(errors[0])
