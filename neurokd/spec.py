"""Network specifications: one line of text that says a whole network, as frozen dataclasses.

    >>> spec = NetworkSpec.parse("28x28x1-16c5s2-p2-10")
    >>> spec.shapes()
    ((16, 12, 12), (16, 6, 6), (10,))
    >>> str(spec)
    '28x28x1-16c5s2-p2-10'

Sizes round down as in torch: a convolution or pool that does not fit a last row leaves it out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from deploy.errors import ConfigError, SpecError
from neurokd.spec_layers import Conv, Dense, LayerSpec, Pair, Pool, Shape, in_range, number_from, out_shape, pair_from

GRAMMAR = (
    "fields joined by '-': first the input, 'N' or 'HxWxC'; then layers; last the number of classes. "
    "'N' dense layer of N neurons; 'NcK' convolution of N channels and kernel K, "
    "then optionally 'sS' stride, 'pP' padding, 'gG' groups, 'dD' dilation; "
    "'pK' average pool of kernel K, then optionally 'sS' stride (default K), 'pP' padding. "
    "K, S, P, D are numbers or 'HxW' pairs. Examples: 784-800-10, 28x28x1-16c5s2-32c3s2-10, 32x32x3-64c3p1-p2-10"
)

LARGEST_POPULATION = 128

_PAIR = r"[0-9]+(?:x[0-9]+)?"
_DENSE = re.compile(r"[0-9]+")
_IMAGE = re.compile(r"([0-9]+)x([0-9]+)x([0-9]+)")
_CONV = re.compile(rf"([0-9]+)c({_PAIR})((?:[a-z]{_PAIR})*)")
_POOL = re.compile(rf"p({_PAIR})((?:[a-z]{_PAIR})*)")
_OPTION = re.compile(rf"([a-z])({_PAIR})")
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Block:
    """One layer of neurons with all that feeds it: pool (or none), synapse, shapes without time and batch."""

    name: str
    pool: Pool | None
    synapse: Dense | Conv
    in_shape: Shape
    synapse_shape: Shape
    out_shape: Shape

    def parameters(self) -> int:
        """Weights plus one bias an output channel: what is exported once a batch norm is folded."""
        if isinstance(self.synapse, Dense):
            return self.synapse.units * (math.prod(self.synapse_shape) + 1)
        fan_in = self.synapse_shape[0] // self.synapse.groups * math.prod(self.synapse.kernel)
        return self.synapse.channels * (fan_in + 1)


@dataclass(frozen=True)
class NetworkSpec:
    """A checked network: ``input_shape`` is ``(N,)`` or ``(C, H, W)``; the last layer is dense, one neuron a class.

    Raises:
        SpecError: the layers do not fit each other or the input; says which field and what is allowed.
    """

    input_shape: Shape
    layers: tuple[LayerSpec, ...]

    def __post_init__(self) -> None:
        if len(self.input_shape) not in (1, 3):
            raise SpecError("the input is neither flat nor an image", got=self.input_shape, allowed="(N,) or (C, H, W)")
        for size in self.input_shape:
            in_range("input size", size, low=1)
        _walk(self.input_shape, self.layers, str(self))

    @classmethod
    def parse(cls, text: str) -> NetworkSpec:
        """Read a specification.

        Args:
            text: e.g. ``"784-800-10"``; see :data:`GRAMMAR`.

        Raises:
            SpecError: malformed, or layers that do not fit; ``where`` names the field and the character.
        """
        text = text.strip()
        fields = text.split("-")
        if not text or "" in fields:
            _refuse_empty(text, fields)
        shape = _at(text, 0, _read_input, fields[0])
        layers = tuple(_at(text, index, _read_layer, field) for index, field in enumerate(fields) if index)
        _walk(shape, layers, text)
        return cls(shape, layers)

    def __str__(self) -> str:
        return "-".join([_input_text(self.input_shape), *map(str, self.layers)])

    @property
    def classes(self) -> int:
        """Number of output neurons."""
        return self.shapes()[-1][0]

    def shapes(self) -> tuple[Shape, ...]:
        """Output shape of each layer in order, ``(C, H, W)`` or ``(N,)``, pools included."""
        return tuple(_walk(self.input_shape, self.layers, str(self)))

    def blocks(self) -> tuple[Block, ...]:
        """The layers of neurons, each with the pool before it; names are ``conv1``, ``dense2``, ..."""
        return tuple(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        before, shape, pool, number = self.input_shape, self.input_shape, None, 0
        for layer, out in zip(self.layers, self.shapes(), strict=True):
            if isinstance(layer, Pool):
                pool, shape = layer, out
                continue
            number += 1
            name = f"{'dense' if isinstance(layer, Dense) else 'conv'}{number}"
            yield Block(name, pool, layer, before, shape, out)
            before, shape, pool = out, out, None

    def narrows(self, wide: NetworkSpec) -> bool:
        """Whether this is ``wide`` with at most as many neurons or channels in its hidden layers, none in groups."""
        if self.input_shape != wide.input_shape or len(self.layers) != len(wide.layers):
            return False
        hidden = zip(self.layers[:-1], wide.layers[:-1], strict=True)
        return self.layers[-1] == wide.layers[-1] and all(_narrows(mine, theirs) for mine, theirs in hidden)

    def parameters(self) -> int:
        """Weights and biases of all layers, batch norms folded (see :meth:`Block.parameters`)."""
        return sum(block.parameters() for block in self.blocks())


def _narrows(mine: LayerSpec, theirs: LayerSpec) -> bool:
    if isinstance(mine, Dense) and isinstance(theirs, Dense):
        return mine.units <= theirs.units
    if isinstance(mine, Conv) and isinstance(theirs, Conv):
        alike = theirs.groups == 1 and mine == replace(theirs, channels=mine.channels)
        return alike and mine.channels <= theirs.channels
    return mine == theirs


def _input_text(shape: Shape) -> str:
    return str(shape[0]) if len(shape) == 1 else "x".join(map(str, (*shape[1:], shape[0])))


def _refuse_empty(text: str, fields: list[str]) -> None:
    if not text:
        raise SpecError("the network specification is empty", got="''", allowed=GRAMMAR)
    index = fields.index("")
    raise SpecError(
        "a field of the network specification is empty ('-' separates fields; sizes cannot be negative)",
        where=_where(text, index),
        got=repr(text),
        allowed=GRAMMAR,
    )


def _at(text: str, index: int, read: Callable[[str], _Read], field: str) -> _Read:
    """Read one field; an error gets the field's place and the grammar."""
    try:
        return read(field)
    except SpecError as error:
        raise _placed(error, text, index) from None


def _placed(error: SpecError, text: str, index: int) -> SpecError:
    detail = f"{error.allowed}; " if error.allowed else ""
    got = error.got or repr(text.split("-")[index])
    return SpecError(
        error.what, where=_where(text, index), got=got, allowed=detail + GRAMMAR, next_step=error.next_step
    )


def _where(text: str, index: int) -> str:
    fields = text.split("-")
    character = sum(len(field) + 1 for field in fields[:index]) + 1
    return f"field {index + 1} ('{fields[index]}'), character {character} of '{text}'"


def _read_input(field: str) -> Shape:
    if _DENSE.fullmatch(field):
        return (in_range("input size", number_from(field), low=1),)
    match = _IMAGE.fullmatch(field)
    if match is None:
        raise SpecError("the first field is not an input size", got=repr(field), allowed="'N' or 'HxWxC'")
    height, width, channels = (in_range("input size", number_from(number), low=1) for number in match.groups())
    return (channels, height, width)


def _read_layer(field: str) -> LayerSpec:
    if _DENSE.fullmatch(field):
        return Dense(number_from(field))
    if match := _CONV.fullmatch(field):
        options = _read_options(match[3], "spgd")
        groups = options.pop("g", (1, 1))
        return Conv(
            number_from(match[1]),
            pair_from(match[2]),
            options.get("s", (1, 1)),
            options.get("p", (0, 0)),
            groups[0],
            options.get("d", (1, 1)),
        )
    if match := _POOL.fullmatch(field):
        kernel, options = pair_from(match[1]), _read_options(match[2], "sp")
        return Pool(kernel, options.get("s", kernel), options.get("p", (0, 0)))
    raise _unreadable(field)


def _unreadable(field: str) -> SpecError:
    unknown = [letter for letter in field if letter not in "0123456789xcpsgd"]
    if unknown:
        return SpecError(f"unknown letter {unknown[0]!r}", got=repr(field))
    return SpecError("the field is not a layer", got=repr(field))


def _read_options(text: str, known: str) -> dict[str, Pair]:
    options: dict[str, Pair] = {}
    for letter, value in _OPTION.findall(text):
        if letter not in known:
            raise SpecError(f"unknown letter {letter!r}", allowed=f"the letters {', '.join(known)} here")
        if letter in options or (letter == "g" and "x" in value):
            raise SpecError(
                f"option {letter!r} is given twice or as a pair", got=repr(text.strip()), allowed="one number"
            )
        options[letter] = pair_from(value)
    return options


def _walk(shape: Shape, layers: tuple[LayerSpec, ...], text: str) -> list[Shape]:
    """The output shape of every layer; refuses layers that do not fit, naming the field."""
    shapes: list[Shape] = []
    for index, layer in enumerate(layers, start=1):
        try:
            shape = out_shape(shape, layer, after_pool=index > 1 and isinstance(layers[index - 2], Pool))
        except SpecError as error:
            raise _placed(error, text, index) from None
        shapes.append(shape)
    if not layers or not isinstance(layers[-1], Dense):
        raise _placed(SpecError("there is no output layer: the last field is the number of classes"), text, len(layers))
    return shapes


def check_population(outputs: int, population: int) -> None:
    """Refuse a population that is no power of two, or does not divide the output layer.

    Raises:
        ConfigError: it does not fit.
    """
    if population < 1 or population > LARGEST_POPULATION or population & (population - 1):
        raise ConfigError(
            "the population of a class is a power of two", where="population", got=population,
            allowed="1, 2, 4, 8, ... 128",
        )  # fmt: skip
    if outputs % population or outputs == population > 1:
        raise ConfigError(
            "the output layer does not split into classes of this population",
            where="population",
            got=f"{outputs} output neurons, population {population}",
            allowed=f"a multiple of {population}, at least {2 * population}",
            next_step=f"10 classes need {10 * population} output neurons: end the specification in -{10 * population}",
        )
