"""What accept refuses: every message is provoked, and every constructor argument of the two neurons is decided."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")
snn = pytest.importorskip("snntorch", reason="user modules are snntorch modules")
import torch.nn.functional as F  # noqa: E402
from snntorch import surrogate  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

from deploy.errors import ModuleError  # noqa: E402
from neurokd.accept import accept  # noqa: E402
from neurokd.network import SpikingNetwork  # noqa: E402
from neurokd.neurons import LIF, Surrogate  # noqa: E402

_SPEC = importlib.util.spec_from_file_location("snntorch_modules", Path(__file__).with_name("snntorch_modules.py"))
user = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(user)
ZERO, tutorial = user.ZERO, user.tutorial


def _levels(*shape: int) -> Tensor:
    return torch.randint(0, 17, shape, generator=torch.Generator().manual_seed(0)) / 16


def _refused(module: nn.Module, x: Tensor | None = None, **options: Any) -> ModuleError:
    with pytest.raises(ModuleError) as caught:
        accept(module, _levels(4, 20) if x is None else x, **options)
    assert caught.value.what
    assert caught.value.got
    assert caught.value.allowed
    return caught.value


# Constructor arguments --------------------------------------------------------------------------------------------

_HALF = torch.full((30,), 0.5)


def _lif(network: Any) -> LIF:
    return network.spiking_layers()[0].neuron


#: argument: (a value that is not the default, None if it must be refused with the name in the message, else a check).
LEAKY: dict[str, tuple[Any, Callable[[Any], bool] | None]] = {
    "beta": (0.25, lambda n: float(_lif(n).beta) == 0.25),
    "threshold": (0.5, lambda n: float(_lif(n).threshold) == 0.5),
    "spike_grad": (surrogate.sigmoid(slope=7), lambda n: _lif(n).surrogate == Surrogate("sigmoid", 7.0)),
    "surrogate_disable": (True, lambda n: any("surrogate_disable=True is not kept" in note for note in n.notes)),
    "init_hidden": (True, lambda n: n.spec_text == "20-30-5"),
    "inhibition": (True, None),
    "learn_beta": (True, lambda n: isinstance(_lif(n).raw_beta, nn.Parameter)),
    "learn_threshold": (True, lambda n: isinstance(_lif(n).raw_threshold, nn.Parameter)),
    "reset_mechanism": ("subtract", None),
    "state_quant": (lambda x: x, None),
    "output": (True, lambda n: n.spec_text == "20-30-5"),
    "graded_spikes_factor": (2.0, None),
    "learn_graded_spikes_factor": (True, None),
    "reset_delay": (True, None),
}  # fmt: skip
SYNAPTIC = {name: LEAKY[name] for name in LEAKY if "graded" not in name} | {
    "alpha": (0.125, lambda n: float(_lif(n).alpha) == 0.125),
    "learn_alpha": (True, lambda n: isinstance(_lif(n).raw_alpha, nn.Parameter)),
}


@pytest.mark.parametrize(("kind", "table"), [(snn.Leaky, LEAKY), (snn.Synaptic, SYNAPTIC)])
def test_every_constructor_argument_is_decided(kind: Any, table: dict[str, Any]) -> None:
    arguments = inspect.signature(kind.__init__).parameters
    assert set(arguments) - {"self"} == set(table)
    usual = {**{name: parameter.default for name, parameter in arguments.items()}, **ZERO}
    assert [name for name, (value, _) in table.items() if usual[name] == value] == []


class _OneNeuron(nn.Module):
    """A hidden layer with the neuron in question, called as its arguments demand."""

    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.fc1 = nn.Linear(20, 30, bias=False)
        constants = {"beta": 0.5} if kind is snn.Leaky else {"beta": 0.5, "alpha": 0.5}
        self.lif1 = kind(**{**constants, **ZERO, **options})
        self.fc2 = nn.Linear(30, 5)
        self.lif2 = snn.Leaky(0.5, **ZERO)

    def forward(self, x: Tensor) -> Tensor:
        record, hidden, mem2 = [], None, self.lif2.init_leaky()
        for _ in range(6):
            out = self.lif1(self.fc1(x)) if self.lif1.init_hidden else self.lif1(self.fc1(x), *(hidden or ()))
            spk, *hidden = out if isinstance(out, tuple) else (out,)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            record.append(spk)
        return torch.stack(record)


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
@pytest.mark.parametrize(
    ("kind", "name"), [(snn.Leaky, name) for name in LEAKY] + [(snn.Synaptic, name) for name in SYNAPTIC]
)
def test_a_constructor_argument_is_used_or_refused_by_name(kind: Any, name: str) -> None:
    value, check = (LEAKY if kind is snn.Leaky else SYNAPTIC)[name]
    module = user.randomise(_OneNeuron(kind, **{name: value})).eval()
    if check is None:
        error = _refused(module)
        assert name in error.got
        assert error.where == f"module lif1 ({kind.__name__})"
        assert error.next_step
        return
    network = accept(module, _levels(4, 20))
    assert check(network)
    x = _levels(9, 20)
    for lif in (module.lif1, module.lif2):
        lif.reset_mem()
    assert torch.equal(network.eval()(x), module(x))


def test_an_unknown_attribute_of_a_neuron_is_refused_by_name() -> None:
    module = user.Tutorial()
    module.lif2.refractory = 3
    error = _refused(module)
    assert (error.where, error.got) == ("module lif2 (Leaky)", "refractory")
    module = user.Tutorial()
    module.lif1.register_buffer("noise", torch.ones(30))
    assert _refused(module).got == "noise"


@pytest.mark.parametrize(
    ("options", "what", "got"),
    [
        ({"beta": torch.full((30,), 0.5)}, "'beta' differs from neuron to neuron", "[30]"),
        ({"threshold": torch.full((30,), 0.5)}, "'threshold' differs from neuron to neuron", "[30]"),
        ({"beta": 1.5}, "'beta' is no decay", "beta=1.5"),
        ({"beta": -0.5}, "'beta' is no decay", "beta=-0.5"),
        ({"threshold": 0.0}, "threshold is out of range", "threshold=0"),
        ({"threshold": -1.0}, "threshold is out of range", "threshold=-1"),
        ({"threshold": 0.001, "learn_threshold": True}, "threshold is out of range", "threshold=0.001"),
        ({"spike_grad": lambda x: (x >= 0).float()}, "spike function is not the step function", "spike_grad"),
        ({"spike_grad": lambda x: torch.sigmoid(x)}, "spike function is not the step function", "spike_grad"),
    ],
)
def test_constants_out_of_range(options: dict[str, Any], what: str, got: str) -> None:
    module = _OneNeuron(snn.Leaky, **options)
    error = _refused(module)
    assert what in error.what
    assert got in error.got
    assert error.where == "module lif1 (Leaky)"


def test_a_spike_function_that_fails_on_any_current_is_refused() -> None:
    module = user.Tutorial(spike_grad=lambda x: (x > 0).float() if x.dim() == 2 else x.missing)
    assert "spike function fails" in _refused(module).what


def test_a_state_function_of_ones_own_is_refused() -> None:
    module = user.Tutorial()
    module.lif1.state_function = lambda current: 0.5 * module.lif1.mem + current
    assert "state_function=" in _refused(module).got
    assert "function of its own" in _refused(module, convert_reset=True).what


def test_a_spike_gradient_without_a_name_is_noted() -> None:
    network = accept(user.Tutorial(spike_grad=surrogate.triangular()), _levels(4, 20))
    assert any("spike_grad=triangular" in note and "atan" in note for note in network.notes)
    assert _lif(network).surrogate.name == "atan"


# Functions between modules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "function"),
    [
        (lambda self, x: x / 16, "'div'"),
        (lambda self, x: 2 * x - 1, "'"),
        (lambda self, x: torch.bernoulli(x), "'bernoulli'"),
        (lambda self, x: torch.cat([x[:, :10], x[:, 10:]], dim=1), "'stack'"),
        (lambda self, x: x.flip(1), "'flip'"),
        (lambda self, x: x.T.T, "'T'"),
        (lambda self, x: x.double().float(), "'double'"),
        (lambda self, x: x.clone().mul_(2), "'mul_'"),
    ],
)
def test_functions_on_the_input_are_refused_by_name(prepare: Any, function: str) -> None:
    error = _refused(tutorial(prepare=prepare)())
    assert error.where == "module fc1 (Linear)"
    assert f"torch function {function}" in error.got
    assert "the input" in error.got
    assert error.next_step


@pytest.mark.parametrize(
    ("between", "function", "way_out"),
    [
        (lambda self, s: F.relu(s), "'relu'", "remove the activation"),
        (lambda self, s: s + s, "'add'", "keep to modules in a row"),
        (lambda self, s: F.dropout(s, 0.5, self.training), "'dropout'", "nn module"),
        (lambda self, s: F.avg_pool1d(s, 1), "'avg_pool1d'", "nn module"),
        (lambda self, s: F.max_pool1d(s, 1), "'max_pool1d'", "nn.AvgPool2d"),
        (lambda self, s: s * self.lif1.mem, "'mul'", ""),
        (lambda self, s: torch.tensor(s.numpy()), "does not come from the input", ""),
    ],
)
def test_functions_between_layers_are_refused_by_name(between: Any, function: str, way_out: str) -> None:
    error = _refused(tutorial(between=between)())
    assert error.where == "module fc2 (Linear)"
    assert function in error.got
    assert way_out in error.next_step


@pytest.mark.parametrize("module_class", [nn.ReLU, lambda: nn.MaxPool1d(1), lambda: nn.LayerNorm(30), nn.Softmax])
def test_modules_between_layers_are_refused_by_name(module_class: Any) -> None:
    class Between(user.Tutorial):
        def __init__(self) -> None:
            super().__init__()
            self.extra = module_class()

        def between(self, spk: Tensor) -> Tensor:
            return self.extra(spk)

    module = Between()
    error = _refused(module)
    assert error.got == f"the output of extra ({type(module.extra).__name__})"
    assert error.where == "module fc2 (Linear)"


@pytest.mark.parametrize(
    "neuron",
    [
        lambda: snn.RLeaky(0.5, linear_features=30, init_hidden=True, **ZERO),
        lambda: snn.Alpha(0.75, 0.5, init_hidden=True, reset_mechanism="zero"),
        lambda: snn.Lapicque(0.5, init_hidden=True, reset_mechanism="zero"),
        lambda: type("MyLeaky", (snn.Leaky,), {})(0.5, init_hidden=True, **ZERO),
    ],
)
def test_other_neurons_are_refused_by_name(neuron: Any) -> None:
    hidden = nn.Sequential(nn.Linear(20, 30), neuron(), nn.Linear(30, 5), snn.Leaky(0.5, init_hidden=True, **ZERO))
    error = _refused(hidden, steps=3)
    assert error.got == f"the output of 1 ({type(hidden[1]).__name__})"
    last = nn.Sequential(nn.Linear(20, 30), neuron())
    error = _refused(last, steps=3)
    assert f"1 ({type(last[1]).__name__})" in error.got
    assert "calls no neuron that can be taken" in error.what


def test_a_forward_that_fails_in_a_neuron_that_cannot_be_taken_names_it() -> None:
    """snntorch 1.0.0's RSynaptic raises TypeError with init_hidden=True."""
    neuron = snn.RSynaptic(0.5, 0.5, linear_features=5, init_hidden=True, **ZERO)
    error = _refused(nn.Sequential(nn.Linear(20, 5), neuron), steps=3)
    assert "fails on the example" in error.what
    assert "1 (RSynaptic) could not be taken anyway" in error.next_step


def test_values_changed_in_place_behind_the_back_are_seen() -> None:
    def between(self: Any, spk: Tensor) -> Tensor:
        spk.view(-1).mul_(0)
        return spk

    error = _refused(tutorial(between=between)())
    assert "changed in place" in error.got or "mul_" in error.got
    error = _refused(tutorial(between=lambda self, spk: (spk.numpy().fill(1), spk)[1])())
    assert "changed in place" in error.got


def test_a_value_changed_in_a_loop_stays_readable() -> None:
    def between(self: Any, spk: Tensor) -> Tensor:
        for _ in range(50):
            spk = torch.sqrt(spk)
        return spk

    assert len(_refused(tutorial(between=between)()).got) < 400


def test_decisions_on_values_are_refused() -> None:
    error = _refused(tutorial(between=lambda self, spk: spk if spk.sum() > 3 else spk.clone())())
    assert "Python decision" in error.what
    assert "lif1 (Leaky)" in error.got


def test_a_forward_that_bypasses_the_modules_is_refused() -> None:
    error = _refused(tutorial(between=lambda self, spk: self.fc2.forward(spk)[:, :1].repeat(1, 30))())
    assert "torch function" in error.got
    module = tutorial(prepare=lambda self, x: x)()
    module.lif1.forward = lambda current, mem=None, own=module.lif1.forward: own(current + 1, mem)
    assert _refused(module).got == "forward"


# Order, sharing, shapes -------------------------------------------------------------------------------------------


class _Chain(nn.Module):
    """Modules in a row, one step a call; neurons hidden."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.chain = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.chain(x)
        return spikes


def _hidden(**options: Any) -> Any:
    return snn.Leaky(0.5, init_hidden=True, **{**ZERO, **options})


def _synaptic() -> Any:
    return snn.Synaptic(0.5, 0.5, init_hidden=True, **ZERO)


@pytest.mark.parametrize(
    ("modules", "shape", "what", "where"),
    [
        (lambda: [nn.Linear(20, 9), nn.Linear(9, 5), _hidden()], (20,), "two synapses with no neuron", "chain.1"),
        (lambda: [nn.Linear(20, 9), nn.BatchNorm1d(9), nn.BatchNorm1d(9), _hidden()], (20,), "two batch", "chain.2"),
        (lambda: [nn.BatchNorm1d(20), nn.Linear(20, 5), _hidden()], (20,), "does not follow a synapse", "chain.0"),
        (lambda: [nn.Linear(20, 5), _hidden(), _hidden()], (20,), "no Linear or Conv2d feeds", "chain.2 (Leaky)"),
        (lambda: [_hidden()], (20,), "no Linear or Conv2d feeds", "chain.0 (Leaky)"),
        (
            lambda: [nn.Conv2d(1, 4, 3), nn.AvgPool2d(2), _hidden(), nn.Flatten(), nn.Linear(36, 5), _hidden()],
            (1, 8, 8), "pool stands between synapse and neuron", "chain.1 (AvgPool2d)",
        ),
        (
            lambda: [nn.AvgPool2d(2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 5), _hidden()],
            (1, 8, 8), "after another pool", "chain.1 (AvgPool2d)",
        ),
        (
            lambda: [nn.Conv2d(1, 4, 3), _hidden(), nn.Flatten(0, 1), nn.Flatten(1), nn.Linear(36, 5), _hidden()],
            (1, 8, 8), "batch as first axis", "chain.3 (Flatten)",
        ),
        (lambda: [nn.Conv2d(1, 4, 3), _hidden(), nn.Linear(6, 5), _hidden()], (1, 8, 8), "batch as first", "chain.2"),
        (
            lambda: [nn.Conv2d(1, 4, 3), _hidden(), nn.Unflatten(1, (1, 4)), nn.Flatten(1, 2), nn.Flatten(2, 3),
                     nn.Unflatten(2, (9, 4)), nn.Conv2d(4, 2, 1), _hidden(), nn.Flatten(), nn.Linear(72, 5), _hidden()],
            (1, 8, 8), "image is reshaped", "chain.6 (Conv2d)",
        ),
        (lambda: [nn.Conv2d(1, 4, 3), _hidden()], (1, 8, 8), "not make a network: there is no output layer", "field 2"),
        (
            lambda: [nn.Linear(20, 16), _hidden(), nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), _hidden(),
                     nn.Flatten(), nn.Linear(8, 5), _hidden()],
            (20,), "do not make a network: a convolution after a flat", "field 3",
        ),
        (
            lambda: [nn.Conv2d(1, 4, 3), nn.Flatten(), nn.BatchNorm1d(144), _hidden(), nn.Linear(144, 5), _hidden()],
            (1, 8, 8), "not over the synapse's channels", "chain.2 (BatchNorm1d)",
        ),
        (
            lambda: [nn.Linear(20, 5), nn.BatchNorm1d(5, track_running_stats=False), _hidden()],
            (20,), "without running statistics", "chain.1",
        ),
        (lambda: [nn.Linear(20, 5), _synaptic()], (20,), "filtered by its alpha", "chain.0"),
        (
            lambda: [nn.Linear(20, 5, bias=False), nn.BatchNorm1d(5), _synaptic()],
            (20,), "filtered by its alpha", "chain.1 (BatchNorm1d)",
        ),
        (
            lambda: [nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), _hidden(), nn.Flatten(), nn.Linear(256, 5),
                     _hidden()],
            (1, 8, 8), "padding is not on the chip", "chain.0",
        ),
        (
            lambda: [nn.Conv2d(1, 4, 4, padding="same"), _hidden(), nn.Flatten(), nn.Linear(256, 5), _hidden()],
            (1, 8, 8), "differs between the two sides", "chain.0",
        ),
        *(
            (
                lambda options=options: [nn.AvgPool2d(3, 3, 1, **options), nn.Flatten(), nn.LazyLinear(5), _hidden()],
                (1, 8, 8), "pool setting has no counterpart", "chain.0",
            )
            for options in ({"ceil_mode": True}, {"count_include_pad": False}, {"divisor_override": 2})
        ),
    ],
)  # fmt: skip
def test_chains_that_cannot_be_taken(modules: Any, shape: tuple[int, ...], what: str, where: str) -> None:
    module = _Chain(*modules())
    x = _levels(4, *shape)
    module(x)
    error = _refused(module, x, steps=3)
    assert what in error.what
    assert where in error.where


def test_shared_modules_and_tied_weights_are_refused() -> None:
    linear = nn.Linear(20, 20)
    error = _refused(_Chain(linear, _hidden(), linear, _hidden()), steps=3)
    assert "used in two places" in error.what
    assert error.got == "shared with chain.0 (Linear)"
    tied = _Chain(nn.Linear(20, 20), _hidden(), nn.Linear(20, 20), _hidden())
    tied.chain[2].weight = tied.chain[0].weight
    assert "used in two places" in _refused(tied, steps=3).what
    lif = _hidden()
    error = _refused(_Chain(nn.Linear(20, 20), lif, nn.Linear(20, 20), lif), steps=3)
    assert error.where.startswith("module chain.1")


def test_hooks_and_other_types_are_refused() -> None:
    module = user.Tutorial()
    prune.l1_unstructured(module.fc2, "weight", amount=0.5)
    assert "hooks" in _refused(module).what
    prune.remove(module.fc2, "weight")
    accept(module, _levels(4, 20))
    module = user.Tutorial()
    nn.utils.parametrizations.weight_norm(module.fc1)
    assert "ParametrizedLinear" in _refused(module).got
    error = _refused(user.Tutorial().double())
    assert "fails on the example" in error.what
    assert "dtype" in error.got


# Time and states --------------------------------------------------------------------------------------------------


class _States(user.Tutorial):
    """A Tutorial whose loop does something to a state."""

    def __init__(self, change: Callable[[Any, int, Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, record = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in range(6):
            spk1, mem1 = self.lif1(self.fc1(x), self.change(self, step, mem1))
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            record.append(spk2)
        return torch.stack(record)


@pytest.mark.parametrize(
    "change",
    [
        lambda self, step, mem: 0.5 * mem,
        lambda self, step, mem: torch.zeros(4, 30) if step == 3 else mem,
        lambda self, step, mem: self.lif1.reset_mem() if step == 3 else None,
        lambda self, step, mem: mem.clamp(max=1e9),
        lambda self, step, mem: torch.ones(4, 30) if step == 0 else mem,
    ],
)
def test_states_that_are_not_carried_on_are_refused(change: Any) -> None:
    error = _refused(user.randomise(_States(change)))
    assert "'mem'" in error.what
    assert error.where == "module lif1 (Leaky)"
    assert error.got in ("step 0", "step 1", "step 3")


def test_states_that_are_carried_on_in_other_ways_are_taken() -> None:
    for change in (lambda s, t, mem: mem.detach(), lambda s, t, mem: None, lambda s, t, mem: mem.clone()):
        module = user.randomise(_States(change)).eval()
        x = _levels(5, 20)
        network = accept(module, x).eval()
        module.lif1.reset_mem()
        assert torch.equal(network(x), module(x))


class _Delayed(user.Tutorial):
    """The second layer sees the spikes of the step before."""

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, record = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        before, mem1 = self.lif1(self.fc1(x), mem1)
        for _ in range(6):
            spk2, mem2 = self.lif2(self.fc2(before), mem2)
            before, mem1 = self.lif1(self.fc1(x), mem1)
            record.append(spk2)
        return torch.stack(record)


class _Feedback(user.Tutorial):
    """The first layer sees its own spikes."""

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, record = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        spk1 = torch.zeros(4, 30)
        for _ in range(6):
            spk1, mem1 = self.lif1(self.fc1(x) + spk1, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            record.append(spk2)
        return torch.stack(record)


class _Alternating(user.Tutorial):
    """Another synapse at odd steps."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(30, 5)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, record = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in range(6):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2((self.other if step % 2 else self.fc2)(spk1), mem2)
            record.append(spk2)
        return torch.stack(record)


def test_feedback_delay_and_steps_that_differ_are_refused() -> None:
    assert "same modules" in _refused(_Alternating()).what
    assert "torch function 'add'" in _refused(_Feedback()).got
    # The delayed network is the undelayed one: the extra call of lif1 at the end feeds nothing.
    assert accept(_Delayed(), _levels(4, 20)).steps == 6


class _LateStart(user.Tutorial):
    """The second layer sees every other step."""

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, record = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in range(6):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            if step % 2:
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                record.append(spk2)
        return torch.stack(record)


def test_spikes_used_at_another_step_are_refused() -> None:
    error = _refused(_LateStart())
    assert "used at another" in error.what
    assert error.where == "module lif1 (Leaky)"
    assert error.got == "call 1 at step 0"


def test_an_unclear_time_axis_is_refused() -> None:
    class Backwards(user.TimeFirst):
        def steps_of(self, data: Tensor) -> Any:
            return (data[t] for t in reversed(range(data.size(0))))

    class Last(user.TimeFirst):
        def steps_of(self, data: Tensor) -> Any:
            return (data.select(2, t) for t in range(data.size(2)))

    assert "which axis of the input is time" in _refused(Backwards(), _levels(6, 4, 20)).what
    assert "which axis of the input is time" in _refused(Last(), _levels(4, 20, 6)).what


def test_one_step_a_call_needs_the_number_of_steps() -> None:
    error = _refused(user.OneStep())
    assert "number of steps is not known" in error.what
    assert "steps=T" in error.allowed
    assert accept(user.OneStep(), _levels(4, 20), steps=1).steps == 1


def test_steps_that_contradict_the_forward_are_refused() -> None:
    error = _refused(user.Tutorial(), steps=7)
    assert error.got == "steps=7, forward makes 12"
    assert "another number of steps" in _refused(user.Tutorial(steps=1), steps=7).what
    assert accept(user.Tutorial(steps=1), _levels(4, 20)).steps == 1
    assert "out of range" in _refused(user.OneStep(), steps=0).what


# Returned values and examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("collect", "what", "got"),
    [
        (lambda self, spk, mem: torch.stack(mem), "returns no spikes", "torch function 'stack'"),
        (lambda self, spk, mem: None, "returns no spikes", "no tensor"),
        (lambda self, spk, mem: torch.stack(spk).softmax(-1), "returns no spikes", "'softmax'"),
        (lambda self, spk, mem: spk[-1], "output spikes of every step", "1 of 12 steps, 0 is missing"),
        (lambda self, spk, mem: torch.stack(spk[2:]), "output spikes of every step", "10 of 12 steps, 0 is missing"),
    ],
)
def test_forwards_that_do_not_return_the_output_spikes(collect: Any, what: str, got: str) -> None:
    error = _refused(tutorial(collect=collect)())
    assert what in error.what
    assert got in error.got


class _TwoHeads(user.Tutorial):
    def __init__(self) -> None:
        super().__init__()
        self.fc3, self.lif3 = nn.Linear(30, 4), snn.Leaky(0.5, **ZERO)

    def forward(self, x: Tensor) -> Any:
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        one, two = [], []
        for _ in range(5):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk3, mem3 = self.lif3(self.fc3(spk1), mem3)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            one.append(spk2)
            two.append(spk3)
        return (torch.stack(one), torch.stack(two)) if self.both else torch.stack(one)


def test_two_outputs_are_refused_and_a_head_that_is_not_returned_is_noted() -> None:
    module = _TwoHeads()
    module.both = True
    error = _refused(module)
    assert "second output" in error.what
    assert error.where == "module lif3 (Leaky)"
    module.both = False
    notes = accept(module, _levels(4, 20)).notes
    assert "fc3 (Linear) is not on the way to the output spikes and is left out" in notes
    assert "lif3 (Leaky) is not on the way to the output spikes and is left out" in notes


def test_examples_that_cannot_be_used() -> None:
    module = user.Tutorial()
    for example in (torch.zeros(4, 20, dtype=torch.uint8), torch.zeros(20), torch.zeros(0, 20), [[1.0]]):
        assert "not usable" in _refused(module, example).what
    error = _refused(module, _levels(4, 21))
    assert "fails on the example" in error.what
    assert "RuntimeError" in error.got
    with pytest.raises(ModuleError, match="one of example_input and input_shape"):
        accept(module)
    with pytest.raises(ModuleError, match="one of example_input and input_shape"):
        accept(module, _levels(4, 20), input_shape=(20,))
    with pytest.raises(ModuleError, match="reads its input step by step"):
        accept(user.TimeFirst(), input_shape=(20,))
    assert "fails on the example" in _refused(user.TimeFirst(), _levels(4, 20)).what


def test_things_that_are_not_snntorch_modules() -> None:
    for thing in (nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 4), nn.ReLU())):
        assert "nothing to accept" in _refused(thing).what
    unused = _Chain(nn.Linear(20, 5))
    unused.lif = snn.Leaky(0.5)
    assert "calls no neuron that can be taken" in _refused(unused).what


def test_a_network_that_a_trace_cannot_show_is_caught_by_the_proof() -> None:
    class Behind(user.Tutorial):
        def forward(self, x: Tensor) -> Any:
            with torch.no_grad():
                self.fc1.weight.add_(0.5)
            return super().forward(x)

    class Restoring(Behind):
        def forward(self, x: Tensor) -> Any:
            out = super().forward(x)
            with torch.no_grad():
                self.fc1.weight.sub_(0.5)
            return out

    error = _refused(user.randomise(Restoring()))
    assert "does not reproduce" in error.what
    assert error.where == "module lif1 (Leaky)"


def test_no_output_spikes_are_noted() -> None:
    notes = accept(user.Tutorial(), torch.zeros(4, 20)).notes
    assert any("no output spikes" in note for note in notes)


def test_a_neuron_that_fires_otherwise_is_caught_by_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snn.Leaky, "fire", lambda self, mem: (mem > 1.5 * self.threshold).float())
    error = _refused(user.randomise(user.Tutorial()))
    assert "does not reproduce" in error.what
    assert "spikes differ" in error.got
    assert error.where == "module lif1 (Leaky)"


def test_spikes_that_differ_by_rounding_only_are_counted_in_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = user.randomise(user.Tutorial()).eval(), _levels(4, 20)
    own = SpikingNetwork.sat

    def flipped(self: SpikingNetwork, x: Tensor, steps: int | None = None) -> Tensor:
        sat = own(self, x, steps).clone()
        sat[3, 2, 1] = 1 - sat[3, 2, 1]
        return sat

    monkeypatch.setattr(SpikingNetwork, "sat", flipped)
    notes = accept(module, x).notes
    assert notes == ["1 of 240 output spikes differ on the example by float32 rounding of sums"]


def test_a_module_on_two_devices_is_refused() -> None:
    module = user.Tutorial()
    module.fc2.to("meta")
    error = _refused(module)
    assert "several devices" in error.what
    assert error.got == "cpu, meta"
