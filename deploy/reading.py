"""How one step in time is read from NIR's equations: what the file leaves open, and what each tool makes of it.

NIR states differential equations. A step of ``dt`` is forward Euler for most tools (the NIR paper's section "Methods",
snntorch, norse, SpikingJelly), the exact exponential for sinabs and rockpool. Whether a membrane that just reaches its
threshold spikes, and whether it may spike several times in one step, is each tool's own. Read in the sources of norse
1.1.0 (``import_nir.py``), sinabs 3.1.3 (``nir.py``, ``lif_forward_single``, ``MultiSpike``), rockpool 3.1.0
(``lif_torch.py``, ``lif_neuron_torch.py``), SpikingJelly 2.0.0 (``from_nir.py``), snntorch 1.0.0 (``leaky.py``),
nengo 4.1.0 (``neurons.py``, LIF) and lava-dl 0.6.0 (``slayer/neuron``; it works on a grid of
1 / 4096, so that floats come near its spikes and need not meet them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, get_args

import numpy as np

from deploy.errors import ConfigError
from deploy.graph import IF, LI, CubaLI, CubaLIF, I, LifParameters, Neuron, discretize
from deploy.graph.coerce import FloatArray

Decay = Literal["euler", "exponential"]
Gain = Literal["nir", "one", "decayed", "without r"]
Fires = Literal["above", "at"]
Spikes = Literal["one", "many"]
Start = Literal["zero", "v_reset", "v_leak"]
Loops = Literal["first step", "second step"]


@dataclass(frozen=True)
class Reading:
    """One way to step through a NIR graph.

    Attributes:
        decay: ``euler``: ``1 - dt / tau``; ``exponential``: ``exp(-dt / tau)``.
        gain: Factor of a neuron's input. ``nir``: ``r (1 - decay)``, as the equations say; ``one``: 1, whatever ``r``
            and ``w_in`` are (sinabs); ``decayed``: what enters a current or an LI decays in the same step (rockpool),
            a LIF takes it as it is; ``without r``: r of a LIF counts as 1, an IF takes its input as it is (norse).
        fires: ``above``: ``v > v_threshold``; ``at``: ``v >= v_threshold``.
        spikes: ``one`` a step, or as ``many`` as the threshold fits into the membrane.
        floor: True keeps an IF membrane at ``-v_threshold`` or above, as sinabs' importer does.
        start: Membranes start at ``zero``, (SpikingJelly) at ``v_reset``, or (norse) at ``v_leak``.
        loops: The bias of a recurrent layer acts from the ``first step`` (snntorch), or, as nothing is fed back yet,
            from the ``second step`` (nirtorch's executors: norse, SpikingJelly).
    """

    decay: Decay = "euler"
    gain: Gain = "nir"
    fires: Fires = "above"
    spikes: Spikes = "one"
    floor: bool = False
    start: Start = "zero"
    loops: Loops = "first step"

    def __post_init__(self) -> None:
        kinds_of = {"decay": Decay, "gain": Gain, "fires": Fires, "spikes": Spikes, "start": Start, "loops": Loops}
        for name, kinds in kinds_of.items():
            if getattr(self, name) not in get_args(kinds):
                got, allowed = getattr(self, name), ", ".join(get_args(kinds))
                raise ConfigError("no such way to read a graph", where=f"reading, {name}", got=got, allowed=allowed)

    def __str__(self) -> str:
        parts = [f"{self.decay} decay", f"spikes when v {'>' if self.fires == 'above' else '>='} threshold"]
        parts += [] if self.gain == "nir" else [f"input gain {self.gain}"]
        parts += ["several spikes a step"] if self.spikes == "many" else []
        parts += ["IF membranes floored at -threshold"] if self.floor else []
        parts += [] if self.start == "zero" else [f"membranes start at {self.start}"]
        parts += ["recurrent biases from the second step"] if self.loops == "second step" else []
        return ", ".join(parts)


READINGS: Final[Mapping[str, Reading]] = MappingProxyType(
    {
        "euler": Reading(),
        "exact": Reading(decay="exponential"),
        "snntorch": Reading(),
        "norse": Reading(gain="without r", start="v_leak", loops="second step"),
        "spikingjelly": Reading(fires="at", start="v_reset", loops="second step"),
        "sinabs": Reading("exponential", "one", "at", "many", floor=True),
        "rockpool": Reading("exponential", "decayed", "at", "many"),
        "nengo": Reading(decay="exponential"),
        "lava-dl": Reading(),
    }
)
"""By name: NIR's own two, and what each tool does with a file it imports."""


def reading(which: Reading | str) -> Reading:
    """A reading by name, or as given.

    Raises:
        ConfigError: an unknown name.
    """
    if isinstance(which, Reading):
        return which
    if which not in READINGS:
        raise ConfigError("no such way to read a graph", where="reading", got=which, allowed=", ".join(READINGS))
    return READINGS[which]


def parameters(node: Neuron, dt: float, how: Reading) -> LifParameters:
    """One step of a population as ``how`` reads it; every array has the population's shape.

    Raises:
        GraphError: ``dt`` is longer than a time constant, and the decay is Euler's.
    """
    found = discretize(node, dt) if how.decay == "euler" else _exponential(node, dt)
    if how.gain == "nir" or (how.gain == "without r" and isinstance(node, (CubaLIF, CubaLI, I))):
        return found
    if how.gain == "without r":
        return replace(found, gain=np.ones(node.shape) if isinstance(node, IF) else 1 - found.beta)
    if how.gain == "decayed" and isinstance(node, (CubaLIF, CubaLI, LI)):
        return replace(found, gain=found.beta if found.alpha is None else found.alpha)
    return replace(found, gain=np.ones(node.shape))


def _exponential(node: Neuron, dt: float) -> LifParameters:
    """The exact step for an input that is constant within it."""
    if isinstance(node, (IF, I)):
        return discretize(node, dt)
    fields = vars(node)
    beta: FloatArray = np.exp(-dt / fields["tau_mem" if isinstance(node, (CubaLIF, CubaLI)) else "tau"])
    common = {"threshold": fields.get("v_threshold"), "v_reset": fields.get("v_reset")}
    leak, gain = fields["v_leak"] * (1 - beta), fields["r"] * (1 - beta)
    if not isinstance(node, (CubaLIF, CubaLI)):
        return LifParameters(beta, None, gain, leak, **common)
    alpha: FloatArray = np.exp(-dt / node.tau_syn)
    return LifParameters(beta, alpha, node.w_in * (1 - alpha) * gain, leak, **common)
