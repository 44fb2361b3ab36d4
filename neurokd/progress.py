"""What a running stage tells its caller. The library never prints; the command line draws bars from these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """One step forward.

    Args:
        stage: The stage's name: ``teacher``, ``assistant``, ``student`` ...
        what: What is counted: ``train`` (batches of an epoch), ``teacher sat`` (batches of a view), ``epoch`` (an
            epoch has ended; ``validation`` is set), ``test``.
        done: How many of ``total`` are done.
        total: How many there are.
        epoch: Epoch from 1, or the view from 1; 0 where it has no meaning.
        epochs: Number of epochs or views.
        loss: Mean loss of the epoch so far, where there is one.
        validation: Validation accuracy in percent after an epoch, test accuracy after ``test``.
    """

    stage: str
    what: str
    done: int
    total: int
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    validation: float | None = None


Progress = Callable[[ProgressEvent], None]


def silent(_: ProgressEvent) -> None:
    """Tell nobody."""
