"""Figures: one style, one palette, one function per exhibit.

Call ``use_style()`` once before. A function saves its figure as ``results/figures/<name>.png``, where ``name`` is its
argument without a suffix, shows it, and returns None.
"""

from reprolib.figures.curves import (
    bars,
    changes,
    growth,
    long_tail,
    shares,
    stage_curves,
    stages_and_clusters,
    weight_curve,
)
from reprolib.figures.interactive import tsne_stages
from reprolib.figures.people import clusters, contact_sheet, first_frames, people, tracklets
from reprolib.figures.points import plane, sphere, tsne
from reprolib.figures.style import label_of, use_style

__all__ = [
    "bars",
    "changes",
    "clusters",
    "contact_sheet",
    "first_frames",
    "growth",
    "label_of",
    "long_tail",
    "people",
    "plane",
    "shares",
    "sphere",
    "stage_curves",
    "stages_and_clusters",
    "tracklets",
    "tsne",
    "tsne_stages",
    "use_style",
    "weight_curve",
]
