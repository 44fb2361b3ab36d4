"""The layers of a network specification: dense, convolution and average pool, their texts and their shapes."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.errors import SpecError

#: Larger numbers are taken for typing errors: one such layer would not fit a computer's memory, let alone a chip.
LARGEST = 2**24

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Dense:
    """A fully connected layer of ``units`` neurons; an image before it is flattened row-major as C, H, W."""

    units: int

    def __post_init__(self) -> None:
        in_range("units", self.units, low=1)

    def __str__(self) -> str:
        return str(self.units)


@dataclass(frozen=True)
class Conv:
    """A two-dimensional convolution: ``channels`` output channels; pairs are (height, width)."""

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    groups: int = 1
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        in_range("channels", self.channels, low=1)
        in_range("groups", self.groups, low=1)
        for name, pair in (("kernel", self.kernel), ("stride", self.stride), ("dilation", self.dilation)):
            pair_in_range(name, pair, low=1)
        pair_in_range("padding", self.padding, low=0)

    def __str__(self) -> str:
        stride, padding = _option("s", self.stride, (1, 1)), _option("p", self.padding, (0, 0))
        groups, dilation = f"g{self.groups}" if self.groups != 1 else "", _option("d", self.dilation, (1, 1))
        return f"{self.channels}c{pair_text(self.kernel)}{stride}{padding}{groups}{dilation}"


@dataclass(frozen=True)
class Pool:
    """Average pooling; it has no neurons, so it belongs to the dense or convolution layer that follows."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)

    def __post_init__(self) -> None:
        pair_in_range("kernel", self.kernel, low=1)
        pair_in_range("stride", self.stride, low=1)
        pair_in_range("padding", self.padding, low=0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise SpecError(
                "the padding of a pool is more than half its kernel",
                got=f"padding {pair_text(self.padding)}, kernel {pair_text(self.kernel)}",
                allowed="padding at most half the kernel (torch's limit)",
            )

    def __str__(self) -> str:
        return f"p{pair_text(self.kernel)}{_option('s', self.stride, self.kernel)}{_option('p', self.padding, (0, 0))}"


LayerSpec = Dense | Conv | Pool


def number_from(text: str) -> int:
    """A number in digits.

    Raises:
        SpecError: longer than any size that is allowed (``int`` itself refuses above 4300 digits).
    """
    if len(text) > len(str(LARGEST)):
        raise SpecError(
            "the number is too large", got=f"{text[:12]}... ({len(text)} digits)", allowed=f"up to {LARGEST}"
        )
    return int(text)


def pair_from(text: str) -> Pair:
    """``"3"`` is (3, 3), ``"3x5"`` is (3, 5): height, width."""
    numbers = [number_from(number) for number in text.split("x")]
    return (numbers[0], numbers[-1])


def pair_text(pair: Pair) -> str:
    """The inverse of :func:`pair_from`."""
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _option(letter: str, pair: Pair, default: Pair) -> str:
    return "" if pair == default else letter + pair_text(pair)


def in_range(name: str, value: int, *, low: int) -> int:
    """``value`` itself.

    Raises:
        SpecError: below ``low`` or above :data:`LARGEST`.
    """
    if not low <= value <= LARGEST:
        raise SpecError(f"the {name} is out of range", got=f"{name} {value}", allowed=f"{name} from {low} to {LARGEST}")
    return value


def pair_in_range(name: str, pair: Pair, *, low: int) -> None:
    """Both numbers of a pair, see :func:`in_range`."""
    for value in pair:
        in_range(name, value, low=low)


def out_shape(shape: Shape, layer: LayerSpec, *, after_pool: bool) -> Shape:
    """Shape after ``layer`` on an input of ``shape``; sizes round down as in torch.

    Args:
        shape: ``(C, H, W)`` or ``(N,)``.
        layer: What comes next.
        after_pool: Whether a pool stands right before it.

    Raises:
        SpecError: the layer does not fit the shape.
    """
    if isinstance(layer, Dense):
        return (layer.units,)
    kind = "convolution" if isinstance(layer, Conv) else "pool"
    if len(shape) == 1:
        raise SpecError(
            f"a {kind} after a flat input or a dense layer", allowed="convolutions and pools before dense layers"
        )
    if isinstance(layer, Pool):
        if after_pool:
            raise SpecError("two pools in a row", next_step="write them as one pool, 'p4' for 'p2-p2'")
        return (shape[0], *_slide(shape[1:], layer.kernel, layer.stride, layer.padding, (1, 1)))
    if shape[0] % layer.groups or layer.channels % layer.groups:
        raise SpecError(
            "the groups do not divide the channels", got=f"{shape[0]} in, {layer.channels} out, {layer.groups} groups"
        )
    return (layer.channels, *_slide(shape[1:], layer.kernel, layer.stride, layer.padding, layer.dilation))


def _slide(size: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Shape:
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    room = [n + 2 * p - span for n, p, span in zip(size, padding, spans, strict=True)]
    if min(room) < 0:
        got = f"kernel spans {pair_text((spans[0], spans[1]))}, input is {size[0]}x{size[1]}"
        raise SpecError("the kernel is larger than its input", got=got, allowed="a kernel that fits the padded input")
    return tuple(free // s + 1 for free, s in zip(room, stride, strict=True))
