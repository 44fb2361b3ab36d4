"""Words for what fine-tuning does: the ablation's losses, what can be learned, how scales are searched. No torch."""

from __future__ import annotations

from typing import Final

from deploy.errors import ConfigError

#: The loss that is none: weights are rounded, nothing is trained.
UNTRAINED: Final = "none"
#: The ablation by one word: no fine-tuning, labels alone, the teacher's SAT alone, both.
METHODS: Final = {UNTRAINED: "", "ce": "ce", "sat": "sat-combined", "sat-ce": "sat-ce"}
#: What can be learned on the chip's integers beside weights and biases.
LEARNABLE: Final = ("threshold", "decays", "scale")
SCALE_SEARCHES: Final = ("mse", "max", "percentile")


def loss_text(loss: str) -> str:
    """The loss to train with: ``sat`` is the SAT losses alone, everything else is a loss text already."""
    return METHODS.get(loss, loss)


def learned_from(text: str) -> tuple[str, ...]:
    """``"threshold, decays"`` as names.

    Raises:
        ConfigError: one of them cannot be learned.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    check_learn(names)
    return names


def check_learn(names: tuple[str, ...] | frozenset[str]) -> None:
    """Refuse what cannot be learned.

    Raises:
        ConfigError: something else than thresholds, decays and scales.
    """
    unknown = sorted(set(names) - set(LEARNABLE))
    if unknown:
        raise ConfigError(
            "this cannot be learned on the chip's integers",
            where="learn",
            got=", ".join(unknown),
            allowed=f"{', '.join(LEARNABLE)}; weights and biases always are",
        )


def widths_from(text: str) -> dict[str, int]:
    """``"dense1=8, dense2=4"`` as widths by layer.

    Raises:
        ConfigError: text of another form, or a width that is none.
    """
    found: dict[str, int] = {}
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        name, equals, width = (piece.strip() for piece in part.partition("="))
        if not (name and equals and width.isdecimal() and 2 <= int(width) <= 8):
            raise ConfigError(
                "a width is not LAYER=BITS", where="layer_bits", got=part, allowed="dense1=8,dense2=4; bits 2..8"
            )
        found[name] = int(width)
    return found
