"""The six cameras of the synthetic datasets: their scene, position, light and lens."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from reprolib.datasets.drawing import scenes


@dataclass(frozen=True)
class Severity:
    """How difficult the images are; with all three at 0 people are complete and sharp, in one light, before a wall."""

    color: float  # color changes by a camera: gain, cast, gamma, saturation; 1 means the values in CAMERAS
    scenery: float  # contrast of the background; 1 means the scenes as drawn
    clutter: float  # things that hide a person: blur, noise, obstacles, passers-by, imperfect boxes


STREET = Severity(color=0.4, scenery=0.15, clutter=1.0)
STUDIO = Severity(color=0.0, scenery=0.0, clutter=0.0)
STONE = (0.56, 0.55, 0.52)  # mean color of every scene, so that the background's color alone does not identify a camera


def _disc(x, y, radius, pixel):
    """Return a soft-edged disc around the origin, as a mask in [0, 1]."""
    return np.clip(0.5 + (radius - np.hypot(x, y)) / pixel, 0, 1)


def bush(x, y, pixel):
    """Draw a bush 0.3 high: yield masks and colors; the coordinates are relative to its foot, in image heights."""
    leaves = [(-0.12, 0.07, 0.10), (0.10, 0.06, 0.11), (0.0, 0.14, 0.11), (0.19, 0.02, 0.09), (-0.2, 0.01, 0.08)]
    for k, (left, up, radius) in enumerate(leaves):
        tone = 0.8 + 0.12 * k
        yield _disc(x - left, y + up, radius, pixel), tone * np.array([0.14, 0.26, 0.10])
        yield _disc(x - left + 0.02, y + up + 0.03, 0.6 * radius, pixel), tone * np.array([0.20, 0.35, 0.14])


def post(x, y, pixel):
    """Draw a lamp post as high as the image."""
    yield np.clip(0.5 + (0.028 - abs(x)) / pixel, 0, 1) * np.ones_like(y), [0.20, 0.22, 0.23]
    yield np.clip(0.5 + (0.008 - abs(x + 0.01)) / pixel, 0, 1) * np.ones_like(y), [0.36, 0.39, 0.40]
    yield np.clip(0.5 + (0.045 - abs(x)) / pixel, 0, 1) * (y > -0.1), [0.17, 0.18, 0.19]


def bicycle(x, y, pixel):
    """Draw a parked bicycle."""
    for hub in (-0.15, 0.15):
        rim = abs(np.hypot(x - hub, y + 0.1) - 0.09)
        yield np.clip(0.5 + (0.011 - rim) / pixel, 0, 1), [0.08, 0.08, 0.09]
    for start, end in (
        ((-0.15, -0.1), (-0.06, -0.24)),
        ((-0.06, -0.24), (0.1, -0.24)),
        ((-0.06, -0.26), (0.0, -0.1)),
        ((0.0, -0.1), (0.1, -0.24)),
        ((-0.15, -0.1), (0.0, -0.1)),
        ((0.15, -0.1), (0.09, -0.29)),
        ((0.05, -0.3), (0.1, -0.29)),
        ((-0.1, -0.27), (-0.03, -0.27)),
    ):
        (x0, y0), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        yield _disc(x - x0 - along * dx, y - y0 - along * dy, 0.009, pixel), [0.70, 0.16, 0.12]


@dataclass(frozen=True)
class Camera:
    """Properties of one camera."""

    scene: Callable[[scenes.Plate], None]
    gain: tuple[float, float, float]  # light and its color: red, green, blue
    gamma: float
    saturation: float
    light: float  # direction of the light: -1 from the left, +1 from the right
    pitch: float  # downward tilt, degrees
    facing: float  # walking direction of most people, degrees: 0 towards the camera, 90 to the right, 180 away
    blur: float  # in image heights
    noise: float
    obstacle: Callable  # object that may stand in front of the person
    hidden: float  # share of passes with the obstacle


CAMERAS = (
    Camera(scenes.plaza, (1.05, 1.02, 0.97), 0.95, 1.00, -0.8, 8, 10, 0.003, 0.010, bicycle, 0.12),
    Camera(scenes.park, (0.92, 1.00, 0.86), 1.10, 0.95, 0.9, 5, 75, 0.004, 0.012, bush, 0.25),
    Camera(scenes.brick, (0.90, 0.78, 0.66), 1.15, 0.90, -0.3, 10, -60, 0.004, 0.014, bicycle, 0.15),
    Camera(scenes.shops, (1.12, 0.98, 0.80), 0.90, 1.05, 0.4, 4, 175, 0.003, 0.010, post, 0.15),
    Camera(scenes.road, (0.70, 0.80, 0.95), 1.05, 0.80, 0.7, 20, 140, 0.006, 0.016, post, 0.20),
    Camera(scenes.corridor, (0.82, 0.98, 0.92), 0.85, 0.85, 0.0, 14, -20, 0.005, 0.012, bush, 0.05),
)


def draw_scenes(height: int, severity: Severity) -> np.ndarray:
    """Draw the scene of each camera, (cameras, rows, columns, 3) float32 in [0, 1]; the same for every seed."""
    plates = []
    for camid, camera in enumerate(CAMERAS):
        plate = scenes.Plate(height, np.random.default_rng(camid))
        camera.scene(plate)
        plates.append(STONE + severity.scenery * (plate.rgb - plate.rgb.mean((0, 1))))
    return np.stack(plates).astype(np.float32)


def obstruct(canvas: np.ndarray, camids: np.ndarray, foot: np.ndarray) -> None:
    """Paint each camera's obstacle over ``canvas`` (n, 3, H, W); its foot (n, 2) is in image heights."""
    height, width = canvas.shape[2:]
    for camid, camera in enumerate(CAMERAS):
        rows = np.flatnonzero(camids == camid)
        x = (np.arange(width) + 0.5) / height - foot[rows, 0, None, None]
        y = (np.arange(height)[:, None] + 0.5) / height - foot[rows, 1, None, None]
        for mask, color in camera.obstacle(x, y, 1 / height):
            canvas[rows] += mask[:, None] * (np.reshape(color, (3, 1, 1)) - canvas[rows])


def expose(canvas: np.ndarray, camids: np.ndarray, exposure: np.ndarray, *, severity: Severity, rng) -> np.ndarray:
    """Record ``canvas`` (n, 3, H, W) with the cameras: (n, H, W, 3) uint8; ``exposure`` (n,) is in log units."""
    images = np.empty((len(canvas), *canvas.shape[2:], 3), np.uint8)
    for camid, camera in enumerate(CAMERAS):
        rows = np.flatnonzero(camids == camid)
        blur = severity.clutter * camera.blur * canvas.shape[2]
        light = gaussian_filter(canvas[rows], (0, 0, blur, blur))
        gray = light.mean(1, keepdims=True)
        light = gray + camera.saturation**severity.color * (light - gray)
        gain = np.array(camera.gain, np.float32)[:, None, None] ** severity.color
        gain = gain * np.exp(severity.color * exposure[rows, None, None, None])
        light = (gain * light).clip(0, 1) ** camera.gamma**severity.color
        light += severity.clutter * camera.noise * rng.standard_normal(light.shape, np.float32)
        images[rows] = (255 * light.clip(0, 1) + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)
    return images
