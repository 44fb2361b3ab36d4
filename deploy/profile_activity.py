"""What happens on each core: counted where the spikes were recorded, else a layer's totals shared out over its cores.

Every figure is ``[T, B]``: events of a step of the layer, in each sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.contacts import Mask, synapses_onto
from deploy.place_core import Slice
from deploy.placement import Core, Placement, Route
from deploy.program import Population, Program
from deploy.spikes import Stimulus
from deploy.trace import Trace

Amounts = npt.NDArray[np.float64]
Place = tuple[int, str]


@dataclass(frozen=True, eq=False)
class Shared:
    """A share of some events: ``events * share``, multiplied out where it is used.

    Attributes:
        events: int64 or float64 ``[T, B]``, the run's own array where nothing had to be counted for it.
        share: What part of them is meant.
    """

    events: npt.NDArray[Any]
    share: float = 1.0

    def mean(self) -> float:
        """Mean number a sample, over all steps."""
        return float(self.events.sum()) * self.share / int(self.events.shape[1])

    def by_sample(self) -> Amounts:
        """Number in each sample, ``[B]``."""
        return np.asarray(self.events.sum(axis=0) * self.share, dtype=np.float64)


class Activity:
    """A run's events, core by core.

    Args:
        given: The input the run was fed; without it, or without every population's recorded spikes, a layer's totals
            are shared out: synaptic operations by the connections that end on a core, the rest by its neurons.
    """

    def __init__(self, program: Program, trace: Trace, placement: Placement, given: Stimulus | None = None) -> None:
        self.program, self.trace, self.placement = program, trace, placement
        recorded = all(p.name in trace.spikes for p in program.populations)
        undelayed = all(synapse.delay == 0 for synapse in program.synapses)
        self.exact = bool(given is not None and recorded and undelayed and given.samples == trace.samples)
        self._columns: dict[tuple[Any, ...], npt.NDArray[np.float32]] = {}
        if self.exact and given is not None:
            self._count(given)

    def _count(self, given: Stimulus) -> None:
        """Multiply each source's spikes with what each core wants to know of them, all columns at once."""
        wanted: dict[str, dict[tuple[Any, ...], npt.NDArray[Any]]] = {}
        here = {(core.number, part.layer): self._mask(part) for core in self.placement.cores for part in core.parts}
        for (number, layer), mask in here.items():
            wanted.setdefault(layer, {})["spikes", number, layer] = mask
            for synapse in self.program.incoming(layer):
                contacts = synapses_onto(self.program, synapse, mask)
                columns = wanted.setdefault(synapse.source, {})
                key = ("synops", number, layer)
                columns[key] = columns.get(key, 0) + contacts
                for route in self._routes(synapse.source, number, layer):
                    sending = contacts > 0
                    sending &= True if route.source_core is None else here[route.source_core, synapse.source]
                    route_key = ("route", route.source, route.source_core, number, layer)
                    columns[route_key] = columns.get(route_key, 0) + sending.astype(np.int64)
        for source, columns in wanted.items():
            spikes = self._spikes_of(source, given)
            counted = spikes @ np.stack([np.asarray(c, dtype=np.float32) for c in columns.values()], axis=1)
            shape = (self.trace.steps, self.trace.samples)
            for k, key in enumerate(columns):
                found = counted[:, k].reshape(shape)
                self._columns[key] = self._columns[key] + found if key in self._columns else found

    def _routes(self, source: str, core: int, layer: str) -> Iterable[Route]:
        seen: set[int | None] = set()
        for route in self.placement.routes:
            if (route.source, route.target_core, route.target) == (source, core, layer):
                if route.source_core not in seen:
                    yield route
                seen.add(route.source_core)

    def _spikes_of(self, source: str, given: Stimulus) -> npt.NDArray[np.float32]:
        values = given.dense() != 0 if source == self.program.input.name else self.trace.spikes[source]
        flat: npt.NDArray[np.float32] = values.reshape(self.trace.steps * self.trace.samples, -1).astype(np.float32)
        return flat

    def _mask(self, part: Slice) -> Mask:
        node = self.program.node(part.layer)
        assert isinstance(node, Population)
        return part.mask(node)

    def spikes(self, core: Core, part: Slice) -> Shared:
        """Spikes of the neurons of a part."""
        counter = self.trace.counters[part.layer]
        return self._found(("spikes", core.number, part.layer), counter.spikes, part.size / counter.neurons)

    def active(self, core: Core, part: Slice) -> Shared:
        """Active updates of a part; exact where current and membrane were recorded too."""
        counter, layer = self.trace.counters[part.layer], part.layer
        if layer in self.trace.u and layer in self.trace.spikes:
            busy = (self.trace.u[layer] != 0) | (self.trace.v[layer] != 0) | (self.trace.spikes[layer] != 0)
            chosen = busy.reshape(self.trace.steps, self.trace.samples, -1)[:, :, self._mask(part)]
            return Shared(chosen.sum(axis=2))
        return Shared(counter.active, part.size / counter.neurons)

    def synops(self, core: Core, part: Slice) -> Shared:
        """Synaptic operations on a part."""
        every = sum(
            n
            for other in self.placement.of(part.layer)
            for p, n in zip(other.parts, other.synapses, strict=True)
            if p.layer == part.layer
        )
        mine = sum(n for p, n in zip(core.parts, core.synapses, strict=True) if p is part)
        share = mine / max(1, every)
        return self._found(("synops", core.number, part.layer), self.trace.counters[part.layer].synops, share)

    def messages(self, route: Route) -> Shared:
        """Spike messages that take a route."""
        key = ("route", route.source, route.source_core, route.target_core, route.target)
        counter = self.trace.counters.get(route.source)
        sent = self.trace.input_events if counter is None else counter.spikes
        return self._found(key, sent, route.axons / self.program.node(route.source).size)

    def _found(self, key: tuple[Any, ...], total: npt.NDArray[np.int64], share: float) -> Shared:
        if self.exact:
            found = self._columns.get(key)
            return Shared(np.zeros(total.shape) if found is None else found.astype(np.float64))
        return Shared(total, share)
