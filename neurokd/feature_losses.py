"""Losses between hidden layers of teacher and student, and the learned alignment of their widths.

F_S and F_R are a layer's mean firing rates over time, ``[B, C, H, W]`` or ``[B, N]``; of an ANN its activations. So T
may differ. Widths may too: a learned 1x1 convolution (a linear layer where there is no image) brings the student's
channels to the teacher's; where heights and widths differ, the larger map is averaged to the smaller. The alignment is
trained with the student and is no part of it: it is kept in the resumable state and not in the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy.errors import TrainingError
from neurokd.loss_checks import wide

Shape = tuple[int, ...]
#: Attention maps below this norm are silent layers; they are left as they are.
_SILENT = 1e-12


def feature(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square between features: ``mean over b and all entries of (F_R - F_S)**2``.

    Source: KDSNN (arXiv 2304.05627); FitNets (arXiv 1412.6550) for the learned alignment.

    Args:
        student: F_S, aligned to the teacher's shape, [B, *shape].
        teacher: F_R [B, *shape].

    Raises:
        TrainingError: features of different shapes.
    """
    _check_same(student, teacher)
    return (wide(teacher) - wide(student)).square().mean()


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of attention maps: ``mean over b of ||a_R - a_S||**2`` with ``a = A / ||A||``, 0 .. 2.

    A is the mean of F**2 over channels, [H W] a sample: where the layer looks. Maps of silent layers are zeros, with a
    gradient of zero. Sources: Zagoruyko & Komodakis 2017 (arXiv 1612.03928); in a spiking student LaSNN (arXiv
    2304.09101).

    Args:
        student: F_S [B, C, H, W].
        teacher: F_R [B, C', H, W].

    Raises:
        TrainingError: no images, or of different sizes.
    """
    for name, value in (("student", student), ("teacher", teacher)):
        if value.dim() != 4:
            raise _no_picture(f"{name} layer", value.shape[1:])
    if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
        _check_same(student, teacher)
    return (_map_of(teacher) - _map_of(student)).square().sum(-1).mean()


def rates(layer: Tensor) -> Tensor:
    """Mean over time of a layer's spikes [T, B, *shape], at least float32."""
    return wide(layer).mean(0)


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two feature maps at the smaller height and width of both; flat features as they are."""
    if student.dim() != 4 or teacher.dim() != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return functional.adaptive_avg_pool2d(student, size), functional.adaptive_avg_pool2d(teacher, size)


class Alignments(nn.Module):
    """The learned alignments of some terms, by :attr:`LossTerm.key`.

    Args:
        pairs: Key, and the shapes of the student's and the teacher's layer without time and batch.
        seed: Of the first weights.

    Raises:
        TrainingError: one layer has images and the other has none.
    """

    def __init__(self, pairs: Iterable[tuple[str, Shape, Shape]], seed: int) -> None:
        super().__init__()
        self.places: dict[str, int] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList()
            for key, own, other in pairs:
                self.places[key] = len(self.layers)
                self.layers.append(_alignment(own, other))

    def of(self, key: str) -> nn.Module:
        """A term's alignment."""
        return self.layers[self.places[key]]


def layer_of(layers: Mapping[str, object], name: str, whose: str) -> str:
    """``name``, if the network has a layer of that name.

    Raises:
        TrainingError: it has none; names those there are.
    """
    if name not in layers:
        raise TrainingError(
            f"the {whose} has no such layer",
            where=f"option {whose} of a loss between layers",
            got=name,
            allowed=", ".join(layers) or "none",
        )
    return name


def _alignment(own: Shape, other: Shape) -> nn.Module:
    if len(own) != len(other) or len(own) not in (1, 3):
        raise TrainingError(
            "the layers cannot be aligned",
            where="loss between layers",
            got=f"student {list(own)}, teacher {list(other)}",
            allowed="both [C, H, W], or both [N]",
            next_step="name two layers of one kind",
        )
    return nn.Linear(own[0], other[0]) if len(own) == 1 else nn.Conv2d(own[0], other[0], 1)


def _map_of(features: Tensor) -> Tensor:
    return functional.normalize(wide(features).square().mean(1).flatten(1), dim=1, eps=_SILENT)


def _check_same(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise TrainingError(
            "the features of teacher and student do not have one shape",
            where="loss between layers",
            got=f"student {list(student.shape)}, teacher {list(teacher.shape)}",
            allowed="[B, *shape] for both",
        )


def _no_picture(where: str, shape: Iterable[int]) -> TrainingError:
    return TrainingError(
        "an attention map needs a layer with an image",
        where=where,
        got=f"shape {list(shape)}",
        allowed="[C, H, W]: a convolution",
        next_step="name a convolution, or take the loss feature",
    )
