"""Checkpoints: one safetensors file with the tensors, and what they belong to as JSON in its header.

One file and one rename, so a checkpoint is either the old one or the new one, never half of each. A digest of the
tensors' bytes is in the header too: a damaged file is refused, not loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from deploy.errors import CheckpointError, ConfigError, FileError
from deploy.files import atomic_path
from neurokd.network import SpikingNetwork, build

NETWORK = "neurokd network 1"
STATE = "neurokd training state 1"
QUANTIZED = "neurokd quantized network 1"
_PARTS = {
    NETWORK: ("spec", "options", "extra"),
    STATE: ("spec", "options", "run", "history", "test"),
    QUANTIZED: ("spec", "options", "chip", "grids", "extra"),
}


@dataclass(frozen=True)
class Contents:
    """What a checkpoint file holds.

    Args:
        tensors: Name to tensor, on the CPU.
        info: The header's JSON: for a network ``spec``, ``options`` and ``extra``.
    """

    tensors: dict[str, torch.Tensor]
    info: dict[str, Any] = field(default_factory=dict)


def save(path: str | Path, network: SpikingNetwork, extra: Mapping[str, Any] | None = None) -> None:
    """Write the network's weights with its spec and options, atomically.

    Args:
        path: Target, usually ``<stage>.safetensors``.
        network: The network; its ``spec_text`` and ``options`` go into the header.
        extra: Plain values (JSON) to keep with it, such as its accuracy.

    Raises:
        FileError: the folder cannot be written or the disk is full.
    """
    info = {"spec": network.spec_text, "options": dict(network.options), "extra": dict(extra or {})}
    write(path, Contents(dict(network.state_dict()), info), NETWORK)


def load(path: str | Path, spec: str | None = None) -> SpikingNetwork:
    """Build the network a checkpoint describes and load its weights; it comes back in evaluation mode.

    Args:
        path: A file written by :func:`save`.
        spec: The spec the caller expects; another one is refused.

    Raises:
        CheckpointError: missing, damaged, of another spec, or weights that do not fit the spec.
    """
    contents = read(path, NETWORK)
    found = str(contents.info["spec"])
    if spec is not None and found != spec:
        raise _other_network(path, found, spec)
    network = rebuild(contents.info, path)
    put_weights(network, contents.tensors, path)
    return network.eval()


def load_into(path: str | Path, network: SpikingNetwork) -> dict[str, Any]:
    """Load a checkpoint's weights into a network that exists already (a user's own module, for instance).

    Returns:
        The ``extra`` values it was saved with.

    Raises:
        CheckpointError: missing, damaged, or of another network.
    """
    contents = read(path, NETWORK)
    if contents.info["spec"] != network.spec_text:
        raise _other_network(path, str(contents.info["spec"]), network.spec_text)
    put_weights(network, contents.tensors, path)
    return dict(contents.info["extra"])


def read_info(path: str | Path) -> dict[str, Any]:
    """The header of a network checkpoint: ``spec``, ``options``, ``extra``; the tensors are not read."""
    return _header(path, NETWORK)


def write(path: str | Path, contents: Contents, kind: str) -> None:
    """Write tensors and JSON as one file of the given kind, atomically.

    Raises:
        FileError: the folder cannot be written or the disk is full.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in contents.tensors.items()}
    metadata = {"kind": kind, "info": json.dumps(contents.info, allow_nan=False), "digest": digest(tensors)}
    data = safetensors.torch.save(tensors, metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read(path: str | Path, kind: str) -> Contents:
    """Read a file written by :func:`write`.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
    """
    info = _header(path, kind)
    try:
        tensors = safetensors.torch.load_file(str(path))
        with safe_open(str(path), framework="pt") as handle:
            expected = handle.metadata()["digest"]
    except (OSError, SafetensorError, KeyError) as error:
        raise _damaged(path, str(error)) from error
    if digest(tensors) != expected:
        raise _damaged(path, "the tensors do not have the digest they were saved with")
    return Contents(tensors, info)


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """BLAKE2b-128 over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        total.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return total.hexdigest()


def _header(path: str | Path, kind: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise CheckpointError(
            "the checkpoint is missing", where=path, got="no such file", next_step="run the stage that writes it"
        )
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = handle.metadata() or {}
    except OSError as error:
        raise FileError("cannot read the checkpoint", where=path, got=error.strerror or error) from error
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("kind") != kind:
        raise CheckpointError(
            "the file is not a checkpoint of this kind",
            where=path,
            got=metadata.get("kind", "a safetensors file of another program"),
            allowed=kind,
        )
    try:
        info = dict(json.loads(metadata["info"]))
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path, f"header: {error}") from error
    missing = [part for part in _PARTS[kind] if part not in info]
    if missing:
        raise _damaged(path, f"header without {', '.join(missing)}")
    return info


def rebuild(info: Mapping[str, Any], path: str | Path) -> SpikingNetwork:
    """A fresh network from a header's spec and options; ``path`` is where they came from.

    Raises:
        CheckpointError: no network can be built from them.
    """
    try:
        return build(str(info["spec"]), **info["options"])
    except (ConfigError, TypeError) as error:
        raise _damaged(path, f"header: {error}") from error


def put_weights(network: SpikingNetwork, tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Load tensors into a network once every name and shape is its own; ``path`` is where they came from.

    Raises:
        CheckpointError: a tensor too many, too few, or of another shape.
    """
    expected = network.state_dict()
    wrong = [
        name for name in sorted(expected.keys() | tensors.keys()) if _shape(expected, name) != _shape(tensors, name)
    ]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            "the checkpoint's tensors are not this network's",
            where=f"{path}: {name}",
            got=_shape(tensors, name),
            allowed=_shape(expected, name),
            next_step=f"train {network.spec_text} again, or name the checkpoint that belongs to it",
        )
    network.load_state_dict(dict(tensors))


def _shape(tensors: Mapping[str, torch.Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "no such tensor"


def _other_network(path: str | Path, found: str, expected: str) -> CheckpointError:
    return CheckpointError(
        "the checkpoint is of another network",
        where=path,
        got=found,
        allowed=expected,
        next_step="choose the run folder that belongs to this network, or train it again",
    )


def _damaged(path: str | Path, reason: str) -> CheckpointError:
    return CheckpointError(
        "the checkpoint is damaged",
        where=path,
        got=reason,
        allowed="a file as this tool writes it",
        next_step="delete it and run the stage that writes it again",
    )
