"""The default experiment for each data set, as the tables :class:`neurokd.config.Config` reads."""

from __future__ import annotations

from typing import Any

_IMAGE_28 = {
    "validation": 0.1,
    "encoding": {"kind": "direct", "bits": 4, "steps": 8},
    "networks": {"teacher": "784-800-800-10", "assistant": "784-256-10", "student": "784-128-10"},
    "training": {
        "teacher": {"epochs": 12, "shift": 2, "views": 6},
        "assistant": {"epochs": 12, "shift": 2, "views": 6, "loss": "sat-ce"},
        "student": {"epochs": 12, "shift": 2, "views": 6, "loss": "sat-ce"},
    },
}

RECIPES: dict[str, dict[str, Any]] = {
    "digits": {
        "validation": 0.1,
        "encoding": {"kind": "direct", "bits": 4, "steps": 8},
        "networks": {"teacher": "64-256-10", "assistant": "64-128-10", "student": "64-48-10"},
        "training": {
            "teacher": {"epochs": 40, "batch": 64},
            "assistant": {"epochs": 40, "batch": 64, "loss": "sat-ce"},
            "student": {"epochs": 40, "batch": 64, "loss": "sat-ce"},
        },
    },
    "mnist": _IMAGE_28,
    "fashion-mnist": _IMAGE_28,
    "cifar10": {
        "validation": 0.1,
        "encoding": {"kind": "direct", "bits": 8, "steps": 4},
        "networks": {
            "teacher": "32x32x3-32c3-64c3s2-64c3s2-10",
            "assistant": "32x32x3-24c3s2-48c3s2-10",
            "student": "32x32x3-16c3s2-32c3s2-10",
        },
        "training": {
            "teacher": {"epochs": 20, "flip": True, "shift": 4, "views": 10},
            "assistant": {"epochs": 20, "flip": True, "shift": 4, "views": 10, "loss": "sat-ce"},
            "student": {"epochs": 20, "flip": True, "shift": 4, "views": 10, "loss": "sat-ce"},
        },
    },
}
