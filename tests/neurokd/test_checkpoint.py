"""Checkpoints: exact round trips, and refusal of anything that is not the network asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from deploy.errors import CheckpointError, FileError
from neurokd import checkpoint
from neurokd.network import SpikingNetwork, build

SPEC = "12-8-5"


def trained() -> SpikingNetwork:
    """A network whose every tensor differs from a fresh one's."""
    network = build(SPEC, steps=4, input_bits=3, beta=0.75, threshold=1.5, neuron="cuba", alpha=0.5, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator) * 0.1)
    return network


def test_load_gives_the_same_network_and_output(tmp_path: Path) -> None:
    network = trained()
    checkpoint.save(tmp_path / "a.safetensors", network, {"accuracy": 97.5})
    again = checkpoint.load(tmp_path / "a.safetensors", SPEC)
    assert not again.training
    assert again.options == network.options
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    x = torch.rand(6, 12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.sat(x), network.eval().sat(x))
    assert checkpoint.read_info(tmp_path / "a.safetensors")["extra"] == {"accuracy": 97.5}


def test_load_into_an_existing_network(tmp_path: Path) -> None:
    network = trained()
    checkpoint.save(tmp_path / "a.safetensors", network, {"epoch": 3})
    fresh = build(SPEC, **{**network.options, "seed": 9})
    assert checkpoint.load_into(tmp_path / "a.safetensors", fresh) == {"epoch": 3}
    assert checkpoint.digest(fresh.state_dict()) == checkpoint.digest(network.state_dict())


def test_another_spec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, trained())
    with pytest.raises(CheckpointError, match="of another network") as caught:
        checkpoint.load(path, "12-9-5")
    assert (caught.value.got, caught.value.allowed) == (SPEC, "12-9-5")
    with pytest.raises(CheckpointError, match="of another network"):
        checkpoint.load_into(path, build("12-9-5"))


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    network = trained()
    tensors = dict(network.state_dict())
    name = next(iter(tensors))
    info = {"spec": SPEC, "options": network.options, "extra": {}}
    for wrong, got in (({**tensors, name: torch.zeros(2, 3)}, "(2, 3)"), ({**tensors, "more": torch.zeros(1)}, "(1,)")):
        checkpoint.write(tmp_path / "w.safetensors", checkpoint.Contents(wrong, info), checkpoint.NETWORK)
        with pytest.raises(CheckpointError, match="not this network's") as caught:
            checkpoint.load(tmp_path / "w.safetensors")
        assert caught.value.got == got
    del tensors[name]
    checkpoint.write(tmp_path / "w.safetensors", checkpoint.Contents(tensors, info), checkpoint.NETWORK)
    with pytest.raises(CheckpointError, match="not this network's") as caught:
        checkpoint.load(tmp_path / "w.safetensors")
    assert name in caught.value.where
    assert caught.value.got == "no such tensor"


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_truncated_file_is_damaged(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, trained())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(path)


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, trained())
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="damaged") as caught:
        checkpoint.load(path)
    assert "digest" in caught.value.got


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        checkpoint.load(tmp_path / "none.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(nn.Linear(2, 2).state_dict(), foreign)
    with pytest.raises(CheckpointError, match="not a checkpoint of this kind") as caught:
        checkpoint.load(foreign)
    assert "another program" in caught.value.got
    state = tmp_path / "state.safetensors"
    info = dict.fromkeys(("spec", "options", "run", "history", "test"))
    checkpoint.write(state, checkpoint.Contents({"a": torch.zeros(1)}, info), checkpoint.STATE)
    with pytest.raises(CheckpointError, match="not a checkpoint of this kind"):
        checkpoint.load(state)
    broken = tmp_path / "broken.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, broken, {"kind": checkpoint.NETWORK, "info": "{"})
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(broken)


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"spec": SPEC, "options": {}},
        {"spec": SPEC, "options": {"no_such": 1}, "extra": {}},
        {"spec": SPEC, "options": 3, "extra": {}},
        {"spec": "12-q", "options": {}, "extra": {}},
        3,
    ],
)
def test_a_header_that_describes_no_network_is_damaged(tmp_path: Path, info: object) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"a": torch.zeros(1)}
    header = {"kind": checkpoint.NETWORK, "info": json.dumps(info), "digest": checkpoint.digest(tensors)}
    safetensors.torch.save_file(tensors, path, header)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(path)


def test_an_unwritable_folder_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="cannot write"):
        checkpoint.save(tmp_path / "file" / "a.safetensors", trained())
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    checkpoint.save(tmp_path / "a.safetensors", trained())
    monkeypatch.setattr(checkpoint, "safe_open", refuse)
    with pytest.raises(FileError, match="cannot read the checkpoint") as caught:
        checkpoint.load(tmp_path / "a.safetensors")
    assert caught.value.got == "Permission denied"


def test_a_folder_in_the_files_place(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        checkpoint.load(tmp_path)


def test_the_digest_depends_on_name_type_shape_and_value() -> None:
    base = {"a": torch.zeros(2, 2)}
    others = [
        {"b": torch.zeros(2, 2)},
        {"a": torch.zeros(4)},
        {"a": torch.zeros(2, 2, dtype=torch.int32)},
        {"a": torch.tensor([[0.0, 0.0], [0.0, 1e-30]])},
    ]
    digests = {checkpoint.digest(tensors) for tensors in (base, *others)}
    assert len(digests) == 5
    assert checkpoint.digest({"a": torch.zeros(2, 2)}) in digests
