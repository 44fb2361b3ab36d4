"""The whole chain: plain student, teacher, assistant, student, chip integers, NIR, simulator, Lava, proof, report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from neurokd import chip_stages, pipeline
from neurokd.config import Config
from neurokd.pipeline import Facts, Run
from neurokd.progress import Progress

STAGES: Final[tuple[tuple[str, Callable[[Run], Facts]], ...]] = (
    ("student_plain", pipeline.train_plain),
    ("teacher", pipeline.train_teacher),
    ("assistant", pipeline.distil_assistant),
    ("student", pipeline.distil_student),
    ("quantized", pipeline.quantize_student),
    ("export", chip_stages.export_student),
    ("lower", chip_stages.lower_student),
    ("simulate", chip_stages.simulate_test_set),
)


def demo(config: Config, *, progress: Progress | None = None, with_lava: bool = True) -> dict[str, Any]:
    """Run every stage that has not finished yet, and give the summary.

    A run that was killed goes on where it was and ends with the same figures.

    Args:
        config: The experiment.
        progress: Called with :class:`ProgressEvent`.
        with_lava: False leaves the replay through Lava out (and says so: ``lava`` is null in the summary).

    Raises:
        NeurokdError: of the stage that failed; finished stages stay.
    """
    run = Run(config, progress)
    for _, stage in STAGES:
        stage(run)
    chip_stages.verify_student(run, with_lava=with_lava)
    return chip_stages.report(run)
