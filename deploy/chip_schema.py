"""The schema of a chip file: its sections and keys, each key with its unit, its range and its meaning.

A section's keys are descriptors: ``chip.formats.weight_bits`` is the value, ``Formats.weight_bits`` the key,
``chip.formats["weight_bits"]`` the :class:`Quantity` with unit, source and evidence grade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, overload

from deploy.errors import ChipError

T = TypeVar("T")

#: How a value is known: on silicon, by a fit to silicon, by circuit simulation, from the maker's text, computed
#: from cited values, read in a public tool for the chip, or made up for tests.
GRADES = ("measured", "fitted", "simulated", "vendor", "derived", "tool", "invented for tests")


@dataclass(frozen=True)
class Quantity:
    """One value of a chip file.

    Attributes:
        value: The number, list or words; ``None`` when nobody has published it.
        unit: Its unit, ``"pJ"``, ``"ns"``, ``"bit"``, …
        source: Paper and table, or tool and file, where it stands.
        grade: One of :data:`GRADES`; empty when unpublished.
        note: A remark of the chip file; for an unpublished value, what is known instead.
    """

    value: Any
    unit: str
    source: str = ""
    grade: str = ""
    note: str = ""

    @property
    def published(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def to_json(self) -> dict[str, Any]:
        """The value with unit, source, grade and note as plain data."""
        return {
            "value": self.value,
            "unit": self.unit,
            "source": self.source,
            "grade": self.grade,
            "note": self.note,
            "published": self.published,
        }


class Key(Generic[T]):
    """A key of a section: its unit, its range and how its raw TOML value is read; on a section it is the value."""

    def __init__(self, read: Callable[[object], T | None], unit: str, allowed: str, doc: str) -> None:
        self.read, self.unit, self.allowed = read, unit, allowed
        self.__doc__ = doc
        self.name = ""

    def __set_name__(self, owner: type[Section], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[Section]) -> Key[T]: ...
    @overload
    def __get__(self, instance: Section, owner: type[Section]) -> T: ...
    def __get__(self, instance: Section | None, owner: type[Section]) -> Key[T] | T:
        if instance is None:
            return self
        value: T | None = instance[self.name].value
        if value is None:
            raise ChipError(
                f"{instance.chip} has no published value for {instance.title}.{self.name}",
                where=f"chip {instance.chip}, [{instance.title}]",
                got=instance[self.name].note or "published = false",
                allowed="a chip whose file gives this value",
                next_step=f"choose another chip, or give {self.name} in a chip file of your own",
            )
        return value


def _integer(unit: str, doc: str, low: int = 0, high: int = 2**62) -> Key[int]:
    def read(raw: object) -> int | None:
        return raw if isinstance(raw, int) and not isinstance(raw, bool) and low <= raw <= high else None

    return Key(read, unit, f"a whole number from {low}" + (f" to {high}" if high < 2**62 else ""), doc)


def _amount(unit: str, doc: str) -> Key[float]:
    def read(raw: object) -> float | None:
        number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
        return float(raw) if number and 0 <= raw < 1e15 else None  # type: ignore[arg-type, operator]

    return Key(read, unit, "a number, zero or more", doc)


def _integers(unit: str, doc: str, low: int, high: int) -> Key[tuple[int, ...]]:
    def read(raw: object) -> tuple[int, ...] | None:
        good = isinstance(raw, list) and raw and all(type(item) is int and low <= item <= high for item in raw)
        return tuple(raw) if good else None  # type: ignore[arg-type]

    return Key(read, unit, f"a list of whole numbers from {low} to {high}", doc)


def _words(doc: str, choice: tuple[str, ...]) -> Key[tuple[str, ...]]:
    def read(raw: object) -> tuple[str, ...] | None:
        good = isinstance(raw, list) and raw and all(item in choice for item in raw)
        return tuple(raw) if good else None  # type: ignore[arg-type]

    return Key(read, "names", f"a list of {', '.join(choice)}", doc)


def _word(doc: str, choice: tuple[str, ...]) -> Key[str]:
    def read(raw: object) -> str | None:
        return raw if isinstance(raw, str) and raw in choice else None

    return Key(read, "name", f"one of {', '.join(choice)}", doc)


def _curve(unit: str, doc: str) -> Key[tuple[tuple[float, float], ...]]:
    def read(raw: object) -> tuple[tuple[float, float], ...] | None:
        if not isinstance(raw, list) or not raw:
            return None
        if not all(isinstance(p, list) and len(p) == 2 and all(type(x) in (int, float) for x in p) for p in raw):
            return None
        points = tuple((float(x), float(y)) for x, y in raw)
        rising = all(a[0] < b[0] for a, b in zip(points, points[1:], strict=False))
        return points if rising and all(x > 0 and y >= 0 for x, y in points) else None

    return Key(read, unit, "a list of [tiles, time] pairs, tiles rising, times zero or more", doc)


@dataclass(frozen=True)
class Section:
    """One table of a chip file: ``section.key`` is the value, ``section["key"]`` the :class:`Quantity`."""

    chip: str
    entries: tuple[tuple[str, Quantity], ...]
    title: ClassVar[str] = ""

    def __getitem__(self, key: str) -> Quantity:
        for name, quantity in self.entries:
            if name == key:
                return quantity
        raise ChipError(
            f"chips have no key {self.title}.{key}",
            where=f"chip {self.chip}, [{self.title}]",
            got=key,
            allowed=", ".join(self.names()),
        )

    def __iter__(self) -> Iterator[tuple[str, Quantity]]:
        return iter(self.entries)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the section's keys, in file order."""
        return tuple(name for name, member in vars(cls).items() if isinstance(member, Key))

    def to_json(self) -> dict[str, Any]:
        """Every key with its quantity as plain data."""
        return {name: quantity.to_json() for name, quantity in self.entries}


class Limits(Section):
    """``[limits]``: how much there is of everything."""

    title = "limits"
    cores = _integer("cores", "Neuromorphic cores on one chip.", 1)
    cores_per_tile = _integer("cores", "Cores that share one router.", 1)
    mesh_columns = _integer("tiles", "Tiles of the mesh, east to west.", 1)
    mesh_rows = _integer("tiles", "Tiles of the mesh, north to south.", 1)
    neurons_per_core = _integer("neurons", "Neurons (compartments) of one core.", 1)
    layers_per_core = _integer("layers", "Layers (populations with their own constants) one core may hold.", 1)
    synaptic_memory_bits_per_core = _integer("bit", "Synaptic memory of one core.", 1)
    synaptic_memory_word_bits = _integer("bit", "Word in which a core's synaptic memory is handed out.", 1)
    input_axons_per_core = _integer("axons", "Axons a core can receive on.", 1)
    output_axons_per_core = _integer("axons", "Axons a core can send on: one a neuron and destination core.", 1)
    fan_in = _integer("synapses", "Synapses that may end on one neuron.", 1)
    fan_out = _integer("synapses", "Synapses that may start at one neuron.", 1)


class Formats(Section):
    """``[formats]``: integer widths; the names match the arguments of :mod:`deploy.fixed_point`."""

    title = "formats"
    weight_bits = _integer("bit", "Widest stored weight, without the sign mode's extra bit.", 1, 32)
    weight_bits_allowed = _integers("bit", "Every stored weight width there is.", 1, 32)
    synapse_header_bits = _integer("bit", "Bits in front of each block of synapses in memory.", 0, 1024)
    synapses_per_header = _integer("synapses", "Longest block of synapses behind one header.", 1)
    index_bits_allowed = _integers("bit", "Widths a sparse synapse's target index can have.", 1, 32)
    weight_exp_min = _integer("exponent", "Smallest weight exponent.", -32, 32)
    weight_exp_max = _integer("exponent", "Largest weight exponent.", -32, 32)
    accumulator_bits = _integer("bit", "Signed width of the sum of a step's weights, before the input shift.", 1, 64)
    state_bits = _integer("bit", "Signed width of current and membrane state.", 2, 62)
    input_shift = _integer("bit", "Left shift of a step's synaptic sum on its way into the state.", 0, 32)
    decay_bits = _integer("bit", "Unsigned width of the two decay constants.", 1, 32)
    vth_bits = _integer("bit", "Unsigned width of the threshold mantissa.", 1, 62)
    vth_shift = _integer("bit", "Left shift of the threshold mantissa.", 0, 32)
    bias_mantissa_bits = _integer("bit", "Signed width of the bias mantissa.", 1, 62)
    bias_exponent_max = _integer("exponent", "Largest bias exponent; the smallest is 0.", 0, 32)
    input_bits_max = _integer("bit", "Unsigned width of a spike's payload: 1 is a plain spike.", 1, 32)
    axonal_delay_max = _integer("steps", "Longest delay of a connection.", 0)
    reset_modes = _words("What a neuron can do to its membrane when it spikes.", ("zero", "subtract", "none"))


class Energy(Section):
    """``[energy]``: dynamic energy of one event, in pJ."""

    title = "energy"
    synop = _amount("pJ", "One spike meeting one synapse.")
    synop_conv = _amount("pJ", "The same in a core's shared-weight (convolution) mode.")
    neuron_active = _amount("pJ", "One update of a neuron with a current or membrane that is not zero.")
    neuron_inactive = _amount("pJ", "One update of a neuron at rest: current and membrane are zero.")
    spike_generate = _amount("pJ", "What a neuron that spikes costs beyond its update.")
    axon_out = _amount("pJ", "One spike message leaving a core.")
    axon_in = _amount("pJ", "One spike message entering a core.")
    spike_within_tile = _amount("pJ", "One spike message delivered inside its tile.")
    hop_east_west = _amount("pJ", "One spike message crossing to the next tile, east or west.")
    hop_north_south = _amount("pJ", "One spike message crossing to the next tile, north or south.")
    mac = _amount("pJ", "One multiply-accumulate of a network without spikes (ANN), to compare with.")


class Time(Section):
    """``[time]``: time of one event, in ns."""

    title = "time"
    synop = _amount("ns", "One spike meeting one synapse.")
    synop_conv = _amount("ns", "The same in a core's shared-weight (convolution) mode.")
    neuron_active = _amount("ns", "One update of a neuron with a current or membrane that is not zero.")
    neuron_inactive = _amount("ns", "One update of a neuron at rest: current and membrane are zero.")
    spike_generate = _amount("ns", "What a neuron that spikes takes beyond its update.")
    axon_out = _amount("ns", "One spike message leaving a core.")
    axon_in = _amount("ns", "One spike message entering a core.")
    spike_within_tile = _amount("ns", "One spike message delivered inside its tile.")
    hop_east_west = _amount("ns", "One spike message crossing to the next tile, east or west.")
    hop_north_south = _amount("ns", "One spike message crossing to the next tile, north or south.")
    schedule = _word("Whether a core's neuron and message work add up or go on side by side.", ("summed", "overlapped"))
    barrier = _curve("ns by tiles", "Synchronisation that ends a step, by the number of tiles in use.")


class Power(Section):
    """``[power]``: what is drawn whether or not anything spikes."""

    title = "power"
    static = _amount("mW", "Static power of one chip.")
