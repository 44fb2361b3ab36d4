"""docs/losses.md lists the losses there are, what they take, their options with defaults, and cites as they do."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from neurokd.loss_registry import LOSSES, PLACES, PRESETS, Loss  # noqa: E402
from neurokd.losses import Moment, Schedule, parse_loss  # noqa: E402

PAGE = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")


def _table(head: str) -> dict[str, list[str]]:
    """Rows of the table whose head begins so, by their first cell's code."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in rows}


def _options(loss: Loss) -> dict[str, str]:
    parameters = inspect.signature(loss.function).parameters
    defaults = {name: str(parameters[name].default) for name in loss.options if name not in PLACES}
    places = {name: loss.align if name == "align" else "" for name in loss.options if name in PLACES}
    return {**defaults, **places}


def test_every_loss_is_there_once_in_the_registrys_order() -> None:
    assert list(_table("name")) == list(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_says_what_the_registry_says(name: str) -> None:
    formula, takes, options, _ = _table("name")[name]
    assert formula
    assert tuple(re.findall(r"`([^`]+)`", takes)) == LOSSES[name].takes
    shown = [text.partition("=") for text in re.findall(r"`([^`]+)`", re.sub(r"\([^)]*\)", "", options))]
    assert {key: default for key, _, default in shown} == _options(LOSSES[name])


@pytest.mark.parametrize("name", LOSSES)
def test_sources_are_those_of_the_docstring(name: str) -> None:
    cited = set(re.findall(r"\d{4}\.\d{5}", _table("name")[name][3]))
    function = LOSSES[name].function
    told = f"{inspect.getdoc(function)}"
    assert cited == set(re.findall(r"\d{4}\.\d{5}", told))
    told += inspect.getdoc(sys.modules[function.__module__]) or ""
    assert ("[poster]" in _table("name")[name][3]) <= ("[poster]" in told)


@pytest.mark.parametrize("name", LOSSES)
def test_choices_in_brackets_are_taken(name: str) -> None:
    for option, others in re.findall(r"`(\w+)=[^`]+` \(([^)]*)\)", _table("name")[name][2]):
        for value in re.findall(r"`([^`]+)`", others):
            parse_loss(f"{name},{option}={value}")


def test_presets() -> None:
    assert {name: row[0].strip("`") for name, row in _table("preset").items()} == PRESETS


def test_the_weights_of_the_page_mean_what_it_says() -> None:
    rows = _table("weight")
    assert list(rows) == ["0.5", "1->0.2", "1->0.2@5-10", "1@5", "1@5-10"]
    for text in list(rows)[1:]:
        (term,) = parse_loss(f"ce:{text}")
        assert isinstance(term.weight, Schedule)
        assert term.weight.at(Moment(3.9, 20)) == {"1@5": 0, "1@5-10": 0, "1->0.2@5-10": 1}.get(
            text, pytest.approx(0.844)
        )


def test_texts_in_the_page_can_be_read() -> None:
    for text in re.findall(r'loss="([^"]+)"', PAGE):
        assert parse_loss(text)
