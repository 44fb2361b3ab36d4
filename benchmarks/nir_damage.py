"""A small quantized network as a .nir file, and every way there is to damage one."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deploy.graph import (
    Affine,
    AvgPool2d,
    Conv2d,
    Flatten,
    Graph,
    Input,
    LifParameters,
    NeuronGrid,
    Output,
    RunSettings,
    SynapseGrid,
    neuron_from_steps,
)

SCALE, DT = 0.01, 1e-4
Random = np.random.Generator


def network() -> Graph:
    """A small quantized network with convolution, pooling, a CUBA layer, recurrence and foreign metadata."""
    random = np.random.default_rng(0)
    grid, mixed = NeuronGrid(SCALE), SynapseGrid(0, 8, "mixed")

    def steps(shape: tuple[int, ...], alpha: float | None) -> LifParameters:
        full = np.ones(shape)
        current = None if alpha is None else full * alpha
        return LifParameters(full * (1 - 400 / 4096), current, full, full * SCALE / 64, full * 100 * SCALE, full * 0)

    def weights(*shape: int, unit: int = 2) -> np.ndarray:
        return random.integers(-30, 30, shape) * unit * SCALE  # unit 8: still even once a quarter goes to each pixel

    nodes = (
        Input("in", (1, 6, 8)),
        Conv2d("conv", weights(2, 1, 3, 5), padding=(1, 1), quantization=mixed),
        neuron_from_steps("lif", steps((2, 6, 6), None), DT, grid),
        AvgPool2d("pool", (2, 2), (2, 2)),
        Flatten("flat", 0, -1),
        Affine("fc", weights(3, 18, unit=8), quantization=mixed),
        neuron_from_steps("cuba", steps((3,), 0.5), DT, grid),
        Affine("back", weights(3, 3), quantization=mixed),
        Output("out", (3,)),
    )
    chain = ("in", "conv", "lif", "pool", "flat", "fc", "cuba", "out")
    edges = (*zip(chain[:-1], chain[1:], strict=True), ("cuba", "back"), ("back", "cuba"))
    settings = RunSettings(8, "direct", 8, "loihi2")
    return Graph(nodes, edges, DT, "zero", settings, {"by": {"tool": "x", "list": ["a", "b"], "n": np.arange(3)}})


def flip_bits(path: Path, random: Random) -> None:
    """1 to 64 bits anywhere."""
    data = bytearray(path.read_bytes())
    for _ in range(int(random.choice([1, 1, 2, 4, 16, 64]))):
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))
    path.write_bytes(data)


def overwrite(path: Path, random: Random) -> None:
    """Runs of 00 or FF: sizes and addresses become 0 or enormous."""
    data = bytearray(path.read_bytes())
    for _ in range(int(random.choice([1, 2, 8]))):
        length = int(random.choice([1, 2, 4, 8]))
        start = int(random.integers(len(data) - length))
        data[start : start + length] = random.choice([b"\x00", b"\xff"]) * length
    path.write_bytes(data)


def truncate(path: Path, random: Random) -> None:
    """The file ends early."""
    data = path.read_bytes()
    path.write_bytes(data[: int(random.integers(len(data)))])


def _members(file: h5py.File, kind: type) -> list[str]:
    found: list[str] = []
    file["node"].visititems(lambda name, member: found.append("node/" + name) if isinstance(member, kind) else None)
    return found


def _replaced(file: h5py.File, random: Random, make: Callable[[h5py.Group, str], Any]) -> None:
    name = str(random.choice(_members(file, h5py.Dataset)))
    del file[name]
    parent, _, last = name.rpartition("/")
    make(file[parent], last)


def wrong_shape(file: h5py.File, random: Random) -> None:
    """Numbers of another shape."""
    shape = tuple(int(n) for n in random.integers(0, 6, int(random.integers(0, 5))))
    _replaced(file, random, lambda group, name: group.create_dataset(name, data=random.normal(size=shape)))


def wrong_type(file: h5py.File, random: Random) -> None:
    """Text, complex, boolean, record, reference, empty or raw bytes where something else belongs."""
    values: list[Any] = ["text", 1j, True, 7, b"\xff\xfe", np.zeros(2, [("a", "i4")]), file["node"].ref, np.void(b"ab")]
    values += [h5py.Empty("f8"), np.array(["x", "y"], dtype=object), -1, 2**62, [], float("nan"), "NIRGraph", "Nope"]
    value = values[int(random.integers(len(values)))]
    _replaced(file, random, lambda group, name: group.create_dataset(name, data=value))


def absurd_values(file: h5py.File, random: Random) -> None:
    """The right shape, but NaN, infinite, zero, negative, tiny or huge."""
    names = [n for n in _members(file, h5py.Dataset) if file[n].dtype.kind in "if" and 0 < (file[n].size or 0) < 1e6]
    data = file[str(random.choice(names))]
    values = [0, -1, 1e-300, 1e300, 2**31, 2**62, np.nan, np.inf, -np.inf, 0.5, 1e-9]
    value = values[int(random.integers(len(values)))]
    with np.errstate(all="ignore"):
        array = np.array(data[()], dtype=np.float64)
        array[(random.random(array.shape) < random.choice([0.1, 1.0])) if array.ndim else ...] = value
        name, parent = data.name, data.parent
        del file[name]
        parent.create_dataset(name.rpartition("/")[2], data=array)


def huge_size(file: h5py.File, random: Random) -> None:
    """Sizes far beyond what is stored."""
    shape = [(2**40,), (2**20, 2**20), (2**62,), (2**31, 2, 2)][int(random.integers(4))]
    chunks = None if random.random() < 0.5 else tuple(min(n, 64) for n in shape)
    _replaced(file, random, lambda group, name: group.create_dataset(name, shape=shape, dtype="f4", chunks=chunks))


def bomb(file: h5py.File, random: Random) -> None:
    """A chunk of 16 bytes that decompresses to 300 MB."""
    raw = zlib.compress(bytes(300 * 2**20), 9) if random.random() < 0.05 else zlib.compress(bytes(2**20), 9)

    def make(group: h5py.Group, name: str) -> None:
        data = group.create_dataset(name, shape=(2,), dtype="f8", chunks=(2,), compression="gzip")
        data.id.write_direct_chunk((0,), raw)

    _replaced(file, random, make)


def link(file: h5py.File, random: Random) -> None:
    """A soft, external or second hard link, also to a group above itself."""
    group = file[str(random.choice(_members(file, h5py.Group)))]
    kinds: list[Any] = [h5py.SoftLink("/node"), h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/x")]
    kinds += [h5py.ExternalLink("other.nir", "/node"), file["node"], file["node/nodes"], group]
    group[f"l{random.integers(9)}"] = kinds[int(random.integers(len(kinds)))]


def nesting(file: h5py.File, random: Random) -> None:
    """Groups, or graphs, within each other."""
    group = file[str(random.choice(_members(file, h5py.Group)))]
    graphs = bool(random.random() < 0.5)
    for _ in range(int(random.integers(1, 80))):
        group = group.create_group("nodes" if graphs else "g")
        if graphs:
            group = group.create_group("n")
            group["type"] = "NIRGraph"
            group["edges"] = np.zeros(0)


def fields(file: h5py.File, random: Random) -> None:
    """A field or node missing, doubled under another name, or unknown."""
    name = str(random.choice(_members(file, h5py.Dataset) + _members(file, h5py.Group)))
    choice = random.integers(3)
    if choice == 0:
        del file[name]
    elif choice == 1:
        file.copy(name, name + str(random.choice(["x", ".", "\u00e9", " ", "."])))
    else:
        file.move(name, name + "moved")


def edges(file: h5py.File, random: Random) -> None:
    """Other edges: at random, doubled, to nowhere, too wide, empty."""
    names = [*file["node/nodes"], "nowhere"]
    count, width = int(random.integers(0, 30)), int(random.choice([2, 2, 2, 2, 1, 3]))
    rows = [[str(random.choice(names)) for _ in range(width)] for _ in range(count)]
    del file["node/edges"]
    file["node/edges"] = rows if rows else np.zeros((0, 2))


def metadata(file: h5py.File, random: Random) -> None:
    """Our own block with other values, types and keys."""
    keys = ["schema", "dt", "reset", "steps", "encoding", "input_bits", "chip", "scale", "weight_exp", "weight_bits"]
    places = [name for name in _members(file, h5py.Group) if name.endswith("neurokd")]
    group = file[str(random.choice(places))]
    key = str(random.choice([*keys, "sign_mode", "new"]))
    if key in group:
        del group[key]
    values: list[Any] = [0, 1, 2, -1, 99, 1e-4, 1e300, 1e-300, np.nan, "zero", "subtract", "value", "x", [1, 2], 2**40]
    group.create_dataset(key, data=values[int(random.integers(len(values)))])


BYTES = (flip_bits, overwrite, truncate)
STRUCTURE = (wrong_shape, wrong_type, absurd_values, huge_size, bomb, link, nesting, fields, edges, metadata)


def damage(path: Path, random: Random) -> str:
    """Damage the file at ``path`` in one way, or in up to four that keep it HDF5; the name of the first."""
    if random.random() < 0.5:
        change = BYTES[int(random.integers(len(BYTES)))]
        change(path, random)
        return change.__name__
    first = ""
    for _ in range(int(random.choice([1, 1, 1, 2, 4]))):
        chosen = STRUCTURE[int(random.integers(len(STRUCTURE)))]
        try:
            with h5py.File(path, "r+") as file:
                chosen(file, random)
        except (KeyError, ValueError, OSError, RuntimeError, TypeError, MemoryError):
            continue  # two changes that exclude each other: what the first left is damaged enough
        first = first or chosen.__name__
    return first or "none"
