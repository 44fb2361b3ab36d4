"""Freed memory stays in the process while it trains; anywhere else, and where it is not wanted, nothing happens."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from neurokd import memory

GLIBC = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
# A process of its own: the settings hold for good. Three tensors of 40 MiB come and go, as in a training step.
FAULTS = """
import json, resource
import numpy as np
from neurokd.memory import keep_pages
kept = keep_pages()
def step():
    tensors = [np.ones(10 * 2**20, np.float32) for _ in range(3)]
for _ in range(2):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""
TRAINING = """
import torch
from neurokd import data, memory, network
from neurokd.train import train
from neurokd.encoding import Encoding
set_ = data.load("digits")
assert memory._done is None
train(network.build("64-10", steps=2, input_bits=4), set_, encoding=Encoding("direct", 4, 2, raw_levels=16),
      epochs=1, batch=512)
print(memory._done)
"""


def _run(script: str, **variables: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.skipif(not GLIBC, reason="only glibc has these settings")
def test_memory_that_is_freed_is_used_again_without_page_faults() -> None:
    kept, faults = json.loads(_run(FAULTS, NEUROKD_ALLOCATOR=""))
    assert kept
    left, others = json.loads(_run(FAULTS, NEUROKD_ALLOCATOR="system"))
    assert not left
    assert faults < others / 20


@pytest.mark.skipif(not GLIBC, reason="only glibc has these settings")
@pytest.mark.parametrize(("choice", "expected"), [("", "True"), ("system", "False")])
def test_training_tells_the_allocator(choice: str, expected: str) -> None:
    pytest.importorskip("torch")
    assert _run(TRAINING, NEUROKD_ALLOCATOR=choice).split() == [expected]


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(sys, "platform", "darwin"), (platform, "libc_ver", lambda: ("musl", "1.2")), (memory.ctypes, "CDLL", object)],
)
def test_elsewhere_nothing_happens(module: object, name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_done", None)
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    if name == "CDLL":
        monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    else:
        monkeypatch.setattr(module, name, value)
    assert memory.keep_pages() is False
    assert memory.keep_pages() is False  # asked once only
