"""Where networks compute, as far as a machine without a GPU can tell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from deploy.errors import ConfigError  # noqa: E402
from neurokd import cli_options, device  # noqa: E402
from neurokd.network import build  # noqa: E402


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    device.use("auto")


@pytest.mark.parametrize(("name", "there", "expected"), [
    ("auto", False, "cpu"), ("auto", True, "cuda:0"), ("cpu", True, "cpu"), ("cpu", False, "cpu"),
    ("cuda", True, "cuda:0"),
])  # fmt: skip
def test_choice(name: str, there: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(there))
    device.use(name)
    assert str(device.chosen()) == expected


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device.parallel, "local_rank", lambda: 3)
    assert str(device.chosen()) == "cuda:1"


def test_no_gpu_and_no_such_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="there is no GPU that torch can use") as error:
        device.use("cuda")
    assert "--device cpu" in error.value.render()
    with pytest.raises(ConfigError, match="no such device"):
        device.use("tpu")
    with pytest.raises(ConfigError, match="there is no GPU"):
        cli_options.use_device("cuda")
    assert cli_options.use_device("cpu") == "cpu"
    assert device._wanted == "cpu"


@pytest.mark.parametrize("spec", ["8x8x2-6c3-p2-8c3p1-12-4", "16-12-4"])
@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_off_the_cpu_the_plain_loop_runs(
    spec: str, neuron: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device has shapes and types but no values: whatever reads memory through numpy fails there."""
    from neurokd.precision import set_precision

    monkeypatch.setattr(device, "chosen", lambda: torch.device("meta"))
    network = build(spec, steps=3, neuron=neuron).train()
    set_precision(network.spiking_layers(), precision)
    with device.on_device(network) as place:
        assert str(place) == "meta"
        sat = network.sat(torch.rand(5, *network.spec.input_shape).to(place))
        assert (sat.shape, sat.device.type, sat.dtype) == ((3, 5, 4), "meta", torch.float32)
        sat.square().sum().backward()
        assert all(p.grad is not None and p.grad.device.type == "meta" for p in network.parameters())
        network.to_empty(device="cpu")  # meta tensors hold nothing to move back


@pytest.mark.parametrize("spec", ["8x8x2-6c3-p2-8c3p1-12-4", "16-12-4"])
def test_the_loop_of_other_devices_computes_the_same(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU runs, run on the CPU: no fused scan, no fused norm."""
    from neurokd import scans
    from neurokd.network_layers import SpikingLayer

    x = torch.rand(6, *build(spec).spec.input_shape, generator=torch.Generator().manual_seed(0))
    found = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(SpikingLayer, "_fuses_norm", lambda *_: False)
            monkeypatch.setattr(scans, "scan", lambda *a: scans._loop(*a))
            monkeypatch.setattr("neurokd.functional.scan", lambda *a: scans._loop(*a))
        network = build(spec, steps=4, seed=2).train()
        sat = network.sat(x)
        sat.square().sum().backward()
        found.append([sat, *(p.grad for p in network.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_networks_in_integers_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "chosen", lambda: torch.device("meta"))
    with device.on_device(torch.nn.Linear(2, 2)) as place:
        assert str(place) == "cpu"
