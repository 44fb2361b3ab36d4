"""Users' snntorch modules to NIR and back: the same spikes, everything named that a file cannot say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")
snn = pytest.importorskip("snntorch", reason="the training side needs snntorch")
from torch import nn  # noqa: E402

from deploy import graph as nir  # noqa: E402
from deploy.errors import ModuleError  # noqa: E402
from deploy.float_model import run  # noqa: E402
from neurokd.export import export  # noqa: E402
from neurokd.graph_module import to_torch  # noqa: E402

STEPS, BATCH = 20, 4
ZERO: dict[str, Any] = {"reset_mechanism": "zero", "reset_delay": False}


class Net(nn.Module):
    """Layers in a row, called in a loop over time; neurons keep their own states."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Any) -> Any:
        states: dict[int, Any] = {}
        record = []
        for step in range(len(x)):
            value = x[step]
            for place, layer in enumerate(self.layers):
                if isinstance(layer, (snn.Leaky, snn.Synaptic, snn.RLeaky, snn.RSynaptic)):
                    value, *rest = layer(value, *states.get(place, []))
                    recurrent = isinstance(layer, (snn.RLeaky, snn.RSynaptic))
                    states[place] = [value, *rest] if recurrent else rest
                else:
                    value = layer(value)
            record.append(value)
        return torch.stack(record)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    net = make().eval()
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0.0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.3, 0.2)
    return net


def many(count: int, low: float, high: float) -> Any:
    return torch.linspace(low, high, count)


def linear(inputs: int, outputs: int, **options: Any) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, **options)
    nn.init.normal_(layer.weight, 0.15, 0.5)
    return layer


def leaky() -> nn.Module:
    first = snn.Leaky(many(7, 0.5, 0.95), threshold=many(7, 0.7, 1.3), **ZERO)
    return Net(linear(5, 7), first, nn.Dropout(0.5), linear(7, 3, bias=False), snn.Leaky(0.8, threshold=0.6, **ZERO))


def synaptic() -> nn.Module:
    first = snn.Synaptic(many(7, 0.2, 0.9), many(7, 0.5, 0.95), threshold=many(7, 0.7, 1.3), **ZERO)
    return Net(linear(5, 7), nn.BatchNorm1d(7), first, linear(7, 3), snn.Synaptic(0.5, 0.7, threshold=1.1, **ZERO))


def rleaky() -> nn.Module:
    back = snn.RLeaky(0.85, linear_features=7, threshold=0.9, **ZERO)
    return Net(linear(5, 7), back, linear(7, 3), snn.RLeaky(0.7, all_to_all=False, V=many(3, -0.5, 0.4), **ZERO))


def rsynaptic() -> nn.Module:
    first = snn.RSynaptic(0.6, 0.85, linear_features=7, reset_mechanism="zero")
    return Net(
        linear(5, 7), first, linear(7, 3), snn.RSynaptic(0.3, 0.7, all_to_all=False, V=0.25, reset_mechanism="zero")
    )


def images() -> nn.Module:
    conv = nn.Conv2d(2, 4, (3, 2), (1, 2), (1, 0), (2, 1), groups=2)
    inner = snn.RLeaky(0.8, conv2d_channels=4, kernel_size=3, threshold=0.4, **ZERO)
    return Net(
        conv, nn.BatchNorm2d(4), snn.Leaky(0.9, threshold=0.5, **ZERO), nn.AvgPool2d((2, 1), (2, 1), (1, 0)),
        nn.Conv2d(4, 4, 3, padding="same"), inner, nn.Flatten(), linear(4 * 3 * 3, 5), snn.Leaky(0.7, **ZERO),
    )  # fmt: skip


def lines() -> nn.Module:
    conv = nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2)
    return Net(conv, snn.Leaky(0.9, threshold=0.3, **ZERO), nn.Flatten(), linear(6 * 5, 3), snn.Leaky(0.7, **ZERO))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "leaky": (leaky, (5,)), "synaptic": (synaptic, (5,)), "rleaky": (rleaky, (5,)), "rsynaptic": (rsynaptic, (5,)),
    "images": (images, (2, 7, 6)), "lines": (lines, (4, 9)),
}  # fmt: skip


def example(shape: tuple[int, ...]) -> Any:
    return (torch.rand(STEPS, BATCH, *shape, generator=torch.Generator().manual_seed(5)) < 0.5).float()


@pytest.mark.parametrize("name", NETS)
def test_the_file_gives_the_modules_spikes_in_torch_and_numpy(name: str, tmp_path: Path) -> None:
    make, shape = NETS[name]
    net, x = seeded(make), example(shape)
    with torch.no_grad():
        expected = net(x)
    assert 0.02 < float(expected.mean()) < 0.98, "the example says something"
    before = {key: value.detach().clone() for key, value in (*net.named_buffers(), *net.named_parameters())}
    graph = export(net, tmp_path / "net.nir", example_input=x)
    again = nir.read(tmp_path / "net.nir", trusted=True)
    assert again == graph
    with torch.no_grad():
        assert torch.equal(to_torch(again)(x).float(), expected), "0 differing spikes in torch"
    trace = run(again, x.numpy())
    assert np.array_equal(trace.outputs[trace.output], expected.numpy())
    after = {**dict(net.named_buffers()), **dict(net.named_parameters())}
    assert all(torch.equal(before[key], value) for key, value in after.items()), "the module is as it was"


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("mechanism", ["zero", "subtract"])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "RLeaky", "RSynaptic"])
def test_every_reset_of_snntorch_is_kept_or_refused(kind: str, mechanism: str, delay: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"reset_mechanism": mechanism, "reset_delay": delay}
    decays = {"alpha": 0.6, "beta": 0.9} if "Synaptic" in kind else {"beta": 0.9}
    recurrent = {"linear_features": 6} if kind.startswith("R") else {}
    if kind == "RSynaptic" and not delay:
        pytest.skip("snntorch 1.0.0 fails itself: RSynaptic.forward reads names it does not have")
    threshold = 1.5 if delay or mechanism == "zero" else 4.0  # see the next test
    net = seeded(lambda: Net(linear(5, 6), getattr(snn, kind)(**decays, **recurrent, threshold=threshold, **options)))
    x = example((5,))
    with torch.no_grad():
        expected = net(x)
    graph = export(net, tmp_path / "net.nir", example_input=x)
    late = delay and not (kind == "Leaky" and mechanism == "zero")
    assert graph.reset == ("late-" if late else "") + mechanism
    trace = run(nir.read(tmp_path / "net.nir", trusted=True), x.numpy())
    assert np.array_equal(trace.outputs[trace.output], expected.numpy())
    warned = any("NIR has no field for the reset rule" in str(note) for note in graph.notes)
    assert warned == (graph.reset != "zero"), "what other tools cannot see is said"


def test_snntorchs_double_subtraction_is_found_and_refused(tmp_path: Path) -> None:
    """Above twice the threshold snntorch 1.0.0 decides the next spike on a membrane it has subtracted from twice."""
    net = seeded(
        lambda: Net(linear(5, 6), snn.Leaky(0.9, threshold=0.4, reset_mechanism="subtract", reset_delay=False))
    )
    with pytest.raises(ModuleError, match="subtracts twice"):
        export(net, tmp_path / "net.nir", example_input=example((5,)))


def test_the_report_names_what_was_folded_left_out_and_beside(tmp_path: Path) -> None:
    class Two(Net):
        def forward(self, x: Any) -> Any:
            first, second = [], []
            for step in range(len(x)):
                one = self.layers[1](self.layers[2](self.layers[0](x[step])))
                first.append(one)
                second.append(self.layers[4](self.layers[3](one)))
                self.layers[5](one)
            return torch.stack(first), torch.stack(second)

    cell = {"init_hidden": True, **ZERO}
    net = seeded(
        lambda: Two(
            linear(5, 6), snn.Leaky(0.8, **cell), nn.BatchNorm1d(6), linear(6, 3), snn.Leaky(0.8, **cell), linear(6, 2)
        )
    )
    graph = export(net, tmp_path / "net.nir", example_input=example((5,)))
    report = "\n".join(map(str, graph.notes))
    assert "a batch norm's running statistics are folded" in report
    assert "layers.1: its spikes are returned too" in report
    assert "layers.5: not on the way to the output spikes, and left out" in report


def test_one_step_a_call_and_the_rounding_of_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(linear(5, 6), snn.Leaky(0.8, init_hidden=True, **ZERO), nn.Dropout(0.2)).eval()
    graph = export(net, tmp_path / "net.nir", example_input=torch.rand(BATCH, 5), steps=9)
    assert graph.settings.steps == 9
    assert any("dropout does nothing" in str(note) for note in graph.notes)


def test_branches_that_read_the_same_spikes_are_kept(tmp_path: Path) -> None:
    graph = export(_branching(), tmp_path / "net.nir", example_input=example((5,)))
    assert any("returned too" in str(note) for note in graph.notes)


def _branching() -> nn.Module:
    class Branches(Net):
        def forward(self, x: Any) -> Any:
            out, other = [], []
            for step in range(len(x)):
                one = self.layers[1](self.layers[0](x[step]))
                other.append(self.layers[3](self.layers[2](one)))
                out.append(self.layers[5](self.layers[4](one)))
            return torch.stack(other), torch.stack(out)

    cells = [snn.Leaky(0.8, init_hidden=True, **ZERO) for _ in range(3)]
    return seeded(lambda: Branches(linear(5, 6), cells[0], linear(6, 3), cells[1], linear(6, 2), cells[2]))


def test_convert_reset_writes_zero_and_counts_what_changes(tmp_path: Path) -> None:
    net = seeded(lambda: Net(linear(5, 6), snn.Leaky(0.9)))
    graph = export(net, tmp_path / "net.nir", example_input=example((5,)), convert_reset=True)
    assert graph.reset == "zero"
    assert any("switched to zero in the same step" in str(note) for note in graph.notes)


class Adds(Net):
    def forward(self, x: Any) -> Any:
        return torch.stack([self.layers[1](self.layers[0](x[step]) + 1.0) for step in range(len(x))])


class Twice(Net):
    def forward(self, x: Any) -> Any:
        return torch.stack([self.layers[1](self.layers[0](self.layers[0](x[step]))) for step in range(len(x))])


class Decides(Net):
    def forward(self, x: Any) -> Any:
        return torch.stack([self.layers[1](self.layers[0](x[s] if x[s].sum() > 0 else x[0])) for s in range(len(x))])


class Alternates(Net):
    def forward(self, x: Any) -> Any:
        currents = [self.layers[step % 2](x[step]) for step in range(len(x))]
        return torch.stack([self.layers[2](current) for current in currents])


class Sequence(Net):
    def forward(self, x: Any) -> Any:
        currents = self.layers[0](x)
        return torch.stack([self.layers[1](current) for current in currents])


class Cheats(Net):
    """Changes the state behind torch's back between the steps."""

    def forward(self, x: Any) -> Any:
        out = []
        for step in range(len(x)):
            out.append(self.layers[1](self.layers[0](x[step])))
            self.layers[1].mem = self.layers[1].mem * 0.5
        return torch.stack(out)


def hidden() -> Any:
    return snn.Leaky(0.8, init_hidden=True, **ZERO)


def plain(**options: Any) -> Any:
    return snn.Leaky(0.8, **{**ZERO, **options})


def hooked() -> nn.Module:
    layer = linear(5, 6)
    layer.register_forward_hook(lambda *_: None)
    return layer


def odd() -> Any:
    neuron = plain()
    neuron.surprise = 1
    return neuron


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a sum": (lambda: Adds(linear(5, 6), hidden()), "not the output of a module"),
    "a module called twice": (lambda: Twice(linear(5, 5), hidden()), "not called once a step"),
    "two sources in turn": (lambda: Alternates(linear(5, 6), linear(5, 6), hidden()), "do not feed it alike"),
    "a module between": (lambda: Net(linear(5, 6), nn.Softmax(-1), plain()), "not the output of a module"),
    "a decision": (lambda: Decides(linear(5, 6), hidden()), "Python decision"),
    "a whole sequence": (lambda: Sequence(linear(5, 6), hidden()), "not the output of a module"),
    "a changed state": (lambda: Cheats(linear(5, 6), hidden()), "does not reproduce"),
    "no reset": (lambda: Net(linear(5, 6), snn.Leaky(0.8, reset_mechanism="none")), "without a reset"),
    "inhibition": (lambda: Net(linear(5, 6), snn.Leaky(0.8, inhibition=True, **ZERO)), "'inhibition'"),
    "graded spikes": (lambda: Net(linear(5, 6), snn.Leaky(0.8, graded_spikes_factor=2.0, **ZERO)), "'graded_spikes"),
    "another neuron": (lambda: Net(linear(5, 6), snn.Lapicque(0.8, init_hidden=True)), "returns no spikes of a neuron"),
    "an activation": (lambda: Net(linear(5, 6), nn.ReLU(), snn.Leaky(0.8, **ZERO)), "not the output of a module"),
    "two rules": (
        lambda: Net(linear(5, 6), snn.Leaky(0.8, **ZERO), linear(6, 2), snn.Leaky(0.8)), "do not all reset alike",
    ),
    "hooks": (lambda: Net(hooked(), snn.Leaky(0.8, **ZERO)), "hooks stand around"),
    "an unknown attribute": (lambda: Net(linear(5, 6), odd()), "does not know"),
    "a norm first": (lambda: Net(nn.BatchNorm1d(5), linear(5, 6), plain()), "cannot be folded"),
    "an uneven padding": (
        lambda: Net(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 3), plain()), "image is reshaped",
    ),
    "a failing forward": (lambda: Net(linear(4, 6), plain()), "fails on the example"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ModuleError, match=message):
        export(seeded(make), tmp_path / "net.nir", example_input=example((5,)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (lambda: nn.Conv1d(4, 2, 4, padding="same"), "differs between the two sides"),
        (lambda: nn.Conv1d(4, 2, 3, padding=1, padding_mode="circular"), "no counterpart in NIR"),
    ],
)
def test_paddings_of_conv1d_are_refused(conv: Callable[[], nn.Module], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModuleError, match=message):
        export(seeded(lambda: Net(conv(), plain())), tmp_path / "n.nir", example_input=example((4, 9)))


def test_parameters_that_do_not_fit_the_neurons(tmp_path: Path) -> None:
    net = seeded(lambda: Net(linear(5, 6), plain(threshold=torch.ones(BATCH, 1))))
    with pytest.raises(ModuleError, match="'threshold' does not fit"):
        export(net, tmp_path / "n.nir", example_input=example((5,)))


def test_what_export_needs_is_said(tmp_path: Path) -> None:
    net = Net(linear(5, 6), plain())
    with pytest.raises(ModuleError, match="an example of its input is needed"):
        export(net, tmp_path / "n.nir")
    with pytest.raises(ModuleError, match="example input is not usable"):
        export(net, tmp_path / "n.nir", example_input=torch.zeros(3, 5, dtype=torch.int64))
    graph = export(seeded(leaky), tmp_path / "n.nir", example_input=example((5,)))
    with pytest.raises(ModuleError, match="options are for users' modules"):
        export(to_torch(graph), tmp_path / "n.nir", steps=3)
