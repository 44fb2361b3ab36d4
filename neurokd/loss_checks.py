"""Checks shared by the losses: SATs and labels that fit each other, options in range."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deploy.errors import ConfigError, TrainingError


def wide(sat: Tensor) -> Tensor:
    """A SAT in at least float32: means over thousands of spikes need it."""
    return sat.float() if sat.dtype in (torch.bfloat16, torch.float16) else sat


def difference_of(student: Tensor, teacher: Tensor) -> Tensor:
    """R - S [T, B, C], or a typed error."""
    check_sat(student, "student SAT")
    check_sat(teacher, "teacher SAT")
    if student.shape[2] != teacher.shape[2]:
        raise TrainingError(
            "teacher and student have different numbers of classes",
            where="SAT loss",
            got=f"student {student.shape[2]}, teacher {teacher.shape[2]}",
            allowed="the same number of output neurons",
        )
    if student.shape != teacher.shape:
        raise TrainingError(
            "the SATs of teacher and student do not have one shape",
            where="SAT loss",
            got=f"student {list(student.shape)}, teacher {list(teacher.shape)}",
            allowed="[T, B, C] for both",
            next_step="bring both to the smaller T with align(sat, steps)",
        )
    return wide(teacher) - wide(student)


def check_sat(sat: Tensor, name: str) -> None:
    """Refuse what is not a SAT."""
    if sat.dim() != 3 or sat.numel() == 0 or not sat.is_floating_point():
        raise TrainingError(
            "a SAT has the shape [T, B, C], none of them 0, and is floating point",
            where=name,
            got=f"{sat.dtype} {list(sat.shape)}",
            allowed="e.g. torch.float32 [16, 128, 10]",
        )


def check_labels(student: Tensor, labels: Tensor) -> None:
    """Refuse labels that are not one class number a sample of a SAT, or shares of its classes."""
    check_sat(student, "student SAT")
    check_targets(labels, *student.shape[1:])


def check_targets(labels: Tensor, batch: int, classes: int) -> None:
    """Refuse labels that are neither class numbers [B] nor shares of the classes [B, C] (of mixed images)."""
    if labels.is_floating_point():
        _check_shares(labels, batch, classes)
        return
    if labels.shape != (batch,) or labels.dtype != torch.int64:
        raise TrainingError(
            "the labels do not fit the SAT",
            where="labels",
            got=f"{labels.dtype} {list(labels.shape)}",
            allowed=f"torch.int64 [{batch}]",
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise TrainingError(
            "a label is not one of the network's classes",
            where="labels",
            got=f"{int(labels.min())} to {int(labels.max())}",
            allowed=f"0 to {classes - 1}",
        )


def targets_for(logits: Tensor, labels: Tensor) -> Tensor:
    """Checked labels as torch's cross-entropy takes them beside ``logits``."""
    return labels.to(logits.dtype) if labels.is_floating_point() else labels


def _check_shares(labels: Tensor, batch: int, classes: int) -> None:
    shape_fits = labels.shape == (batch, classes)
    if not shape_fits or not bool((labels >= 0).all()) or not bool(((labels.sum(1) - 1).abs() < 1e-3).all()):
        raise TrainingError(
            "the labels do not fit the SAT",
            where="labels",
            got=f"{labels.dtype} {list(labels.shape)}",
            allowed=f"torch.int64 [{batch}], or shares of the classes [{batch}, {classes}] that add up to 1",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def positive(name: str, value: float) -> float:
    """``value``, if it is a finite number > 0."""
    if not (_is_number(value) and value > 0):
        raise ConfigError(f"{name} is not a positive number", where=f"loss option {name}", got=value, allowed="> 0")
    return value


def not_negative(name: str, value: float) -> float:
    """``value``, if it is a finite number >= 0."""
    if not (_is_number(value) and value >= 0):
        raise ConfigError(f"{name} is not a number from 0 up", where=f"loss option {name}", got=value, allowed=">= 0")
    return value


def between(name: str, value: float, low: float, high: float) -> float:
    """``value``, if it is a number from ``low`` to ``high``."""
    if not (_is_number(value) and low <= value <= high):
        raise ConfigError(
            f"{name} is out of range", where=f"loss option {name}", got=value, allowed=f"{low:g} to {high:g}"
        )
    return value


def whole(name: str, value: int) -> int:
    """``value``, if it is a whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{name} is not a whole number of steps", where=f"loss option {name}", got=value, allowed=">= 1"
        )
    return value


def one_of(name: str, value: object, allowed: Sequence[object]) -> object:
    """``value``, if it is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(
            f"unknown {name}", where=f"loss option {name}", got=value, allowed=", ".join(map(str, allowed))
        )
    return value


def layer_name(name: str, value: object) -> object:
    """``value``, if it can be a layer's name."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(
            f"{name} is not the name of a layer", where=f"loss option {name}", got=value, allowed="a name"
        )
    return value
