"""Where networks compute: a GPU where there is one, unless told otherwise.

Training and evaluation move a network there and back (:func:`on_device`); everything else, and every file, is on the
CPU. Off the CPU the neurons take the plain loop over time, for the fused scans are CPU code; the networks that compute
in the chip's integers stay on the CPU altogether, where their products are known to be exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from deploy.errors import ConfigError
from neurokd import parallel
from neurokd.network_layers import SpikingLayer

DEVICES: Final = ("auto", "cpu", "cuda")

_wanted = "auto"


def use(name: str) -> None:
    """Choose for this process: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    Raises:
        ConfigError: an unknown name, or ``cuda`` where torch finds no GPU.
    """
    global _wanted
    if name not in DEVICES:
        raise ConfigError("no such device", where="--device", got=name, allowed=", ".join(DEVICES))
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "there is no GPU that torch can use",
            where="--device",
            got="cuda",
            allowed="auto, cpu",
            next_step=f"use --device cpu, or install a CUDA build of torch (this is {torch.__version__}) and a driver",
        )
    _wanted = name


def chosen() -> torch.device:
    """The device networks compute on; of several GPUs the one of this process's number on its machine."""
    if _wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", parallel.local_rank() % max(1, torch.cuda.device_count()))


@contextmanager
def on_device(network: Any) -> Iterator[torch.device]:
    """The network on :func:`chosen`'s device inside, where it was afterwards; gives the device it is on."""
    before = device_of(network)
    layers = isinstance(network, torch.nn.Module) and any(isinstance(m, SpikingLayer) for m in network.modules())
    after = chosen() if layers else before
    if after == before:
        yield before
        return
    network.to(after)
    try:
        yield after
    finally:
        network.to(before)


def device_of(network: Any) -> torch.device:
    """Where its first parameter is; the CPU where it has none."""
    first = next(iter(network.parameters()), None)
    return torch.device("cpu") if first is None else first.device
