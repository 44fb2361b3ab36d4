"""From the calls of a traced forward to a chain of layers: pool, synapse, norm, neuron; or the reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from deploy.errors import ModuleError
from neurokd.accept_origin import DROPOUTS, NORMS, POOLS, RESHAPES, STATES, SYNAPSES, Call, Origin

ALLOWED = (
    "input -> [AvgPool2d] -> Linear or Conv2d -> [BatchNorm] -> snn.Leaky or snn.Synaptic -> ... -> output spikes, "
    "with Flatten, Dropout, Identity and shape functions (flatten, view, reshape, squeeze) between"
)


@dataclass(frozen=True)
class Part:
    """One layer of neurons as the user's forward calls it; ``starts`` (pool or synapse) and ``neurons``: one a step."""

    pool: Call | None
    synapse: Call
    norm: Call | None
    dropouts: tuple[Call, ...]
    neurons: tuple[Call, ...]
    starts: tuple[Call, ...]

    def calls(self) -> list[Call]:
        """The calls of the first step, in order, dropouts left out."""
        return [call for call in (self.pool, self.synapse, self.norm, self.neurons[0]) if call is not None]


@dataclass(frozen=True)
class Chain:
    """A whole forward: ``time_axis`` is None for direct input, else the axis of the input that is time."""

    parts: tuple[Part, ...]
    steps: int
    time_axis: int | None
    notes: tuple[str, ...]


def refuse(call: Call, what: str, *, got: object, allowed: str = ALLOWED, next_step: str = "") -> ModuleError:
    """A ModuleError at one module of the user."""
    return ModuleError(what, where=f"module {call}", got=got, allowed=allowed, next_step=next_step)


def read_chain(calls: Sequence[Call], returned: Sequence[Origin], batch: Sequence[int]) -> Chain:
    """Read the chain of layers from a trace.

    Args:
        calls: All module calls, in order of time.
        returned: Origins of all tensors that the forward returned.
        batch: The sizes of the input's first axes, to tell its batch.

    Raises:
        ModuleError: anything but a chain; the module or function is named.
    """
    outputs, notes = _output_calls(calls, returned)
    paths = [_path_to(call) for call in outputs]
    _check_steps(paths)
    axis = _time_axis(paths)
    _check_batch(paths, batch[0] if axis is None else batch[1 - axis])
    parts = _split(paths)
    _check_shared(parts)
    return Chain(parts, len(paths), axis, (*notes, *_beside(calls, paths, returned)))


def neuron_of(call: Call) -> Call | None:
    """The neuron call whose spikes ``call`` hands on through dropouts and reshapes, if there is one."""
    while isinstance(call.module, (*DROPOUTS, *RESHAPES)) and call.source.call is not None:
        call = call.source.call
    return call if type(call.module) in STATES else None


def _output_calls(calls: Sequence[Call], returned: Sequence[Origin]) -> tuple[list[Call], list[str]]:
    """Every step's call of the output neuron: the last one of the neurons whose spikes are returned."""
    if not any(type(call.module) in STATES for call in calls):
        raise ModuleError(
            "the forward calls no neuron that can be taken",
            got=", ".join(dict.fromkeys(map(str, calls))) or "no module call at all",
            allowed="snn.Leaky and snn.Synaptic, called as modules (self.lif1(...), not self.lif1.forward(...))",
            next_step="use one of the two with reset_mechanism='zero', reset_delay=False, and fine-tune",
        )
    spikes = [call for origin in returned for call in _spikes_in(origin)]
    if not spikes:
        raise ModuleError(
            "the forward returns no spikes of a snn.Leaky or snn.Synaptic",
            where="return value of forward",
            got="; ".join(dict.fromkeys(map(str, returned))) or "no tensor",
            allowed="the output neuron's spikes, stacked over time (alone or beside membranes), or of one step",
            next_step="return torch.stack(spk_rec) of the last neuron; read classes from its spikes, not membranes",
        )
    last = max(spikes, key=calls.index).module
    every_step = [call for call in calls if call.module is last]
    missing = [call.ordinal for call in every_step if call not in spikes]
    if missing:
        raise refuse(
            every_step[0],
            "the forward does not return the output spikes of every step",
            got=f"{len(every_step) - len(missing)} of {len(every_step)} steps, {missing[0]} is missing",
            allowed="spikes of all steps: they are the SAT that is distilled, exported and verified",
        )
    return every_step, _readout_notes(returned)


def _spikes_in(origin: Origin) -> list[Call]:
    handed = (origin.call,) if origin.kind == "output" else origin.calls
    neurons = [neuron_of(call) for call in handed if call is not None]
    return [call for call in neurons if call is not None]


def _readout_notes(returned: Sequence[Origin]) -> list[str]:
    texts = dict.fromkeys(origin.text for origin in returned if origin.kind == "readout" and _spikes_in(origin))
    return [f"forward returns its output spikes after '{text}'; this network returns the spikes" for text in texts]


def _path_to(call: Call) -> list[Call]:
    """The calls from the input to ``call``."""
    path = [call]
    while path[-1].source.kind == "output" and path[-1].source.call is not None:
        path.append(path[-1].source.call)
    first = path[-1]
    if first.source.kind != "input":
        raise refuse(
            first,
            "its input is not the output of a module, nor the network's input",
            got=first.source,
            next_step=_way_out(first.source),
        )
    return path[::-1]


def _way_out(origin: Origin) -> str:
    text = origin.text
    if "max_pool" in text or "MaxPool" in text:
        return "pool the spikes with nn.AvgPool2d before the next layer (no chip neuron takes a maximum), and fine-tune"
    if any(word in text for word in ("relu", "ReLU", "sigmoid", "tanh", "softmax")):
        return "remove the activation: the spiking neuron is the activation; fine-tune"
    if any(word in text for word in ("avg_pool", "conv", "linear", "batch_norm", "dropout")):
        return (
            "use the nn module of that function (nn.AvgPool2d, nn.Conv2d, nn.Linear, ...) and call it as self.name(x)"
        )
    if any(word in text for word in ("bernoulli", "rand", "div", "normalize")):
        return "encode and scale the input in the data pipeline, and hand forward the result"
    return "keep to modules in a row; scale or add in the data pipeline or in the weights"


def _check_steps(paths: Sequence[Sequence[Call]]) -> None:
    for step, path in enumerate(paths):
        names, first = [call.path for call in path], [call.path for call in paths[0]]
        if names != first:
            got = f"step 0: {' -> '.join(first)}; step {step}: {' -> '.join(names)}"
            raise refuse(
                path[-1], "the steps do not call the same modules", got=got, allowed="the same chain every step"
            )
        for call in path:
            _check_neuron_step(call, step)


def _check_neuron_step(call: Call, step: int) -> None:
    if type(call.module) not in STATES:
        return
    if call.ordinal != step:
        raise refuse(
            call,
            "its spikes of one step are used at another",
            got=f"call {call.ordinal} at step {step}",
            allowed="one call of each neuron at every step, used in that step",
            next_step="one neuron module a layer; no delays or feedback between layers",
        )
    if call.problem:
        raise refuse(
            call,
            call.problem,
            got=f"step {step}",
            allowed="a state that starts at zero and is carried on unchanged: spk, mem = lif(cur, mem)",
            next_step="do not scale, clip or reset states inside the loop over time",
        )


def _time_axis(paths: Sequence[Sequence[Call]]) -> int | None:
    origins = [path[0].source for path in paths]
    read = [origin.step for origin in origins]
    if all(step is None for step in read):
        return None
    axes = {origin.axis for origin in origins}
    if read != list(range(len(paths))) or len(axes) != 1 or not axes <= {0, 1}:
        raise refuse(
            paths[0][0],
            "it is not clear which axis of the input is time",
            got=f"steps {read[:4]}... of axes {sorted(axes)}",
            allowed="the whole input at every step, or input[t] (or input[:, t]) at step t = 0, 1, 2, ...",
        )
    return axes.pop()


def _check_batch(paths: Sequence[Sequence[Call]], batch: int) -> None:
    for call in (call for path in paths for call in path):
        kind = type(call.module)
        axes = {nn.Linear: (2,), nn.BatchNorm1d: (2,), nn.Conv2d: (4,), nn.AvgPool2d: (4,), nn.BatchNorm2d: (4,)}
        shape = tuple(call.given.shape)
        if shape[:1] != (batch,) or (kind in axes and len(shape) not in axes[kind]):
            raise refuse(
                call,
                "its input does not have the batch as first axis, one sample of one step each",
                got=f"shape {shape}, batch {batch}",
                allowed="[B, features] for Linear and BatchNorm1d, [B, C, H, W] for Conv2d, AvgPool2d and BatchNorm2d",
                next_step="call layers step by step; the example is [B, ...], or [T, B, ...] where forward reads x[t]",
            )


def _split(paths: Sequence[Sequence[Call]]) -> tuple[Part, ...]:
    parts: list[Part] = []
    pending: dict[str, list[int]] = {}
    for place, call in enumerate(paths[0]):
        role = _role(call)
        if role == "neuron":
            parts.append(_part(paths, pending, place))
            pending = {}
        elif role != "reshape":
            _check_order(call, role, pending)
            pending.setdefault(role, []).append(place)
    return tuple(parts)


def _role(call: Call) -> str:
    roles = (("neuron", tuple(STATES)), ("synapse", SYNAPSES), ("pool", POOLS), ("norm", NORMS), ("dropout", DROPOUTS))
    return next((role for role, kinds in roles if type(call.module) in kinds), "reshape")


def _check_order(call: Call, role: str, pending: dict[str, list[int]]) -> None:
    trouble, way = "", ""
    if role == "pool" and ("synapse" in pending or "pool" in pending):
        trouble, way = (
            "a pool stands between synapse and neuron, or after another pool",
            "pool the spikes: neuron, pool, synapse",
        )
    elif role == "synapse" and "synapse" in pending:
        trouble, way = "two synapses with no neuron between", "multiply the two into one layer, or put a neuron between"
    elif role == "norm" and "synapse" not in pending:
        trouble, way = "a batch norm does not follow a synapse", "normalise the current: Linear, BatchNorm, neuron"
    elif role == "norm" and "norm" in pending:
        trouble, way = "two batch norms in a row", "keep one"
    if trouble:
        raise refuse(call, trouble, got=", ".join([*pending, role]), next_step=way)


def _part(paths: Sequence[Sequence[Call]], pending: dict[str, list[int]], place: int) -> Part:
    neuron, steps = paths[0][place], [path[place] for path in paths]
    if "synapse" not in pending:
        raise refuse(neuron, "no Linear or Conv2d feeds this neuron", got=", ".join(pending) or "nothing before it")
    first = {role: paths[0][places[0]] for role, places in pending.items()}
    return Part(
        first.get("pool"),
        first["synapse"],
        first.get("norm"),
        tuple(paths[0][index] for index in pending.get("dropout", [])),
        tuple(steps),
        tuple(path[pending.get("pool", pending["synapse"])[0]] for path in paths),
    )


def _check_shared(parts: Iterable[Part]) -> None:
    seen: dict[int, Call] = {}
    for part in parts:
        for call in part.calls():
            if call is part.pool:
                continue
            for thing in (call.module, *call.module.parameters()):
                if id(thing) in seen:
                    raise refuse(
                        call,
                        "a module or parameter is used in two places",
                        got=f"shared with {seen[id(thing)]}",
                        allowed="layers of their own: training here changes one copy each",
                        next_step="make one module for each layer, and untie their parameters",
                    )
            seen.update({id(thing): call for thing in (call.module, *call.module.parameters())})


def _beside(calls: Sequence[Call], paths: Sequence[Sequence[Call]], returned: Sequence[Origin]) -> list[str]:
    used = {id(call.module) for path in paths for call in path}
    beside = [call for call in calls if id(call.module) not in used]
    outputs = [call for origin in returned for call in _spikes_in(origin) if id(call.module) not in used]
    if outputs:
        raise refuse(
            outputs[0],
            "the forward returns spikes of a second output",
            got=f"{outputs[0]} beside {paths[0][-1]}",
            allowed="one chain from input to output",
        )
    others = dict.fromkeys(str(call) for call in beside if not isinstance(call.module, (*DROPOUTS, *RESHAPES)))
    return [f"{name} is not on the way to the output spikes and is left out" for name in others]
