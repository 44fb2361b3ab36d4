"""Run one framework, in its own environment, on NIR files: write, read, run. Imports nothing of this repository.

    PYTHON benchmarks/interop_worker.py FRAMEWORK jobs.json answers.json

A job is ``{"id", "do": "export" | "run" | "by hand", "case", "nir", "x", "out", "dt", "reset"}``: ``export`` builds the
framework's own module, writes it with the framework's own exporter and runs the module; ``run`` reads a file with the
framework's own importer and runs it; ``by hand`` puts its modules together where the importer fails. ``x`` is
``[T, B, *shape]`` float32 in a ``.npy``; ``out`` receives every step's output.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

BETA, ALPHA, DT = 0.9, 0.8, 1e-3


def _weights(layer: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            if isinstance(parameter, torch.Tensor):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6 + 0.15)
    return layer


def _steps(module: Any, x: torch.Tensor, **options: Any) -> torch.Tensor:
    """One call a step, handing on whatever state the module returns beside its output."""
    state, record = None, []
    for step in x:
        out = module(step, state) if state is not None else module(step, **options)
        out, state = (out[0], out[1]) if isinstance(out, tuple) else (out, None)
        record.append(out)
    return torch.stack(record)


def _read(path: str) -> Any:
    """Without nir's own type check, which refuses correct files with non-square or grouped kernels, where it can be."""
    import nir

    try:
        return nir.read(path, type_check=False)
    except TypeError:  # nir 1.0.4 cannot leave it out
        return nir.read(path)


class Norse:
    """norse: states handed from step to step."""

    def modules(self) -> dict[str, Any]:
        """Its modules that have a NIR node, behind a Linear where they are neurons."""
        import norse.torch as norse

        def each(value: float, *shape: int) -> torch.Tensor:
            return torch.full(shape or (5,), value)

        rest = {"v_leak": each(0.0), "v_reset": each(0.0), "v_th": each(0.3)}
        box = norse.LIFBoxParameters(tau_mem_inv=each(100.0), **rest)
        cuba = norse.LIFParameters(tau_mem_inv=each(100.0), tau_syn_inv=each(200.0), **rest)
        leak = norse.LIBoxParameters(tau_mem_inv=each(100.0), v_leak=each(0.0))
        neurons = {
            "LIF": norse.LIFBoxCell(box, dt=DT), "CubaLIF": norse.LIFCell(cuba, dt=DT),
            "LI": norse.LIBoxCell(leak, dt=DT), "IF": norse.IAFCell(norse.IAFParameters(v_th=each(1.0)), dt=DT),
        }  # fmt: skip
        made = {name: norse.SequentialState(_weights(nn.Linear(6, 5)), cell) for name, cell in neurons.items()}
        fire = norse.IAFCell(norse.IAFParameters(v_th=each(1.0, 6, 5, 6)), dt=DT)
        conv = _weights(nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=2))
        return {
            **made,
            "Affine": norse.SequentialState(_weights(nn.Linear(6, 5))),
            "Conv2d": norse.SequentialState(conv, fire),
        }

    def export(self, module: Any, x: torch.Tensor, path: str) -> None:
        import nir
        import norse.torch as norse

        nir.write(path, norse.to_nir(module, x[0, 0], dt=DT))

    def forward(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        return _steps(module, x)

    def load(self, path: str, x: torch.Tensor, dt: float, reset: str) -> Any:
        import norse.torch as norse
        from norse.torch.functional import reset as resets

        rule = resets.reset_subtract if reset == "subtract" else resets.reset_value
        return norse.from_nir(_read(path), ignore_warnings=True, reset_method=rule, dt=dt)


class Sinabs:
    """sinabs: batch and time in one axis."""

    def modules(self) -> dict[str, Any]:
        import sinabs.layers as sl

        size, tau = {"num_timesteps": 20}, torch.tensor([10.0])

        def fire() -> Any:
            return sl.IAFSqueeze(spike_threshold=torch.tensor(1.0), min_v_mem=None, **size)

        neurons = {
            "IF": fire(),
            "LIF": sl.LIFSqueeze(tau_mem=tau, spike_threshold=torch.tensor([1.0]), norm_input=False, **size),
            "LI": sl.ExpLeakSqueeze(tau_mem=tau, norm_input=False, **size),
        }  # fmt: skip
        made = {name: nn.Sequential(_weights(nn.Linear(6, 5)), layer) for name, layer in neurons.items()}
        conv = _weights(nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=2))
        line = _weights(nn.Conv1d(4, 6, 3, 2, 3, 2, groups=2))
        return {
            **made, "Affine": nn.Sequential(_weights(nn.Linear(6, 5))), "Conv2d": nn.Sequential(conv, fire()),
            "Conv1d": nn.Sequential(line, fire()), "SumPool2d": nn.Sequential(sl.SumPool2d((2, 2), stride=(2, 1))),
            "Flatten": nn.Sequential(conv, fire(), nn.Flatten(), _weights(nn.Linear(6 * 5 * 6, 5)), fire()),
        }  # fmt: skip

    def export(self, module: Any, x: torch.Tensor, path: str) -> None:
        import nir
        from sinabs.nir import to_nir

        nir.write(path, to_nir(module, x.transpose(0, 1).flatten(0, 1)))

    def forward(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        for part in module.modules():
            if hasattr(part, "reset_states"):
                part.reset_states()
        out = module(x.transpose(0, 1).flatten(0, 1))
        out = out[0] if isinstance(out, tuple) else out
        return out.unflatten(0, (x.shape[1], x.shape[0])).transpose(0, 1)

    def load(self, path: str, x: torch.Tensor, dt: float, reset: str) -> Any:
        from sinabs.nir import from_nir

        return from_nir(_read(path), num_timesteps=x.shape[0])


class SpikingJelly:
    """SpikingJelly: one step a call."""

    def modules(self) -> dict[str, Any]:
        from spikingjelly.activation_based import layer, neuron

        neurons = {
            "IF": neuron.IFNode(v_threshold=1.0, v_reset=0.0),
            "LIF": neuron.LIFNode(tau=5.0, decay_input=True, v_threshold=0.3, v_reset=0.0),
            "LIF, decay_input=False": neuron.LIFNode(tau=5.0, decay_input=False, v_threshold=1.0, v_reset=0.0),
            "LIF, v_reset": neuron.LIFNode(tau=5.0, decay_input=False, v_threshold=1.0, v_reset=-0.5),
            "PLIF": neuron.ParametricLIFNode(init_tau=4.0, decay_input=False, v_threshold=1.0, v_reset=0.0),
            "CubaLIF": neuron.CUBALIFNode(c_decay=ALPHA, v_decay=BETA, v_threshold=1.0, v_reset=0.0),
            "LIF, soft reset": neuron.LIFNode(tau=5.0, decay_input=False, v_threshold=1.0, v_reset=None),
        }
        made = {name: nn.Sequential(_weights(layer.Linear(6, 5)), cell) for name, cell in neurons.items()}
        return {
            **made, "Affine": nn.Sequential(_weights(layer.Linear(6, 5))),
            "Linear": nn.Sequential(_weights(layer.Linear(6, 5, bias=False))),
            "Conv2d": nn.Sequential(_weights(layer.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2)))),
            "Conv1d": nn.Sequential(_weights(layer.Conv1d(4, 6, 3, 2, 3, 2))),
            "AvgPool2d": nn.Sequential(layer.AvgPool2d((2, 2), (2, 1), (1, 0))),
            "Flatten": nn.Sequential(layer.Flatten(), _weights(layer.Linear(4 * 9 * 8, 5))),
        }  # fmt: skip

    def export(self, module: Any, x: torch.Tensor, path: str) -> None:
        from spikingjelly.activation_based import functional, nir_exchange

        functional.reset_net(module)
        nir_exchange.export_to_nir(module, x[0], save_path=path, dt=1e-4)

    def forward(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(module)
        return _steps(module, x)

    def load(self, path: str, x: torch.Tensor, dt: float, reset: str) -> Any:
        from spikingjelly.activation_based import nir_exchange

        return nir_exchange.import_from_nir(path, dt=dt)


class Snntorch:
    """snntorch with its own exporter and importer (both on nirtorch)."""

    def modules(self) -> dict[str, Any]:
        import snntorch as snn

        vector, zero = torch.full((5,), BETA), {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
        size = {"threshold": torch.ones(5)}
        neurons = {
            "LIF": snn.Leaky(vector, **size, **zero),
            "LIF, default reset": snn.Leaky(vector, **size, init_hidden=True),
            "LIF, scalar beta": snn.Leaky(BETA, **zero),
            "CubaLIF": snn.Synaptic(torch.full((5,), ALPHA), vector, **size, **zero),
            "recurrent LIF": snn.RLeaky(vector, linear_features=5, **size, **zero),
            "recurrent CubaLIF": snn.RSynaptic(
                torch.full((5,), ALPHA), vector, linear_features=5, **size, reset_mechanism="zero", init_hidden=True
            ),
        }
        made = {name: nn.Sequential(_weights(nn.Linear(6, 5)), cell) for name, cell in neurons.items()}
        for name in ("recurrent LIF", "recurrent CubaLIF"):
            _weights(made[name][1].recurrent, 1)

        def fresh(count: int) -> Any:
            return snn.Leaky(torch.full((count,), BETA), threshold=torch.ones(count), **zero)

        conv = _weights(nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=2))
        pool = nn.AvgPool2d((2, 2), (2, 1), (1, 0))
        return {
            **made, "Affine": nn.Sequential(_weights(nn.Linear(6, 5)), fresh(5)),
            "Linear": nn.Sequential(_weights(nn.Linear(6, 5, bias=False)), fresh(5)),
            "Conv2d": nn.Sequential(conv, nn.Flatten(), fresh(6 * 5 * 6)),
            "AvgPool2d": nn.Sequential(pool, nn.Flatten(), _weights(nn.Linear(4 * 5 * 7, 5)), fresh(5)),
            "Flatten": nn.Sequential(nn.Flatten(), _weights(nn.Linear(4 * 9 * 8, 5)), fresh(5)),
        }  # fmt: skip

    def export(self, module: Any, x: torch.Tensor, path: str) -> None:
        import nir
        from snntorch.export_nir import export_to_nir

        nir.write(path, export_to_nir(module, x[0], ignore_dims=[0]))

    def forward(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        for part in module.modules():
            if hasattr(part, "reset_mem"):
                part.reset_mem()
        return _steps(module, x)

    def load(self, path: str, x: torch.Tensor, dt: float, reset: str) -> Any:
        from snntorch.import_nir import import_from_nir

        graph = _read(path)
        loop = "lif1.w_rec" in graph.nodes
        return Braille(graph, reset) if loop else import_from_nir(graph)


class Braille(nn.Module):
    """The NIR paper's recurrent network on snntorch's own neurons, its loop by hand.

    snntorch's importer makes RSynaptic(reset_delay=False) of it, which fails in its forward (0.8.1 to 1.0.0), or fails
    itself (1.0.0 with nirtorch 2.6).
    """

    def __init__(self, graph: Any, reset: str) -> None:
        super().__init__()
        self.layers = {name: self._linear(graph.nodes[name]) for name in ("fc1", "fc2", "lif1.w_rec")}
        self.cells = {name: self._cell(graph.nodes[name], reset) for name in ("lif1.lif", "lif2")}

    @staticmethod
    def _linear(node: Any) -> nn.Linear:
        layer = nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=hasattr(node, "bias"))
        layer.weight.data = torch.tensor(np.asarray(node.weight), dtype=torch.float32)
        if hasattr(node, "bias"):
            layer.bias.data = torch.tensor(np.asarray(node.bias), dtype=torch.float32)
        return layer

    @staticmethod
    def _cell(node: Any, reset: str) -> Any:
        import snntorch as snn

        beta, alpha = 1 - 1e-4 / float(node.tau_mem.flat[0]), 1 - 1e-4 / float(node.tau_syn.flat[0])
        threshold = float(node.v_threshold.flat[0])
        return snn.Synaptic(alpha, beta, threshold=threshold, reset_mechanism=reset, reset_delay=False)

    def forward(self, x: torch.Tensor, state: Any = None) -> Any:
        spikes, first, second = state if state is not None else (torch.zeros(len(x), self._size()), (), ())
        current = self.layers["fc1"](x) + self.layers["lif1.w_rec"](spikes)
        spikes, *first = self.cells["lif1.lif"](current, *first)
        out, *second = self.cells["lif2"](self.layers["fc2"](spikes), *second)
        return out, (spikes, first, second)

    def _size(self) -> int:
        return int(self.layers["lif1.w_rec"].weight.shape[0])


class Rockpool:
    """rockpool: batch first, all steps in one call; membranes are noisy unless told not to be."""

    def modules(self) -> dict[str, Any]:
        from rockpool.nn.combinators import Sequential
        from rockpool.nn.modules.torch import ExpSynTorch, LIFNeuronTorch, LIFTorch, LinearTorch

        def linear(**options: Any) -> Any:
            return _weights(LinearTorch((6, 5), **options))

        times = {"tau_mem": 0.01, "dt": DT, "threshold": 1.0, "noise_std": 0.0}
        return {
            "LIF": Sequential(linear(has_bias=False), LIFNeuronTorch(5, **times)),
            "CubaLIF": Sequential(linear(has_bias=False), LIFTorch(5, tau_syn=0.005, **times)),
            "LI": Sequential(linear(has_bias=False), ExpSynTorch(5, tau=0.01, dt=DT, noise_std=0.0)),
            "Linear": Sequential(linear(has_bias=False), linear_identity(5)),
            "Affine": Sequential(linear(has_bias=True), linear_identity(5)),
        }

    def export(self, module: Any, x: torch.Tensor, path: str) -> None:
        import nir
        from rockpool.nn.modules.torch.nir import to_nir

        nir.write(path, to_nir(module))

    def forward(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        if hasattr(module, "reset_state"):
            module.reset_state()
        out = module(x.transpose(0, 1))
        return (out[0] if isinstance(out, tuple) else out).transpose(0, 1)

    def load(self, path: str, x: torch.Tensor, dt: float, reset: str) -> Any:
        from rockpool.nn.modules.torch.nir import from_nir

        return from_nir(_read(path))

    def by_hand(self, path: str, dt: float) -> Any:
        """The network of a file, module by module, where rockpool's importer fails.

        Its importer takes a LIF's time constant from a field ``tau_mem`` that NIR's LIF does not have; nothing else is
        changed: the weights, time constant and threshold are the file's.
        """
        from rockpool.nn.combinators import Sequential
        from rockpool.nn.modules.torch import LIFNeuronTorch, LinearTorch

        nodes, edges = (lambda graph: (graph.nodes, dict(graph.edges)))(_read(path))
        modules, name = [], edges["input"]
        while name != "output":
            node = nodes[name]
            if type(node).__name__ == "LIF":
                options = {"tau_mem": float(node.tau.flat[0]), "threshold": float(node.v_threshold.flat[0])}
                modules.append(LIFNeuronTorch(node.tau.size, dt=dt, noise_std=0.0, **options))
            else:
                layer = LinearTorch((node.weight.shape[1], node.weight.shape[0]), has_bias=False)
                layer.weight.data = torch.from_numpy(np.asarray(node.weight, np.float32).T.copy())
                modules.append(layer)
            name = edges[name]
        return Sequential(*modules)


class LavaDl:
    """lava-dl's slayer, through the two scripts of the NIR repository (``lava_to_nir.py``, ``nir_to_lava.py``)."""

    def __init__(self) -> None:
        """Stand-ins for what the scripts and slayer import and these networks do not use (Lava itself, OpenCV)."""
        empty = {"lava.proc.lif.process": "LIF", "lava.proc.dense.process": "Dense"}
        for name, kind in {**empty, "lava.lib.dl.slayer.object_detection": "Nothing"}.items():
            module = sys.modules.setdefault(name, types.ModuleType(name))
            setattr(module, kind, type(kind, (), {}))

    def modules(self) -> dict[str, Any]:
        """Two fully connected blocks: the script's edges fit that number only."""
        import lava.lib.dl.slayer as slayer

        cells = {"threshold": 1.0, "current_decay": 1 - ALPHA, "voltage_decay": 1 - BETA}
        blocks = [slayer.block.cuba.Dense(cells, *size, delay_shift=False) for size in ((6, 5), (5, 5))]
        for seed, block in enumerate(blocks):
            weight = block.synapse.weight
            drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * 0.6 + 0.15
            weight.data = torch.round(drawn * 32) / 32  # the grid slayer quantizes to
        return {"two layers of CubaLIF": nn.Sequential(*blocks)}

    def export(self, module: Any, x: torch.Tensor, path: str) -> None:
        import h5py
        import lava_to_nir

        self.forward(module, x)  # slayer's blocks know their shapes after a run
        with h5py.File(f"{path}.net", "w") as file:
            for index, block in enumerate(module):
                block.export_hdf5(file.create_group(f"layer/{index}"))
        lava_to_nir.convert_to_nir(f"{path}.net", path)

    def forward(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        return module(x.movedim(0, -1)).movedim(-1, 0)

    def load(self, path: str, x: torch.Tensor, dt: float, reset: str) -> Any:
        import nir_to_lava

        options = nir_to_lava.ImportConfig(dt=dt, library_preference=nir_to_lava.LavaLibrary.LavaDl)
        with contextlib.redirect_stdout(sys.stderr):
            return nir_to_lava.import_from_nir(_read(path), options).float()


def linear_identity(size: int) -> Any:
    """rockpool's Sequential takes two modules or more."""
    from rockpool.nn.modules.torch import LinearTorch

    layer = LinearTorch((size, size), has_bias=False)
    layer.weight.data = torch.eye(size)
    return layer


def _nengo() -> Any:
    """From the file beside this one, by its path: nothing else of this folder becomes importable."""
    spec = importlib.util.spec_from_file_location("interop_nengo", Path(__file__).with_name("interop_nengo.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["interop_nengo"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Nengo()


FRAMEWORKS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "norse": (Norse, ("norse", "nirtorch", "nir", "torch")),
    "sinabs": (Sinabs, ("sinabs", "nirtorch", "nir", "torch")),
    "spikingjelly": (SpikingJelly, ("spikingjelly", "nirtorch", "nir", "torch")),
    "snntorch": (Snntorch, ("snntorch", "nirtorch", "nir", "torch")),
    "rockpool": (Rockpool, ("rockpool", "nirtorch", "nir", "torch")),
    "nengo": (_nengo, ("nengo", "nir")),
    "lava-dl": (LavaDl, ("lava-dl", "nirtorch", "nir", "torch")),
}


def _job(framework: Any, job: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.from_numpy(np.load(job["x"]))
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if job["do"] == "export":
                module = framework.modules()[job["case"]]
                out = framework.forward(module, x)
                np.save(job["out"], out.detach().numpy())
                framework.export(framework.modules()[job["case"]], x, job["nir"])
            else:
                options = (job["nir"], x, job["dt"], job["reset"])
                by_hand = job["do"] == "by hand"
                module = framework.by_hand(job["nir"], job["dt"]) if by_hand else framework.load(*options)
                out = framework.forward(module, x)
                np.save(job["out"], out.detach().numpy())
    except Exception as error:  # noqa: BLE001 - whatever a foreign package raises is the result
        text = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {text}"[:300]}
    return {"error": ""}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "from its repository"


def main() -> None:
    """Do every job; answers by id, and the versions that ran."""
    torch.set_num_threads(1)
    kind, packages = FRAMEWORKS[sys.argv[1].split()[0]]
    if sys.argv[2] == "--cases":
        print(json.dumps({"cases": list(kind().modules())}))
        return
    jobs = json.loads(Path(sys.argv[2]).read_text())
    answers = {job["id"]: _job(kind(), job) for job in jobs}
    versions = {name: _version(name) for name in packages}
    Path(sys.argv[3]).write_text(json.dumps({"answers": answers, "versions": versions}))


if __name__ == "__main__":
    main()
