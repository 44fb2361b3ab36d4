"""The optimizer and its learning rate."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch

from deploy.errors import TrainingError
from neurokd.config_parts import StageConfig
from neurokd.feed import Network

WARM_UP = 0.15  # share of the steps over which the learning rate rises


class AdamW(torch.optim.AdamW):
    """torch's AdamW without its guards against being compiled, which no loop here is.

    The first guard that is met imports torch's compiler: 69 MB and 1.5 s of every training process (torch 2.13).
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """One cycle: a linear rise over the first 15 % of the steps, then half a cosine down to 0.

    Args:
        step: From 0.
        steps: Number of steps.
        peak: Largest rate.
    """
    done = (step + 1) / steps
    if done < WARM_UP:
        return peak * done / WARM_UP
    return peak * 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))


def make_optimizer(network: Network, stage: StageConfig) -> torch.optim.Optimizer:
    """AdamW; weights of synapses decay, biases, norms and neuron parameters do not.

    Raises:
        TrainingError: no parameter of the network has a gradient.
    """
    trained = [value for value in network.parameters() if value.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [value for value in trained if value.dim() >= 2], "weight_decay": stage.weight_decay},
        {"params": [value for value in trained if value.dim() < 2], "weight_decay": 0.0},
    ]
    if not trained:
        raise TrainingError(
            "the network has nothing to train",
            where=network.spec_text,
            got="no parameter with a gradient",
            allowed="at least one",
            next_step="set requires_grad on the weights to train",
        )
    return AdamW([group for group in groups if group["params"]], lr=stage.lr, fused=True)
