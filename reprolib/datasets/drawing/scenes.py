"""The six scenes of the synthetic datasets, drawn wide enough for people to walk along."""

import numpy as np
from scipy.ndimage import gaussian_filter

PLATE_WIDTH = 5.0  # width of a scene, in image heights
PLATE_MARGIN = 0.1  # margin of a scene above and below the image


class Plate:
    """A scene being drawn: boxes, waves and noise over a grid in image heights, 0 at the image's top."""

    def __init__(self, height: int, rng: np.random.Generator):
        """Start with a gray plate for images ``height`` pixels high."""
        self.rng, self.height = rng, height
        rows, columns = round(height * (1 + 2 * PLATE_MARGIN)), round(height * PLATE_WIDTH)
        self.x = ((np.arange(columns) + 0.5) / height)[None]
        self.y = ((np.arange(rows) + 0.5) / height - PLATE_MARGIN)[:, None]
        self.rgb = np.full((rows, columns, 3), 0.5)

    def fill(self, mask, color) -> None:
        """Paint ``color`` through ``mask``, which is in [0, 1] and broadcast to the plate."""
        mask = np.broadcast_to(mask, self.rgb.shape[:2])[..., None]
        self.rgb += mask * (np.asarray(color) - self.rgb)

    def box(self, left, right, top, bottom):
        """Return a soft-edged rectangle as a mask."""
        inside = [(self.x - left), (right - self.x), (self.y - top), (bottom - self.y)]
        return np.prod(np.broadcast_arrays(*[np.clip(0.5 + d * self.height, 0, 1) for d in inside]), axis=0)

    def lines(self, t, period, width):
        """Return soft lines ``width`` wide at every multiple of ``period`` of the coordinate ``t``, as a mask."""
        return np.clip(0.5 + (width / 2 - abs((t + period / 2) % period - period / 2)) * self.height, 0, 1)

    def noise(self, size, amount) -> None:
        """Add brightness noise with grains of ``size`` image heights."""
        grain = gaussian_filter(self.rng.normal(size=self.rgb.shape[:2]), np.asarray(size) * self.height, mode="wrap")
        self.rgb += amount * (grain / grain.std())[..., None]


def plaza(p: Plate) -> None:
    """Draw pale slabs in front of the windows of an office block."""
    p.fill(1, [0.62, 0.60, 0.56])
    p.fill(p.lines(p.x, 0.26, 0.16) * p.lines(p.y - 0.02, 0.24, 0.15) * (p.y < 0.42), [0.36, 0.43, 0.50])
    floor = p.y > 0.5
    p.fill(floor, [0.70, 0.68, 0.63])
    p.fill(floor * np.maximum(p.lines(p.x + 0.6 * p.y, 0.32, 0.014), p.lines(p.y, 0.14, 0.012)), [0.54, 0.52, 0.49])
    p.noise(0.01, 0.012)


def park(p: Plate) -> None:
    """Draw a path through grass, with trunks and a hedge."""
    p.fill(1, [0.60, 0.70, 0.78])
    edge = 0.16 + 0.05 * np.sin(5 * p.x) + 0.04 * np.sin(13 * p.x + 1)
    p.fill(np.clip((p.y - edge) * 12, 0, 1), [0.16, 0.27, 0.13])
    p.fill(np.clip((p.y - 0.46) * 20, 0, 1), [0.36, 0.48, 0.20])
    for x in p.rng.uniform(0, PLATE_WIDTH, 9):
        p.fill(p.box(x, x + p.rng.uniform(0.03, 0.08), -1, 0.52), [0.27, 0.20, 0.14])
    p.noise(0.012, 0.035)
    p.fill(np.clip((p.y - 0.80 - 0.02 * np.sin(4 * p.x)) * 30, 0, 1), [0.66, 0.60, 0.48])
    p.noise((0.006, 0.02), 0.02)


def brick(p: Plate) -> None:
    """Draw a brick wall and a narrow pavement."""
    p.fill(1, [0.56, 0.31, 0.24])
    row = np.floor(p.y / 0.05)
    p.rgb += 0.05 * np.sin(37 * row + 23 * np.floor(p.x / 0.11 + row / 2))[..., None]
    p.fill(np.maximum(p.lines(p.y, 0.05, 0.009), p.lines(p.x + 0.055 * row, 0.11, 0.009)), [0.66, 0.58, 0.51])
    for x in np.arange(0.7, PLATE_WIDTH, 1.6):
        p.fill(p.box(x, x + 0.3, 0.2, 0.9), [0.17, 0.26, 0.24])
        p.fill(p.box(x + 0.04, x + 0.26, 0.25, 0.5), [0.26, 0.36, 0.34])
    p.fill(p.y > 0.84, [0.50, 0.49, 0.48])
    p.fill(p.box(-1, 9, 0.84, 0.86), [0.30, 0.28, 0.27])
    p.fill((p.y > 0.86) * p.lines(p.x - 0.4 * p.y, 0.4, 0.015), [0.40, 0.39, 0.38])
    p.noise(0.008, 0.018)


def shops(p: Plate) -> None:
    """Draw lit windows under an awning, with goods behind the glass."""
    p.fill(1, [0.80, 0.76, 0.68])
    for x in np.arange(0.1, PLATE_WIDTH, 0.85):
        p.fill(p.box(x, x + 0.7, 0.16, 0.68), [0.93, 0.86, 0.66])
        for left in p.rng.uniform(x + 0.02, x + 0.58, 7):
            top = p.rng.uniform(0.28, 0.56)
            p.fill(p.box(left, left + p.rng.uniform(0.05, 0.12), top, 0.66), p.rng.uniform(0.2, 0.9, 3))
        p.fill(p.box(x + 0.33, x + 0.36, 0.16, 0.68), [0.35, 0.30, 0.26])
    p.fill(p.box(-1, 9, 0.04, 0.15), [0.90, 0.88, 0.84])
    p.fill(p.box(-1, 9, 0.04, 0.15) * p.lines(p.x, 0.16, 0.08), [0.20, 0.46, 0.42])
    p.fill(p.y > 0.74, [0.64, 0.53, 0.45])
    p.fill((p.y > 0.76) * np.maximum(p.lines(p.y, 0.08, 0.01), p.lines(p.x, 0.16, 0.01)), [0.50, 0.41, 0.35])
    p.noise(0.01, 0.012)


def road(p: Plate) -> None:
    """Draw parked cars and a zebra crossing, seen from above."""
    p.fill(1, [0.34, 0.35, 0.37])
    p.fill(p.y < 0.08, [0.55, 0.55, 0.53])
    for x in np.arange(0.2, PLATE_WIDTH, 1.15) + p.rng.uniform(-0.1, 0.1):
        paint = p.rng.choice([[0.75, 0.76, 0.78], [0.55, 0.12, 0.12], [0.15, 0.22, 0.40], [0.12, 0.12, 0.13]])
        p.fill(p.box(x, x + 0.85, 0.16, 0.36), paint)
        p.fill(p.box(x + 0.17, x + 0.66, 0.04, 0.18), paint)
        p.fill(p.box(x + 0.21, x + 0.40, 0.06, 0.16) + p.box(x + 0.43, x + 0.62, 0.06, 0.16), [0.24, 0.29, 0.33])
        for wheel in (x + 0.17, x + 0.67):
            p.fill(np.clip(0.5 + (0.07 - np.hypot(p.x - wheel, p.y - 0.36)) * p.height, 0, 1), [0.07, 0.07, 0.08])
    p.fill(p.box(-1, 9, 0.46, 0.48), [0.72, 0.70, 0.62])
    p.fill((p.y > 0.70) * p.lines(p.x + 0.5 * p.y, 0.36, 0.17) * (p.x % 2.5 < 1.5), [0.80, 0.80, 0.77])
    p.noise(0.007, 0.025)


def corridor(p: Plate) -> None:
    """Draw an indoor wall with doors and a notice board over a shiny floor."""
    p.fill(1, [0.78, 0.79, 0.74])
    p.fill(p.y < -0.02, [0.95, 0.95, 0.92])
    for x in np.arange(0.25, PLATE_WIDTH, 1.25):
        p.fill(p.box(x, x + 0.42, 0.12, 0.78), [0.48, 0.33, 0.20])
        p.fill(p.box(x + 0.03, x + 0.39, 0.15, 0.78), [0.60, 0.43, 0.27])
        p.fill(p.box(x + 0.33, x + 0.36, 0.46, 0.50), [0.85, 0.82, 0.70])
        p.fill(p.box(x + 0.62, x + 1.02, 0.22, 0.44), p.rng.uniform(0.25, 0.75, 3))
    p.fill(p.box(-1, 9, 0.74, 0.78) * (p.rgb.mean(2) > 0.7), [0.40, 0.42, 0.44])
    p.fill(p.y > 0.78, [0.56, 0.60, 0.60])
    p.fill((p.y > 0.78) * np.exp(-(((p.x % 1.25 - 0.9) / 0.12) ** 2)) * 0.6, [0.86, 0.90, 0.90])
    p.noise(0.02, 0.008)
