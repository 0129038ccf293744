"""The synthetic datasets: people drawn in front of six cameras, split by the protocols of Market-1501 and MARS.

No files are read and no real people are shown. A person walks past a camera and is filmed: each pass is an image of
"synthetic" or a tracklet of "synthetic-video". The cameras change color, view and sharpness, and most garments are worn
by several people, so that color alone does not distinguish them.
"""

from dataclasses import replace
from functools import partial

import numpy as np
from scipy.special import ndtri

from reprolib.datasets.drawing import cameras
from reprolib.datasets.drawing.body import paint_people
from reprolib.datasets.drawing.cameras import CAMERAS, STREET, STUDIO, Severity
from reprolib.datasets.drawing.paint import Poses
from reprolib.datasets.drawing.people import People, describe, draw_people
from reprolib.datasets.drawing.scenes import PLATE_MARGIN, PLATE_WIDTH
from reprolib.datasets.split import LabelledTracklets, Split, Tracklets

TAIL = 0.6  # standard deviation of the logarithm of samples per identity: a long tail as in DBC Fig. 1

PROTOCOLS = {  # identities and distractors in the test set; mean number of samples per identity in training and test
    "synthetic": (40, 60, 12.2, 15.0),
    "synthetic-video": (30, 24, 4.0, 7.0),
}


def _walk(camids: np.ndarray, num_frames: np.ndarray, *, stride, center, clutter, rng) -> tuple[Poses, np.ndarray]:
    """Draw the poses in every frame of n passes, and the distance walked since the first frame, in image heights."""
    n, total = len(camids), num_frames.sum()
    of = np.repeat(np.arange(n), num_frames)  # (total,) pass of every frame
    index = np.arange(total) - np.repeat(np.cumsum(num_frames) - num_frames, num_frames)
    facing, pitch, light = np.array([(c.facing, c.pitch, c.light) for c in CAMERAS])[camids].T
    yaw = np.radians(facing) + np.pi * (rng.random(n) < 0.3) + rng.normal(0, 0.35, n)
    swing = np.where(rng.random(n) < 0.1, 0.06, rng.uniform(0.25, 0.48, n))  # in every tenth pass hardly any motion
    x, ground, scale = (clutter * rng.normal(0, s, n) for s in (0.018, 0.012, 0.025))
    shake = clutter * rng.normal(0, 0.006, (3, total))
    poses = Poses(
        yaw=yaw[of] + rng.normal(0, 0.05, total),
        pitch=np.radians(pitch)[of],
        phase=rng.uniform(0, 2 * np.pi, n)[of] + stride * index,
        swing=swing[of],
        x=center + x[of] + shake[0],
        ground=0.955 + ground[of] + shake[1],
        scale=0.91 + scale[of] + shake[2],
        light=light[of],
    )
    # Two steps cover about four times the reach of one leg, whose length is half the person's height.
    return poses, index * stride / (2 * np.pi) * 1.84 * np.sin(poses.swing) * np.sin(yaw[of]) * poses.scale


def _backdrop(camids: np.ndarray, left: np.ndarray, image_size: tuple[int, int], severity: Severity) -> np.ndarray:
    """Return the backgrounds (n, 3, H, W) float32: scenes cropped from position ``left`` (n,), in image heights."""
    height, width = image_size
    plates = cameras.draw_scenes(height, severity)
    rows = round(height * PLATE_MARGIN) + np.arange(height)
    columns = (np.round(left * height).astype(int)[:, None] + np.arange(width)) % plates.shape[2]
    return plates[camids[:, None, None], rows[:, None], columns[:, None, :]].transpose(0, 3, 1, 2).copy()


def _add_passers_by(
    canvas: np.ndarray, people: People, poses: Poses, of: np.ndarray, *, share, near: bool, rng
) -> None:
    """Paint a passer-by near the edge in a ``share`` of the passes, before or behind the person; ``of`` (n,): pass."""
    n = of[-1] + 1
    other, passes = rng.integers(len(people.side), size=n), rng.random(n) < share
    aside, turn = rng.uniform(0.17, 0.27, n) * rng.choice([-1, 1], n), rng.uniform(0, 2 * np.pi, n)
    rows = np.flatnonzero(passes[of])
    here, of = poses.take(rows), of[rows]
    there = replace(
        here,
        yaw=turn[of],
        phase=here.phase + turn[of],
        x=here.x + aside[of],
        ground=here.ground + (0.06 if near else -0.10),
        scale=here.scale * (1.08 if near else 0.8),
    )
    painted = canvas[rows]
    paint_people(painted, people.take(other[of]), there)
    canvas[rows] = painted


def film(
    people: People,
    person: np.ndarray,
    camids: np.ndarray,
    num_frames: np.ndarray,
    *,
    stride,
    image_size,
    rng,
    severity=STREET,
):
    """Film n passes of ``person`` (n,) in front of cameras ``camids`` (n,): (sum(num_frames), H, W, 3) uint8.

    ``stride`` is the phase of the gait from one frame to the next, in radians.
    """
    height, width = image_size
    of = np.repeat(np.arange(len(person)), num_frames)
    clutter = severity.clutter
    poses, travel = _walk(camids, num_frames, stride=stride, center=width / height / 2, clutter=clutter, rng=rng)
    canvas = _backdrop(camids[of], rng.uniform(0, PLATE_WIDTH, len(person))[of] + travel, image_size, severity)
    _add_passers_by(canvas, people, poses, of, share=0.15 * clutter, near=False, rng=rng)
    paint_people(canvas, people.take(person[of]), poses)
    _add_passers_by(canvas, people, poses, of, share=0.06 * clutter, near=True, rng=rng)
    hidden = rng.random(len(person)) < clutter * np.array([c.hidden for c in CAMERAS])[camids]
    foot = np.stack([rng.normal(width / height / 2, 0.14, len(person)), rng.uniform(0.98, 1.06, len(person))], axis=1)
    rows = np.flatnonzero(hidden[of])
    obstructed = canvas[rows]
    cameras.obstruct(obstructed, camids[of][rows], foot[of][rows] - np.stack([travel, 0 * travel], axis=1)[rows])
    canvas[rows] = obstructed
    return cameras.expose(canvas, camids[of], rng.normal(0, 0.08, len(person))[of], severity=severity, rng=rng)


def _sightings(count: int, *, mean: float, least: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draw which camera sees which person how often: person and camid (m,), sorted, one row per sample.

    Each of ``count`` people is seen by two to four cameras, at least ``least`` times by each, and about ``mean`` times
    in total with a long tail.
    """
    tail = np.exp(TAIL * ndtri((np.arange(count) + 0.5) / count))
    samples = np.maximum(np.round(rng.permutation(mean * tail / tail.mean())).astype(int), 2 * least)
    person, camids = [], []
    for k, m in enumerate(samples):
        seen_by = np.sort(rng.choice(len(CAMERAS), min(rng.integers(2, 5), m // least), replace=False))
        often = least + rng.multinomial(m - least * len(seen_by), np.full(len(seen_by), 1 / len(seen_by)))
        camids.append(np.repeat(seen_by, often))
        person.append(np.full(m, k))
    return np.concatenate(person), np.concatenate(camids)


def _record(people: People, person: np.ndarray, camids: np.ndarray, *, is_video, image_size, severity, rng):
    """Film samples (m,) sorted by person and camera; return their frames and the start of each sample (m + 1,)."""
    if is_video:  # a sample is a pass
        num_frames = rng.integers(6, 13, len(person))
        frames = film(people, person, camids, num_frames, stride=0.5, image_size=image_size, severity=severity, rng=rng)
        return frames, np.concatenate([[0], np.cumsum(num_frames)])
    once = np.ones(len(person), int)
    frames = film(people, person, camids, once, stride=0.0, image_size=image_size, severity=severity, rng=rng)
    return frames, np.arange(len(person) + 1)


def load_synthetic(
    name: str = "synthetic",
    *,
    seed: int = 0,
    num_identities: int = 45,
    num_test_identities: int | None = None,
    num_distractors: int | None = None,
    image_size: tuple[int, int] = (64, 32),
    severity: Severity = STREET,
) -> Split:
    """Make "synthetic", images by the protocol of Market-1501, or "synthetic-video", tracklets by that of MARS.

    The same arguments give the same bytes. Training has ``num_identities`` people with about 12 images, or 4 tracklets,
    each. The test set has ``num_test_identities`` other people (None: 40, or 30 for video) with one query per identity
    and camera and about 12 gallery images, or 4 tracklets, each, and ``num_distractors`` (None: 60, or 24) gallery
    samples with pid 0, of people who are in no query. ``image_size`` is (height, width), ``severity`` is how difficult
    the images are. A tracklet has 6 to 12 frames, with six frames per step of the gait.
    """
    num_test, num_strangers, mean, test_mean = PROTOCOLS[name]
    num_test_identities = num_test if num_test_identities is None else num_test_identities
    num_distractors = num_strangers if num_distractors is None else num_distractors
    # Separate generators, so that another image size changes only pixels.
    for_people, for_train, for_test = np.random.default_rng(seed).spawn(3)
    num_known = num_identities + num_test_identities
    people = draw_people(num_known + -(-num_distractors // 3), for_people)
    record = partial(_record, people, is_video=name == "synthetic-video", image_size=image_size, severity=severity)

    person, camids = _sightings(num_identities, mean=mean, least=1, rng=for_train)
    train, train_pids = Tracklets(*record(person, camids, rng=for_train), camids), person + 1

    person, camids = _sightings(num_test_identities, mean=test_mean, least=2, rng=for_test)
    strangers = np.arange(num_distractors) // 3  # each seen three times by one camera
    person = np.concatenate([person + num_identities, strangers + num_known])
    camids = np.concatenate([camids, for_test.integers(len(CAMERAS), size=num_distractors)[strangers]])
    pids = np.where(person < num_known, person + 1, 0)
    test = LabelledTracklets(*record(person, camids, rng=for_test), camids, pids)
    _, first = np.unique(person * len(CAMERAS) + camids, return_index=True)
    query = first[pids[first] > 0]  # one per identity and camera
    return Split(name, train, test.take(query), test.take(np.setdiff1d(np.arange(len(pids)), query)), train_pids)


def load_catalogue(count: int = 600, *, image_size: tuple[int, int] = (64, 32)) -> tuple[np.ndarray, np.ndarray]:
    """Make studio pictures of ``count`` other people, (count, H, W, 3) uint8, and what they wear, (count, k) float32.

    They replace ImageNet for pretraining: different pictures with labels, of people who are not in the datasets.
    """
    rng = np.random.default_rng(2019)
    people = draw_people(count, rng)
    person, camids = np.arange(count), rng.integers(len(CAMERAS), size=count)
    once = np.ones(count, int)
    pictures = film(people, person, camids, once, stride=1.0, image_size=image_size, rng=rng, severity=STUDIO)
    return pictures, describe(people)
