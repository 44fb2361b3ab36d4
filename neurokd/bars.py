"""Progress on the terminal: one rich bar for each stage, drawn from :class:`ProgressEvent`."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from typing_extensions import Self

from neurokd.progress import ProgressEvent

TITLES = {
    "student_plain": "plain student",
    "teacher": "teacher",
    "assistant": "assistant (TA)",
    "student": "distilled student",
    "quantized": "chip integers",
    "quantize": "chip integers",
    "simulate": "integer simulator",
    "verify": "proof of equality",
}


class _Shown:
    """A rich progress display that is a context."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class DownloadBars(_Shown):
    """Bytes of each file: ``with DownloadBars(console) as bars: download(name, progress=bars)``."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TimeElapsedColumn())
        super().__init__(Progress(*columns, console=console))

    def __call__(self, file: str, done: int, total: int) -> None:
        """Move a file's bar."""
        if file not in self._tasks:
            self._tasks[file] = self._progress.add_task(file)
        self._progress.update(self._tasks[file], completed=done, total=total or None)


class Bars(_Shown):
    """Stages of a run: ``with Bars(console) as bars: demo(config, progress=bars)``."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
        )
        super().__init__(Progress(*columns, console=console))

    def __call__(self, event: ProgressEvent) -> None:
        """Move the stage's bar."""
        title = TITLES.get(event.stage, event.stage)
        if title not in self._tasks:
            self._tasks[title] = self._progress.add_task(title, total=1.0, detail="")
        self._progress.update(self._tasks[title], completed=_share(event), detail=_detail(event))


def _share(event: ProgressEvent) -> float:
    within = event.done / max(event.total, 1)
    if event.what == "train":
        return (event.epoch - 1 + within) / max(event.epochs, 1)
    if event.what == "epoch":
        return event.epoch / max(event.epochs, 1)
    if event.what == "teacher sat":
        return 0.0
    return within


def _detail(event: ProgressEvent) -> str:
    if event.what == "train":
        return f"epoch {event.epoch}/{event.epochs}, loss {event.loss:.4f}" if event.loss is not None else ""
    if event.what == "epoch":
        return f"epoch {event.epoch}/{event.epochs}, validation {event.validation:.2f} %" if event.validation else ""
    if event.what == "teacher sat":
        return f"teacher's SAT, view {event.epoch}/{event.epochs}, {event.done}/{event.total}"
    if event.what == "test":
        return f"test accuracy {event.validation:.2f} %" if event.validation is not None else ""
    return f"{event.what} {event.done}/{event.total}"
