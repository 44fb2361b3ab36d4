"""One line of a report about a graph: what was found, where, and the way out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """Something worth saying about a graph, anchored at a node.

    Attributes:
        severity: ``error`` (cannot be taken), ``warning`` (may not mean what was trained) or ``note``.
        node: Name of the node; empty for the whole file.
        what: One sentence.
        got: What was found there.
        allowed: What would be accepted.
        next_step: What the user can do now.
    """

    severity: Severity
    node: str
    what: str
    got: str = ""
    allowed: str = ""
    next_step: str = ""

    def as_dict(self) -> dict[str, str]:
        """The parts that are set, in reading order; the ``--json`` form."""
        return {key: value for key, value in asdict(self).items() if value}

    def __str__(self) -> str:
        place = f"{self.node}: " if self.node else ""
        detail = "; ".join(
            f"{label}: {value}"
            for label, value in (("got", self.got), ("allowed", self.allowed), ("next", self.next_step))
            if value
        )
        return f"{self.severity}: {place}{self.what}" + (f" ({detail})" if detail else "")
