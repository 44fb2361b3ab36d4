"""Experiment configuration: TOML round trips, unknown keys, types and ranges."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.errors import ConfigError, FileError, NeurokdError, SpecError
from neurokd.config import Config
from neurokd.config_parts import DATA_SETS, SURROGATES, EncodingConfig, NetworksConfig, StageConfig

NETWORKS = NetworksConfig("64-128-10", "64-64-10", "64-16-10")


@pytest.mark.parametrize("data", DATA_SETS)
def test_default_round_trips_through_toml(data: str) -> None:
    config = Config.default(data)
    assert config.data == data
    assert Config.from_toml(config.to_toml()) == config


stages = st.builds(
    StageConfig,
    epochs=st.integers(1, 1000),
    batch=st.integers(2, 4096),
    lr=st.floats(1e-9, 10),
    weight_decay=st.floats(0, 1),
    patience=st.integers(0, 50),
    loss=st.text(min_size=1).filter(lambda t: bool(t.strip()) and t.isprintable()),
)


@settings(max_examples=50, deadline=None)
@given(stage=stages, seed=st.integers(0, 2**32 - 1), root=st.text(max_size=20), beta=st.floats(0, 1))
def test_any_valid_config_round_trips(stage: StageConfig, seed: int, root: str, beta: float) -> None:
    config = Config("digits", dataclasses.replace(NETWORKS, beta=beta), data_root=root, seed=seed)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, student=stage))
    assert Config.from_toml(config.to_toml()) == config


def test_every_field_survives_with_a_value_that_is_not_its_default() -> None:
    changes = {
        "data": "mnist", "data_root": "x", "validation": 0.2, "seed": 7, "out": "o", "chip": "toy",
        "encoding.kind": "rate", "encoding.bits": 3, "encoding.steps": 5,
        "networks.teacher": "784-9-10", "networks.assistant": "784-8-10", "networks.student": "28x28x1-2c3-10",
        "networks.neuron": "cuba", "networks.surrogate": "atan",
        "networks.beta": 0.5, "networks.alpha": 0.25, "networks.threshold": 2.0, "networks.norm": False,
        "training.student.epochs": 3, "training.student.batch": 4, "training.student.lr": 0.125,
        "training.student.weight_decay": 0.0625, "training.student.patience": 2, "training.student.loss": "full-l1",
        "training.student.shift": 1, "training.student.flip": True, "training.student.views": 4,
        "distill.route": "teacher-student",
        "quantize.epochs": 9, "quantize.batch": 8, "quantize.lr": 0.5, "quantize.loss": "ce", "quantize.weight_bits": 4,
        "quantize.layer_bits": "dense1=8", "quantize.search": "max", "quantize.power_of_two": True,
        "quantize.learn": "decays,scale", "quantize.float_epochs": 1, "quantize.fake_epochs": 2,
        "quantize.synops_budget": 0.5, "quantize.energy_budget": 0.25,
        "lava.samples": 64,
    }  # fmt: skip
    table = Config("digits", NETWORKS).to_dict()
    for key, value in changes.items():
        part = table
        *sections, name = key.split(".")
        for section in sections:
            part = part[section]
        assert part[name] != value, f"{key}: the test's value is the default"
        part[name] = value
    config = Config.from_toml(Config.from_dict(table).to_toml())
    assert config.to_dict() == table


def test_save_and_load(tmp_path: Path) -> None:
    config = Config.default("digits")
    config.save(tmp_path / "run" / "config.toml")
    assert Config.load(tmp_path / "run" / "config.toml") == config


def test_unknown_key_names_the_near_one(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(Config.default("digits").to_toml().replace("weight_decay", "wieght_decay"))
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    assert caught.value.what == "unknown key"
    assert caught.value.where == f"{path}: training.teacher.wieght_decay"
    assert "weight_decay" in caught.value.next_step
    with pytest.raises(ConfigError, match="remove the key"):
        Config.default("digits").override({"zzzzqqq": 1})


@pytest.mark.parametrize(
    ("changes", "what", "where"),
    [
        ({"data": "mnits"}, "unknown choice", "data"),
        ({"encoding.kind": "drect"}, "unknown choice", "encoding.kind"),
        ({"networks.neuron": "if"}, "unknown choice", "networks.neuron"),
        ({"distill.route": "student"}, "unknown choice", "distill.route"),
        ({"distill.start": "teacher"}, "unknown choice", "distill.start"),
        (
            {"distill.route": "teacher-student", "distill.start": "assistant"},
            "there is no assistant to start from",
            "distill.start",
        ),
        (
            {"networks.assistant": "8x8x1-6c3-10", "distill.start": "assistant"},
            "the student is not a narrower form of the assistant it should start from",
            "distill.start",
        ),
        ({"encoding.bits": 9}, "value out of range", "encoding.bits"),
        ({"encoding.steps": 0}, "value out of range", "encoding.steps"),
        ({"networks.beta": 1.5}, "value out of range", "networks.beta"),
        ({"networks.threshold": 0.0}, "value out of range", "networks.threshold"),
        ({"networks.student": " "}, "empty text", "networks.student"),
        ({"networks.surrogate": "atn"}, "unknown choice", "networks.surrogate"),
        ({"networks.student": "784-10"}, "the student does not fit the data", "networks.student"),
        ({"networks.teacher": "64-20-9"}, "the teacher does not fit the data", "networks.teacher"),
        ({"training.student.lr": 0.0}, "value out of range", "training.student.lr"),
        ({"training.student.lr": math.inf}, "value out of range", "training.student.lr"),
        ({"training.student.weight_decay": math.nan}, "value out of range", "training.student.weight_decay"),
        ({"training.student.epochs": 0}, "value out of range", "training.student.epochs"),
        ({"training.student.batch": 1}, "value out of range", "training.student.batch"),
        ({"training.student.loss": ""}, "empty text", "training.student.loss"),
        ({"quantize.weight_bits": 9}, "value out of range", "quantize.weight_bits"),
        ({"quantize.layer_bits": "dense1"}, "a width is not LAYER=BITS", "quantize.layer_bits"),
        ({"quantize.layer_bits": "dense1=9"}, "a width is not LAYER=BITS", "quantize.layer_bits"),
        ({"quantize.learn": "threshold,delay"}, "this cannot be learned on the chip's integers", "quantize.learn"),
        ({"quantize.search": "best"}, "unknown choice", "quantize.search"),
        ({"quantize.synops_budget": 1.5}, "value out of range", "quantize.synops_budget"),
        ({"quantize.loss": "none", "quantize.synops_budget": 0.5}, "a budget needs fine-tuning", "quantize.loss"),
        ({"lava.samples": 0}, "value out of range", "lava.samples"),
        ({"validation": 1.0}, "value out of range", "validation"),
        ({"seed": -1}, "value out of range", "seed"),
        ({"out": ""}, "empty text", "out"),
        ({"chip": ""}, "empty text", "chip"),
        ({"seed": "1"}, "value of another type", "seed"),
        ({"seed": True}, "value of another type", "seed"),
        ({"encoding.steps": 4.5}, "value of another type", "encoding.steps"),
        ({"encoding": 3}, "a table is expected", "encoding"),
        ({"seed.low": 3}, "this key has no parts", "seed.low"),
        ({"encoding.stpes": 3}, "unknown key", "encoding.stpes"),
    ],
)
def test_bad_values_are_refused_by_name(changes: dict[str, object], what: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.default("digits").override(changes)
    assert (caught.value.what, caught.value.where) == (what, where)


def test_augmentation_needs_views() -> None:
    with pytest.raises(ConfigError, match="views and augmentation"):
        StageConfig(shift=2)
    with pytest.raises(ConfigError, match="views and augmentation"):
        StageConfig(views=3)
    assert StageConfig(flip=True, views=2).views == 2


def test_python_values_are_checked_too() -> None:
    with pytest.raises(ConfigError, match="out of range"):
        EncodingConfig(steps="8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="out of range"):
        StageConfig(lr="fast")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="empty text"):
        NetworksConfig(3, "b", "c")  # type: ignore[arg-type]


def test_integers_are_accepted_for_floats() -> None:
    config = Config.default("digits").override({"networks.threshold": 2})
    assert config.networks.threshold == 2.0
    assert isinstance(config.networks.threshold, float)


def test_missing_key_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a required key is missing") as caught:
        Config.from_toml('data = "digits"\n[networks]\nteacher = "64-9-10"\nassistant = "64-9-10"\n')
    assert caught.value.where == "networks.student"
    with pytest.raises(FileError, match="cannot read the configuration"):
        Config.load(tmp_path / "none.toml")


def test_text_that_is_not_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        Config.from_toml("data = ")
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        Config.load(path)


def test_unknown_data_set_has_no_default() -> None:
    with pytest.raises(ConfigError, match="unknown choice"):
        Config.default("imagenet")


def test_the_plain_student_trains_as_the_student_does() -> None:
    training = Config.default("digits").training
    assert training.plain == dataclasses.replace(training.student, loss="ce")


def test_options_are_the_networks_own() -> None:
    assert NETWORKS.options() == {
        "neuron": "lif",
        "beta": 0.9,
        "alpha": 0.75,
        "threshold": 1.0,
        "norm": True,
        "learn_beta": False,
        "learn_threshold": False,
        "population": 1,
        "surrogate": "triangular",
    }


def test_a_spec_that_cannot_be_read_names_its_role() -> None:
    with pytest.raises(SpecError) as caught:
        Config.default("digits").override({"networks.assistant": "64-q-10"})
    assert caught.value.where.startswith("networks.assistant: field 2")


def test_the_known_surrogates_are_the_networks_own() -> None:
    from neurokd.surrogates import surrogate_names

    assert surrogate_names() == SURROGATES


@pytest.mark.parametrize("data", DATA_SETS)
def test_check_passes_the_defaults(data: str) -> None:
    Config.default(data).check()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"training.student.loss": "full-l3"}, ConfigError, "training.student.loss"),
        ({"quantize.loss": "ce:x"}, ConfigError, "quantize.loss"),
        ({"training.teacher.loss": "sat-ce"}, ConfigError, "the teacher's own loss needs a teacher"),
        ({"chip": "loihi9"}, NeurokdError, "loihi9"),
    ],
)
def test_check_finds_what_later_stages_would_refuse(
    changes: dict[str, object], error: type[NeurokdError], text: str
) -> None:
    with pytest.raises(error, match=text):
        Config.default("digits").override(changes).check()


def test_binary_codes_have_one_input_bit() -> None:
    assert EncodingConfig("direct", 4).input_bits == 4
    assert EncodingConfig("rate", 4).input_bits == 1
    with pytest.raises(ConfigError, match="out of range"):
        EncodingConfig("rate", 9)


@pytest.mark.parametrize("data", DATA_SETS)
def test_the_default_students_are_at_least_four_times_smaller_than_their_teachers(data: str) -> None:
    networks = Config.default(data).networks
    teacher, assistant, student = (networks.spec(role).parameters() for role in ("teacher", "assistant", "student"))
    assert teacher >= 4 * student
    assert teacher > assistant > student


@pytest.mark.parametrize("data", DATA_SETS)
def test_all_who_are_compared_see_the_same_views(data: str) -> None:
    training = Config.default(data).training
    views = {(s.shift, s.flip, s.views) for s in (training.plain, training.assistant, training.student)}
    assert len(views) == 1
    assert training.plain.epochs == training.student.epochs
