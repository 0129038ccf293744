"""t-SNE maps of the training features of a run (BUC Fig. 4, DBC Fig. 6)."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.manifold import TSNE

from reprolib import paths
from reprolib.datasets import Split
from reprolib.extraction import extract_features
from reprolib.files import replacing
from reprolib.quality import nearest_elsewhere
from reprolib.record import RecordError, RunRecord, require_source


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Positions of the training samples in the feature space of the kept stage."""

    xy: np.ndarray  # (N, 2) float32, t-SNE
    nearest: np.ndarray  # (N,) int64, each sample's nearest neighbor from another camera, in the original feature space


def feature_map(record: RunRecord, split: Split, *, source: str = "stored") -> FeatureMap:
    """Return the map of a run: read from ``results/maps`` ("stored"), or made from the weights of the run ("run").

    ``split`` is the dataset that the run was trained on, with the same identities drawn.

    Raises:
        ValueError: an unknown source.
        RecordError: no stored map, or no weights to make one; the message gives the remedy.
    """
    require_source(source)
    if source == "stored":
        file = paths.STORED_MAPS / f"{record.name}.npz"
        if not file.exists():
            raise RecordError(f'{record.name}: no stored map; set source = "run"')
        with np.load(file) as content:
            return FeatureMap(content["xy"], content["nearest"])
    features = extract_features(record, split.train.frames, starts=split.train.starts, device="cpu")
    made = FeatureMap(_tsne(features), nearest_elsewhere(features, split.train.camids))
    with replacing(paths.MAPS / f"{record.name}.npz") as partial, partial.open("wb") as file:
        np.savez_compressed(file, xy=made.xy, nearest=made.nearest)
    return made


def _tsne(features: torch.Tensor) -> np.ndarray:
    """Compute t-SNE with scikit-learn's defaults and a fixed seed, because the papers give no settings."""
    return TSNE(init="pca", learning_rate="auto", random_state=0).fit_transform(features.numpy()).astype(np.float32)
