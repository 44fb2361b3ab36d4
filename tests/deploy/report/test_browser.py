"""The report in headless Chromium: no console error, offline, every figure drawn; skipped without Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from deploy import simulator
from deploy.lower import lower
from deploy.place import place
from deploy.profile import profile
from deploy.program import Conv, Dense, Input, Population, Program
from deploy.report import accuracy_by_stage, activity_by_layer, compare, render
from deploy.runfolder import Samples, save_samples
from tests.deploy.graphs import ONE_EACH, populated

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small convolutional network on graded colour images."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    layers = (
        Population("conv", (4, 4, 4), 4095, 410, 300, np.zeros(64, int)),
        Population("out", (3,), 4095, 410, 60, np.zeros(3, int)),
    )
    blocks = (
        Conv("a", "in", "conv", rng.integers(-20, 40, (4, 3, 3, 3)) * 2),
        Dense("b", "conv", "out", rng.integers(-20, 40, (3, 64)) * 2),
    )
    program = Program(Input("in", (3, 6, 6), 4), layers, blocks)
    images = rng.integers(0, 16, (40, 3, 6, 6)).astype(np.uint8)
    program.save(folder / "program.npz")
    save_samples(folder / "test_spikes.npz", Samples(images, rng.integers(0, 3, 40), 5))
    trace = simulator.run(program, images, steps=5)
    placement = place(program, "loihi1")
    (folder / "profile.json").write_text(json.dumps(profile(program, trace, "loihi1", placement).to_json()))
    (folder / "placement.json").write_text(json.dumps(placement.to_json()))
    (folder / "config.toml").write_text("seed = 0\n")
    accuracy_by_stage({"teacher": 97.0, "chip": 95.0}, folder / "accuracy.png")
    activity_by_layer({"conv": (20.0, 400.0), "out": (3.0, 60.0)}, folder / "activity.png")
    return render(folder)


def browse(page: Path, tmp_path: Path, *options: str) -> tuple[str, str]:
    """The page's document after its script ran, and what Chromium logged; every host name leads nowhere."""
    assert CHROMIUM
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000",
        *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, done.stderr


def probed(page: Path, tmp_path: Path) -> Path:
    """The page with a script at its end that counts what each canvas shows, and clicks through the explorer."""
    probe = """<script>
    window.addEventListener("load", function () {
      var found = {};
      function ink(id) {
        var c = document.getElementById(id), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data, n = 0;
        for (var k = 3; k < d.length; k += 4) { if (d[k]) { n++; } }
        return n;
      }
      ["x-input", "x-raster", "x-map", "x-answer"].forEach(function (id) { found[id] = ink(id); });
      document.getElementById("x-next").click();
      var layer = document.getElementById("x-layer"), step = document.getElementById("x-step");
      layer.value = "1"; layer.dispatchEvent(new Event("change"));
      step.value = "2"; step.dispatchEvent(new Event("input"));
      found.sample = document.getElementById("x-sample").value;
      found.count = document.getElementById("x-count").textContent;
      found.says = document.getElementById("x-says").textContent;
      found.images = Array.from(document.images).map(function (i) { return i.naturalWidth; });
      found.charts = Array.from(document.querySelectorAll("svg.chart")).map(function (s) {
        return s.querySelectorAll("circle").length; });
      document.body.setAttribute("data-probe", JSON.stringify(found));
    });
    </script></body>"""
    copy = tmp_path / "probed.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    return copy


def test_the_page_runs_offline_without_errors_and_draws_everything(report: Path, tmp_path: Path) -> None:
    document, log = browse(probed(report, tmp_path), tmp_path, "--dump-dom")
    assert not [line for line in log.splitlines() if "CONSOLE" in line]
    assert 'data-drawn="yes"' in document
    raw = re.search(r'data-probe="([^"]*)"', document)
    assert raw, "the probe did not run"
    found = json.loads(raw[1].replace("&quot;", '"'))
    assert all(found[name] > 100 for name in ("x-input", "x-raster", "x-map", "x-answer")), found
    assert found["sample"] == "1"
    assert "of out up to step 2" in found["count"]
    assert "step 2" in found["says"]
    assert len(found["images"]) == 2
    assert min(found["images"]) > 100
    assert len(found["charts"]) == 4  # spikes and synops by step, accuracy by step, accuracy against energy
    assert min(found["charts"]) >= 5


@pytest.mark.parametrize(
    ("spiking", "says"),
    [
        (True, "After step 4 the answer is 1 (8 spikes of its 4 neurons)"),
        (False, "The output does not spike; by its membranes after step 6 the answer is 1"),
    ],
)
def test_the_answer_is_told_by_class(tmp_path: Path, spiking: bool, says: str) -> None:
    lower(populated(spiking=spiking)).save(tmp_path / "program.npz")
    save_samples(tmp_path / "test_spikes.npz", Samples(ONE_EACH, np.array([1, 0]), 6))
    (tmp_path / "config.toml").write_text("seed = 0\n")
    probe = """<script>
    window.addEventListener("load", function () {
      var told = [], write = CanvasRenderingContext2D.prototype.fillText;
      CanvasRenderingContext2D.prototype.fillText = function (text) { told.push(text); write.apply(this, arguments); };
      var step = document.getElementById("x-step");
      step.value = "4"; step.dispatchEvent(new Event("input"));
      document.body.setAttribute("data-probe", JSON.stringify({
        says: document.getElementById("x-says").textContent, told: told,
        columns: document.getElementById("x-columns").textContent }));
    });
    </script></body>"""
    copy = tmp_path / "probed.html"
    copy.write_text(render(tmp_path).read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    document, log = browse(copy, tmp_path, "--dump-dom")
    assert not [line for line in log.splitlines() if "CONSOLE" in line]
    raw = re.search(r'data-probe="([^"]*)"', document)
    assert raw, "the probe did not run"
    found = json.loads(raw[1].replace("&quot;", '"'))
    assert (found["says"], found["columns"]) == (says, ", a column a class")
    assert not spiking or {"class 0: 4", "class 1: 8"} <= set(found["told"])


@pytest.mark.parametrize("size", ["400,900", "1200,900"])
def test_nothing_is_wider_than_the_screen(report: Path, tmp_path: Path, size: str) -> None:
    probe = "<script>document.body.dataset.wide = document.documentElement.scrollWidth - innerWidth;</script></body>"
    copy = tmp_path / "wide.html"
    copy.write_text(report.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    document, _ = browse(copy, tmp_path, "--dump-dom", f"--window-size={size}")
    found = re.search(r'data-wide="(-?\d+)"', document)
    assert found
    assert int(found[1]) <= 0


@pytest.mark.parametrize(("scheme", "bright"), [("1", True), ("0", False)])
def test_the_page_follows_light_and_dark(report: Path, tmp_path: Path, scheme: str, bright: bool) -> None:
    probe = "<script>document.body.dataset.page = getComputedStyle(document.body).backgroundColor;</script></body>"
    copy = tmp_path / "scheme.html"
    copy.write_text(report.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    document, _ = browse(copy, tmp_path, "--dump-dom", f"--blink-settings=preferredColorScheme={scheme}")
    found = re.search(r'data-page="rgb\((\d+),', document)
    assert found
    assert (int(found[1]) > 200) == bright


def test_a_comparison_is_drawn_without_errors(tmp_path: Path) -> None:
    for name, (accuracy, energy, synops) in {"small": (90.0, 1e-6, 1e4), "large": (95.0, 9e-6, 2e5)}.items():
        (tmp_path / name).mkdir()
        summary = {
            "accuracy": {"chip": accuracy}, "modelled": {"energy_per_sample_J": energy},
            "activity": {"synops_per_sample": synops},
        }  # fmt: skip
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    page = compare([tmp_path / "small", tmp_path / "large"], tmp_path / "both.html")
    document, log = browse(page, tmp_path, "--dump-dom")
    assert not [line for line in log.splitlines() if "CONSOLE" in line]
    assert document.count('<svg class="chart"') == 2
    assert document.count("<circle") == 4


def test_the_page_prints(report: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.pdf"
    browse(report, tmp_path, f"--print-to-pdf={target}")
    assert target.read_bytes().startswith(b"%PDF")
    assert target.stat().st_size > 20_000
