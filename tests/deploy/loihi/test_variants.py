"""The refractory period is Lava's own: where floats are exact, Lava's ``LIFRefractory`` gives the same membranes.

Lava has that process in floating point only. Driven by whole biases, without decay, its floats are whole numbers.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from deploy import reference, simulator
from deploy.loihi import client, process
from deploy.program import Dense, Input, Population, Program

STEPS = 30
THRESHOLD = 10
BIASES = [640, 641, 100, 64, 3, 2000, -50, 639]
SCRIPT = """
import json, runpy, sys
repair = runpy.run_path(sys.argv[1])
repair["apply"]()
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.lif.process import LIFRefractory

def membranes(period, biases, threshold, steps):
    lif = LIFRefractory(shape=(len(biases),), du=1.0, dv=0.0, bias_mant=biases, vth=threshold, refractory_period=period)
    found = []
    for _ in range(steps):
        lif.run(condition=RunSteps(num_steps=1), run_cfg=Loihi2SimCfg(select_tag="floating_pt"))
        found.append(lif.v.get().tolist())
    lif.stop()
    return found

if __name__ == "__main__":
    print(json.dumps([membranes(period, *json.loads(sys.argv[2])) for period in (1, 4)]))
"""


def program(period: int) -> Program:
    neurons = Population("n", (len(BIASES),), 4095, 0, THRESHOLD, np.array(BIASES), refractory=period)
    silent = Dense("w", "in", "n", np.zeros((len(BIASES), 1), int))
    return Program(Input("in", (1,)), (neurons,), (silent,))


@pytest.mark.lava
@pytest.mark.usefixtures("lava")
def test_the_refractory_period_is_lavas(tmp_path: Path) -> None:
    script = tmp_path / "refractory.py"
    script.write_text(SCRIPT)
    repair = Path(client.__file__).with_name("repair.py")
    asked = json.dumps([BIASES, THRESHOLD << 6, STEPS])
    command = [process.interpreter(), "-I", str(script), str(repair), asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for period, lavas in zip((1, 4), json.loads(done.stdout.splitlines()[-1]), strict=True):
        for run in (reference.run, lambda p, s: simulator.run(p, s, record_state="all")):
            trace = run(program(period), np.zeros((STEPS, 1, 1), int))
            np.testing.assert_array_equal(trace.v["n"][:, 0], np.array(lavas))
            assert trace.sat.any()
