from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")
snn = pytest.importorskip("snntorch", reason="user modules are snntorch modules")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from snntorch import utils  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from deploy.errors import ModuleError  # noqa: E402
from neurokd import students  # noqa: E402
from neurokd.accept import accept, as_network, is_snntorch, to_user  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.neurons import on_grid  # noqa: E402
from neurokd.spec import NetworkSpec  # noqa: E402

# By path: the name `tests` may belong to another installed package.
_SPEC = importlib.util.spec_from_file_location("snntorch_modules", Path(__file__).with_name("snntorch_modules.py"))
user = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(user)
ZERO = user.ZERO


def _levels(*shape: int, seed: int = 0) -> Tensor:
    """Grey levels on a grid of 1/16, so that sums with the modules' weights are exact in float32."""
    return torch.randint(0, 17, shape, generator=torch.Generator().manual_seed(seed)) / 16


def _spikes(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def _run_by_steps(module: nn.Module, x: Tensor, steps: int, pick: Callable[[Any], Tensor]) -> Tensor:
    utils.reset(module)
    return torch.stack([pick(module(x)) for _ in range(steps)])


def _one_step_loop(module: nn.Module, x: Tensor) -> Tensor:
    mem1, mem2, record = module.lif1.init_leaky(), module.lif2.init_leaky(), []
    spk1 = None
    for _ in range(9):
        mem1, spk1, mem2, spk2 = module(x, mem1, spk1, mem2)
        record.append(spk2)
    return torch.stack(record)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor], dict[str, Any], Callable[..., Tensor]]] = {
    "tutorial": (user.Tutorial, lambda s: _levels(6, 20, seed=s), {}, lambda m, x: m(x)[0]),
    "tutorial, image": (user.Tutorial, lambda s: _levels(6, 1, 4, 5, seed=s), {}, lambda m, x: m(x)[0]),
    "precomputed": (user.Precomputed, lambda s: _levels(6, 20, seed=s), {}, lambda m, x: torch.stack(m(x)["spikes"])),
    "synaptic": (user.SynapticNet, lambda s: _levels(6, 20, seed=s), {}, lambda m, x: m(x)),
    "convolutional": (user.Convolutional, lambda s: _levels(5, 2, 8, 9, seed=s), {}, lambda m, x: m(x)),
    "one step": (user.OneStep, lambda s: _levels(6, 20, seed=s), {"steps": 9}, _one_step_loop),
    "sequential": (
        user.sequential, lambda s: _levels(4, 2, 8, 8, seed=s), {"steps": 7},
        lambda m, x: _run_by_steps(m, x, 7, lambda out: out[0]),
    ),
    "time first": (user.TimeFirst, lambda s: _spikes(11, 6, 20, seed=s), {}, lambda m, x: m(x)),
    "time first, images": (user.TimeFirst, lambda s: _spikes(11, 6, 4, 5, 1, seed=s), {}, lambda m, x: m(x)),
    "iterated": (lambda: user.TimeFirst("iterate"), lambda s: _spikes(5, 6, 20, seed=s), {}, lambda m, x: m(x)),
    "unbound": (lambda: user.TimeFirst("unbind"), lambda s: _spikes(5, 6, 20, seed=s), {}, lambda m, x: m(x)),
    "dots": (lambda: user.TimeFirst("dots"), lambda s: _spikes(5, 6, 20, seed=s), {}, lambda m, x: m(x)),
    "select": (lambda: user.TimeFirst("select"), lambda s: _spikes(5, 6, 20, seed=s), {}, lambda m, x: m(x)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_the_sat_is_exactly_the_users_spikes(case: str, seed: int) -> None:
    make, inputs, options, run = CASES[case]
    module = user.randomise(make(), seed)
    network = accept(module, inputs(seed), **options)
    x = inputs(seed + 100)
    with torch.no_grad():
        expected = run(module.eval(), x)
        sat = network.eval()(x)
    assert torch.equal(sat, expected)
    assert 0 < float(sat.mean()) < 1
    assert not [note for note in network.notes if "differ" in note]


@pytest.mark.parametrize("case", ["tutorial", "synaptic", "convolutional", "time first"])
def test_every_hidden_layer_is_equal_too(case: str) -> None:
    make, inputs, options, run = CASES[case]
    module, x = user.randomise(make()).eval(), inputs(5)
    network = accept(module, x, **options)
    seen: dict[str, list[Tensor]] = {}
    for paths in network.options["source"]:
        record = seen.setdefault(paths["neuron"], [])
        module.get_submodule(paths["neuron"]).register_forward_hook(
            lambda m, a, out, record=record: record.append(out[0])
        )
    with torch.no_grad():
        run(module, x)
        _, layers = network(x, record=True)
    for (path, record), spikes in zip(seen.items(), layers.values(), strict=True):
        assert torch.equal(torch.stack(record), spikes), path
        assert spikes.any(), path


def test_random_weights_and_tutorial_constants() -> None:
    """beta=0.9 and torch's own initial weights, nothing on a grid: equal to the module with its beta on the grid."""
    torch.manual_seed(0)
    module = user.Tutorial(beta=0.9, steps=25)
    x = 2 * torch.rand(64, 20)
    network = accept(module, x)
    with torch.no_grad():
        original = module(x)[0]
        for lif in (module.lif1, module.lif2):
            lif.beta.fill_(on_grid(0.9))
        assert torch.equal(network.eval()(x), module(x)[0])
    assert network.spiking_layers()[0].neuron.beta == 3686 / 4096
    assert [note for note in network.notes if "lif1 (Leaky): beta 0.9 became 0.899902344" in note]
    differing = int((network(x) != original).sum())
    assert f"{differing} of {original.numel()} output spikes differ" in network.notes[-1]


_pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
_neuron = st.sampled_from(["leaky", "synaptic"])


@st.composite
def _modules(draw: st.DrawFn) -> nn.Module:
    """snntorch modules of up to two convolutions and two linear layers, with pools, norms and both neurons."""
    modules: list[nn.Module] = []
    shape = (2, 11, 9)
    for _ in range(draw(st.integers(0, 2))):
        channels = 2 * draw(st.integers(1, 3))
        norm, synaptic, pool = draw(st.booleans()), draw(_neuron) == "synaptic", draw(st.booleans())
        modules += [nn.AvgPool2d(2, draw(st.integers(1, 2)), draw(st.integers(0, 1)))] if pool else []
        conv = {"stride": draw(_pair), "padding": draw(_pair), "groups": draw(st.integers(1, 2))}
        modules.append(nn.Conv2d(shape[0], channels, draw(_pair), bias=not synaptic and draw(st.booleans()), **conv))
        modules += [nn.BatchNorm2d(channels)] if norm and not synaptic else []
        modules.append(_drawn_neuron(draw, synaptic))
        shape = tuple(
            nn.Sequential(*(m for m in modules if not hasattr(m, "beta"))).eval()(torch.zeros(1, 2, 11, 9)).shape[1:]
        )
    modules.append(nn.Flatten())
    size = shape[0] * shape[1] * shape[2]
    for units in draw(st.lists(st.integers(1, 12), min_size=1, max_size=2)):
        synaptic, norm = draw(_neuron) == "synaptic", draw(st.booleans())
        modules.append(nn.Linear(size, units, bias=not synaptic))
        modules += [nn.BatchNorm1d(units)] if norm and not synaptic else []
        modules.append(_drawn_neuron(draw, synaptic))
        size = units
    return user.randomise(user.Loop(*modules), draw(st.integers(0, 1000)))


def _drawn_neuron(draw: st.DrawFn, synaptic: bool) -> nn.Module:
    decays = {name: draw(st.integers(1, 4095)) / 4096 for name in (("alpha", "beta") if synaptic else ("beta",))}
    return (snn.Synaptic if synaptic else snn.Leaky)(
        **decays, threshold=draw(st.sampled_from([0.25, 1.0])), init_hidden=True, **ZERO
    )


@settings(deadline=None, derandomize=True, max_examples=40)
@given(_modules())
def test_any_chain_is_exactly_equal(module: nn.Module) -> None:
    """For every chain that is taken the SAT of fresh images equals the module's own spikes."""
    network = accept(module.eval(), _levels(2, 2, 11, 9)).eval()
    x = _levels(4, 2, 11, 9, seed=1)
    with torch.no_grad():
        assert torch.equal(network(x), module(x))
    assert NetworkSpec.parse(network.spec_text) == network.spec


def test_batch_first_input_is_read_and_noted() -> None:
    module, x = user.randomise(user.TimeFirst("batch first")).eval(), _spikes(6, 7, 20)
    network = accept(module, x)
    assert network.steps == 7
    assert torch.equal(network(x.transpose(0, 1)), module(x))
    assert "forward takes [B, T, ...]; this network takes [T, B, ...]" in network.notes


def test_blocks_with_a_step_argument_and_a_summed_readout() -> None:
    module, x = user.randomise(user.Blocks()).eval(), _levels(6, 20)
    network = accept(module, x, steps=10).eval()
    assert torch.equal(network.sat(x).sum(0), module(x, 10))
    assert [paths["synapse"] for paths in network.options["source"]] == [f"blocks.{n}.linear" for n in range(3)]
    assert network.spiking_layers()[0].neuron.surrogate.name == "fast_sigmoid"
    assert network.spiking_layers()[0].neuron.surrogate.slope == 10
    assert any("after 'sum'" in note for note in network.notes)
    assert any("into Python" in note for note in network.notes)
    assert accept(module, x, forward_kwargs={"num_steps": 4}).steps == 4


def test_input_shape_instead_of_an_example() -> None:
    assert accept(user.Tutorial(), input_shape=(20,)).spec_text == "20-30-5"
    assert accept(user.randomise(user.Convolutional()), input_shape=(2, 8, 9)).classes == 4
    network = accept(user.TimeFirst(), input_shape=(20,), steps=6)
    assert (network.steps, network.spec_text) == (6, "20-30-5")


def test_settings_are_taken_over() -> None:
    network = accept(user.randomise(user.Convolutional()), _levels(3, 2, 8, 9), input_bits=5)
    assert network.spec_text == "8x9x2-6c3x5s1x2p1-p2-8c3p1g2-p2-12-4"
    one, two, three, four = network.spiking_layers()
    assert (one.norm.eps, one.norm.momentum, three.norm.affine, two.norm) == (1e-3, None, False, None)
    assert (one.synapse.bias, two.synapse.bias is None) == (None, False)
    assert isinstance(one.neuron.raw_threshold, nn.Parameter)
    assert isinstance(two.neuron.raw_beta, nn.Parameter)
    assert not isinstance(four.neuron.raw_beta, nn.Parameter)
    assert (network.steps, network.input_bits) == (10, 5)
    assert sum("dropout is not taken over" in note for note in network.notes) == 1
    assert sum("statistics are over all steps" in note for note in network.notes) == 2


def test_the_module_is_left_as_it_was() -> None:
    module = user.randomise(user.Convolutional()).train()
    module.pool.eval()
    module(_levels(3, 2, 8, 9)).sum().backward()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fields = [dict(part.__dict__) for part in module.modules()]
    mems = [module.lif1.mem, module.lif2.mem]
    gradient, generator = module.fc.weight.grad, torch.get_rng_state()
    accept(module, _levels(4, 2, 8, 9, seed=1))
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [dict(part.__dict__) for part in module.modules()] == fields
    assert [module.lif1.mem is mems[0], module.lif2.mem is mems[1]] == [True, True]
    assert (module.training, module.pool.training, module.fc.weight.grad is gradient) == (True, False, True)
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())


def test_the_module_is_left_as_it_was_after_a_refusal_and_a_change() -> None:
    module = user.Tutorial(beta=0.9, reset_mechanism="subtract")
    fields = [dict(part.__dict__) for part in module.modules()]
    buffers = [dict(part._buffers) for part in module.modules()]
    with pytest.raises(ModuleError):
        accept(module, _levels(4, 20))
    accept(module, _levels(4, 20), convert_reset=True)
    assert [dict(part.__dict__) for part in module.modules()] == fields
    for part, held in zip(module.modules(), buffers, strict=True):
        assert all(part._buffers[name] is value for name, value in held.items())


def test_nothing_is_shared_and_mode_is_kept() -> None:
    module = user.randomise(user.Convolutional())
    network = accept(module, _levels(3, 2, 8, 9))
    theirs = {tensor.data_ptr() for tensor in module.state_dict().values() if tensor.numel()}
    assert not theirs & {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert network.training
    assert not accept(module.eval(), _levels(3, 2, 8, 9)).training
    module.fc.weight.requires_grad_(False)
    assert not accept(module, _levels(3, 2, 8, 9)).spiking_layers()[2].synapse.weight.requires_grad


@pytest.mark.parametrize("case", ["tutorial", "convolutional", "synaptic"])
def test_trained_parameters_go_back(case: str) -> None:
    make, inputs, options, run = CASES[case]
    module, x = user.randomise(make()), inputs(1)
    network = accept(module, x, **options).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    for _ in range(3):
        optimizer.zero_grad()
        (network.sat(x).mean(0) - 0.5).pow(2).sum().backward()
        optimizer.step()
    before = copy.deepcopy(module.state_dict())
    to_user(network, module)
    assert any(not torch.equal(before[name], value) for name, value in module.state_dict().items())
    with torch.no_grad():
        assert torch.equal(network.eval()(x), run(module.eval(), x))


def test_a_rebuilt_network_goes_back_too() -> None:
    module, x = user.randomise(user.Convolutional()), _levels(3, 2, 8, 9)
    network = accept(module, x)
    again = build(network.spec_text, **json.loads(json.dumps(network.options)))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(x), network.eval()(x))
    fresh = user.Convolutional().eval()
    to_user(again, fresh)
    assert torch.equal(fresh(x), network(x))


def test_to_user_refuses_what_does_not_fit_and_copies_nothing() -> None:
    module = user.Tutorial()
    network = accept(module, _levels(4, 20))
    with pytest.raises(ModuleError, match="not taken from a module"):
        to_user(build("20-30-5"), module)
    with pytest.raises(ModuleError, match="no such part"):
        to_user(network, nn.Sequential(nn.Linear(20, 30)))
    other = user.Tutorial()
    other.fc2 = nn.Linear(31, 5)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ModuleError, match="does not fit") as caught:
        to_user(network, other)
    assert caught.value.where == "fc2.weight"
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())
    normed = user.randomise(user.Convolutional())
    with pytest.raises(ModuleError, match="no norm where the module has one"):
        to_user(accept(normed, _levels(3, 2, 8, 9)).folded(), normed)


def test_either_kind_becomes_a_network() -> None:
    network = build("20-5")
    assert as_network(network) is network
    assert isinstance(as_network(user.Tutorial(), input_shape=(20,)), SpikingNetwork)
    assert is_snntorch(user.Tutorial())
    assert is_snntorch(nn.Sequential(nn.Linear(3, 4), snn.Alpha(0.75, 0.5)))
    assert is_snntorch(type("Own", (snn.Leaky,), {})(0.5))
    assert not any(map(is_snntorch, (network, nn.Linear(3, 4), "784-10", None)))
    with pytest.raises(ModuleError, match="nothing to accept"):
        accept(network, torch.zeros(2, 20))


def test_the_public_front_has_it_all() -> None:
    assert {students.build, students.accept, students.as_network, students.to_user} == {
        build,
        accept,
        as_network,
        to_user,
    }
    assert all(hasattr(students, name) for name in students.__all__)


# Reset rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["subtract", "none", "zero"])
@pytest.mark.parametrize("delay", [True, False])
def test_reset_rules_are_refused_or_converted_with_a_count(rule: str, delay: bool) -> None:
    module, x = user.randomise(user.Tutorial(reset_mechanism=rule, reset_delay=delay)).eval(), _levels(6, 20)
    if (rule, delay) == ("zero", False):
        assert not accept(module, x).notes
        return
    with pytest.raises(ModuleError, match="reset rule is not on the chip") as caught:
        accept(module, x)
    assert caught.value.where == "module lif1 (Leaky)"
    assert caught.value.got == f"reset_mechanism='{rule}', reset_delay={delay}"
    assert caught.value.allowed == "reset_mechanism='zero', reset_delay=False"
    assert "convert_reset=True" in caught.value.next_step
    network = accept(module, x, convert_reset=True).eval()
    twin = user.Tutorial().eval()
    weights = {name: value for name, value in module.state_dict().items() if "reset_mechanism" not in name}
    twin.load_state_dict(weights, strict=False)
    assert torch.equal(network(x), twin(x)[0])
    differing = int((network(x) != module(x)[0]).sum())
    assert sum("convert_reset" in note and rule in note for note in network.notes) == 2
    assert f"with these changes {differing} of {12 * 6 * 5} output spikes differ" in network.notes[-1]
    assert (differing == 0) == (rule == "zero"), "snn.Leaky's delayed zero reset gives the same spikes"


def test_delayed_zero_reset_names_the_easy_way_out_for_leaky_only() -> None:
    with pytest.raises(ModuleError) as caught:
        accept(user.Tutorial(reset_delay=True), _levels(6, 20))
    assert "spikes stay the same" in caught.value.next_step
    with pytest.raises(ModuleError) as caught:
        accept(user.SynapticNet(reset_delay=True), _levels(6, 20))
    assert "fine-tune" in caught.value.next_step


def test_a_rule_set_after_construction_counts() -> None:
    module, x = user.randomise(user.Tutorial(reset_mechanism="subtract")).eval(), _levels(6, 20)
    for lif in (module.lif1, module.lif2):
        lif.reset_mechanism = "zero"
    assert torch.equal(accept(module, x)(x), module(x)[0])


def test_a_rule_loaded_from_elsewhere_is_seen() -> None:
    module = user.Tutorial()
    module.load_state_dict(user.Tutorial(reset_mechanism="subtract").state_dict())
    with pytest.raises(ModuleError) as caught:
        accept(module, _levels(6, 20))
    assert caught.value.got == "reset_mechanism='zero' but reset_mechanism_val=0 (loaded from another module?)"
