"""A batch on a device, a process's share of it, and what the shares say put together again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from neurokd import parallel
from neurokd.encoding import Encoding
from neurokd.feed import Batch
from neurokd.outputs import Outputs


def placed(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``."""
    return replace(batch, inputs=batch.inputs.to(device), labels=batch.labels.to(device))


def share_of(batch: Batch, encoding: Encoding) -> Batch:
    """This process's samples of the batch; all of them where there is no group.

    Raises:
        TrainingError: fewer samples than processes.
    """
    if not parallel.active():
        return batch
    part = parallel.share(len(batch.indices))
    inputs = batch.inputs[part] if encoding.kind == "direct" else batch.inputs[:, part]
    return Batch(batch.indices[part], inputs, batch.labels[part])


def whole(told: Outputs, samples: int) -> Outputs:
    """What all processes' networks said, as if one had seen the batch; gradients reach the own share."""
    if not parallel.active():
        return told
    logits = None if told.logits is None else parallel.gather(told.logits[None], samples)[0]
    rest = _each(replace(told, logits=None), lambda tensor: parallel.gather(tensor, samples))
    return replace(rest, logits=logits)


def moved(told: Outputs | None, device: torch.device) -> Outputs | None:
    """The same on ``device``."""
    return None if told is None else _each(told, lambda tensor: tensor.to(device))


def _each(told: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """Every tensor changed."""
    fields = {name: getattr(told, name) for name in ("sat", "logits", "currents", "membranes")}
    layers = None if told.layers is None else {name: change(value) for name, value in told.layers.items()}
    return Outputs(**{name: None if value is None else change(value) for name, value in fields.items()}, layers=layers)
