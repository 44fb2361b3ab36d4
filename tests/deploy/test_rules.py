"""Every design rule trips on a case made for it, and only on that; what is just inside passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest

from deploy import rules, simulator
from deploy.chip import Chip, load_chip, parse_chip
from deploy.errors import RuleError
from deploy.program import Dense, Input, Population, Program

TOY = resources.files("hardware_configs").joinpath("toy.toml").read_text(encoding="utf-8")
MAX = (1 << 23) - 1


def toy(**formats: int) -> Chip:
    """The toy chip, with some number formats changed."""
    text = TOY
    for key, value in formats.items():
        line = next(found for found in TOY.splitlines() if found.startswith(f"{key} ="))
        text = text.replace(line, line.replace(line[line.index("value =") : line.index(", unit")], f"value = {value}"))
    return parse_chip(text, "toy", "toy.toml")


def program(
    *, bits: int = 1, meta: dict[str, Any] | None = None, synapse: dict[str, Any] | None = None, **neuron: Any
) -> Program:
    """Two inputs, two neurons: inside every limit of the toy chip, but for what is changed."""
    fields = {"du": 4095, "dv": 410, "vth": 100, "bias_mant": np.array([1, -1]), **neuron}
    block = {"weights": np.full((2, 2), 32), "weight_bits": 4, **(synapse or {})}
    return Program(
        Input("in", (2,), bits), (Population("n", (2,), **fields),), (Dense("w", "in", "n", **block),), meta or {}
    )


def readout(**changes: Any) -> Program:
    return program(vth=0, spiking=False, **changes)


Case = tuple[Program, Chip, str, str]
CASES: dict[Callable[..., Any], list[Case]] = {
    rules.weight_bits_are_allowed: [(program(synapse={"weight_bits": 8}), toy(), "w", "weight width")],
    rules.weight_exponent_is_allowed: [
        (program(synapse={"weight_exp": 3}), toy(), "w", "weight_exp"),
        (program(synapse={"weight_exp": -3}), toy(), "w", "weight_exp"),
    ],
    rules.input_fits_the_payload: [(program(bits=3), toy(), "in", "graded input is wider")],
    rules.threshold_fits: [(program(vth=1024), toy(), "n", "vth")],
    rules.bias_fits: [
        (program(bias_mant=np.array([128, 0])), toy(), "n", "bias"),
        (program(bias_mant=np.array([-129, 0])), toy(), "n", "bias"),
        (program(bias_exp=4), toy(), "n", "bias"),
    ],
    rules.reset_rule_is_on_the_chip: [(program(reset="subtract"), toy(), "n", "not on the chip: reset rule")],
    rules.refractory_period_is_on_the_chip: [
        (program(refractory=2), toy(), "n", "not on the chip: refractory period"),
        (program(refractory=1), load_chip("loihi2"), "n", "not on the chip: refractory period"),
    ],
    rules.readout_stays_below_the_threshold: [
        (readout(dv=0), toy(vth_bits=17), "n", "a readout's membrane could pass"),
        (readout(dv=0, meta={"steps": 2000}), toy(), "n", "a readout's membrane could pass"),
    ],
    rules.delay_is_allowed: [(program(synapse={"delay": 3}), toy(), "w", "delay")],
    rules.sums_fit_the_accumulator: [
        (program(bits=2, synapse={"weights": np.full((2, 2), 224), "weight_exp": 2}), toy(), "n", "a synaptic sum"),
    ],
    rules.state_widths_agree: [
        (program(), toy(state_bits=23), "program", "state width"),
        (program(), toy(decay_bits=10), "program", "decay width"),
    ],
}  # fmt: skip
LIMITS = {
    "weights": program(synapse={"weight_exp": 2}), "exponent": program(synapse={"weight_exp": -2}),
    "input": program(bits=2), "threshold": program(vth=1023),
    "bias": program(bias_mant=np.array([127, -128]), bias_exp=3),
    "delay": program(synapse={"delay": 2}), "sums": program(bits=2, synapse={"weights": np.full((2, 2), 224)}),
    "readout": readout(dv=0, meta={"steps": 15}),
}  # fmt: skip


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_every_rule_has_a_case_that_trips_it_alone(rule: rules.Rule) -> None:
    assert CASES[rule]
    for made, chip, node, what in CASES[rule]:
        findings = rules.check(made, chip)
        assert findings == list(rule(made, chip)), "another rule tripped too"
        assert len(findings) == 1
        assert findings[0].node == node
        assert what in findings[0].what
        assert all((findings[0].got, findings[0].allowed, findings[0].next_step))


def test_no_case_is_left_over() -> None:
    assert set(CASES) == set(rules.RULES)


@pytest.mark.parametrize("case", LIMITS)
def test_what_is_just_inside_passes(case: str) -> None:
    assert rules.check(LIMITS[case], toy()) == []


def test_all_broken_rules_are_raised_together() -> None:
    with pytest.raises(RuleError, match="3 rules of Toy chip broken") as caught:
        rules.require(program(vth=1024, reset="subtract", synapse={"delay": 3}), toy())
    for what in ("n: vth", "n: not on the chip: reset rule", "w: delay"):
        assert what in caught.value.what
    assert caught.value.where == "n"
    with pytest.raises(RuleError, match="1 rule of Toy chip broken"):
        rules.require(program(vth=1024), toy())


def test_a_warning_stops_nothing() -> None:
    made = readout(dv=0)
    assert [f.severity for f in rules.check(made, toy())] == ["warning"]
    rules.require(made, toy())


@pytest.mark.parametrize("steps", [None, 1, 7, 40])
@pytest.mark.parametrize("du", [4095, 2000, 100])
@pytest.mark.parametrize("dv", [0, 3, 410, 4095])
def test_the_bound_of_a_membrane_holds_and_is_not_far_off(du: int, dv: int, steps: int | None) -> None:
    """Driven by every input at every step, a readout stays below it; where nothing is rounded it reaches it."""
    made = readout(du=du, dv=dv, bias_mant=np.array([50, 50]), meta={} if steps is None else {"steps": steps})
    bound = rules.largest_membrane(made, made.output)
    reached = int(simulator.run(made, np.ones((1, 2), int), steps=steps or 60).membranes.max())
    assert reached <= bound <= MAX
    if du == 4095 and dv == 0 and steps is not None:
        assert reached == bound


def test_where_the_current_may_wrap_nothing_is_promised() -> None:
    made = readout(bits=8, synapse={"weights": np.full((2, 2), 224), "weight_exp": 2})
    assert rules.largest_membrane(made, made.output) == MAX
    silent = readout(dv=0, bias_mant=np.zeros(2, int), synapse={"weights": np.zeros((2, 2), int)})
    assert rules.largest_membrane(silent, silent.output) == 0


def test_programs_of_the_oracles_chip_pass_as_they_are() -> None:
    assert rules.check(replace(program(), meta={}), load_chip("loihi2")) == []


def test_a_limit_nobody_published_is_a_note_and_breaks_nothing() -> None:
    findings = rules.check(program(), load_chip("speck2"))
    assert {f.severity for f in findings if f.what.startswith("not checked")} == {"note"}
    assert any(f.what == "not checked: threshold fits" and "not found" in f.got for f in findings)
    assert any("state width" in f.what and f.severity == "error" for f in findings)
