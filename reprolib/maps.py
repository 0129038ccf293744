"""t-SNE maps of a run's training features (BUC Fig. 4, DBC Fig. 6)."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.manifold import TSNE

from reprolib import paths
from reprolib.datasets import Split
from reprolib.extraction import extract_features
from reprolib.files import replacing
from reprolib.record import RecordError, RunRecord


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Where the training samples lie in the feature space of the stage kept."""

    xy: np.ndarray  # (N, 2) float32, t-SNE
    nearest: np.ndarray  # (N,) int64, each sample's nearest one of another camera in the feature space itself


def feature_map(record: RunRecord, split: Split, *, source: str = "stored") -> FeatureMap:
    """The map of a run: read from ``results/maps`` ("stored"), or made from the weights that the run left ("run").

    ``split`` is the dataset that the run was trained on, its identities drawn as in the run.

    Raises:
        RecordError: no stored map, or no weights to make one from; the message gives the remedy.
    """
    if source == "stored":
        file = paths.STORED_MAPS / f"{record.name}.npz"
        if not file.exists():
            raise RecordError(f'{record.name}: no stored map; set source = "run"')
        with np.load(file) as content:
            return FeatureMap(content["xy"], content["nearest"])
    features = extract_features(record, split.train.frames, starts=split.train.starts, device="cpu")
    made = FeatureMap(_tsne(features), _nearest(features, split.train.camids))
    with replacing(paths.MAPS / f"{record.name}.npz") as partial, partial.open("wb") as file:
        np.savez_compressed(file, xy=made.xy, nearest=made.nearest)
    return made


def gathering(points: FeatureMap, split: Split, frames: np.ndarray, pseudo_labels: np.ndarray) -> dict[str, float]:
    """How far the identities of training samples gather, in the features and in the clusters of the stage kept.

    Percent of the samples whose nearest one of another camera is of the same identity, by the features, and, without
    any network, by the pixels of ``frames`` (N, H, W, 3); clusters, those of them that hold several identities, and
    the samples in these. ``pseudo_labels`` is (N,).
    """
    pixels = torch.as_tensor(frames).flatten(1).float()
    by_pixels = _nearest(torch.nn.functional.normalize(pixels - pixels.mean(0)), split.train.camids)
    shares = [100 * float((split.train_pids[n] == split.train_pids).mean()) for n in (points.nearest, by_pixels)]
    pairs = np.unique(np.stack([pseudo_labels, split.train_pids]), axis=1)
    mixed = np.bincount(pairs[0]) > 1
    return {
        "nearest of the same identity (%)": shares[0],
        "so by pixels alone (%)": shares[1],
        "clusters": len(mixed),
        "of several identities": int(mixed.sum()),
        "samples in these": int(mixed[pseudo_labels].sum()),
    }


def _tsne(features: torch.Tensor) -> np.ndarray:
    """The papers name no settings: scikit-learn's own, and a fixed seed."""
    return TSNE(init="pca", learning_rate="auto", random_state=0).fit_transform(features.numpy()).astype(np.float32)


def _nearest(features: torch.Tensor, camids: np.ndarray) -> np.ndarray:
    camera = torch.as_tensor(camids)
    if (camera == camera[0]).all():
        raise ValueError("all images are of one camera: there is none of another to be the nearest")
    return (features @ features.T).masked_fill(camera[:, None] == camera, -torch.inf).argmax(1).numpy()
