"""The epochs of a stage: their batches, which are drawn in advance, and their learning rates."""

import numpy as np
import torch

from reprolib.colors import draw_colors
from reprolib.images import Images, random_boxes, sample_frames, whole_boxes
from reprolib.recipe import Recipe


def epoch_batches(
    images: Images,
    starts: np.ndarray,
    *,
    recipe: Recipe,
    generator: torch.Generator,
    device: torch.device = torch.device("cpu"),  # noqa: B008
) -> list[tuple]:
    """Draw one epoch in advance: the batches' tracklets (B,), frames (B, T), boxes (B * T, 4), flips (B * T,), colors.

    Colors are (B * T, 5) if the augmentation changes them, else (B * T, 0). The last, incomplete batch is dropped.
    Everything is drawn on the host and moved to ``device`` at once; the indices of frames are moved to the device of
    the frames.
    """
    count = len(starts) - 1
    frames = sample_frames(starts, recipe.frames_per_tracklet, generator=generator)
    order = torch.randperm(count, generator=generator)[: count // recipe.batch_size * recipe.batch_size]
    flat = frames[order].flatten()
    boxes, flip = whole_boxes(images, flat), torch.zeros(len(flat), dtype=torch.bool)
    if recipe.augmentation != "none":
        boxes = random_boxes(images, flat, generator=generator, augmentation=recipe.augmentation)
        flip = torch.rand(len(flat), generator=generator) < 0.5
    colors = torch.empty(len(flat), 0)
    if recipe.augmentation == "instance":
        colors = draw_colors(len(flat), generator=generator)
    per_batch = recipe.batch_size * frames.shape[1]
    parts = (
        order.to(device).split(recipe.batch_size),
        frames[order].to(images.pixels.device).split(recipe.batch_size),
        boxes.to(device).split(per_batch),
        flip.to(device).split(per_batch),
        colors.to(device).split(per_batch),
    )
    return list(zip(*parts, strict=True))


def learning_rates(recipe: Recipe, stage: int, *, video: bool) -> list[float]:
    """Return the head's rate per epoch: a tenth after ``learning_rate_drop``; later stages: ``later_learning_rate``."""
    if stage > 0:
        epochs = recipe.later_stage_epochs_video if video else recipe.later_stage_epochs
        return [recipe.later_learning_rate] * epochs
    drop = recipe.learning_rate_drop
    return [recipe.learning_rate * (1.0 if e < drop else 0.1) for e in range(recipe.first_stage_epochs)]
