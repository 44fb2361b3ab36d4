"""A student that starts as part of a wider network: which part, that it is that part, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deploy.errors import TrainingError  # noqa: E402
from neurokd.data import Dataset  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.feed import Feed, accuracy, run_layers  # noqa: E402
from neurokd.inherit import IMAGES, inherit, usefulness  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.spec import NetworkSpec  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
ENCODING = Encoding("direct", 4, 5, raw_levels=16)
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dense": ("64-24-16-10", "64-12-8-10", {}),
    "convolutions, a pool": ("8x8x1-8c3p1-p2-6c3s2-10", "8x8x1-4c3p1-p2-3c3s2-10", {}),
    "cuba, learned decays": ("64-24-10", "64-12-10", {"neuron": "cuba", "learn_beta": True, "learn_alpha": True}),
    "biases, no norm": ("64-24-10", "64-12-10", {"norm": False}),
    "a norm on the first layer, populations": ("64-24-20", "64-12-20", {"norm": [True, False], "population": 2}),
}


def network(spec: str, seed: int = 0, **options: Any) -> SpikingNetwork:
    made = build(spec, **{"steps": 5, "input_bits": 4, "seed": seed, **options})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in made.spiking_layers():
            layer.synapse.weight.mul_(3)
            if layer.norm is not None:
                layer.norm.running_mean.normal_(0, 0.1, generator=generator)
                layer.norm.running_var.uniform_(0.5, 2, generator=generator)
    return made.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_who_takes_every_unit_is_the_same_network(kind: str, digits: Dataset) -> None:
    wide_spec, _, options = KINDS[kind]
    wide, other = network(wide_spec, **options), network(wide_spec, seed=1, **options)
    batch = next(Feed(digits.validation, ENCODING).in_order())
    before = run_layers(other, batch, ENCODING)[1]
    assert inherit(other, wide, digits) is other
    ours, theirs = (run_layers(n, batch, ENCODING)[1] for n in (other, wide))
    assert all(torch.equal(mine, its) for mine, its in zip(ours, theirs, strict=True))
    assert not torch.equal(before[0], ours[0])


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_units_of_a_part_spike_as_they_did(kind: str, digits: Dataset) -> None:
    wide_spec, narrow_spec, options = KINDS[kind]
    wide, student = network(wide_spec, **options), network(narrow_spec, seed=1, **options)
    batch = next(Feed(digits.validation, ENCODING).in_order())
    inherit(student, wide, digits, encoding=ENCODING)
    scores = usefulness(wide, Feed(digits.train, ENCODING))
    count = len(student.spiking_layers()[0].synapse.weight)
    kept = np.sort(scores[0].argsort(descending=True)[:count].numpy())
    mine, theirs = run_layers(student, batch, ENCODING)[1][0], run_layers(wide, batch, ENCODING)[1][0]
    assert torch.equal(mine, theirs[:, :, kept])
    assert mine.any()
    assert not torch.equal(mine, theirs[:, :, :count])


@pytest.mark.parametrize("spec", ["64-9-7-10", "8x8x1-5c3p1-4c3s2-10"])
def test_usefulness_is_the_variance_that_currents_behind_lose(spec: str, digits: Dataset) -> None:
    """Summed by hand over what a unit sends through each of its synapses, step by step."""
    wide = network(spec, threshold=2.0)
    feed = Feed(digits.train, ENCODING)
    batch, scores = next(feed.in_order()), usefulness(wide, feed, images=1)  # a batch is counted whole
    layers = wide.spiking_layers()
    recorded = [spikes.detach() for spikes in run_layers(wide, batch, ENCODING)[1]]
    for place, spikes in enumerate(recorded[:-1]):
        behind = layers[place + 1]
        weight = behind.folded()[0].float() / 2.0
        for unit in range(spikes.shape[2]):
            alone = torch.zeros_like(spikes)
            alone[:, :, unit] = spikes[:, :, unit]
            flat = alone.flatten(0, 1)
            lost = float(_variance_by_synapse(flat, weight, behind))
            assert float(scores[place][unit]) == pytest.approx(lost, rel=1e-3, abs=1e-6)


def _variance_by_synapse(x: torch.Tensor, weight: torch.Tensor, layer: Any) -> torch.Tensor:
    if weight.dim() == 2:
        return (weight**2 * x.flatten(1).var(0, unbiased=False)).sum()
    patches = torch.nn.functional.unfold(
        x, weight.shape[2:], padding=layer.synapse.padding, stride=layer.synapse.stride
    )
    return (weight.flatten(1)[:, :, None] ** 2 * patches.var(0, unbiased=False)).sum()


def test_silent_and_constant_units_go_first(digits: Dataset) -> None:
    wide = build("64-3-10", steps=5, input_bits=4, norm=False)
    with torch.no_grad():
        first, last = (layer.synapse for layer in wide.spiking_layers())
        first.weight.zero_()
        first.bias.copy_(torch.tensor([-1.0, 0.0, 9.0]))  # never, by the image, at every step
        first.weight[1] = 0.03
        last.weight.fill_(1.0)
        last.weight[:, [0, 2]] = 5.0
    scores = usefulness(wide, Feed(digits.train, ENCODING))[0]
    assert scores[0] == scores[2] == 0 < scores[1]
    student = inherit(build("64-1-10", steps=5, input_bits=4, norm=False), wide, digits)
    assert torch.equal(student.spiking_layers()[1].synapse.weight, torch.ones(10, 1))


def test_part_of_a_trained_network_is_better_than_none(digits: Dataset) -> None:
    from neurokd.train import train

    wide = build("64-64-10", steps=5, input_bits=4)
    train(wide, digits, epochs=10)
    fresh = build("64-32-10", steps=5, input_bits=4, seed=1).eval()
    test = Feed(digits.test, ENCODING)
    chance = accuracy(fresh, test)
    wide.train()
    assert accuracy(inherit(fresh, wide, digits), test) > chance + 20
    assert wide.training  # as it was


@pytest.mark.parametrize(
    ("spec", "options", "got"),
    [
        ("64-25-10", {}, "a start from 64-24-10"),
        ("64-12-12-10", {}, "a start from 64-24-10"),
        ("64-12-10", {"beta": 0.5}, "beta 0.5, not 0.9"),
        ("64-12-10", {"norm": False}, "norm False, not True"),
    ],
)
def test_what_is_no_narrower_form_is_refused(spec: str, options: dict[str, Any], got: str, digits: Dataset) -> None:
    with pytest.raises(TrainingError, match="not a narrower form") as caught:
        inherit(build(spec, steps=5, input_bits=4, **options), network("64-24-10"), digits)
    assert got in caught.value.got
    assert caught.value.where == spec


@pytest.mark.parametrize(
    ("mine", "wide", "does"),
    [
        ("784-128-80", "784-256-80", True),
        ("784-256-80", "784-128-80", False),
        ("784-128-80", "784-128-80", True),
        ("784-128-80", "784-256-10", False),
        ("784-128-80", "28x28x1-256-80", False),
        ("28x28x1-8c5s2-p2-10", "28x28x1-16c5s2-p2-10", True),
        ("28x28x1-8c5s2-p2-10", "28x28x1-16c5s2-p3-10", False),
        ("28x28x1-8c5s2-10", "28x28x1-16c5-10", False),
        ("28x28x2-8c5g2-10", "28x28x2-16c5g2-10", False),
        ("28x28x2-8c5-10", "28x28x2-16c5g2-10", False),
        ("28x28x1-8c5-10", "28x28x1-16c5-32-10", False),
    ],
)
def test_which_specs_narrow_which(mine: str, wide: str, does: bool) -> None:
    assert NetworkSpec.parse(mine).narrows(NetworkSpec.parse(wide)) is does


def test_counting_stops_after_enough_images(digits: Dataset) -> None:
    wide, feed = network("64-24-10"), Feed(digits.train, ENCODING)
    few, all_of_them = usefulness(wide, feed, images=1)[0], usefulness(wide, feed)[0]
    assert not torch.equal(few, all_of_them)
    assert len(digits.train) <= IMAGES
