"""Typed errors that fit one screen: what happened, where, what was found, what is allowed, what to do next.

Every error a user can cause derives from :class:`NeurokdError`; the command line prints :meth:`NeurokdError.render`
and leaves with :attr:`NeurokdError.exit_code`. ``assert`` is kept for faults of this code itself.
"""

from __future__ import annotations


class NeurokdError(Exception):
    """Base of every error a user can cause.

    Args:
        what: One sentence: what is wrong.
        where: The place: a file, node, layer, option or stage.
        got: What was found there.
        allowed: What would be accepted.
        next_step: What the user can do now, a command where there is one.
    """

    exit_code = 2
    title = "error"

    def __init__(
        self,
        what: str,
        *,
        where: object = "",
        got: object = "",
        allowed: object = "",
        next_step: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = str(where)
        self.got = str(got)
        self.allowed = str(allowed)
        self.next_step = next_step

    def fields(self) -> dict[str, str]:
        """The parts that are set, in reading order; also the ``--json`` form."""
        parts = {
            "error": self.title,
            "what": self.what,
            "where": self.where,
            "got": self.got,
            "allowed": self.allowed,
            "next": self.next_step,
        }
        return {key: value for key, value in parts.items() if value}

    def render(self) -> str:
        """The error as aligned lines of plain text."""
        return "\n".join(f"{key + ':':<9}{value}" for key, value in self.fields().items())

    def __str__(self) -> str:
        detail = "; ".join(f"{key}: {value}" for key, value in self.fields().items() if key not in ("error", "what"))
        return f"{self.what} ({detail})" if detail else self.what

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the keyword parts when an error crosses a process boundary."""
        return _rebuild, (
            type(self),
            self.what,
            self.where,
            self.got,
            self.allowed,
            self.next_step,
            self.__dict__,
        )


def _rebuild(
    kind: type[NeurokdError],
    what: str,
    where: str,
    got: str,
    allowed: str,
    next_step: str,
    state: dict[str, object],
) -> NeurokdError:
    error = kind.__new__(kind)
    NeurokdError.__init__(error, what, where=where, got=got, allowed=allowed, next_step=next_step)
    error.__dict__.update(state)
    return error


class FileError(NeurokdError):
    """A file or folder is missing, unreadable, unwritable, or the disk is full."""

    exit_code = 3
    title = "file error"


class DataError(NeurokdError):
    """A data set is missing, truncated, has a wrong checksum, or is of another format."""

    exit_code = 3
    title = "data error"


class ConfigError(NeurokdError):
    """An option or configuration value is unknown, of the wrong type, or out of range."""

    title = "configuration error"


class SpecError(ConfigError):
    """A network specification string cannot be read."""

    title = "network spec error"


class ModuleError(NeurokdError):
    """A torch module cannot be taken as it is (unsupported layer, reset rule, wiring)."""

    exit_code = 4
    title = "module error"


class TrainingError(NeurokdError):
    """Training cannot start or go on (shapes that do not fit, a loss that is not a number)."""

    exit_code = 5
    title = "training error"


class CheckpointError(NeurokdError):
    """A checkpoint is missing, damaged, or belongs to another network or configuration."""

    exit_code = 3
    title = "checkpoint error"


class ChipError(NeurokdError):
    """A chip file has an unknown or missing key, or a value that makes no sense."""

    exit_code = 3
    title = "chip file error"


class GraphError(NeurokdError):
    """A NIR file or graph cannot be read, or one of its fields cannot be honoured."""

    exit_code = 4
    title = "NIR error"


class UnsupportedNode(GraphError):
    """A NIR node of a type, or with a field value, that has no counterpart here."""

    title = "unsupported NIR node"


class ProgramError(NeurokdError):
    """A Program (or Program file) is damaged or holds values outside its integer widths."""

    exit_code = 4
    title = "program error"


class RuleError(NeurokdError):
    """One or more design rules of the chip are broken."""

    exit_code = 6
    title = "does not fit the chip"


class SpikesError(NeurokdError):
    """Input spikes of the wrong shape, type or range."""

    exit_code = 4
    title = "input spikes error"


class SimulatorError(NeurokdError):
    """The integer simulator was asked for something it does not do."""

    title = "simulator error"


class LavaMissing(NeurokdError):
    """Lava is not installed, or not importable, in the worker's interpreter."""

    exit_code = 7
    title = "Lava missing"


class WorkerError(NeurokdError):
    """The Lava worker process ended without a result."""

    exit_code = 8
    title = "Lava worker error"


class WorkerTimeout(WorkerError):
    """The Lava worker gave no result in time and was ended with its whole process group."""

    title = "Lava worker timeout"


class VerifyError(NeurokdError):
    """Two executions of the same network differ."""

    exit_code = 9
    title = "not equal"
