"""Every loss by its name: its function, what it is computed from, the options it takes; and ready sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from neurokd.feature_losses import attention, feature
from neurokd.logit_losses import logit_ce, logit_kl, logit_mix, logit_mse, step_ce, step_kl
from neurokd.loss_checks import between, layer_name, not_negative, one_of, positive, whole
from neurokd.rate_losses import activity, corrected_kl, cross_entropy, rate_kl, temporal_ce, temporal_kl
from neurokd.sat_losses import full_kl, full_l1, full_l2, sliding_l1, sliding_l2
from neurokd.self_distillation import WAYS, entropy, membrane, self_ensemble, self_pair

Check = Callable[[Any], object]

_SCALE: Mapping[str, Check] = {"scale": partial(positive, "scale")}
_TEMPERATURE: Mapping[str, Check] = {"temperature": partial(positive, "temperature")}
_SOFT: Mapping[str, Check] = {**_SCALE, **_TEMPERATURE}
_WINDOW: Mapping[str, Check] = {
    "delta": partial(whole, "delta"),
    "reduce": partial(one_of, "reduce", allowed=("norm", "sum")),
}
#: Options that say where a loss is taken, not how: the function does not see them.
PLACES = ("student", "teacher", "align")
_LAYERS: Mapping[str, Check] = {
    "student": partial(layer_name, "student"),
    "teacher": partial(layer_name, "teacher"),
    "align": partial(one_of, "align", allowed=("learned", "none")),
}


@dataclass(frozen=True)
class Loss:
    """A loss by name.

    Args:
        function: Computes it.
        takes: Its arguments in order: ``labels``; fields of the student's :class:`neurokd.outputs.Outputs` by their
            names; the teacher's as ``teacher.<name>``. ``layer`` is one of the layers, named by an option.
        options: Its keyword options and what checks them.
        align: Whether its layers are aligned by learning where the option ``align`` does not say.
    """

    function: Callable[..., Tensor]
    takes: tuple[str, ...]
    options: Mapping[str, Check]
    align: str = "none"

    def of_student(self) -> frozenset[str]:
        """Fields of the student's outputs it takes."""
        names = (name for name in self.takes if name != "labels" and not name.startswith("teacher."))
        return frozenset(_FIELDS.get(name, name) for name in names)

    def of_teacher(self) -> frozenset[str]:
        """Fields of the teacher's outputs it takes."""
        names = (name.partition(".")[2] for name in self.takes if name.startswith("teacher."))
        return frozenset(_FIELDS.get(name, name) for name in names)


_FIELDS = {"layer": "layers"}
_SATS = ("sat", "teacher.sat")
_LOGITS = ("logits", "teacher.logits")

LOSSES: dict[str, Loss] = {
    "ce": Loss(cross_entropy, ("sat", "labels"), _SCALE),
    "full-l1": Loss(full_l1, _SATS, {}),
    "full-l2": Loss(full_l2, _SATS, {"reduce": partial(one_of, "reduce", allowed=("norm", "mse"))}),
    "full-kl": Loss(full_kl, _SATS, {**_SCALE, "over": partial(one_of, "over", allowed=("rates", "steps", "tensor"))}),
    "sliding-l1": Loss(sliding_l1, _SATS, _WINDOW),
    "sliding-l2": Loss(sliding_l2, _SATS, _WINDOW),
    "rate-kl": Loss(rate_kl, _SATS, _SOFT),
    "corrected-kl": Loss(corrected_kl, (*_SATS, "labels"), _SOFT),
    "temporal-ce": Loss(temporal_ce, ("sat", "labels"), _SCALE),
    "temporal-kl": Loss(temporal_kl, _SATS, _SOFT),
    "activity": Loss(activity, ("layers",), {"target": partial(not_negative, "target")}),
    "logit-ce": Loss(logit_ce, ("logits", "labels"), {}),
    "logit-kl": Loss(logit_kl, _LOGITS, _TEMPERATURE),
    "logit-mse": Loss(logit_mse, _LOGITS, {}),
    "logit-mix": Loss(logit_mix, _LOGITS, {**_TEMPERATURE, "reverse": partial(between, "reverse", low=0.0, high=1.0)}),
    "step-ce": Loss(step_ce, ("currents", "labels"), {}),
    "step-kl": Loss(step_kl, ("currents", "teacher.logits"), _TEMPERATURE),
    "membrane": Loss(membrane, ("membranes", "teacher.membranes"), {}),
    "feature": Loss(feature, ("layer", "teacher.layer"), _LAYERS, align="learned"),
    "attention": Loss(attention, ("layer", "teacher.layer"), _LAYERS),
    "entropy": Loss(entropy, ("currents",), {}),
    "self-ensemble": Loss(self_ensemble, ("currents",), _TEMPERATURE),
    "self-pair": Loss(self_pair, ("currents",), {**_TEMPERATURE, "way": partial(one_of, "way", allowed=WAYS)}),
}

#: Ready sums. The poster's five alone carry no labels; ``sat-ce`` adds cross-entropy and is the default to distil with.
PRESETS: dict[str, str] = {
    "sat-combined": "full-l1+full-l2+full-kl+sliding-l1+sliding-l2",
    "sat-ce": "ce+full-l1+full-l2+full-kl+sliding-l1+sliding-l2",
    "temporal": "temporal-ce+temporal-kl",
    "response": "ce+logit-kl",
    "stepwise": "step-ce+step-kl",
}


def names() -> tuple[str, ...]:
    """Every name a loss text can hold: the single losses, then the presets."""
    return (*LOSSES, *PRESETS)
