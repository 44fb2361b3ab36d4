"""The default experiment for each data set, as the tables :class:`neurokd.config.Config` reads.

Assistant and students of a set see the same views, and the plain student trains as the distilled one does; a teacher
may see others: on mirrored clothes it learns less by heart, and dense students underfit.
"""

from __future__ import annotations

from typing import Any

Table = dict[str, Any]


#: Best of nine sums on Fashion-MNIST's validation images (784-128-80, one seed): 90.1 %, the plain student 89.2.
WITH_LABELS = "ce+rate-kl+sliding-l2"


def _stages(teacher: Table, assistant: Table, student: Table, loss: str = WITH_LABELS, **shared: Any) -> Table:
    """The three stages, each with the shared values and its own; the last two distil on the SAT with labels."""
    return {
        "teacher": {**shared, **teacher},
        "assistant": {"loss": loss, **shared, **assistant},
        "student": {"loss": loss, **shared, **student},
    }


# Eight output neurons a class: 784-256 reaches 90.0 % of Fashion-MNIST's validation images at T = 4, with one a class
# 87.9, and 89.1 at T = 8. Teachers are convolutional: they see what a dense student cannot, and with mirrored images
# they do not learn the training images by heart (94.6 % of them right, 92.2 % of the validation images).
# 5 bits: the most with which 784 pixels times 8-bit weights stay within the chip's 24-bit sums.
_IMAGE_28: Table = {
    "encoding": {"kind": "direct", "bits": 5, "steps": 4},
    "networks": {
        "teacher": "28x28x1-32c5s2p2-64c3s2p1-128c3s2p1-176-80",
        "assistant": "784-256-80",
        "student": "784-128-80",
        "beta": 0.5,
        "population": 8,
    },
}
_TEACHER_28: Table = {"epochs": 12, "weight_decay": 1e-2}
_STAGES_32: Table = {
    "epochs": 12, "batch": 128, "lr": 3e-3, "shift": 2, "flip": True, "views": 6, "precision": "bfloat16",
}  # fmt: skip

#: The networks of ``neurokd demo`` and ``neurokd reproduce``; every student is at least four times smaller than its
#: teacher.
RECIPES: dict[str, Table] = {
    # 8x8 digits are not shifted: a pixel is an eighth of the image (64-48-10: 95 % without, 87 % with).
    "digits": {
        "encoding": {"kind": "direct", "bits": 4, "steps": 8},
        "networks": {"teacher": "64-512-10", "assistant": "64-128-10", "student": "64-48-10"},
        "training": _stages({}, {}, {}, epochs=60, batch=64, lr=5e-3, loss="sat-ce"),
    },
    # On validation images, plain 784-128-10: MNIST 98.2 % with shifted views, 97.7 without; Fashion-MNIST 86.4 and 88.
    "mnist": {
        **_IMAGE_28,
        "training": _stages(_TEACHER_28, {}, {}, epochs=20, batch=128, lr=3e-3, shift=1, views=10),
    },
    "fashion-mnist": {
        **_IMAGE_28,
        "training": _stages(
            {**_TEACHER_28, "shift": 1, "flip": True, "views": 12}, {}, {}, epochs=30, batch=128, lr=3e-3
        ),
    },
    "cifar10": {
        "encoding": {"kind": "direct", "bits": 8, "steps": 4},
        "networks": {
            "teacher": "32x32x3-48c3s2p1-96c3s2p1-192c3s2p1-80",
            "assistant": "32x32x3-24c3s2p1-48c3s2p1-96c3s2p1-80",
            "student": "32x32x3-16c3s2p1-32c3s2p1-64c3s2p1-80",
            "beta": 0.5,
            "population": 8,
        },
        "training": _stages({"weight_decay": 1e-2}, {}, {}, **_STAGES_32),
    },
}

#: The grid's second student of each set: convolutional where the first is dense, and the reverse.
OTHER_STUDENTS: dict[str, str] = {
    "digits": "8x8x1-8c3s2-10",
    "mnist": "28x28x1-8c5s2p2-16c3s2p1-80",
    "fashion-mnist": "28x28x1-8c5s2p2-16c3s2p1-80",
    "cifar10": "3072-32-80",
}
