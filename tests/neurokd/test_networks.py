"""Teacher, assistant and student in one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurokd import networks
from neurokd.config import Config
from neurokd.demo import STAGES
from neurokd.pipeline import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    text = f'data = "digits"\nout = "{folder}"\n'
    text += '[networks]\nteacher = "64-32-10"\nassistant = "64-24-10"\nstudent = "64-16-10"\n'
    for role in ("teacher", "assistant", "student"):
        text += f"[training.{role}]\nepochs = 1\n"
    (folder / "given.toml").write_text(text + "[quantize]\nepochs = 1\n")
    made = Run(Config.load(folder / "given.toml"))
    for _, stage in STAGES:
        stage(made)
    return made


def test_every_network_is_measured_on_the_same_images(run: Run) -> None:
    networks.write(run)
    table = json.loads((Path(run.folder) / networks.NAME).read_text())
    found = {entry["name"]: entry for entry in table["networks"]}
    assert list(found) == ["teacher", "assistant", "student_plain", "quantized"]
    assert found["teacher"]["ann_macs"] == 64 * 32 + 32 * 10
    assert found["teacher"]["ann_energy_J"] == pytest.approx((64 * 32 + 320) * 4.6e-12)
    assert found["quantized"]["synops"] < found["teacher"]["synops"]
    assert found["quantized"]["accuracy"] == pytest.approx(run.facts("simulate")["accuracy"])
    updates = 26 * run.encoding.steps
    expected = (found["quantized"]["synops"] * 0.9 + updates * 4.6) * 1e-12
    assert found["quantized"]["ac_energy_J"] == pytest.approx(expected)


def test_a_teacher_that_does_not_fit_is_listed_without_figures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy.errors import RuleError

    def refuse(*_: object, **__: object) -> None:
        raise RuleError("does not fit")

    monkeypatch.setattr(networks, "to_integers", refuse)
    table = networks.write(run)
    teacher = table["networks"][0]
    assert (teacher["refused"], teacher["energy_J"]) == ("does not fit", None)
    assert teacher["accuracy"] == run.facts("teacher")["accuracy"]
    assert table["networks"][-1]["energy_J"] is not None
