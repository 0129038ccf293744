"""The synthetic datasets' stand-in for ImageNet: who is in it, and that it is made once."""

import numpy as np
import torch

from reprolib import paths, pretraining
from reprolib.datasets.synthetic import load_catalogue
from reprolib.model import load_backbone


def test_the_catalogue_shows_people_before_a_plain_wall_and_says_what_they_wear():
    pictures, answers = load_catalogue(40)
    assert pictures.shape == (40, 64, 32, 3)
    assert len(answers) == 40
    np.testing.assert_allclose(answers.mean(0), 0, atol=1e-5)
    corners = pictures[:, 0, [0, -1]].reshape(-1, 3)
    assert (corners.max(0) - corners.min(0)).max() <= 2


def test_weights_are_made_once_and_load_into_the_backbone(results_folder, monkeypatch):
    monkeypatch.setattr(pretraining, "load_catalogue", lambda image_size: load_catalogue(64, image_size=(32, 16)))
    monkeypatch.setattr(pretraining, "EPOCHS", 1)
    file = pretraining.catalogue_weights("resnet18", image_size=(32, 16))
    assert file.parent == paths.CACHE
    trained = load_backbone("resnet18", str(file)).stem[0].weight
    torch.manual_seed(0)
    assert not torch.equal(trained, load_backbone("resnet18", "none").stem[0].weight)
    monkeypatch.setattr(pretraining, "pretrain", None)  # not called again
    assert pretraining.catalogue_weights("resnet18", image_size=(32, 16)) == file
