"""The report: what a run folder holds is shown, what it lacks is named, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import reference, simulator
from deploy.errors import FileError
from deploy.lower import lower
from deploy.place import place
from deploy.profile import Profile, profile
from deploy.program import Dense, Input, Population, Program
from deploy.report import accuracy_by_stage, render, views
from deploy.report.explore import explore
from deploy.report.render import FIGURES, PARTS, compare, export, page
from deploy.runfolder import Samples, samples_of, save_samples
from tests.deploy.graphs import ONE_EACH, populated

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Checks that tags balance; collects text, attributes and rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.text += " " + data
        if self.open and self.rows and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].strip().startswith(first))


def net() -> Program:
    layers = (
        Population("hidden", (20,), 4095, 0, 31, np.zeros(20, np.int16)),
        Population("out", (3,), 4095, 0, 31, np.zeros(3, np.int16)),
    )
    first = Dense("a", "in", "hidden", np.full((20, 4), 32, np.int16))
    return Program(Input("in", (4,), 4), layers, (first, Dense("b", "hidden", "out", np.full((3, 20), 32, np.int16))))


@pytest.fixture(scope="module")
def profiled() -> Profile:
    spikes = np.random.default_rng(0).integers(0, 2, (6, 5, 4))
    return profile(net(), reference.run(net(), spikes), "loihi1", place(net(), "loihi2"))


def summary(profiled: Profile) -> dict[str, Any]:
    return {
        "data": "digits",
        "seed": 7,
        "accuracy": {
            "teacher": 98.5,
            "assistant": 98.2,
            "student_plain": 97.0,
            "student": 98.1,
            "quantized": 98.0,
            "chip": 98.0,
        },
        "equality": {"samples": 32, "differing_spikes": {"nir": 0, "reference": 0, "simulator": 0, "lava": None}},
        "seconds": {"teacher": 12.3, "distill": 4.0, "total": 16.3},
        "versions": {"python": "3.11.7", "numpy": "2.0"},
        **profiled.summary(),
    }


def comparison(name: str, differing: int, first: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "name": name,
        "samples": 32,
        "steps": 6,
        "spikes": 1234,
        "differing": {"hidden": differing},
        "differing_spikes": differing,
        "first_difference": first,
    }


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    accuracy_by_stage({"chip": 98.0}, path)
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path, profiled: Profile, picture: bytes) -> Path:
    """A complete run folder."""
    run = tmp_path / "digits"
    run.mkdir()
    first = {"layer": "hidden", "sample": 2, "step": 5, "neuron": 11, "expected": 1, "got": 0}
    parts = {
        "summary": summary(profiled),
        "profile": profiled.to_json(),
        "placement": place(net(), "loihi2").to_json(),
        "verify": {
            "base": "trained student",
            "comparisons": [comparison("nir", 0, None), comparison("lava", 3, first)],
        },
    }
    for name, part in parts.items():
        (run / f"{name}.json").write_text(json.dumps(part))
    (run / "config.toml").write_text('[student]\nspec = "4-20-3"  # <small>\n')
    for name in FIGURES:
        (run / name).write_bytes(picture)
    net().save(run / "program.npz")
    spikes = np.random.default_rng(0).integers(0, 2, (6, 30, 4)).astype(np.uint8)
    save_samples(run / "test_spikes.npz", Samples(spikes, np.arange(30) % 3))
    return run


def rendered(folder: Path) -> Page:
    return Page(render(folder).read_text(encoding="utf-8"))


def test_a_complete_run_is_shown_whole(folder: Path) -> None:
    shown = rendered(folder)
    assert "Not in this report" not in shown.text
    for heading in ("Proof of equality", "Accuracy by stage", "Energy and latency", "On the chip", "Configuration"):
        assert heading in shown.text
    assert "98.00 %" in shown.text
    assert "-0.10 points to the float student" in shown.text
    assert shown.row("nir")[1:5] == ["32", "6", "1,234", "0"]
    assert "layer hidden, sample 2, step 5, neuron 11: 0 instead of 1" in shown.row("lava")[0]
    assert shown.row("lava")[5] == "differs"
    assert 'spec = "4-20-3"  # <small>' in shown.text


def test_figures_are_tagged_and_cited(folder: Path, profiled: Profile) -> None:
    shown = rendered(folder)
    energy = shown.row("dynamic energy a sample")
    assert energy[6] == "modelled"
    assert energy[2] != ""
    assert "Davies et al. 2018" in energy[7]
    assert shown.row("spikes a sample")[6] == "counted"
    assert shown.row("active neuron updates")[3] == "81 pJ"
    assert shown.row("spike messages sent")[3] == "not published"
    assert all(line in shown.text for line in profiled.ignored)


def test_the_chip_shows_used_and_maximum(folder: Path) -> None:
    shown = rendered(folder)
    assert "2 of 128 cores of loihi2" in shown.text
    hidden = next(row for row in shown.rows if row[0] == "hidden" and "of 8,192" in row[2])
    assert hidden[2] == "20of 8,192"
    assert hidden[4] == "4unpublished"


def test_layers_that_share_a_core_are_shown(folder: Path) -> None:
    shared = place(net(), "loihi1", share=True)
    assert len(shared.cores) == 1
    (folder / "placement.json").write_text(json.dumps(shared.to_json()))
    shown = rendered(folder)
    assert "Not in this report" not in shown.text
    for layer in ("hidden", "out"):
        assert next(row for row in shown.rows if row[0] == layer and "of 1,024" in row[2])[1] == "1"


def test_spikes_and_operations_by_step_are_two_charts_of_one_colour_a_layer(profiled: Profile) -> None:
    shown = views.timeline(profiled.to_json())
    spikes, synops = shown["svgs"]
    assert [entry["number"] for entry in shown["legend"]] == [0, 1, 2]
    assert 'polyline class="s0"' in spikes
    assert 'polyline class="s0"' not in synops  # the input does no synaptic operations
    assert all(f'polyline class="s{k}"' in chart for chart in (spikes, synops) for k in (1, 2))


def test_the_page_loads_nothing(folder: Path) -> None:
    html = render(folder).read_text(encoding="utf-8")
    outside = [link for link in Page(html).links if not link.startswith(("#", "data:"))]
    assert outside == []
    assert not re.search(r"https?://|<script src|@import|url\(|fetch\(|XMLHttpRequest|import\(", html)
    assert len(re.findall(r'src="data:image/png;base64,', html)) == len(FIGURES)


@pytest.mark.parametrize("name", [*PARTS, *FIGURES])
def test_a_missing_part_is_named_and_the_rest_shown(folder: Path, name: str) -> None:
    (folder / name).unlink()
    shown = rendered(folder)
    assert f"{name}  is not there" in shown.text
    assert PARTS.get(name, "") in shown.text
    assert shown.text.count(" is not there") == 1
    assert "Configuration" in shown.text


@pytest.mark.parametrize("name", [part for part in PARTS if part.endswith(".json")])
@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"layers": 3, "comparisons": [{}], "cores_used": null, "accuracy": {"chip": "x"}}']
)
def test_a_damaged_part_is_named_and_the_rest_shown(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    shown = rendered(folder)
    assert re.search(rf"{name}\s+is damaged", shown.text)
    assert "Configuration" in shown.text


def test_a_profile_without_its_head_is_damaged(folder: Path, profiled: Profile) -> None:
    (folder / "summary.json").unlink()
    data = profiled.to_json()
    (folder / "profile.json").write_text(json.dumps({key: data[key] for key in data if key != "pipeline"}))
    shown = rendered(folder)
    assert re.search(r"profile.json\s+is damaged: KeyError 'pipeline'", shown.text)
    assert "dynamic energy a sample" in shown.text


def test_images_and_texts_that_are_none_are_named(folder: Path) -> None:
    (folder / "energy.png").write_bytes(b"GIF89a")
    (folder / "config.toml").write_bytes(b"\xff\xfe")
    shown = rendered(folder)
    assert "energy.png  is not a PNG image" in shown.text
    assert "neurokd demo makes it" in re.sub(r"\s+", " ", shown.text.split("energy.png")[1])[:60]
    assert "config.toml  cannot be read" in shown.text


def test_other_figures_are_shown_too(folder: Path, picture: bytes) -> None:
    (folder / "confusion.png").write_bytes(picture)
    assert "More figures" in rendered(folder).text


def test_without_verify_the_summary_gives_the_proof(folder: Path) -> None:
    (folder / "verify.json").unlink()
    shown = rendered(folder)
    assert shown.row("simulator")[1:] == ["32", "0", "equal"]
    assert shown.row("lava")[1:] == ["32", "—", "not run"]


def test_names_are_escaped(folder: Path, profiled: Profile) -> None:
    bad = {**summary(profiled), "data": "<script>alert(1)</script>"}
    (folder / "summary.json").write_text(json.dumps(bad))
    assert "<script>alert" not in render(folder).read_text(encoding="utf-8")


def test_a_run_without_energy_is_shown(folder: Path) -> None:
    spikes = np.zeros((2, 1, 4), np.uint8)
    bare = profile(net(), reference.run(net(), spikes), "loihi2")
    (folder / "profile.json").write_text(json.dumps(bare.to_json()))
    (folder / "summary.json").write_text(json.dumps({**summary(bare)}))
    shown = rendered(folder)
    assert "no constants published" in shown.text
    assert "Intel has published no energy" in shown.row("dynamic energy a sample")[7]


def test_an_unpublished_mesh_is_a_plain_row_of_cores(folder: Path) -> None:
    data = {**place(net(), "loihi2").to_json(), "mesh": None}
    (folder / "placement.json").write_text(json.dumps(data))
    assert "2 of 128 cores" in rendered(folder).text


def test_the_report_can_go_elsewhere(folder: Path, tmp_path: Path) -> None:
    assert render(folder, tmp_path / "other.html") == tmp_path / "other.html"
    assert not (folder / "report.html").exists()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no run folder") as caught:
        render(tmp_path / "absent")
    assert (caught.value.got, bool(caught.value.next_step)) == ("nothing", True)
    with pytest.raises(FileError, match="holds nothing of a run") as caught:
        render(tmp_path)
    assert "summary.json" in caught.value.got


def test_a_profile_alone_makes_a_page(tmp_path: Path, profiled: Profile) -> None:
    profiled.to_html(tmp_path / "profile.html")
    shown = Page((tmp_path / "profile.html").read_text(encoding="utf-8"))
    assert "Profile on Intel Loihi" in shown.text
    assert shown.row("dynamic energy a sample")[6] == "modelled"
    assert "Proof of equality" not in shown.text
    both = Page(page(title="x", profile=profiled.to_json(), placement=place(net(), "loihi1").to_json()))
    assert "On the chip" in both.text


def test_the_test_set_is_run_and_shown(folder: Path) -> None:
    shown = rendered(folder)
    matrix = [row for row in shown.rows if row and row[0] in ("0", "1", "2") and len(row) == 5]
    counts = [int(cell or 0) for row in matrix for cell in row[1:4]]
    assert sum(counts) == 30
    assert "leader ahead by 2" in shown.text
    assert "Time to a confident answer" in shown.text
    html = (folder / "report.html").read_text(encoding="utf-8")
    embedded = re.search(r'id="explore-data">(.*?)</script>', html, re.DOTALL)
    assert embedded
    data = json.loads(embedded[1])
    assert len(data["index"]) == len(data["answers"]) <= 24
    assert [layer["name"] for layer in data["layers"]] == ["hidden", "out"]
    bits = np.unpackbits(np.frombuffer(base64.b64decode(data["layers"][1]["bits"]), np.uint8))
    spikes = bits[: len(data["index"]) * 6 * 3].reshape(len(data["index"]), 6, 3)
    program = Program.load(folder / "program.npz")
    again = simulator.run(program, samples_of(folder, None).spikes[:, data["index"]])
    np.testing.assert_array_equal(spikes.swapaxes(0, 1), again.sat)


def test_classes_of_several_neurons(folder: Path) -> None:
    lower(populated()).save(folder / "program.npz")
    save_samples(folder / "test_spikes.npz", Samples(ONE_EACH, np.array([1, 0]), 6))
    found = explore(folder)
    assert found["confusion"] == [[1, 0], [0, 1]]
    assert (found["silent"], found["population"]) == (0, 4)
    assert found["exits"]["accuracy"] == [0.0, *[100.0] * 5]
    shown = {key: found["samples"][key] for key in ("answers", "output", "population", "spiking")}
    assert shown == {"answers": [1, 0], "output": 0, "population": 4, "spiking": True}
    assert "the class whose 4 output neurons spike most together" in rendered(folder).text


def test_the_membranes_of_a_readout_are_not_silence(folder: Path) -> None:
    lower(populated(spiking=False)).save(folder / "program.npz")
    save_samples(folder / "test_spikes.npz", Samples(ONE_EACH, np.array([1, 0]), 6))
    found = explore(folder)
    assert (found["silent"], found["confusion"]) == (0, [[1, 0], [0, 1]])
    assert not found["samples"]["spiking"]
    save_samples(folder / "test_spikes.npz", Samples(np.zeros_like(ONE_EACH), np.array([1, 0]), 6))
    assert explore(folder)["silent"] == 0


def test_a_run_without_a_single_spike_is_shown(folder: Path) -> None:
    save_samples(folder / "test_spikes.npz", Samples(np.zeros((6, 5, 4), np.uint8), np.zeros(5, np.int64)))
    shown = rendered(folder)
    assert "5 images caused no output spike" in shown.text


def test_a_test_set_that_does_not_run_is_named_and_the_rest_shown(folder: Path) -> None:
    save_samples(folder / "test_spikes.npz", Samples(np.zeros((6, 5, 7), np.uint8)))
    shown = rendered(folder)
    assert "program.npz and test_spikes.npz" in shown.text
    assert "the spikes have the wrong shape" in shown.text
    assert "On the chip" in shown.text


def test_samples_without_labels_are_explored_all_the_same(folder: Path) -> None:
    save_samples(folder / "test_spikes.npz", Samples(np.ones((6, 5, 4), np.uint8)))
    html = render(folder).read_text(encoding="utf-8")
    assert '"labels":null' in html
    assert "Confusion matrix" not in html


def networks() -> dict[str, Any]:
    entry = {
        "name": "teacher", "spec": "4-200-3", "accuracy": 98.5, "parameters": 1403, "cores": 2, "spikes": 50.0,
        "synops": 9000.0, "energy_J": 3e-7, "latency_s": 1e-4, "ann_macs": 1400, "ann_energy_J": 6e-9,
        "ac_energy_J": 5e-9,
    }  # fmt: skip
    return {"chip": "loihi1", "samples": 100, "networks": [entry, {**entry, "name": "student", "synops": 900.0}]}


def test_networks_are_compared_in_one_table(folder: Path) -> None:
    (folder / "networks.json").write_text(json.dumps(networks()))
    shown = rendered(folder)
    row = next(row for row in shown.rows if row[0] == "teacher4-200-3" and len(row) == 11)
    assert row[1:6] == ["98.50 %", "1,403", "2", "50", "9,000"]
    assert "Accuracy against synaptic operations a sample" in shown.text
    (folder / "networks.json").write_text('{"networks": [{}]}')
    assert "networks.json  is damaged" in rendered(folder).text


def test_runs_are_compared(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    data = json.loads((folder / "summary.json").read_text())
    del data["modelled"]
    (other / "summary.json").write_text(json.dumps({**data, "accuracy": {"chip": 50.0}}))
    shown = Page(compare([folder, other], tmp_path / "both.html").read_text(encoding="utf-8"))
    assert shown.rows[0] == ["", "digits", "other"]
    assert shown.row("chip, accuracy")[1:] == ["98.00 %", "50.00 %"]
    assert shown.row("energy a sample")[2] == "—"
    with pytest.raises(FileError, match="at least two runs"):
        compare([folder], tmp_path / "x.html")
    with pytest.raises(FileError):
        compare([folder, tmp_path], tmp_path / "x.html")
    (other / "summary.json").write_text("[]")
    with pytest.raises(FileError, match="the summary is no table"):
        compare([folder, other], tmp_path / "x.html")


def test_a_report_as_data(folder: Path, tmp_path: Path) -> None:
    data = json.loads(export(folder, tmp_path / "all.json").read_text())
    assert data["missing"] == []
    assert sum(map(sum, data["test_set"]["confusion"])) == 30
    assert data["profile.json"]["chip"] == "loihi1"
    with pytest.raises(FileError, match="there is no run folder"):
        export(tmp_path / "nowhere", tmp_path / "x.json")
