"""Losses: known values, gradients, limits between them, text form, evaluation, errors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.nn import functional  # noqa: E402

from deploy.errors import ConfigError, TrainingError  # noqa: E402
from neurokd import losses as L  # noqa: E402, N812
from neurokd.outputs import Outputs  # noqa: E402

Tensor = torch.Tensor
PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "full-l1": L.full_l1,
    "full-l2": L.full_l2,
    "full-l2-mse": lambda s, r: L.full_l2(s, r, reduce="mse"),
    "full-kl": L.full_kl,
    "full-kl-steps": lambda s, r: L.full_kl(s, r, over="steps"),
    "full-kl-tensor": lambda s, r: L.full_kl(s, r, over="tensor"),
    "sliding-l1": L.sliding_l1,
    "sliding-l2": L.sliding_l2,
    "sliding-l1-sum": lambda s, r: L.sliding_l1(s, r, delta=2, reduce="sum"),
    "sliding-l2-sum": lambda s, r: L.sliding_l2(s, r, delta=4, reduce="sum"),
    "combined": lambda s, r: L.combined(s, r, weights=(0.5, 1.0, 2.0, 0.1, 0.7)),
    "rate-kl": L.rate_kl,
    "temporal-kl": lambda s, r: L.temporal_kl(s, r, temperature=3.0, scale=2.0),
}
DISTANCES = [name for name in PAIRS if "kl" not in name and name != "combined"]


def _sat(*rows: list[int]) -> Tensor:
    """[T, 1, C] from one list of T entries a class."""
    return torch.tensor(rows, dtype=torch.float64).T[:, None, :]


def _spikes(seed: int, shape: tuple[int, int, int] = (6, 4, 3)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) > 0.5).double()


STUDENT = _sat([1, 0, 0, 1], [0, 0, 0, 0])
TEACHER = _sat([0, 1, 0, 1], [0, 0, 1, 0])


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def _softmax(*logits: float) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


# Known values: D = teacher - student is (-1, 1, 0, 0) in class 0 and (0, 0, 1, 0) in class 1


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (L.full_l1, 3 / 8),
        (L.full_l2, math.sqrt(3) / math.sqrt(8)),
        (PAIRS["full-l2-mse"], 3 / 8),
        (lambda s, r: L.sliding_l1(s, r, delta=2), (1 + 0.5 + 0 + 0 + 0.5 + 0.5) / 6),
        (lambda s, r: L.sliding_l2(s, r, delta=2), (1 + 3 * math.sqrt(0.5)) / 6),
        (lambda s, r: L.sliding_l1(s, r, delta=2, reduce="sum"), (0 + 0.5 + 0 + 0 + 0.5 + 0.5) / 6),
        (lambda s, r: L.sliding_l2(s, r, delta=2, reduce="sum"), 3 * 0.25 / 6),
        (lambda s, r: L.sliding_l1(s, r, delta=4, reduce="sum"), 0.25 / 2),
        # Rates: student (0.5, 0), teacher (0.5, 0.25).
        (L.full_kl, _kl(_softmax(5, 2.5), _softmax(5, 0))),
        (lambda s, r: L.rate_kl(s, r, temperature=4.0, scale=8.0), 16 * _kl(_softmax(1, 0.5), _softmax(1, 0))),
        (
            lambda s, r: L.full_kl(s, r, over="steps", scale=1.0),
            (_kl([0.5, 0.5], _softmax(1, 0)) + _kl(_softmax(1, 0), [0.5, 0.5]) + _kl(_softmax(0, 1), [0.5, 0.5])) / 4,
        ),
        (
            lambda s, r: L.full_kl(s, r, over="tensor", scale=1.0),
            _kl(_softmax(0, 0, 1, 0, 0, 1, 1, 0), _softmax(1, 0, 0, 0, 0, 0, 1, 0)),
        ),
        (
            lambda s, r: L.temporal_kl(s, r, temperature=2.0, scale=2.0),
            4 * L.full_kl(STUDENT, TEACHER, over="steps", scale=1.0).item(),
        ),
    ],
)  # fmt: skip
def test_known_values(loss: Callable[[Tensor, Tensor], Tensor], expected: float) -> None:
    assert loss(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)


def test_known_values_on_labels() -> None:
    labels = torch.tensor([1])
    assert L.cross_entropy(STUDENT, labels).item() == pytest.approx(-math.log(_softmax(5, 0)[1]), rel=1e-12)
    per_step = -(2 * math.log(_softmax(1, 0)[1]) + 2 * math.log(0.5)) / 4
    assert L.temporal_ce(STUDENT, labels).item() == pytest.approx(per_step, rel=1e-12)
    both = per_step + 0.5 * L.temporal_kl(STUDENT, TEACHER).item()
    assert L.temporal(STUDENT, TEACHER, labels, weight=0.5).item() == pytest.approx(both, rel=1e-12)


def test_a_wrong_teacher_is_mended() -> None:
    """Rates: teacher (0.5, 0.25), so it says 0. Where the label is another, their trains change places."""
    for label, rates in ((0, (0.5, 0.25)), (1, (0.25, 0.5))):
        labels = torch.tensor([label])
        mended = L.corrected(TEACHER, labels)
        assert tuple(mended.mean(0)[0].tolist()) == rates
        assert torch.equal(mended.sort(2).values, TEACHER.sort(2).values)
        expected = 16 * _kl(_softmax(*(2 * rate for rate in rates)), _softmax(1, 0))
        found = L.corrected_kl(STUDENT, TEACHER, labels, temperature=4.0, scale=8.0).item()
        assert found == pytest.approx(expected, rel=1e-12)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_mended_teacher_says_the_label_with_its_own_rates(seed: int) -> None:
    teacher, labels = _spikes(seed, (5, 6, 4)), torch.arange(6) % 4
    mended = L.corrected(teacher, labels)
    assert torch.equal(mended.mean(0).max(1).values, mended.mean(0)[torch.arange(6), labels])
    changed = (mended != teacher).any(0).sum(1)
    assert bool((changed <= 2).all())  # the other classes keep their trains
    right = teacher.mean(0).gather(1, labels[:, None])[:, 0] == teacher.mean(0).max(1).values
    assert bool((mended == teacher).all(2).all(0)[right].all())
    shares = 0.7 * functional.one_hot(labels, 4) + 0.3 * functional.one_hot((labels + 1) % 4, 4)
    assert torch.equal(L.corrected(teacher, shares), mended)


def test_known_value_of_the_combined_loss() -> None:
    weights = (1.0, 2.0, 0.5, 0.25, 3.0)
    parts = (
        L.full_l1(STUDENT, TEACHER), L.full_l2(STUDENT, TEACHER), L.full_kl(STUDENT, TEACHER),
        L.sliding_l1(STUDENT, TEACHER, delta=2), L.sliding_l2(STUDENT, TEACHER, delta=2),
    )  # fmt: skip
    expected = sum(w * float(p) for w, p in zip(weights, parts, strict=True))
    assert L.combined(STUDENT, TEACHER, weights=weights, delta=2).item() == pytest.approx(expected, rel=1e-12)


def test_known_values_of_activity() -> None:
    layers = [torch.ones(2, 1, 3), torch.zeros(2, 1, 9)]
    assert L.activity(layers).item() == pytest.approx(6 / 24)
    assert L.activity(layers, target=0.2).item() == pytest.approx(0.05)
    assert L.activity(layers, target=0.5).item() == 0.0
    assert L.activity(layers[0]).item() == 1.0


def test_temporal_ce_equals_snntorch() -> None:
    functional = pytest.importorskip("snntorch.functional")
    sat, labels = _spikes(3).float(), torch.tensor([0, 2, 1, 1])
    assert L.temporal_ce(sat, labels).item() == pytest.approx(functional.ce_rate_loss()(sat, labels).item(), rel=1e-6)
    counts = functional.ce_count_loss()(sat, labels).item()
    assert L.cross_entropy(sat, labels, scale=6.0).item() == pytest.approx(counts, rel=1e-6)


# Gradients


@pytest.mark.parametrize("name", PAIRS)
def test_gradcheck(name: str) -> None:
    """On reals: every distance is smooth where no difference is 0."""
    generator = torch.Generator().manual_seed(7)
    teacher = torch.rand(5, 2, 3, generator=generator, dtype=torch.float64)
    gap = 0.1 + torch.rand(5, 2, 3, generator=generator, dtype=torch.float64)
    student = (teacher + gap * torch.where(_spikes(1, (5, 2, 3)) > 0, 1.0, -1.0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: PAIRS[name](s, teacher), (student,))
    assert torch.autograd.gradcheck(lambda r: PAIRS[name](student.detach(), r), (teacher.requires_grad_(),))


@pytest.mark.parametrize(
    "loss",
    [
        L.cross_entropy,
        L.temporal_ce,
        lambda s, y: L.temporal(s, _spikes(4, (5, 2, 3)), y),
        lambda s, _: L.activity([s, s]),
    ],
)  # fmt: skip
def test_gradcheck_on_labels(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student = torch.rand(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: loss(s, torch.tensor([2, 0])), (student,))


def test_gradcheck_through_align() -> None:
    student = torch.rand(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: L.align(s, 3), (student,))


@pytest.mark.parametrize("name", PAIRS)
def test_equal_sats_cost_nothing_and_have_a_finite_gradient(name: str) -> None:
    student = _spikes(2).requires_grad_()
    loss = PAIRS[name](student, student.detach().clone())
    assert loss.item() == pytest.approx(0.0, abs=1e-15)
    (grad,) = torch.autograd.grad(loss, student)
    assert grad.abs().max() < 1e-15


# Limits and relations


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_distances_of_spikes_lie_between_0_and_1(seed: int, steps: int, batch: int, classes: int) -> None:
    a, b = _spikes(seed, (steps, batch, classes)), _spikes(seed + 1, (steps, batch, classes))
    for loss in (L.full_l1, L.full_l2):
        assert 0 <= loss(a, b) <= 1 + 1e-12
        assert loss(a, 1 - a).item() == pytest.approx(1.0)
    for delta in range(1, steps + 1):
        for loss in (L.sliding_l1, L.sliding_l2):
            for reduce in ("norm", "sum"):
                assert 0 <= loss(a, b, delta=delta, reduce=reduce) <= 1 + 1e-12
            assert loss(a, 1 - a, delta=delta).item() == pytest.approx(1.0)


def test_windows_of_one_step_are_the_full_loss() -> None:
    a, b = _spikes(0), _spikes(1)
    assert L.sliding_l1(a, b, delta=1).item() == pytest.approx(L.full_l1(a, b).item())
    assert L.sliding_l2(a, b, delta=1, reduce="sum").item() == pytest.approx(L.full_l2(a, b, reduce="mse").item())


def test_a_late_spike_costs_little_in_window_sums_only() -> None:
    teacher, late, absent = _sat([0, 0, 1, 0, 0]), _sat([0, 0, 0, 1, 0]), _sat([0, 0, 0, 0, 0])
    assert L.sliding_l1(late, teacher, reduce="sum") < L.sliding_l1(absent, teacher, reduce="sum")
    assert L.sliding_l1(late, teacher) > L.sliding_l1(absent, teacher)


def test_repeating_time_or_batch_changes_no_mean() -> None:
    a, b = _spikes(0), _spikes(1)
    for name in ("full-l1", "full-l2", "full-kl", "full-kl-steps", "rate-kl", "temporal-kl"):
        expected = pytest.approx(PAIRS[name](a, b).item(), rel=1e-12)
        assert PAIRS[name](torch.cat([a, a]), torch.cat([b, b])).item() == expected
        assert PAIRS[name](torch.cat([a, a], 1), torch.cat([b, b], 1)).item() == expected


@pytest.mark.parametrize("name", PAIRS)
def test_narrow_sats_are_summed_in_float32(name: str) -> None:
    shape = (6, 100, 30)
    a, b = _spikes(0, shape), _spikes(1, shape)
    narrow = PAIRS[name](a.bfloat16(), b.bfloat16())
    assert narrow.dtype == torch.float32
    assert narrow.item() == pytest.approx(PAIRS[name](a, b).item(), rel=1e-5)


# Alignment


def test_align_averages_blocks() -> None:
    sat = torch.arange(12, dtype=torch.float64).reshape(6, 1, 2)
    assert L.align(sat, 6) is sat
    assert torch.equal(L.align(sat, 3), sat.reshape(3, 2, 1, 2).mean(1))
    assert L.align(_sat([1, 0, 0, 0, 1]), 2).flatten().tolist() == pytest.approx([0.4, 0.4])
    assert L.align(_sat([0, 0, 1, 0, 0]), 2).flatten().tolist() == pytest.approx([0.2, 0.2])


@given(st.integers(1, 20), st.data())
@settings(max_examples=60, deadline=None)
def test_align_keeps_rates(steps: int, data: st.DataObject) -> None:
    sat, fewer = _spikes(steps, (steps, 3, 2)), data.draw(st.integers(1, steps))
    aligned = L.align(sat, fewer)
    assert aligned.shape == (fewer, 3, 2)
    torch.testing.assert_close(aligned.mean(0), sat.mean(0))
    assert bool((aligned >= -1e-12).all() & (aligned <= 1 + 1e-12).all())


# Text


def test_parse_the_forms_of_the_docstring() -> None:
    terms = L.parse_loss(" ce:1.0 + sliding-l2:0.5,delta=3 + full-kl:1 ")
    assert terms == (L.LossTerm("ce"), L.LossTerm("sliding-l2", 0.5, {"delta": 3}), L.LossTerm("full-kl"))
    assert L.format_loss(terms) == "ce+sliding-l2:0.5,delta=3+full-kl"
    assert terms[1].options == (("delta", 3),)
    assert L.parse_loss("ce:1e+3+full-kl:2E-1,over=steps,scale=4") == (
        L.LossTerm("ce", 1000.0),
        L.LossTerm("full-kl", 0.2, {"over": "steps", "scale": 4}),
    )


def test_presets() -> None:
    five = ("full-l1", "full-l2", "full-kl", "sliding-l1", "sliding-l2")
    assert tuple(term.name for term in L.parse_loss("sat-combined")) == five
    assert L.needs(L.parse_loss("sat-combined")) == {"teacher"}
    assert tuple(term.name for term in L.parse_loss("sat-ce")) == ("ce", *five)
    assert L.needs(L.parse_loss("sat-ce+activity:0.1")) == {"teacher", "labels", "layers"}
    assert L.needs(L.parse_loss("response")) == {"teacher", "labels", "logits"}
    assert L.of_teacher(L.parse_loss("sat-ce+logit-kl")) == {"sat", "logits"}
    for name in L.names():
        assert all(term.weight == 1 for term in L.parse_loss(name))
        assert all(term.weight == 0.5 for term in L.parse_loss(f"{name}:0.5"))


def test_equal_terms_are_added_up() -> None:
    assert L.parse_loss("sat-ce+ce:2")[0] == L.LossTerm("ce", 3.0)
    assert len(L.parse_loss("sliding-l1+sliding-l1,delta=2")) == 2
    assert L.parse_loss("ce:0.5+ce:0") == (L.LossTerm("ce", 0.5),)


_SCHEDULES = st.builds(
    L.Schedule, st.floats(0, 9), st.none() | st.floats(0, 9), st.integers(1, 20), st.none() | st.integers(20, 40)
)
_TERMS = st.builds(
    L.LossTerm,
    st.sampled_from(["sliding-l1", "sliding-l2"]),
    st.floats(0, 1e30) | _SCHEDULES,
    st.fixed_dictionaries(
        {}, optional={"delta": st.integers(1, 99), "reduce": st.sampled_from(["norm", "sum"])}
    ),
) | st.builds(L.LossTerm, st.sampled_from(["rate-kl"]), st.floats(0, 10), st.fixed_dictionaries(
    {}, optional={"temperature": st.floats(1e-30, 1e30), "scale": st.integers(1, 9)}
))  # fmt: skip


@given(st.lists(_TERMS, min_size=1, max_size=4, unique_by=lambda term: term.key))
@settings(max_examples=200, deadline=None)
def test_text_round_trip(terms: list[L.LossTerm]) -> None:
    assert L.parse_loss(L.format_loss(terms)) == tuple(terms)


def test_terms_are_frozen_and_hashable() -> None:
    term = L.LossTerm("ce")
    with pytest.raises(dataclasses.FrozenInstanceError):
        term.weight = 2.0  # type: ignore[misc]
    assert hash(term) == hash(L.LossTerm("ce", options={}))


# Schedules


@pytest.mark.parametrize(
    ("text", "weights"),
    [  # at 0, 1, 2, 3 and 3.5 of 4 epochs
        ("0.5", (0.5, 0.5, 0.5, 0.5, 0.5)),
        ("1->0.2", (1, 0.8, 0.6, 0.4, 0.3)),
        ("2@3", (0, 0, 2, 2, 2)),
        ("2@2-3", (0, 2, 2, 0, 0)),
        ("0->1@2-3", (0, 0, 0.5, 1, 1)),
        ("1->0@3", (1, 1, 1, 0.5, 0.25)),
        ("1e-1->3e-1", (0.1, 0.15, 0.2, 0.25, 0.275)),
    ],
)
def test_weights_change_as_the_schedule_says(text: str, weights: tuple[float, ...]) -> None:
    (term,) = L.parse_loss(f"full-l1:{text}")
    assert L.parse_loss(str(term)) == (term,)
    student, teacher = _spikes(0), _spikes(1)
    for done, weight in zip((0, 1, 2, 3, 3.5), weights, strict=True):
        total, parts = L.evaluate([term], student, teacher, moment=L.Moment(done, 4))
        assert total.item() == pytest.approx(weight * parts["full-l1"].item(), abs=1e-12)
    assert L.evaluate([term], student, teacher)[0].item() == pytest.approx(weights[0] * parts["full-l1"].item())


def test_a_presets_schedule_is_that_of_its_terms() -> None:
    assert L.parse_loss("temporal:1->0.5@2") == L.parse_loss("temporal-ce:1->0.5@2+temporal-kl:1->0.5@2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ce:-1->0", "weight is not a number from 0 up"),
        ("ce:1->-1", "weight is not a number from 0 up"),
        ("ce:1->inf", "weight is not a number from 0 up"),
        ("ce:1@0", "epochs are none"),
        ("ce:1@5-4", "epochs are none"),
        ("ce:1@", "cannot be read"),
        ("ce:1@1.5", "cannot be read"),
        ("ce:1->", "cannot be read"),
        ("ce:->1", "cannot be read"),
        ("ce:a->1", "cannot be read"),
        ("ce:1@2+ce", "given twice"),
        ("sat-ce+ce:1->0", "given twice"),
    ],
)
def test_schedules_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        L.parse_loss(text)


def test_a_term_that_starts_after_the_end() -> None:
    L.check_schedules(L.parse_loss("ce:1@4+full-l1:1->2"), 4, "student")
    with pytest.raises(ConfigError, match="after the last epoch") as caught:
        L.check_schedules(L.parse_loss("ce:1@5"), 4, "student")
    assert caught.value.where == "student: loss ce:1.0@5"


# Evaluation


def test_evaluate_adds_weighted_parts() -> None:
    student, teacher, labels = _spikes(0).requires_grad_(), _spikes(1).requires_grad_(), torch.tensor([0, 1, 2, 0])
    terms = L.parse_loss("ce:0.5+sliding-l2:2,delta=4+activity:3")
    total, parts = L.evaluate(terms, Outputs(student, layers={"out": student}), teacher, labels)
    assert list(parts) == ["ce", "sliding-l2,delta=4", "activity"]
    assert parts["ce"].item() == L.cross_entropy(student, labels).item()
    assert parts["sliding-l2,delta=4"].item() == L.sliding_l2(student, teacher, delta=4).item()
    expected = 0.5 * parts["ce"] + 2 * parts["sliding-l2,delta=4"] + 3 * parts["activity"]
    assert total.item() == pytest.approx(expected.item())
    assert not any(part.requires_grad for part in parts.values())
    total.backward()
    assert student.grad is not None
    assert teacher.grad is None


def _everything(sat: Tensor) -> Outputs:
    """Outputs of a network with a hidden layer of 2 x 1 x 3 neurons, all made from its SAT."""
    hidden = torch.stack([sat, sat.flip(0) * torch.tensor([1.0, 0.5, 0.25])], 2)[..., None, :]
    return Outputs(sat, 2 * sat.mean(0), 2 * sat, 1.5 * sat, {"hidden": hidden, "out": sat})


class _Identity:
    """Alignments that change nothing."""

    def of(self, key: str) -> torch.nn.Module:
        return torch.nn.Identity()


def test_every_loss_and_preset_evaluates_and_reaches_the_student() -> None:
    for name in L.names():
        student = _spikes(0).requires_grad_()
        told, teacher = _everything(student), _everything(_spikes(1))
        total, _ = L.evaluate(L.parse_loss(name), told, teacher, torch.tensor([0, 1, 2, 0]), alignments=_Identity())
        (grad,) = torch.autograd.grad(total, student)
        assert grad.abs().sum() > 0, name


def test_evaluate_compares_at_the_smaller_number_of_steps() -> None:
    student, teacher, labels = _spikes(0, (8, 4, 3)), _spikes(1, (4, 4, 3)), torch.tensor([0, 1, 2, 0])
    _, parts = L.evaluate(L.parse_loss("full-l1+ce"), student, teacher, labels)
    assert parts["full-l1"].item() == L.full_l1(L.align(student, 4), teacher).item()
    assert parts["ce"].item() == L.cross_entropy(student, labels).item()
    _, parts = L.evaluate(L.parse_loss("full-l1"), teacher, student)
    assert parts["full-l1"].item() == L.full_l1(teacher, L.align(student, 4)).item()


# Errors


SAT = torch.zeros(4, 2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.full_l1(SAT, torch.zeros(4, 2, 5)), "different numbers of classes"),
        (lambda: L.full_l2(SAT, torch.zeros(5, 2, 3)), "do not have one shape"),
        (lambda: L.full_kl(SAT, torch.zeros(4, 1, 3)), "do not have one shape"),
        (lambda: L.full_l1(SAT[0], SAT[0]), "has the shape"),
        (lambda: L.full_l1(torch.zeros(4, 0, 3), torch.zeros(4, 0, 3)), "none of them 0"),
        (lambda: L.full_l1(SAT, SAT.long()), "floating point"),
        (lambda: L.sliding_l1(SAT, SAT, delta=5), "window is longer"),
        (lambda: L.evaluate(L.parse_loss("sliding-l2,delta=5"), SAT, SAT), "window is longer"),
        (lambda: L.combined(SAT, SAT, delta=5), "window is longer"),
        (lambda: L.cross_entropy(SAT, torch.tensor([0])), "labels do not fit"),
        (lambda: L.cross_entropy(SAT, torch.tensor([0.0, 1.0])), "labels do not fit"),
        (lambda: L.cross_entropy(SAT, torch.tensor([0, 3])), "not one of the network's classes"),
        (lambda: L.temporal_ce(SAT, torch.tensor([-1, 0])), "not one of the network's classes"),
        (lambda: L.align(SAT, 5), "fewer time steps"),
        (lambda: L.align(SAT, 0), "fewer time steps"),
        (lambda: L.activity([]), "no spikes to count"),
        (lambda: L.evaluate(L.parse_loss("sat-ce"), SAT, SAT), "needs more than it was given"),
        (lambda: L.evaluate(L.parse_loss("full-l1"), SAT), "needs more than it was given"),
        (lambda: L.evaluate(L.parse_loss("activity"), SAT), "needs more than it was given"),
        (lambda: L.evaluate(L.parse_loss("full-l1"), SAT, torch.zeros(8, 2, 4)), "different numbers of classes"),
    ],
)
def test_data_that_does_not_fit(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.rate_kl(SAT, SAT, temperature=-1.0), "temperature is not a positive number"),
        (lambda: L.rate_kl(SAT, SAT, temperature=0.0), "temperature is not a positive number"),
        (lambda: L.temporal_kl(SAT, SAT, temperature=math.nan), "temperature is not a positive number"),
        (lambda: L.cross_entropy(SAT, torch.tensor([0, 1]), scale=-2.0), "scale is not a positive number"),
        (lambda: L.combined(SAT, SAT, weights=(1.0, 1.0, -1.0, 1.0, 1.0)), "weight is not a number from 0 up"),
        (lambda: L.temporal(SAT, SAT, torch.tensor([0, 1]), weight=-1.0), "weight is not a number from 0 up"),
        (lambda: L.activity(SAT, target=-0.1), "target is not a number from 0 up"),
        (lambda: L.full_l2(SAT, SAT, reduce="sum"), "unknown reduce"),
        (lambda: L.sliding(SAT, SAT, order=3), "unknown order"),
        (lambda: L.full_kl(SAT, SAT, over="time"), "unknown over"),
        (lambda: L.sliding_l1(SAT, SAT, delta=0), "delta is not a whole number"),
        (lambda: L.evaluate((), SAT), "no loss to evaluate"),
        (lambda: L.LossTerm("ce", -1.0), "weight is not a number from 0 up"),
        (lambda: L.LossTerm("l1"), "unknown loss"),
        (lambda: L.LossTerm("ce", options={"delta": 3}), "no such option"),
        (lambda: L.parse_loss("ce:-1"), "weight is not a number from 0 up"),
        (lambda: L.parse_loss("ce:nan"), "weight is not a number from 0 up"),
        (lambda: L.parse_loss("sat-ce:-1"), "weight is not a number from 0 up"),
        (lambda: L.parse_loss("ce:much"), "cannot be read"),
        (lambda: L.parse_loss(""), "cannot be read"),
        (lambda: L.parse_loss("ce++full-l1"), "cannot be read"),
        (lambda: L.parse_loss("CE"), "cannot be read"),
        (lambda: L.parse_loss("sat-ce,delta=3"), "cannot be read"),
        (lambda: L.parse_loss("sliding-l1,delta"), "cannot be read"),
        (lambda: L.parse_loss("sliding-l1,delta=2,delta=3"), "cannot be read"),
        (lambda: L.parse_loss("sliding-l1,delta=2.5"), "delta is not a whole number"),
        (lambda: L.parse_loss("rate-kl,temperature=-1"), "temperature is not a positive number"),
        (lambda: L.parse_loss("rate-kl,temperature=warm"), "temperature is not a positive number"),
        (lambda: L.parse_loss("sliding-l1,reduce=max"), "unknown reduce"),
    ],
)
def test_options_that_make_no_sense(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_an_error_names_what_is_allowed() -> None:
    with pytest.raises(ConfigError) as caught:
        L.parse_loss("sliding-l3")
    assert "sliding-l2" in caught.value.allowed
    with pytest.raises(ConfigError) as caught:
        L.LossTerm("sat-ce")
    assert "parse_loss" in caught.value.next_step


# Speed does not change results


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("delta", [1, 2, 3, 6])
def test_windows_are_the_strided_norm_bit_for_bit_on_spikes(order: int, delta: int) -> None:
    teacher, results = _spikes(1).float(), []
    for strided in (True, False):
        student = _spikes(0).float().requires_grad_()
        if strided:
            norms = torch.linalg.vector_norm((teacher - student).unfold(0, delta, 1), ord=order, dim=-1)
            loss = norms.mean() / float(delta ** (1 / order))
        else:
            loss = L.sliding(student, teacher, order=order, delta=delta)
        results.append((loss.detach(), *torch.autograd.grad(loss, student)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
