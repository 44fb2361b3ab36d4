"""The optimizer: torch's own steps, hooks included, and no compiler in memory for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from neurokd.schedule import AdamW  # noqa: E402

TRAINS = """
import sys
from neurokd.config_parts import StageConfig
from neurokd.data import load
from neurokd.encoding import Encoding
from neurokd.network import build
from neurokd.train import train
how = {"encoding": Encoding("direct", 4, 2, raw_levels=16), "out": sys.argv[1]}
train(build("64-12-10", steps=2, input_bits=4), load("digits"), StageConfig(epochs=1), **how)
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("fused", [True, False])
def test_it_steps_as_torchs_does(fused: bool) -> None:
    told, ends = [], []
    for kind in (AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(5, 4)), torch.nn.Parameter(torch.randn(4))]
        groups = [{"params": weights[:1], "weight_decay": 0.1}, {"params": weights[1:], "weight_decay": 0.0}]
        optimizer = kind(groups, lr=1e-2, fused=fused)
        optimizer.register_step_post_hook(lambda *_, kind=kind: told.append(kind))
        for _ in range(3):
            optimizer.zero_grad()
            (weights[0] @ weights[1]).square().sum().backward()
            optimizer.step()
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
        assert len(optimizer.param_groups) == 3
        ends.append(weights)
        again = kind([torch.nn.Parameter(torch.zeros_like(one)) for one in weights], lr=1.0)
        with pytest.raises(ValueError, match="parameter group"):
            again.load_state_dict(optimizer.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert told == [AdamW] * 3 + [torch.optim.AdamW] * 3


def test_training_does_not_import_the_compiler(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.strip() == "False"
