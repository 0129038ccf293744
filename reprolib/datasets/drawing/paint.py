"""Painting of round solids in space, for many images at a time."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np


class Rows:
    """Base class for dataclasses of arrays with one row per image, or per person."""

    def take(self, indices: np.ndarray) -> Self:
        """Return the rows at ``indices``, in that order."""
        return type(self)(**{f.name: getattr(self, f.name)[indices] for f in fields(self)})


@dataclass(frozen=True)
class Poses(Rows):
    """Pose and position of the person in each image; angles in radians, lengths in image heights."""

    yaw: np.ndarray  # 0 faces the camera, pi/2 walks to the right, pi shows the back
    pitch: np.ndarray  # downward tilt of the camera
    phase: np.ndarray  # phase of the gait, 2 pi for two steps
    swing: np.ndarray  # amplitude of the legs
    x: np.ndarray  # position of the person, from the left edge
    ground: np.ndarray  # position of the feet, from the top edge
    scale: np.ndarray  # height of the person
    light: np.ndarray  # direction of the light: -1 from the left, +1 from the right


@dataclass(frozen=True)
class Projected(Rows):
    """The capsules of each image projected to the image plane, the farthest first; (n, P, ...) in image heights."""

    start: np.ndarray
    end: np.ndarray
    radius: np.ndarray  # negative: not shown
    end_radius: np.ndarray
    color: np.ndarray
    printed: np.ndarray
    relief: np.ndarray


class Solids:
    """Capsules with a radius for each end, added one at a time for all n images together."""

    def __init__(self, num_images: int):
        """Start without capsules."""
        self.num_images = num_images
        self.rows = []

    def add(
        self, start, end, radius, color, *, end_radius=None, shown=True, printed=False, relief=1.0, nearer=0.0
    ) -> None:
        """Add one capsule to every image: ends (n, 3), radii in heights of the person, ``color`` (n, 3).

        ``shown``: whether the person has it. ``printed``: whether it shows the garment's pattern. ``relief``: how round
        its shading is. ``nearer``: by how much it is painted nearer to the camera than it is.
        """
        end_radius = radius if end_radius is None else end_radius
        scalars = np.where(shown, radius, -1.0), np.where(shown, end_radius, -1.0), printed, relief, nearer
        points = [np.broadcast_to(v, (self.num_images, 3)) for v in (start, end, color)]
        self.rows.append((*points, *(np.broadcast_to(np.asarray(v, float), self.num_images) for v in scalars)))

    def project(self, poses: Poses) -> Projected:
        """Rotate each person by its yaw, tilt the camera by its pitch, and sort the capsules by depth."""
        start, end, color, radius, end_radius, printed, relief, nearer = (
            np.stack(column, 1) for column in zip(*self.rows, strict=True)
        )
        yaw, pitch, scale = poses.yaw[:, None], poses.pitch[:, None], poses.scale[:, None]
        depth = nearer + 1e-4 * np.arange(len(self.rows))  # for ties the solid that was added later is nearer
        plane = []
        for x, y, z in (np.moveaxis(start, -1, 0), np.moveaxis(end, -1, 0)):
            across, ahead = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
            up = y * np.cos(pitch) - ahead * np.sin(pitch)
            depth = depth + (ahead * np.cos(pitch) + y * np.sin(pitch)) / 2
            plane.append(np.stack([poses.x[:, None] + scale * across, poses.ground[:, None] - scale * up], -1))
        order = np.argsort(depth, axis=1, kind="stable")
        columns = *plane, radius * scale, end_radius * scale, color, printed, relief
        return Projected(
            *(np.take_along_axis(v, order if v.ndim == 2 else order[..., None], 1).astype(np.float32) for v in columns)
        )


def _windows(solids: Projected, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners (P, 2), in pixels, of the window that contains a solid in all images; empty if not shown."""
    reach = np.maximum(solids.radius, solids.end_radius)[..., None] + 1 / height
    shown = solids.radius[..., None] > 0
    low = np.where(shown, np.minimum(solids.start, solids.end) - reach, np.inf).min(0) * height
    high = np.where(shown, np.maximum(solids.start, solids.end) + reach, -np.inf).max(0) * height
    low, high = (v.clip(0, [width, height]) for v in (np.floor(low), np.ceil(high)))
    return low.astype(int), high.astype(int)


def paint_solids(canvas: np.ndarray, solids: Projected, *, pattern: np.ndarray, accent: np.ndarray, light) -> None:
    """Paint solids into ``canvas`` (n, 3, H, W) in place, the farthest first, with soft edges one pixel wide.

    ``pattern`` (n, H, W) is the share of the ``accent`` (n, 3) color on printed solids; ``light`` (n,) is the direction
    of the light.
    """
    height, width = canvas.shape[2:]
    light, accent = light[:, None, None].astype(np.float32), accent[..., None, None].astype(np.float32)
    lows, highs = _windows(solids, height, width)
    for k in np.flatnonzero((lows < highs).all(1)):
        (left, top), (right, bottom) = lows[k], highs[k]
        start, end, color = (v[:, k, :, None, None] for v in (solids.start, solids.end, solids.color))
        radius, end_radius, printed, relief = (
            v[:, k, None, None] for v in (solids.radius, solids.end_radius, solids.printed, solids.relief)
        )
        x = (np.arange(left, right, dtype=np.float32) + 0.5) / height - start[:, 0]
        y = (np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5) / height - start[:, 1]
        dx, dy = end[:, 0] - start[:, 0], end[:, 1] - start[:, 1]
        along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        x, y = x - along * dx, y - along * dy
        radius = radius + along * (end_radius - radius)
        outward = (x * x + y * y) / (radius * radius)  # 0 on the axis, 1 on the rim
        cover = np.clip(0.5 + (1 - np.sqrt(outward)) * radius * height, 0, 1)
        cover = np.minimum(cover, np.maximum(2 * radius * height, 0))[:, None]  # thin solids are faint
        shade = 1 + relief * ((0.12 * light * x - 0.1 * y) / abs(radius) - 0.2 * np.minimum(outward, 1) ** 2)
        if printed.any():
            color = color + (printed * pattern[:, top:bottom, left:right])[:, None] * (accent - color)
        window = canvas[:, :, top:bottom, left:right]
        window += cover * (color * shade[:, None] - window)
