"""Programs check themselves on construction and survive a round trip through a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import FileError, ProgramError
from deploy.program import SCHEMA, Conv, Dense, Input, Population, Program
from deploy.testing import random_case


def population(name: str = "out", shape: tuple[int, ...] = (3,), **changes: object) -> Population:
    fields = {"du": 4095, "dv": 410, "vth": 100, "bias_mant": np.zeros(int(np.prod(shape)), int), **changes}
    return Population(name, shape, **fields)  # type: ignore[arg-type]


def dense(**changes: object) -> Dense:
    fields = {"name": "w", "source": "in", "target": "out", "weights": np.full((3, 4), 2), **changes}
    return Dense(**fields)  # type: ignore[arg-type]


def program(*synapses: Dense, bits: int = 1) -> Program:
    return Program(Input("in", (4,), bits), (population(),), synapses or (dense(),), {"steps": 5})


def silent_source() -> Program:
    first = population("first", (4,), vth=0, spiking=False)
    blocks = (
        dense(target="first", weights=np.full((4, 4), 2)),
        dense(name="b", source="first"),
    )
    return Program(Input("in", (4,)), (first, population()), blocks)


@pytest.mark.parametrize("seed", range(30))
def test_a_file_gives_the_program_back(seed: int, tmp_path: Path) -> None:
    original = random_case(seed).program
    original.save(tmp_path / "program.npz")
    read = Program.load(tmp_path / "program.npz")
    assert read.digest == original.digest
    assert read.meta == original.meta
    assert [p.name for p in tmp_path.iterdir()] == ["program.npz"]


def test_every_integer_counts_in_the_digest() -> None:
    base = program()
    weights = np.full((3, 4), 2)
    weights[2, 3] = 4
    changed = [
        replace(base, populations=(population(dv=411),)),
        replace(base, populations=(population(du=4094),)),
        replace(base, populations=(population(vth=101),)),
        replace(base, populations=(population(bias_exp=1),)),
        replace(base, populations=(population(reset="subtract"),)),
        replace(base, populations=(population(refractory=1),)),
        replace(base, populations=(population(vth=0),)),
        replace(base, populations=(population(vth=0, spiking=False),)),
        replace(base, populations=(population(bias_mant=np.array([0, 0, 1])),)),
        replace(base, synapses=(dense(weights=weights),)),
        replace(base, synapses=(dense(delay=1),)),
        replace(base, input=Input("in", (4,), 2)),
    ]
    assert len({p.digest for p in [base, *changed]}) == 1 + len(changed)
    assert replace(base, meta={"note": "x"}).digest == base.digest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: population(du=4096), "du is out of range"),
        (lambda: population(dv=-1), "dv is out of range"),
        (lambda: population(vth=131072), "vth is out of range"),
        (lambda: population(vth=1.5), "vth is out of range"),
        (lambda: population(bias_exp=8), "bias_exp is out of range"),
        (lambda: population(bias_mant=np.array([0, 0, 4096])), "bias_mant is out of range"),
        (lambda: population(bias_mant=np.zeros(2, int)), "bias has the wrong shape"),
        (lambda: population(bias_mant=np.array([0.0, np.nan, 0.0])), "an integer array is needed"),
        (lambda: population(reset="soft"), "unknown reset rule"),
        (lambda: population(refractory=4096), "refractory period is out of range"),
        (lambda: population(refractory=-1), "refractory period is out of range"),
        (lambda: population(spiking=False), "has no threshold"),
        (lambda: population(vth=0, spiking=False, reset="subtract"), "has no threshold"),
        (lambda: population(vth=0, spiking=False, refractory=1), "has no threshold"),
        (lambda: silent_source(), "nothing leaves a population that does not spike"),
        (lambda: population(shape=(3, 0, 2)), "shape is not understood"),
        (lambda: Input("in", (4,), 9), "input bits is out of range"),
        (lambda: Input("in", (4, 4)), "shape is not understood"),
        (lambda: dense(weights=np.full((3, 4), 3)), "off the chip's grid"),
        (lambda: dense(weights=np.full((3, 4), 256)), "off the chip's grid"),
        (lambda: dense(weights=np.full((3, 4), 2), weight_bits=4), "off the chip's grid"),
        (lambda: dense(weights=np.full((3, 4), -1), sign_mode="excitatory"), "off the chip's grid"),
        (lambda: dense(weights=np.full((3, 4), 70000)), "do not fit the stored width"),
        (lambda: dense(weights=np.full(4, 2)), "wrong rank"),
        (lambda: dense(weight_exp=8), "weight_exp is out of range"),
        (lambda: dense(weight_bits=0), "weight_bits is out of range"),
        (lambda: dense(delay=63), "delay is out of range"),
        (lambda: dense(sign_mode="any"), "unknown sign mode"),
        (lambda: program(dense(source="nowhere")), "unknown source"),
        (lambda: program(dense(target="in")), "unknown target"),
        (lambda: program(dense(weights=np.full((3, 5), 2))), "shapes do not meet"),
        (lambda: program(dense(), dense()), "names repeat"),
        (lambda: program(dense(name="out")), "names repeat"),
        (lambda: replace(program(), answer="in"), "the output is no population"),
        (lambda: replace(program(), meta={"steps": 0}), "steps is out of range"),
        (lambda: program(dense(name="")), "a name is no text"),
        (lambda: population(scale=float("nan")), "scale is out of range"),
        (lambda: program(dense(), dense(name="r", source="out", weights=np.full((3, 3), 2))), "a cycle without delay"),
        (lambda: Program(Input("in", (4,)), (), ()), "needs a population"),
        (lambda: Program(Input("in", (4,)), (population(), population("b")), (dense(),)), "nothing reaches"),
        (lambda: Program(Input("in", (4,)), (population("in"),), ()), "names repeat"),
        (lambda: program(dense(weights=np.full((3, 4), 254), weight_exp=7), bits=8), "24-bit accumulator"),
    ],
)
def test_what_the_chip_cannot_hold_is_refused(make, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ProgramError, match=message) as caught:
        make()
    assert caught.value.allowed


def conv(**changes: object) -> Conv:
    fields = {"name": "c", "source": "in", "target": "out", "weights": np.full((4, 1, 3, 3), 2), "groups": 2, **changes}
    return Conv(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conv(stride=(0, 1)), "stride is out of range"),
        (lambda: conv(padding=(-1, 0)), "padding is out of range"),
        (lambda: conv(dilation=(1,)), "dilation is out of range"),
        (lambda: conv(groups=0), "groups is out of range"),
        (lambda: conv(weights=np.full((4, 9), 2)), "wrong rank"),
        (lambda: conv().output_shape((3, 8, 8)), "channels do not match"),
        (lambda: conv().output_shape((2, 2, 8)), "kernel is larger"),
        (lambda: Program(Input("in", (2, 8, 8)), (population("out", (4, 5, 6)),), (conv(),)), "shapes do not meet"),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(make, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ProgramError, match=message):
        make()


def test_the_output_may_be_any_population(tmp_path: Path) -> None:
    first, second = population("first", (4,)), population("second", (3,))
    blocks = (dense(name="a", target="first", weights=np.full((4, 4), 2)), dense(name="b", target="second"))
    made = Program(Input("in", (4,)), (first, second), blocks)
    other = replace(made, answer="first")
    assert (made.output.name, other.output.name) == ("second", "first")
    assert made.digest == replace(made, answer="second").digest != other.digest
    other.save(tmp_path / "p.npz")
    assert Program.load(tmp_path / "p.npz").output.name == "first"


def test_depth_is_the_longest_undelayed_path() -> None:
    first, second = population("first", (4,)), population("second", (4,))
    square = np.full((4, 4), 2)
    blocks = (
        dense(name="a", target="first", weights=square),
        dense(name="b", source="first", target="second", weights=square),
        dense(name="skip", target="second", weights=square),
        dense(name="loop", source="second", target="second", weights=square, delay=1),
    )
    made = Program(Input("in", (4,)), (first, second), blocks)
    assert made.depth == {"in": 0, "first": 1, "second": 2}
    assert [s.name for s in made.outgoing("in")] == ["a", "skip"]
    assert made.neurons == 8


def save_raw(path: Path, header: object, **arrays: np.ndarray) -> Path:
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    return path


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    program().save(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 4):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(ProgramError, match="^the program file cannot be read"):
            Program.load(tmp_path / "cut.npz")
    with pytest.raises(ProgramError, match="^the program file cannot be read"):
        Program.load(tmp_path / "missing.npz")
    with pytest.raises(ProgramError, match="^the program is of another schema"):
        Program.load(save_raw(tmp_path / "schema.npz", {"schema": 99}))
    with pytest.raises(ProgramError, match="^the header is damaged"):
        Program.load(save_raw(tmp_path / "list.npz", [1]))
    with pytest.raises(ProgramError, match="^the program file is damaged"):
        Program.load(save_raw(tmp_path / "empty.npz", {"schema": SCHEMA}))


def test_files_of_the_first_schema_are_still_read(tmp_path: Path) -> None:
    """It had no readouts and no refractory periods: recorded proofs must outlive the schema they were made with."""
    program().save(tmp_path / "now.npz")
    with np.load(tmp_path / "now.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(bytes(arrays.pop("header")))
    header["schema"] = 1
    del header["answer"]
    for entry in header["populations"]:
        del entry["refractory"], entry["spiking"]
    assert Program.load(save_raw(tmp_path / "then.npz", header, **arrays)).digest == program().digest
    header["populations"][0]["colour"] = 3
    with pytest.raises(ProgramError, match="^the program file is damaged"):
        Program.load(save_raw(tmp_path / "more.npz", header, **arrays))


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickle.npz", header=np.array([{"schema": SCHEMA}], dtype=object))
    with pytest.raises(ProgramError, match="^the program file cannot be read"):
        Program.load(tmp_path / "pickle.npz")


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="cannot write"):
        program().save(tmp_path / "file" / "program.npz")
    assert (tmp_path / "file").read_text() == "in the way"


JUNK = (None, -1, 0, 1.5, True, "x", [], [1], {}, {"a": 1}, 10**30, float("inf"))


def entries(header: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Path of every value in a header."""
    parts = header.items() if isinstance(header, dict) else enumerate(header) if isinstance(header, list) else ()
    return [path, *(place for key, value in parts for place in entries(value, (*path, key)))]


def test_no_junk_in_a_header_gives_anything_but_a_program_or_an_error(tmp_path: Path) -> None:
    """Every value of the header replaced by every kind of junk, one at a time."""
    convs = next(p for p in (random_case(seed).program for seed in range(50)) if isinstance(p.synapses[0], Conv))
    replace(convs, meta={"steps": 5}).save(tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    text = bytes(arrays.pop("header"))
    refused = 0
    for path in entries(json.loads(text))[1:]:
        for junk in JUNK:
            header = json.loads(text)
            holder = header
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = junk
            save_raw(tmp_path / "junk.npz", header, **arrays)
            try:
                loaded = Program.load(tmp_path / "junk.npz")
            except ProgramError:
                refused += 1
            else:
                assert loaded.steps is None or loaded.steps >= 1
                assert len(loaded.digest) == 64
                assert all(isinstance(p.name, str) and p.scale >= 0 for p in loaded.populations)
    assert refused > 300
