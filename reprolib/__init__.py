"""A reproduction of BUC and DBC, two papers on unsupervised person re-identification.

The public names follow the path of the data: a dataset provides images, the network turns images into features,
clustering the features gives pseudo-labels, the pseudo-labels and the lookup table train the network, and finally the
gallery is ranked for every query.
"""

from reprolib.datasets import LabelledTracklets, Split, Tracklets, load_dataset
from reprolib.evaluation import Ranking, rank_from_distances, rank_gallery
from reprolib.extraction import extract_features, load_model
from reprolib.memory import LookupTable, repelled_loss
from reprolib.merging import merge_clusters
from reprolib.pipeline import run
from reprolib.recipe import BUC, BUC_RELEASED, DBC, DBC_RELEASED, OIM, Criterion, Recipe
from reprolib.record import RunRecord, load_record

__all__ = [
    "BUC",
    "BUC_RELEASED",
    "DBC",
    "DBC_RELEASED",
    "OIM",
    "Criterion",
    "LabelledTracklets",
    "LookupTable",
    "Ranking",
    "Recipe",
    "RunRecord",
    "Split",
    "Tracklets",
    "extract_features",
    "load_dataset",
    "load_model",
    "load_record",
    "merge_clusters",
    "rank_from_distances",
    "rank_gallery",
    "repelled_loss",
    "run",
]
