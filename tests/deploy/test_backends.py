"""One way to run a Program on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.backends import TARGETS, run
from deploy.errors import ConfigError
from deploy.loihi import client, netx_run
from deploy.testing import differences, random_case
from deploy.trace import Trace


def test_reference_and_simulator_run_the_same_program() -> None:
    case = random_case(3, constant=False)
    expected = run(case.program, case.spikes, target="reference")
    got = run(case.program, case.spikes, record="all", record_state="all", threads=1)
    assert (expected.backend, got.backend) == ("reference", "simulator")
    assert differences(expected, got) == []


def test_lava_is_asked_with_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(3, constant=False)
    answer = run(case.program, case.spikes)
    asked: list[dict[str, object]] = []

    def stand_in(program: object, spikes: np.ndarray, **options: object) -> Trace:
        assert program is case.program
        np.testing.assert_array_equal(spikes, case.spikes)
        asked.append(options)
        return answer

    monkeypatch.setattr(client, "run_lava", stand_in)
    assert run(case.program, case.spikes, target="lava", timeout=3.0) is answer
    assert run(case.program, case.spikes, target="loihi2") is answer
    monkeypatch.setattr(netx_run, "run_netx", stand_in)
    assert run(case.program, case.spikes, target="netx", steps=4) is answer
    assert asked == [{"timeout": 3.0}, {"target": "loihi2"}, {"steps": 4}]


def test_an_unknown_target_is_refused() -> None:
    case = random_case(3)
    with pytest.raises(ConfigError, match="unknown target") as caught:
        run(case.program, case.spikes, target="silicon")
    assert caught.value.allowed == ", ".join(TARGETS)
