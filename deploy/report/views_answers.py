"""What the test set's answers show: confusion matrix, time to an answer, samples to explore."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import Markup

from deploy.profile_types import amount
from deploy.report.charts import Points, scatter
from deploy.report.views import Data, percent


def confusion(explored: Data) -> dict[str, Any] | None:
    """Answers by right class, with accuracy and precision of each."""
    table = explored.get("confusion")
    if not table:
        return None
    columns = [sum(row[k] for row in table) for k in range(len(table))]
    rows = []
    for k, row in enumerate(table):
        total = sum(row)
        cells = [
            {"count": n, "share": 0.0 if not total else 100.0 * n / total, "right": j == k} for j, n in enumerate(row)
        ]
        rows.append({"name": k, "cells": cells, "recall": percent(100.0 * row[k] / total if total else None)})
    precision = [percent(100.0 * table[k][k] / n if n else None) for k, n in enumerate(columns)]
    return {"rows": rows, "precision": precision, "classes": range(len(table))}


def exit_rows(explored: Data) -> list[dict[str, Any]]:
    """Rules for stopping, with what each costs."""
    exits = (explored.get("exits") or {}).get("exits", [])
    return [
        {
            "rule": "all steps" if rule["margin"] is None else f"leader ahead by {rule['margin']}",
            "steps": f"{rule['steps']:.2f}",
            "accuracy": percent(rule["accuracy"]),
            "energy": amount(rule["energy"], "J"),
            "stopped": f"{100 * rule['stopped']:.0f} %",
        }
        for rule in exits
    ]


def answer_chart(explored: Data) -> Any:
    """Accuracy if every sample stopped after each step."""
    exits = explored.get("exits") or {}
    points = tuple((k, a, f"step {k}: {a:.2f} %") for k, a in enumerate(exits.get("accuracy", ()), start=1))
    return Markup(scatter([Points("accuracy", points, line=True)], "steps run", "accuracy (%)"))


def embedded(samples: Data | None) -> Any:
    """Samples as JSON that cannot end its script element."""
    return Markup(json.dumps(samples, separators=(",", ":")).replace("<", "\\u003c")) if samples else ""
