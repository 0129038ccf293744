"""The synthetic datasets keep the protocols of Market-1501 and MARS, and are not solved by color."""

import dataclasses

import numpy as np
import pytest
import torch

from reprolib.datasets.drawing.cameras import Severity
from reprolib.datasets.synthetic import load_synthetic
from reprolib.evaluation import rank_gallery


@pytest.fixture(scope="module")
def images():
    return load_synthetic()


@pytest.fixture(scope="module")
def video():
    return load_synthetic("synthetic-video", num_identities=12, num_test_identities=8, num_distractors=6)


@pytest.fixture(scope="module", params=["images", "video"])
def split(request):
    return request.getfixturevalue(request.param)


def small(seed=0, image_size=(64, 32)):
    return load_synthetic(seed=seed, num_identities=4, num_test_identities=3, num_distractors=3, image_size=image_size)


def parts(split):
    return split.train, split.query, split.gallery


def test_same_arguments_give_the_same_bytes():
    for one, other in zip(parts(small()), parts(small()), strict=True):
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_another_seed_gives_other_people():
    one, other = small().train.frames, small(seed=1).train.frames
    n = min(len(one), len(other))
    assert (one[:n] != other[:n]).mean() > 0.9


def test_image_size_changes_pixels_and_nothing_else():
    coarse, fine = small(), small(image_size=(128, 64))
    for one, other in zip(parts(coarse), parts(fine), strict=True):
        np.testing.assert_array_equal(one.camids, other.camids)
        halved = other.frames.reshape(len(other.frames), 64, 2, 32, 2, 3).mean((2, 4))
        assert abs(halved - one.frames).mean() < 8  # gray levels of 255: the same picture, but for noise and edges
    np.testing.assert_array_equal(coarse.train_pids, fine.train_pids)
    np.testing.assert_array_equal(coarse.gallery.pids, fine.gallery.pids)


def test_default_image_set_has_the_size_it_promises(images):
    assert images.name == "synthetic"
    assert not images.is_video
    assert images.train.frames.shape[1:] == (64, 32, 3)
    assert images.train.frames.dtype == np.uint8
    assert 500 <= len(images.train) <= 600
    assert 100 <= len(images.query) <= 125
    assert 450 <= len(images.gallery) <= 600
    assert len(np.unique(images.train_pids)) == 45
    assert (images.gallery.pids == 0).sum() == 60


def test_train_and_test_share_nobody(split):
    assert not np.intersect1d(split.train_pids, np.union1d(split.query.pids, split.gallery.pids)).size


def test_distractors_are_in_the_gallery_only(split):
    assert (split.gallery.pids == 0).any()
    assert (split.query.pids > 0).all()
    assert (split.train_pids > 0).all()


def test_one_query_an_identity_and_camera_and_a_match_in_another(split):
    pairs = list(zip(split.query.pids, split.query.camids, strict=True))
    assert len(set(pairs)) == len(pairs)
    for pid, camid in pairs:
        assert ((split.gallery.pids == pid) & (split.gallery.camids != camid)).any()


def test_every_training_identity_is_seen_by_several_cameras(split):
    for pid in np.unique(split.train_pids):
        assert len(np.unique(split.train.camids[split.train_pids == pid])) >= 2


def test_all_six_cameras_see_people_in_training_and_test(images):
    for part in parts(images):
        np.testing.assert_array_equal(np.unique(part.camids), np.arange(6))


def test_training_identities_are_adjacent_as_on_disk(split):
    assert (np.diff(split.train_pids) >= 0).all()


def test_images_an_identity_are_long_tailed(images):
    sizes = np.bincount(images.train_pids)[1:]
    assert sizes.max() >= 3 * np.median(sizes) >= 6 * sizes.min()
    assert sizes.mean() > np.median(sizes)


def test_tracklets_have_six_to_twelve_frames(video):
    assert video.name == "synthetic-video"
    assert video.is_video
    for part in parts(video):
        assert set(np.diff(part.starts)) <= set(range(6, 13))
        assert part.starts[-1] == len(part.frames)


def test_frames_of_a_tracklet_change_but_less_than_people_differ(video):
    frames, starts = video.train.frames.astype(float), video.train.starts
    step = np.array([abs(frames[a + 1] - frames[a]).mean() for a in starts[:-1]])
    middle = frames[starts[:-1]]
    same_camera = video.train.camids[:, None] == video.train.camids
    apart = same_camera & (video.train_pids[:, None] != video.train_pids)
    between = np.array([abs(middle[i] - middle[j]).mean() for i, j in np.argwhere(apart)])
    assert (step > 1).all()  # gray levels of 255
    assert np.median(step) < 0.7 * np.median(between)


def color_histograms(frames, bins=6):
    """Joint color histogram of the middle columns, square-rooted and of unit length, (n, bins**3)."""
    person = frames[:, :, 6:26].astype(int) * bins // 256
    joint = (person @ [bins * bins, bins, 1]).reshape(len(frames), -1)
    counts = np.stack([np.bincount(row, minlength=bins**3) for row in joint])
    return torch.from_numpy(np.sqrt(counts / joint.shape[1])).float()


def color_rank1(split):
    ranking = rank_gallery(
        color_histograms(split.query.frames),
        color_histograms(split.gallery.frames),
        query_pids=split.query.pids,
        gallery_pids=split.gallery.pids,
        query_camids=split.query.camids,
        gallery_camids=split.gallery.camids,
    )
    return ranking.cmc[0]


def test_color_alone_does_not_find_people_again(images):
    assert color_rank1(images) < 0.35


def test_color_would_do_were_all_cameras_alike():
    assert color_rank1(load_synthetic(num_identities=1, severity=Severity(color=0.0, scenery=0.0, clutter=1.0))) > 0.6
