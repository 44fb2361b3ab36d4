"""Chips: the shipped files, and every way a chip file can be wrong."""

from __future__ import annotations

import pickle
from importlib import resources
from pathlib import Path

import pytest

from deploy.chip import chips, load_chip, parse_chip
from deploy.chip_schema import GRADES, Energy, Formats
from deploy.errors import ChipError

TOY = resources.files("hardware_configs").joinpath("toy.toml").read_text(encoding="utf-8")


def line(key: str) -> str:
    """The line of the toy file that sets a key."""
    return next(text for text in TOY.splitlines() if text.startswith(f"{key} ="))


def changed(key: str, new: str) -> str:
    return TOY.replace(line(key), new)


def value(raw: str, unit: str = "bit") -> str:
    return f'{{value = {raw}, unit = "{unit}", source = "test", grade = "derived"}}'


def refused(text: str) -> ChipError:
    with pytest.raises(ChipError) as caught:
        parse_chip(text, "toy", "toy.toml")
    assert caught.value.allowed
    assert set(caught.value.fields()) == {"error", "what", "where", "got", "allowed", "next"}
    return caught.value


def test_the_package_lists_its_chips() -> None:
    assert {"loihi1", "loihi1_sanafe", "loihi2", "toy"} <= set(chips())


@pytest.mark.parametrize("name", chips())
def test_every_shipped_value_has_a_source_and_a_grade(name: str) -> None:
    chip = load_chip(name)
    for section in chip.sections:
        for key, quantity in section:
            assert quantity.unit, key
            assert (quantity.source and quantity.grade in GRADES) if quantity.published else quantity.note, key


def test_loihi1_holds_table_2_of_davies_2018() -> None:
    energy, time = load_chip("loihi1").energy, load_chip("loihi1").time
    assert (energy.synop, energy.neuron_active, energy.neuron_inactive) == (23.6, 81.0, 52.0)
    assert (energy.spike_within_tile, energy.hop_east_west, energy.hop_north_south) == (1.7, 3.0, 4.0)
    assert (time.synop, time.neuron_active, time.neuron_inactive) == (3.5, 8.4, 5.3)
    assert (time.spike_within_tile, time.hop_east_west, time.hop_north_south) == (2.1, 4.1, 6.5)
    assert time.barrier == ((1.0, 113.0), (32.0, 465.0))
    assert energy["synop"].grade == "simulated"


def test_widths_are_plain_integers() -> None:
    formats = load_chip("loihi2").formats
    assert (formats.weight_bits, formats.weight_exp_min, formats.weight_exp_max) == (8, -8, 7)
    assert (formats.state_bits, formats.decay_bits, formats.vth_bits, formats.input_shift) == (24, 12, 17, 6)
    assert (formats.bias_mantissa_bits, formats.bias_exponent_max) == (13, 7)
    assert formats.reset_modes == ("zero",)


def test_loihi2_has_no_published_energy_and_says_so() -> None:
    chip = load_chip("loihi2")
    assert all(quantity.value is None for _, quantity in chip.energy)
    with pytest.raises(ChipError, match="no published value for energy.synop") as caught:
        _ = chip.energy.synop
    assert "Intel has published no energy" in caught.value.got


def test_a_chip_is_a_value(tmp_path: Path) -> None:
    chip = load_chip("toy")
    assert pickle.loads(pickle.dumps(chip)) == chip
    assert hash(chip) == hash(load_chip("toy"))
    own = tmp_path / "mine.toml"
    own.write_text(TOY)
    assert load_chip(own).name == "mine"
    assert load_chip(str(own)).limits.cores == chip.limits.cores


def test_plain_data_keeps_every_key() -> None:
    data = load_chip("loihi1").to_json()
    assert data["energy"]["synop"]["value"] == 23.6
    assert set(data["formats"]) == set(Formats.names())
    assert data["energy"]["axon_out"]["published"] is False


def test_keys_know_their_unit() -> None:
    assert Energy.synop.unit == "pJ"
    assert "synapse" in str(Energy.synop.__doc__)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ChipError) as caught:
        load_chip("loihi3")
    assert "did you mean" in caught.value.next_step
    with pytest.raises(ChipError) as caught:
        load_chip("zzz")
    assert "neurokd-deploy chips" in caught.value.next_step


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChipError, match="cannot read the chip file"):
        load_chip(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ChipError, match="cannot read the chip file"):
        load_chip(tmp_path / "binary.toml")


def test_an_unknown_key_of_a_loaded_chip_is_refused() -> None:
    with pytest.raises(ChipError, match=r"chips have no key energy\.synops"):
        _ = load_chip("toy").energy["synops"]


def test_text_that_is_not_toml_is_refused() -> None:
    assert "not TOML" in refused("cores = ").what


def test_another_schema_is_refused() -> None:
    assert refused(TOY.replace("schema = 1", "schema = 2")).allowed == "schema = 1"


@pytest.mark.parametrize("title", ["", "   ", "7"])
def test_an_identity_that_is_no_text_is_refused(title: str) -> None:
    new = f"title = {title}" if title == "7" else f'title = "{title}"'
    assert "chip.title" in refused(changed("title", new)).what


def test_a_section_that_is_no_table_is_refused() -> None:
    head = TOY[: TOY.index("[power]")]
    assert "[power] is not a table" in refused("power = 3\n" + head).what
    assert "lacks power" in refused(head).what


def test_a_number_in_quotes_is_told_from_a_number() -> None:
    assert refused(changed("synop", "synop = " + value('"23.6"', "pJ"))).got == "'23.6'"


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    error = refused(changed("neurons_per_core", line("neurons_per_core") + "\nneuron_per_core = 3"))
    assert "'neuron_per_core'" in error.what
    assert error.next_step == "did you mean 'neurons_per_core'?"
    assert refused("colour = 3\n" + TOY).next_step == "remove the key"


def test_a_missing_key_is_refused() -> None:
    error = refused(changed("vth_bits", ""))
    assert "lacks vth_bits" in error.what
    assert "published = false" in error.allowed


@pytest.mark.parametrize(
    ("key", "new", "what"),
    [
        ("synop", "synop = 23.6", "bare value"),
        ("synop", 'synop = {value = 1.0, unit = "pJ", grade = "fitted"}', "lacks or mixes"),
        ("synop", 'synop = {value = 1.0, unit = "pJ", source = "", grade = "fitted"}', "lacks or mixes"),
        ("synop", 'synop = {value = 1.0, unit = "pJ", source = "x", grade = "fitted", page = 3}', "lacks or mixes"),
        ("synop", "synop = {published = false}", "lacks or mixes"),
        ("synop", 'synop = {published = false, note = "x", value = 3.0}', "lacks or mixes"),
        ("synop", 'synop = {published = 0, note = "x"}', "lacks or mixes"),
        ("synop", 'synop = {value = 1.0, unit = "pJ", source = "x", grade = "guessed"}', "unknown grade"),
        ("synop", "synop = " + value("1.0", "nJ"), "wrong unit"),
        ("synop", "synop = " + value("-1.0", "pJ"), "makes no sense"),
        ("synop", "synop = " + value("nan", "pJ"), "makes no sense"),
        ("synop", "synop = " + value("inf", "pJ"), "makes no sense"),
        ("synop", "synop = " + value("true", "pJ"), "makes no sense"),
        ("synop", "synop = " + value('"1e-12"', "pJ"), "makes no sense"),
        ("schedule", "schedule = " + value('"sometimes"', "name"), "makes no sense"),
        ("schedule", "schedule = " + value("1", "name"), "makes no sense"),
        ("layers_per_core", "layers_per_core = " + value("0", "layers"), "makes no sense"),
        ("mac", "mac = " + value("1.0", "nJ"), "wrong unit"),
        ("cores", "cores = " + value("0", "cores"), "makes no sense"),
        ("cores", "cores = " + value("4.0", "cores"), "makes no sense"),
        ("cores", "cores = " + value("true", "cores"), "makes no sense"),
        ("weight_bits_allowed", "weight_bits_allowed = " + value("[]"), "makes no sense"),
        ("weight_bits_allowed", "weight_bits_allowed = " + value("[4, 99]"), "makes no sense"),
        ("reset_modes", "reset_modes = " + value('["halve"]', "names"), "makes no sense"),
        ("barrier", "barrier = " + value("[]", "ns by tiles"), "makes no sense"),
        ("barrier", "barrier = " + value("[[1, 2, 3]]", "ns by tiles"), "makes no sense"),
        ("barrier", "barrier = " + value("[[2, 1.0], [1, 2.0]]", "ns by tiles"), "makes no sense"),
        ("barrier", "barrier = " + value("[[1, -1.0]]", "ns by tiles"), "makes no sense"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(key: str, new: str, what: str) -> None:
    error = refused(changed(key, new))
    assert what in error.what
    assert key in error.what


@pytest.mark.parametrize(
    ("key", "new", "what"),
    [
        ("weight_exp_min", "weight_exp_min = " + value("3", "exponent"), "weight_exp_min contradicts"),
        ("vth_bits", "vth_bits = " + value("25"), "vth_bits contradicts formats.state_bits"),
        ("bias_mantissa_bits", "bias_mantissa_bits = " + value("25"), "contradicts formats.state_bits"),
        ("accumulator_bits", "accumulator_bits = " + value("3"), "contradicts formats.accumulator_bits"),
        ("synaptic_memory_word_bits", "synaptic_memory_word_bits = " + value("2048"), "contradicts limits.synaptic"),
        ("neuron_inactive", "neuron_inactive = " + value("900.0", "pJ"), "contradicts energy.neuron_active"),
        ("cores", "cores = " + value("5", "cores"), "limits.cores contradicts the mesh"),
        ("weight_bits", "weight_bits = " + value("2"), "contradicts formats.weight_bits_allowed"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(key: str, new: str, what: str) -> None:
    assert what in refused(changed(key, new)).what


def test_an_unpublished_mesh_contradicts_nothing() -> None:
    text = changed("mesh_rows", 'mesh_rows = {published = false, note = "x"}')
    assert parse_chip(text, "toy", "toy.toml").limits["mesh_rows"].value is None
