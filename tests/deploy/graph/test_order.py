"""Order comes from edges and names alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deploy.graph.order import natural_key, recurrent_edges, topological

NAMES = [f"n{i}" for i in range(9)]
EDGES = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), unique=True, max_size=25)


def test_natural_order_counts() -> None:
    names = ["fc10", "fc2", "2", "a", "10", "fc02", ""]
    assert sorted(names, key=natural_key) == ["", "2", "10", "a", "fc02", "fc2", "fc10"]


@given(EDGES, st.randoms(use_true_random=False))
def test_any_order_of_names_and_edges_gives_the_same_answer(edges: list[tuple[str, str]], random: object) -> None:
    shuffled, names = list(edges), list(NAMES)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(names)  # type: ignore[attr-defined]
    recurrent = recurrent_edges(NAMES, edges, ["n0"])
    assert recurrent_edges(names, shuffled, ["n0"]) == recurrent
    forward = [edge for edge in edges if edge not in recurrent]
    assert topological(names, [edge for edge in shuffled if edge not in recurrent]) == topological(NAMES, forward)


@given(EDGES)
def test_without_the_recurrent_edges_every_edge_goes_forward(edges: list[tuple[str, str]]) -> None:
    recurrent = recurrent_edges(NAMES, edges, ["n0"])
    order = topological(NAMES, [edge for edge in edges if edge not in recurrent])
    assert sorted(order) == sorted(NAMES)
    place = {name: index for index, name in enumerate(order)}
    assert all(place[a] < place[b] for a, b in edges if (a, b) not in recurrent)
    assert all(place[a] >= place[b] or a == b for a, b in recurrent)


def test_the_edge_back_to_the_neuron_is_the_recurrent_one() -> None:
    edges = [("in", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "out")]
    assert recurrent_edges(["w_rec", "lif", "out", "in"], edges, ["in"]) == {("w_rec", "lif")}


def test_a_chain_of_100_000_nodes_is_walked_without_recursion() -> None:
    names = [str(i) for i in range(100_000)]
    edges = list(zip(names[:-1], names[1:], strict=True))
    assert recurrent_edges(names, edges, ["0"]) == frozenset()
    assert np.array_equal(topological(names, edges), names)
