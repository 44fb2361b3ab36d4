"""The report: PNG plots, and one self-contained HTML page of a run folder."""

from deploy.report.chip_picture import chip_picture
from deploy.report.plots import accuracy_by_stage, activity_by_layer, energy_by_event, spike_raster
from deploy.report.render import compare, export, page, render

__all__ = [
    "accuracy_by_stage",
    "activity_by_layer",
    "chip_picture",
    "compare",
    "energy_by_event",
    "export",
    "page",
    "render",
    "spike_raster",
]
