"""Evaluation of a stage's features, and selection of the stage that is kept."""

import numpy as np
from torch import Tensor

from reprolib.datasets import LabelledTracklets
from reprolib.evaluation import rank_gallery


def metrics_of(
    features: tuple[Tensor, Tensor], query: LabelledTracklets, gallery: LabelledTracklets
) -> dict[str, float | int]:
    """Compute rank-1, 5, 10, 20 and mAP by both definitions, as fractions, from query (Q, d) and gallery (G, d)."""
    ranking = rank_gallery(
        *features,
        query_pids=query.pids,
        gallery_pids=gallery.pids,
        query_camids=query.camids,
        gallery_camids=gallery.camids,
    )
    ranks = {f"rank-{k}": float(ranking.cmc[k - 1]) for k in (1, 5, 10, 20)}
    average = {"mAP": ranking.mean_ap, "mAP_step": ranking.mean_ap_step}
    return {**ranks, **average, "num_valid_queries": ranking.num_valid_queries}


def select_stage(stages: list[dict], rule: str) -> int:
    """Return the stage that a rule of ``Recipe.selection`` keeps; for ties the first one."""
    scores = {
        "test": lambda s: s["metrics"]["rank-1"],
        "last": lambda s: s["stage"],
        "validation": lambda s: s["validation"]["rank-1"],
        "silhouette": lambda s: s["validity"].get("silhouette", -1.0),  # undefined before the first merge
    }
    return int(np.argmax([scores[rule](stage) for stage in stages]))
