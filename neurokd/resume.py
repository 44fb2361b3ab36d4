"""The state of a training run after an epoch, so that a killed run goes on with exactly the same result.

Everything random is drawn from (seed, epoch), so the state is the weights, the optimizer's moments, the best weights so
far and the history; no generator state is kept. The run it belongs to is written with it and compared on reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from deploy.errors import CheckpointError
from neurokd import checkpoint
from neurokd.feed import Network
from neurokd.network import SpikingNetwork

FILE = "training.safetensors"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave.

    Args:
        epoch: From 1.
        loss: Mean of the weighted loss over the batches.
        parts: Mean of each loss term, unweighted.
        validation: Validation accuracy in percent.
        seconds: Wall time, validation included.
    """

    epoch: int
    loss: float
    parts: dict[str, float]
    validation: float
    seconds: float


@dataclass(frozen=True)
class State:
    """A run after ``len(history)`` epochs.

    Args:
        weights: The network's ``state_dict``.
        moments: The optimizer's state, ``<parameter number>/<name>``.
        best: The ``state_dict`` of the best epoch so far.
        history: One record an epoch.
        test: Test accuracy in percent once the stage has ended, else None.
        alignments: Parameters that train beside the network and are no part of it.
    """

    weights: Tensors
    moments: Tensors
    best: Tensors
    history: tuple[EpochRecord, ...] = ()
    test: float | None = None
    alignments: Tensors = field(default_factory=dict)

    @property
    def best_record(self) -> EpochRecord:
        """The epoch with the best validation accuracy; of equals the last, which saw more."""
        return max(self.history, key=lambda record: (record.validation, record.epoch))


def copy_weights(network: Network | torch.nn.Module) -> Tensors:
    """The network's ``state_dict`` as copies on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def moments_of(optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimizer's tensors under flat names."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": value.detach().cpu().clone()
        for number, part in state.items()
        for name, value in part.items()
    }


def put_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, torch.Tensor]) -> None:
    """The inverse of :func:`moments_of`, into an optimizer over the same parameters."""
    whole = optimizer.state_dict()
    whole["state"] = {}
    for key, value in moments.items():
        number, name = key.split("/")
        whole["state"].setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(whole)


def save(folder: str | Path, state: State, network: Network, run: Mapping[str, Any]) -> None:
    """Write the state as one file, atomically.

    Raises:
        FileError: the folder cannot be written or the disk is full.
    """
    parts = {
        "weights": state.weights, "moments": state.moments, "best": state.best, "alignments": state.alignments,
    }  # fmt: skip
    tensors = {f"{part}/{name}": value for part, group in parts.items() for name, value in group.items()}
    info = {
        "spec": network.spec_text,
        "options": dict(network.options),
        "run": dict(run),
        "history": [asdict(record) for record in state.history],
        "test": state.test,
    }
    checkpoint.write(Path(folder) / FILE, checkpoint.Contents(tensors, info), checkpoint.STATE)


def load(folder: str | Path, run: Mapping[str, Any]) -> State | None:
    """The state in the folder, or None where there is none.

    Raises:
        CheckpointError: damaged, or of another run (network, data, options, seed); the difference is named.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return None
    contents = checkpoint.read(path, checkpoint.STATE)
    _same_run(contents.info["run"], run, path)
    history = tuple(EpochRecord(**record) for record in contents.info["history"])
    weights, moments, best = (_group(contents.tensors, part) for part in ("weights", "moments", "best"))
    return State(weights, moments, best, history, contents.info["test"], _group(contents.tensors, "alignments"))


def load_best(folder: str | Path) -> SpikingNetwork:
    """The best float network of a run so far, also of one that was stopped or failed; in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or the state of a network that its spec does not build.
    """
    contents = checkpoint.read(Path(folder) / FILE, checkpoint.STATE)
    network = checkpoint.rebuild(contents.info, Path(folder) / FILE)
    checkpoint.put_weights(network, _group(contents.tensors, "best"), Path(folder) / FILE)
    return network.eval()


def _group(tensors: Mapping[str, torch.Tensor], part: str) -> Tensors:
    prefix = f"{part}/"
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _same_run(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    differ = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
    if differ:
        raise CheckpointError(
            "the checkpoint is of another training run",
            where=path,
            got="; ".join(f"{key} = {found.get(key)}" for key in differ),
            allowed="; ".join(f"{key} = {wanted.get(key)}" for key in differ),
            next_step=f"delete {path} to train from the start, or choose another folder",
        )
