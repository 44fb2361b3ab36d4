"""What goes between neurokd and other tools: graphs of every node in our own convention, and published files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from deploy import graph as nir
from deploy.graph.shapes import output_shape

DT: Final = 1e-4
STEPS, BATCH = 20, 3
IMAGE, LINE, VECTOR = (4, 9, 8), (4, 11), (6,)


def example(shape: tuple[int, ...], steps: int = STEPS, batch: int = BATCH, seed: int = 0) -> Any:
    """Random 0 and 1, float32 ``[T, B, *shape]``."""
    return (np.random.default_rng(seed).random((steps, batch, *shape)) < 0.4).astype(np.float32)


def shape_of(case: str) -> tuple[int, ...]:
    """What the frameworks' modules of that name take."""
    if case.startswith("Conv1d"):
        return LINE
    return IMAGE if case.split(",")[0] in ("Conv2d", "AvgPool2d", "SumPool2d", "Flatten") else VECTOR


def _normal(*shape: int) -> Any:
    return np.random.default_rng(1).normal(0.15, 0.6, shape)


def _neuron(kind: str, **changes: Any) -> nir.Neuron:
    """Input gain 1 at DT, as this toolkit, snntorch and SpikingJelly write; beta 0.9, alpha 0.8."""
    ones = np.ones(5)
    leak, spiking = {"v_leak": 0 * ones}, {"v_threshold": ones}
    cuba = {"tau_syn": 5 * DT * ones, "tau_mem": 10 * DT * ones, "r": 10 * ones, "w_in": 5 * ones}
    fields: dict[str, dict[str, Any]] = {
        "LIF": {"tau": 10 * DT * ones, "r": 10 * ones, **leak, **spiking},
        "CubaLIF": {**cuba, **leak, **spiking},
        "IF": {"r": ones / DT, **spiking},
        "LI": {"tau": 10 * DT * ones, "r": 10 * ones, **leak},
        "CubaLI": {**cuba, **leak},
        "I": {"r": ones / DT},
    }
    kinds: dict[str, Any] = {k.__name__: k for k in (nir.LIF, nir.CubaLIF, nir.IF, nir.LI, nir.CubaLI, nir.I)}
    made: nir.Neuron = kinds[kind]("neurons", **{**fields[kind], **changes})
    return made


def _chain(
    shape: tuple[int, ...], nodes: list[nir.Node], reset: Any = None, extra: Any = (), beside: Any = ()
) -> nir.Graph:
    out = shape
    for node in nodes:
        out = output_shape(node, out)
    chain = [nir.Input("input", shape), *nodes, nir.Output("output", out)]
    names = [node.name for node in chain]
    return nir.Graph((*chain, *beside), (*zip(names[:-1], names[1:], strict=True), *extra), DT, reset)


def graphs() -> dict[str, nir.Graph]:
    """One small graph for each node, and for each thing a node can say that others may lose."""
    dense, back = nir.Affine("dense", _normal(5, 6), _normal(5)), nir.Affine("back", _normal(5, 5) * 0.5)
    leaky = {"v_leak": np.full(5, 0.3)}
    conv = nir.Conv2d("conv", _normal(6, 2, 3, 2), _normal(6), (2, 1), (1, 0), (1, 2), 2)
    square = nir.Conv2d("conv", _normal(6, 4, 3, 3), _normal(6), (1, 1), (1, 1))
    loop = (("neurons", "back"), ("back", "neurons"))
    made = {
        "Affine": _chain(VECTOR, [dense]),
        "Linear": _chain(VECTOR, [nir.Affine("dense", _normal(5, 6))]),
        "Conv2d, 3 x 3": _chain(IMAGE, [square]),
        "Conv2d, not square, groups 2": _chain(IMAGE, [conv]),
        "Conv1d": _chain(LINE, [nir.Conv1d("conv", _normal(6, 4, 3), _normal(6), 2, 3, 2)]),
        "AvgPool2d": _chain(IMAGE, [nir.AvgPool2d("pool", (2, 2), (2, 1), (1, 0))]),
        "SumPool2d": _chain(IMAGE, [nir.SumPool2d("pool", (2, 2), (2, 1))]),
        "Flatten": _chain(IMAGE, [nir.Flatten("flat", 0, -1), nir.Affine("dense", _normal(5, 288))]),
        "Scale": _chain(VECTOR, [nir.Scale("scale", np.linspace(0.5, 2.0, 6))]),
        "Threshold": _chain(VECTOR, [dense, nir.Threshold("threshold", np.full(5, 0.4))]),
        "Delay": _chain(VECTOR, [dense, nir.Delay("delay", DT * np.array([0, 1, 2, 3, 1]))]),
    }
    for kind in ("LIF", "CubaLIF", "IF"):
        made[kind] = _chain(VECTOR, [dense, _neuron(kind)], "zero")
        made[f"{kind}, reset by subtraction"] = _chain(VECTOR, [dense, _neuron(kind)], "subtract")
        made[f"{kind}, v_reset"] = _chain(VECTOR, [dense, _neuron(kind, v_reset=np.full(5, -0.5))], "value")
    for kind in ("LI", "CubaLI", "I"):
        made[kind] = _chain(VECTOR, [dense, _neuron(kind)])
    for kind in ("LIF", "CubaLIF"):
        made[f"{kind}, v_leak"] = _chain(VECTOR, [dense, _neuron(kind, **leaky)], "zero")
        made[f"recurrent {kind}"] = _chain(VECTOR, [dense, _neuron(kind)], "zero", loop, (back,))
    return made


@dataclass(frozen=True)
class Published:
    """A ``.nir`` file in a public repository.

    Attributes:
        repo, path: Where, at the repository's head.
        frameworks: Those that are run beside ours.
        dt, reset: What the repository says of it, and the file does not.
        shape: Of its input.
        steps: To run.
        writer: What wrote it.
    """

    repo: str
    path: str
    frameworks: tuple[str, ...]
    dt: float
    reset: str
    shape: tuple[int, ...]
    steps: int = 100
    writer: str = ""


def _braille(repo: str, path: str, reset: str, *frameworks: str) -> Published:
    """A recurrent network for reading Braille letters, trained in snntorch."""
    return Published(repo, path, frameworks, 1e-4, reset, (12,), writer="snntorch")


def _cnn(repo: str, path: str, *frameworks: str) -> Published:
    """A convolutional network for N-MNIST, converted and written by sinabs."""
    return Published(repo, path, frameworks, 1.0, "subtract", (2, 34, 34), 20, "sinabs")


def _neuron_file(repo: str, path: str, writer: str, reset: str, *frameworks: str) -> Published:
    """One or two LIF neurons."""
    return Published(repo, path, frameworks, 1e-4, reset, (1,), 1000, writer)


_NIR, _LIF, _RNN = "neuromorphs/NIR", "paper/01_lif/", "paper/03_rnn/"
PUBLISHED: Final = (
    _neuron_file(_NIR, f"{_LIF}lif_norse.nir", "norse", "zero", "norse", "nengo"),
    _neuron_file(_NIR, f"{_LIF}lif_rockpool.nir", "rockpool", "subtract", "rockpool", "norse"),
    _neuron_file(
        _NIR, f"{_LIF}debug_spike_representation/two_lif_neurons.nir", "nir, by hand", "zero", "norse", "spikingjelly"
    ),
    _cnn(_NIR, "paper/02_cnn/cnn_sinabs.nir", "sinabs", "norse", "snntorch"),
    Published(_NIR, "paper/02_cnn/cnn_sinabs.nir", ("lava-dl", "nengo"), 1.0, "zero", (2, 34, 34), 20, "sinabs"),
    _braille(_NIR, f"{_RNN}braille_noDelay_bias_zero.nir", "zero", "snntorch", "norse", "spikingjelly", "lava-dl"),
    _braille(_NIR, f"{_RNN}braille_noDelay_noBias_subtract.nir", "subtract", "snntorch", "norse", "lava-dl"),
    _braille(_NIR, f"{_RNN}extras/braille_noDelay_bias_zero_subgraph.nir", "zero", "snntorch"),
    _braille(_NIR, f"{_RNN}extras/braille_noDelay_noBias_subtract_subgraph.nir", "subtract", "snntorch"),
    _cnn("synsense/sinabs", "docs/tutorials/scnn_mnist.nir", "sinabs"),
    _braille("neuromorphs/NIRTorch", "tests/braille.nir", "zero", "snntorch", "norse", "spikingjelly"),
    _neuron_file("neuromorphs/NIRTorch", "tests/lif_norse.nir", "norse", "zero", "norse"),
    _braille("norse/norse", "norse/torch/utils/test/braille.nir", "zero", "norse", "snntorch"),
)
"""Every ``.nir`` file at the head of the repositories of the NIR paper, sinabs, nirtorch and norse."""
