"""Every command of ``neurokd-deploy`` on a small run folder, as text and as JSON; every error on one screen."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import cli, reference, runfolder
from deploy import graph as nir
from deploy.backends import run as run_on
from deploy.errors import ProgramError, SpikesError
from deploy.graph.finding import Finding, Severity
from deploy.loihi import doctor as doctor_room
from deploy.loihi import install as install_room
from deploy.lower import lower
from deploy.runfolder import Samples

_SPEC = importlib.util.spec_from_file_location("cli_graphs", Path(__file__).with_name("graphs.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
g = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(g)
SCREEN = 24  # lines


@dataclass(frozen=True)
class Result:
    """What a command line left behind."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run ``neurokd-deploy`` in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["neurokd-deploy", *map(str, arguments)])
        try:
            code = cli.guarded(cli.app)
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def as_json(deploy: Cli) -> Callable[..., Any]:
    """Run a command with ``--json`` and parse what it prints."""

    def run(*arguments: object, code: int = 0) -> Any:
        result = deploy(*arguments, "--json")
        assert result.code == code, result.err
        assert result.err == ""
        return json.loads(result.out)

    return run


def network(**changes: Any) -> nir.Graph:
    weights = np.random.default_rng(0).integers(-9, 20, (6, 4)) * 2
    nodes = [
        g.affine("fc1", weights), g.lif("hidden", vth=30), g.affine("fc2", weights.T[:3]), g.lif("last", vth=25),
    ]  # fmt: skip
    return g.graph((4,), nodes, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder: a student, eight test samples with labels, and what the trained student sent."""
    run = tmp_path / "run"
    run.mkdir()
    nir.write(network(), run / runfolder.NIR)
    program = lower(network())
    spikes = np.random.default_rng(1).integers(0, 2, (6, 8, 4))
    trace = reference.run(program, spikes)
    runfolder.save_samples(run / runfolder.TEST_SPIKES, Samples(spikes, trace.predictions()))
    runfolder.save_layers(run / runfolder.STUDENT_SPIKES, dict(trace.spikes))
    assert 0 < trace.sat.mean() < 1
    return run


# --- what each command does ------------------------------------------------------------------------------------------


def test_check_finds_nothing_in_a_good_network(deploy: Cli, as_json: Callable[..., Any], folder: Path) -> None:
    assert as_json("check", folder) == []
    result = deploy("check", folder, "--chip", "loihi2")
    assert (result.code, result.out) == (0, f"nothing found: {folder} can go to loihi2\n")


def test_check_leaves_with_the_code_of_broken_rules(deploy: Cli, as_json: Callable[..., Any], folder: Path) -> None:
    findings = as_json("check", folder, "--chip", "toy", code=6)
    assert {finding["severity"] for finding in findings} == {"error"}
    assert any("weight width" in finding["what"] for finding in findings)
    text = deploy("check", folder, "--chip", "toy")
    assert text.code == 6
    assert len(text.out.splitlines()) == len(findings)


@pytest.mark.parametrize(
    ("severity", "fail_on", "code"),
    [
        ("error", "error", 6),
        ("warning", "error", 0),
        ("warning", "warning", 6),
        ("note", "warning", 0),
        ("note", "note", 6),
    ],
)
def test_check_leaves_by_the_severity_that_was_asked_for(
    deploy: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, severity: Severity, fail_on: str, code: int
) -> None:
    monkeypatch.setattr("deploy.check.check", lambda *a, **k: [Finding(severity, "fc1", "is so")])
    assert deploy("check", folder, "--fail-on", fail_on).code == code


def test_a_typed_error_is_json_where_json_was_asked_for(as_json: Callable[..., Any], tmp_path: Path) -> None:
    found = as_json("check", tmp_path / "no.nir", code=3)
    assert found["what"] == "there is no such file"
    assert "no.nir" in found["where"]


def test_check_takes_what_a_file_does_not_say(deploy: Cli, folder: Path) -> None:
    assert deploy("check", folder, "--dt", "0.5").code == 6
    assert "reset rule" in deploy("check", folder, "--reset", "subtract").out


def test_netx_files_are_written_read_and_run(
    deploy: Cli, as_json: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    written = deploy("netx", "write", folder, tmp_path / "a.net", "--round-biases")
    assert written.code == 0, written.err
    assert f"netx.hdf5.Network('{tmp_path / 'a.net'}', input_message_bits=0" in written.out
    assert "no bias had to be rounded" in written.out
    facts = as_json("netx", "write", folder, tmp_path / "a.net")
    assert facts["biases_rounded"] is False
    layers = as_json("netx", "read", tmp_path / "a.net", tmp_path / "program.npz")["layers"]
    assert [layer["shape"] for layer in layers] == [[6], [3]]
    assert "wrote" in deploy("netx", "read", tmp_path / "a.net", tmp_path / "program.npz").out
    again = as_json("run", tmp_path / "program.npz", "--spikes", folder / runfolder.TEST_SPIKES)
    ours = as_json("run", folder)
    assert again["spikes_per_sample"] == ours["spikes_per_sample"]
    assert again["accuracy"] == ours["accuracy"]


def test_several_neurons_a_class(deploy: Cli, as_json: Callable[..., Any], tmp_path: Path) -> None:
    nir.write(g.populated(), tmp_path / "p.nir")
    np.savez(tmp_path / "s.npz", spikes=g.ONE_EACH, labels=[1, 0], steps=6)
    given = ("--spikes", tmp_path / "s.npz")
    facts = as_json("run", tmp_path / "p.nir", *given, "--out", tmp_path / "t.npz")
    assert (facts["classes"], facts["neurons_per_class"], facts["accuracy"]) == (2, 4, 100.0)
    with np.load(tmp_path / "t.npz") as saved:
        assert saved["scores"].tolist() == [[6, 12], [12, 6]]
    verified = deploy("verify", tmp_path / "p.nir", *given, "--against", "reference,simulator")
    assert verified.code == 0, verified.err
    assert "2 classes of 4 output neurons each" in verified.out
    assert deploy("netx", "write", tmp_path / "p.nir", tmp_path / "p.net").code == 0
    for options, accuracy in ((), 100.0), (("--population", "1"), 0.0):
        as_json("netx", "read", tmp_path / "p.net", tmp_path / "p.npz", *options)
        assert as_json("run", tmp_path / "p.npz", *given)["accuracy"] == accuracy
    refused = deploy("netx", "read", tmp_path / "p.net", tmp_path / "p.npz", "--population", "3")
    assert refused.code == ProgramError.exit_code
    assert "population does not divide" in refused.err


def test_quantize_is_told_how_many_neurons_a_class_has(as_json: Callable[..., Any], tmp_path: Path) -> None:
    weights = np.array([[22, 12], [0, 12], [0, 12], [0, 12], [12, 22], [12, 0], [12, 0], [12, 0]]) / 20
    nodes = [nir.Affine("w", weights), nir.IF("cells", 1 / g.DT, v_threshold=1.0)]
    nir.write(g.graph((2,), nodes), tmp_path / "float.nir")
    np.savez(tmp_path / "s.npz", spikes=g.ONE_EACH, labels=[1, 0], steps=6)
    given = ("--spikes", tmp_path / "s.npz")
    for options, accuracy in ((("--population", "4"), 100.0), ((), 0.0)):
        found = as_json("verify", tmp_path / "float.nir", *given, "--against", "reference,simulator", *options)
        assert set(found["accuracy"].values()) == {found["switches"]["accuracy"]} == {accuracy}
        as_json("quantize", tmp_path / "float.nir", *given, "--out", tmp_path / "q.nir", *options)
        assert as_json("run", tmp_path / "q.nir", *given)["accuracy"] == accuracy


def test_run_counts_and_scores(deploy: Cli, as_json: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    facts = as_json("run", folder, "--out", tmp_path / "trace.npz")
    assert (facts["samples"], facts["steps"], facts["accuracy"], facts["target"]) == (8, 6, 100.0, "simulator")
    assert facts == {**as_json("run", folder, "--target", "reference"), "target": "simulator"}
    with np.load(tmp_path / "trace.npz") as saved:
        assert saved["counts"].shape == (8, 3)
        assert saved["spikes.last"].shape == (6, 8, 3)
    lines = deploy("run", folder, "--samples", "3").out.splitlines()
    assert "samples           3" in lines
    assert {line.split()[0] for line in lines} == set(facts)


def test_run_takes_one_frame_for_all_steps(as_json: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.ones((5, 4), np.uint8))
    facts = as_json("run", folder / runfolder.NIR, "--spikes", tmp_path / "frames.npy", "--steps", "9")
    assert (facts["samples"], facts["steps"]) == (5, 9)
    assert "accuracy" not in facts
    assert as_json("run", folder / runfolder.NIR, "--spikes", tmp_path / "frames.npy")["steps"] == 6  # the file's own


def test_run_on_lava_reports_no_counters(
    as_json: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for Lava, which counts no events: its figures are left out, not printed as zero."""

    def stand_in(program: Any, spikes: Any, *, target: str, steps: int | None) -> Any:
        assert target == "lava"
        trace = run_on(program, spikes, steps=steps)
        trace.counters.clear()
        return trace

    monkeypatch.setattr("deploy.backends.run", stand_in)
    facts = as_json("run", folder, "--target", "lava")
    assert set(facts) == {"target", "samples", "steps", "accuracy"}


def test_verify_compares_with_the_trained_student(deploy: Cli, as_json: Callable[..., Any], folder: Path) -> None:
    result = as_json("verify", folder, "--against", "reference,simulator", "--samples", "5")
    assert (result["equal"], result["base"]) == (True, "trained student")
    assert [c["name"] for c in result["comparisons"]] == ["re-read file", "reference", "simulator"]
    assert {c["samples"] for c in result["comparisons"]} == {5}
    text = deploy("verify", folder, "--against", "reference, simulator")
    assert "simulator: 8 samples x 6 steps" in text.out


def test_verify_without_the_students_spikes_compares_with_the_reference(
    as_json: Callable[..., Any], folder: Path
) -> None:
    spikes = folder / runfolder.TEST_SPIKES
    result = as_json("verify", folder / runfolder.NIR, "--spikes", spikes, "--against", "simulator")
    assert result["base"] == "reference"


def test_verify_names_a_difference_and_leaves_with_its_code(deploy: Cli, folder: Path) -> None:
    layers = runfolder.load_layers(folder / runfolder.STUDENT_SPIKES)
    layers["hidden"][2, 1, 3] ^= 1
    runfolder.save_layers(folder / runfolder.STUDENT_SPIKES, layers)
    result = deploy("verify", folder, "--against", "simulator")
    assert result.code == 9
    assert "layer hidden, sample 1, step 2, neuron 3" in result.err
    assert "1 spikes differ" in result.out


def test_map_shows_layers_and_cores(deploy: Cli, as_json: Callable[..., Any], folder: Path) -> None:
    assert as_json("map", folder)["chip"] == "loihi2"
    assert "hidden" in deploy("map", folder).out
    assert len(deploy("map", folder, "--cores").out.splitlines()) >= 2


def test_map_takes_chips_and_sharing_and_draws(deploy: Cli, as_json: Callable[..., Any], folder: Path) -> None:
    picture = folder / "map.png"
    assert as_json("map", folder, "--chips", "2", "--picture", picture)["chips_used"] == [1, 2]
    assert picture.read_bytes().startswith(b"\x89PNG")
    picture.unlink()
    result = deploy("map", folder, "--share")
    assert result.code != 0
    assert "cannot share a core" in result.err


def test_map_places_what_a_chip_has_other_formats_for(deploy: Cli, as_json: Callable[..., Any], folder: Path) -> None:
    """Cores are a matter of limits; what would have to be another number is said beside."""
    assert as_json("map", folder)["formats_that_differ"] == []
    found = as_json("map", folder, "--chip", "toy")
    assert any("weight width" in what for what in found["formats_that_differ"])
    assert "formats that toy does not have" in deploy("map", folder, "--chip", "toy").out


def test_profile_by_core_and_as_csv(as_json: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    result = as_json("profile", folder, "--by-core", "--csv", tmp_path / "profile.csv")
    assert all(core["exact"] for core in result["cores"])
    assert (tmp_path / "profile.csv").read_text().startswith("scope,name,figure")


def test_reports_are_compared_and_exported(as_json: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    (folder / "summary.json").write_text('{"accuracy": {"chip": 90.0}}')
    page, data = tmp_path / "both.html", tmp_path / "data.json"
    assert as_json("report", folder, folder, "--out", page, "--data", data) == {"report": str(page)}
    assert "Runs compared" in page.read_text(encoding="utf-8")
    assert json.loads(data.read_text())["summary.json"]["accuracy"]["chip"] == 90.0


def test_profile_gives_energy_and_a_page(
    deploy: Cli, as_json: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    facts = as_json("profile", folder, "--html", tmp_path / "profile.html", "--placed-on", "loihi2")
    assert facts["samples"] == 8
    assert "<html" in (tmp_path / "profile.html").read_text()
    assert "hidden" in deploy("profile", folder, "--samples", "2").out


def test_report_shows_what_is_there(deploy: Cli, as_json: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    (folder / "verify.json").write_text(json.dumps(as_json("verify", folder, "--against", "simulator")))
    assert as_json("report", folder) == {"report": str(folder / "report.html")}
    result = deploy("report", folder, "--out", tmp_path / "other.html")
    assert result.out == f"wrote {tmp_path / 'other.html'}\n"
    assert (tmp_path / "other.html").read_text() == (folder / "report.html").read_text()


def test_chips_lists_them_with_their_figures(deploy: Cli, as_json: Callable[..., Any]) -> None:
    assert {"loihi1", "loihi2", "toy"} <= {chip["name"] for chip in as_json("chips")}
    assert "loihi2" in deploy("chips").out


def test_chips_are_compared_and_explained(deploy: Cli) -> None:
    assert "(simulated)" in deploy("chips", "loihi1", "truenorth").out
    assert "limits.cores" in deploy("chips", "loihi1").out


def test_doctor_prints_every_check(deploy: Cli, as_json: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [doctor_room.Check("lava", False, "not there", "the oracle", "neurokd-deploy lava install")]
    monkeypatch.setattr(doctor_room, "doctor", lambda: checks)
    assert as_json("doctor") == [checks[0].to_json()]
    assert "neurokd-deploy lava install" in deploy("doctor").out


def test_lava_install_reports(as_json: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Report:
        @staticmethod
        def to_json() -> dict[str, str]:
            return {"lava-nc": "0.10.0"}

    monkeypatch.setattr(install_room, "install", Report)
    assert as_json("lava", "install") == {"lava-nc": "0.10.0"}


@pytest.mark.parametrize("command", [(), ("check",), ("run",), ("verify",), ("map",), ("profile",), ("report",)])
def test_help_is_there_for_every_command(deploy: Cli, command: tuple[str, ...]) -> None:
    result = deploy(*command, "--help")
    assert result.code == 0
    assert "--help" in result.out


# --- what each error looks like --------------------------------------------------------------------------------------


def cut(path: Path, share: float = 0.5) -> Path:
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * share)])
    return path


def not_hdf5(folder: Path) -> tuple[object, ...]:
    (folder / runfolder.NIR).write_text("no HDF5")
    return "run", folder


def cut_program(folder: Path) -> tuple[object, ...]:
    lower(network()).save(folder / "program.npz")
    return "map", cut(folder / "program.npz")


def cut_spikes(folder: Path) -> tuple[object, ...]:
    return "run", folder, "--spikes", cut(folder / runfolder.TEST_SPIKES)


def cut_layers(folder: Path) -> tuple[object, ...]:
    cut(folder / runfolder.STUDENT_SPIKES)
    return "verify", folder, "--against", "simulator"


def wrong_shape(folder: Path) -> tuple[object, ...]:
    np.save(folder / "wrong.npy", np.zeros((3, 2, 5), np.uint8))
    return "run", folder, "--spikes", folder / "wrong.npy"


def no_steps(folder: Path) -> tuple[object, ...]:
    np.save(folder / "wrong.npy", np.zeros((2, 4), np.uint8))
    return "run", folder, "--spikes", folder / "wrong.npy", "--steps", "-1"


def in_the_way(folder: Path) -> tuple[object, ...]:
    (folder / "file").write_text("")
    return "run", folder, "--out", folder / "file" / "trace.npz"


def report_in_the_way(folder: Path) -> tuple[object, ...]:
    (folder / "file").write_text("")
    (folder / "summary.json").write_text("{}")
    return "report", folder, "--out", folder / "file" / "report.html"


def wrong_chip_file(folder: Path) -> tuple[object, ...]:
    (folder / "mine.toml").write_text("schema = 1\nchip = 3\n")
    return "map", folder, "--chip", folder / "mine.toml"


def subtract(folder: Path) -> tuple[object, ...]:
    nir.write(network(reset="subtract"), folder / runfolder.NIR)
    return "run", folder


def wrong_labels(folder: Path) -> tuple[object, ...]:
    np.savez(folder / "wrong.npz", spikes=np.zeros((3, 2, 4), np.uint8), labels=np.arange(5))
    return "run", folder, "--spikes", folder / "wrong.npz"


ERRORS: dict[str, tuple[Callable[[Path], tuple[object, ...]], int, str]] = {
    "not HDF5": (not_hdf5, 4, "student.nir"),
    "truncated program": (cut_program, 4, "the program file cannot be read"),
    "truncated spikes": (cut_spikes, 4, "the spike file cannot be read"),
    "truncated layers": (cut_layers, 3, "the recorded spikes cannot be read"),
    "wrong shape": (wrong_shape, 4, "the spikes have the wrong shape"),
    "no steps": (no_steps, 4, "not positive"),
    "wrong labels": (wrong_labels, 2, "labels do not match"),
    "missing folder": (lambda folder: ("run", folder / "none"), 3, "there is no such file"),
    "empty folder": (lambda folder: ("check", folder.parent), 3, "there is no such file"),
    "no spikes": (lambda folder: ("run", folder / runfolder.NIR), 4, "no input spikes were given"),
    "missing spikes": (lambda folder: ("run", folder, "--spikes", "none.npy"), 4, "the spike file cannot be read"),
    "unknown chip": (lambda folder: ("run", folder, "--chip", "loihi3"), 3, "there is no chip"),
    "unknown severity": (lambda folder: ("check", folder, "--fail-on", "all"), 2, "no such severity"),
    "unknown chip to check": (lambda folder: ("check", folder, "--chip", "x"), 3, "there is no chip"),
    "damaged chip": (wrong_chip_file, 3, "mine.toml"),
    "unknown target": (lambda folder: ("run", folder, "--target", "silicon"), 2, "unknown target"),
    "unknown execution": (lambda folder: ("verify", folder, "--against", "silicon"), 9, "no such execution"),
    "nothing to compare": (lambda folder: ("verify", folder, "--against", ","), 9, "nothing is compared"),
    "out in the way": (in_the_way, 3, "cannot write the file"),
    "report in the way": (report_in_the_way, 3, "cannot write the file"),
    "report of nothing": (lambda folder: ("report", folder.parent / "none"), 3, "there is no run folder"),
    "rules": (subtract, 6, "not on the chip: reset rule"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors_fit_one_screen_and_leave_with_their_code(deploy: Cli, folder: Path, case: str) -> None:
    make, code, message = ERRORS[case]
    result = deploy(*make(folder))
    assert result.code == code
    assert message in result.err
    assert result.err.startswith("error:")
    assert len(result.err.splitlines()) <= SCREEN
    assert result.out == ""


@pytest.mark.parametrize(
    "arguments", [("run",), ("nonsense",), ("run", "x", "--samples", "0"), ("run", "x", "--steps", "many"), ("lava",)]
)
def test_what_the_command_line_does_not_know_is_a_usage_error(deploy: Cli, arguments: tuple[str, ...]) -> None:
    result = deploy(*arguments)
    assert result.code == 2
    assert "Usage" in result.err + result.out


def test_debug_lets_the_error_through(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["neurokd-deploy", "run", str(folder / runfolder.NIR), "--debug"])
    with pytest.raises(SpikesError):
        cli.guarded(cli.app)


def test_an_interruption_has_its_own_code(deploy: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deploy.backends.run", interrupted)
    result = deploy("run", folder)
    assert result.code == 130
    assert "Traceback" not in result.err


def test_as_a_program(folder: Path) -> None:
    """In a process of its own, as users start it: an answer, and an error without a traceback."""

    def process(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deploy.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    good = process("map", folder, "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["chip"] == "loihi2"
    bad = process("map", folder / "none")
    assert bad.returncode == 3
    assert bad.stderr.startswith("error:")
    assert "Traceback" not in bad.stderr


def test_rounded_biases_are_counted(deploy: Cli, as_json: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    program = runfolder.program_of(folder, "loihi2")
    fine = program.populations[0]
    fine = replace(fine, bias_mant=np.arange(fine.size), bias_exp=4)
    moved = tmp_path / "fine.npz"
    replace(program, populations=(fine, *program.populations[1:])).save(moved)
    refused = deploy("netx", "write", moved, tmp_path / "a.net")
    assert refused.code == 4
    assert f"of {fine.size} biases finer than 64" in refused.err
    assert "--round-biases" in refused.err
    written = deploy("netx", "write", moved, tmp_path / "a.net", "--round-biases")
    assert written.code == 0, written.err
    count = sum(value * 16 % 64 != 0 for value in range(fine.size))
    assert f"{fine.name}: {count} of {fine.size} biases moved by up to 32" in written.out
    facts = as_json("netx", "write", moved, tmp_path / "a.net", "--round-biases")
    assert facts["biases_moved"][fine.name] == {"moved": count, "of": fine.size, "by_up_to": 32}
