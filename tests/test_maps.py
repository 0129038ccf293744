"""How far identities gather."""

import numpy as np

from reprolib import maps
from reprolib.datasets import Split, Tracklets


def test_identities_gather_by_features_by_pixels_and_in_clusters():
    dark_above = np.zeros((4, 2, 3), np.uint8)
    dark_above[2:] = 200
    dark_left = np.zeros((4, 2, 3), np.uint8)
    dark_left[:, 1] = 200
    frames = np.stack([dark_above, dark_above // 2, dark_left, dark_left + 20, dark_above + 20])
    train = Tracklets(frames=frames, starts=np.arange(6), camids=np.array([0, 0, 0, 1, 1]))
    split = Split("five", train, train_pids=np.array([0, 1, 2, 2, 0]))
    points = maps.FeatureMap(xy=np.zeros((5, 2)), nearest=np.array([4, 3, 3, 2, 2]))
    found = maps.gathering(points, split, frames, np.array([0, 1, 1, 1, 2]))
    assert list(found.values()) == [60, 80, 3, 1, 3]  # by pixels 4, 4, 3, 2, 0 are the nearest
