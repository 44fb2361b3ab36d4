"""Which core gets which place of the mesh: the same places, permuted until messages cross fewer tile borders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deploy.placement import Route, where

LARGEST_SEARCH = 256  # cores; more keep program order, as one pass over all pairs takes seconds
PASSES = 20

Numbers = npt.NDArray[np.int64]


def arranged(count: int, routes: Sequence[Route], cores_max: int, mesh: tuple[int, int, int] | None) -> Numbers:
    """The number (place) of each core, int64 ``[count]``: a permutation of ``0 .. count - 1``.

    Program order is the start and stays where nothing is better. Pairs of cores change places, best improvement
    first, until none helps; the result is deterministic.
    """
    places = np.arange(count, dtype=np.int64)
    if mesh is None or count < 3 or count > LARGEST_SEARCH:
        return places
    flow = np.zeros((count, count))
    for route in routes:
        if route.source_core is not None:
            flow[route.source_core, route.target_core] += route.axons
    flow += flow.T
    spots = np.array([where(core, cores_max, mesh) for core in range(count)])
    distance = np.abs(spots[:, None] - spots[None]).sum(axis=2).astype(np.float64)
    for _ in range(PASSES * count):
        gain = _gains(flow, distance[np.ix_(places, places)])
        best = int(gain.argmax())
        first, second = divmod(best, count)
        if gain[first, second] <= 1e-9:
            break
        places[first], places[second] = places[second], places[first]
    return places


def _gains(flow: npt.NDArray[np.float64], distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much less traffic there is after each two cores change places, ``[n, n]``.

    With F the flow and D the distances, both symmetric: moving i to j's place changes its cost by F_i · (D_j - D_i);
    the pair's own distance stays, so its share is taken out of both moves.
    """
    cross = flow @ distance
    own = np.diagonal(cross)
    change: npt.NDArray[np.float64] = cross + cross.T - own[:, None] - own[None, :] + 2 * flow * distance
    return -change
