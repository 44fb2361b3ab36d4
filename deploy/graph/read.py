"""From a ``.nir`` file, or a graph of the ``nir`` package, to a :class:`Graph`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nir

from deploy.errors import GraphError
from deploy.graph import coerce
from deploy.graph.analysis import Analysis, analyse
from deploy.graph.finding import Finding
from deploy.graph.graph import Graph
from deploy.graph.hdf5 import Limits, Tree, read_tree
from deploy.graph.nested import MAX_DEPTH
from deploy.graph.probe import Probe
from deploy.graph.problems import Problem, raise_first


def read(
    path: str | Path,
    *,
    dt: float | None = None,
    reset: str | None = None,
    max_bytes: int = Limits.max_bytes,
    trusted: bool = False,
) -> Graph:
    """The graph in a ``.nir`` file, in the order of its edges, every field consumed.

    Args:
        path: A file written by the ``nir`` package or :func:`deploy.graph.write`.
        dt: Time step in seconds, where the file does not state it.
        reset: ``zero``, ``value`` or ``subtract``, where the file does not state it.
        max_bytes: Refuse files that hold more than this, counted as float64.
        trusted: True skips the helper process that tries the file out first (about 0.2 s): a damaged file may then
            hang the HDF5 library. For files written a moment ago by this very process.

    Raises:
        FileError: missing or not readable.
        GraphError: not HDF5, damaged, refused, or with anything that cannot be honoured.
        UnsupportedNode: a node, or field value, with no counterpart here.
    """
    analysis = analyse_file(path, dt=dt, reset=reset, max_bytes=max_bytes, trusted=trusted)
    return _settled(analysis, str(path))


def from_nir(graph: Any, *, dt: float | None = None, reset: str | None = None) -> Graph:
    """The same for a ``nir.NIRGraph`` (or single ``nir`` node) in memory, which is left as it is.

    Raises:
        GraphError: as :func:`read`.
    """
    return _settled(analyse_nir(graph, dt=dt, reset=reset), "the NIR graph")


def _settled(analysis: Analysis, origin: str) -> Graph:
    raise_first(analysis.problems, origin)
    if analysis.graph is None:
        raise AssertionError("an analysis without problems has a graph")
    return analysis.graph


def analyse_file(
    path: str | Path,
    *,
    dt: float | None = None,
    reset: str | None = None,
    max_bytes: int = Limits.max_bytes,
    trusted: bool = False,
    probe: Probe | None = None,
) -> Analysis:
    """Everything there is to say about a file; only a file that cannot be opened at all raises.

    Args:
        path, dt, reset, max_bytes, trusted: As :func:`read`.
        probe: A running helper process to try the file out, for many files in a row.

    Raises:
        FileError: missing or not readable.
    """
    try:
        if not trusted:
            _try_out(path, max_bytes, probe)
        root, left_out = read_tree(Path(path), Limits(max_bytes=max_bytes))
        tree = _root(root)
    except GraphError as error:
        return Analysis(problems=[Problem("", error)])
    extra = [*left_out, *(f"{key!r} beside the graph" for key in root if key not in ("node", "version"))]
    analysis = analyse(tree, dt=dt, reset=reset)
    analysis.notes += [Finding("note", "", "not interpreted and not kept: " + coerce.shorten(item)) for item in extra]
    if analysis.graph is not None:
        analysis.graph = dataclasses.replace(analysis.graph, notes=tuple(analysis.notes))
    return analysis


def _try_out(path: str | Path, max_bytes: int, probe: Probe | None) -> None:
    if probe is not None:
        probe.check(path)
        return
    with Probe(max_bytes) as single:
        single.check(path)


def analyse_nir(graph: Any, *, dt: float | None = None, reset: str | None = None) -> Analysis:
    """Everything there is to say about a graph of the ``nir`` package."""
    try:
        return analyse(_tree(graph, 0), dt=dt, reset=reset)
    except GraphError as error:
        return Analysis(problems=[Problem("", error)])


def _root(root: Tree) -> Mapping[str, Any]:
    tree = root.get("node")
    if not isinstance(tree, dict):
        raise GraphError(
            "the file holds no NIR graph",
            got="top-level names " + coerce.shorten(", ".join(sorted(root)) or "(none)"),
            allowed="a group 'node', as nir.write makes it",
            next_step="give a graph written by nir.write (nir.write_data stores recorded spikes, not networks)",
        )
    return tree


def _tree(node: Any, depth: int) -> dict[str, Any]:
    """The fields of a ``nir`` object as its file would hold them."""
    if depth > MAX_DEPTH + 1 or not isinstance(node, nir.NIRNode):
        raise GraphError(
            "this is not a NIR graph" if depth <= MAX_DEPTH + 1 else "graphs are nested too deep",
            got=type(node).__name__,
            allowed=f"a node of the nir package, at most {MAX_DEPTH} graphs deep",
            next_step="give a nir.NIRGraph, or the path of a .nir file to read()",
        )
    tree = {f.name: getattr(node, f.name) for f in dataclasses.fields(node) if not f.name.endswith("put_type")}
    tree["type"] = type(node).__name__
    if isinstance(node, nir.NIRGraph):
        tree["nodes"] = {name: _tree(inner, depth + 1) for name, inner in node.nodes.items()}
    elif isinstance(node, (nir.Input, nir.Output)):
        tree["shape"] = (node.input_type or {}).get("input")
    elif isinstance(node, nir.Flatten):
        tree["input_type"] = (node.input_type or {}).get("input")
    return tree
