"""One training stage: images + pseudo_labels -> weights."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from reprolib.images import Images, crop_and_resize, random_boxes, sample_frames, whole_boxes
from reprolib.memory import LookupTable, repelled_loss
from reprolib.model import Model
from reprolib.recipe import Recipe


def train_stage(
    model: Model,
    images: Images,
    starts: np.ndarray,
    pseudo_labels: Tensor,
    table: LookupTable,
    *,
    recipe: Recipe,
    image_size: tuple[int, int],
    learning_rates: list[float],
    seed: int,
    device: torch.device,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train the model in place with the repelled loss (BUC Eq. 3), the table updated after every step.

    Args:
        model: trained in place.
        images: frames of the training set.
        starts: (N + 1,) first frame of each tracklet.
        pseudo_labels: (N,) int64 in [0, C), on the host.
        table: C rows, updated in place.
        recipe: batch size, optimizer and augmentation.
        image_size: (H, W) that the network sees.
        learning_rates: the head's rate in each epoch; the backbone learns at ``recipe.backbone_rate`` of it.
        seed: order, crops, flips, frames and dropout follow from it.
        device: where the model and the table live.
        on_epoch: called with the epoch and its mean loss.

    Returns:
        Mean loss of each epoch.

    Raises:
        ValueError: fewer tracklets than a batch, or a loss that is not finite.
    """
    if len(pseudo_labels) < recipe.batch_size:
        raise ValueError(f"{len(pseudo_labels)} training samples are fewer than one batch of {recipe.batch_size}")
    optimizer = make_optimizer(model, recipe)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    model.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout draws from the default generator
        for epoch, rate in enumerate(learning_rates):
            for group, share in zip(optimizer.param_groups, (recipe.backbone_rate, 1.0), strict=True):
                group["lr"] = rate * share
            total = torch.zeros((), device=device)
            batches = epoch_batches(images, starts, recipe=recipe, generator=generator)
            for index, frames, boxes, flip in batches:
                batch = augmented(images, frames, boxes, flip, image_size=image_size, device=device)
                total += step(model, table, optimizer, batch, pseudo_labels[index], recipe=recipe)
            losses.append(float(total) / len(batches))
            if not np.isfinite(losses[-1]):
                raise ValueError(f"the loss is {losses[-1]} in epoch {epoch}: lower learning_rate={rate}")
            on_epoch(epoch, losses[-1])
    return losses


def step(model: Model, table: LookupTable, optimizer, batch: Tensor, labels: Tensor, *, recipe: Recipe) -> Tensor:
    """One optimizer update on a batch (B, T, 3, H, W) and its labels (B,), then the table's; the loss, detached."""
    embedding = model(batch).embedding
    loss = repelled_loss(embedding, labels, table, temperature=recipe.temperature)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    table.update(embedding.detach(), labels)
    return loss.detach()


def make_optimizer(model: Model, recipe: Recipe) -> torch.optim.SGD:
    """SGD over two groups, backbone and head; the rates are set every epoch."""
    backbone = [p for part in (model.stem, model.body) for p in part.parameters() if p.requires_grad]
    return torch.optim.SGD(
        [{"params": backbone}, {"params": list(model.head.parameters())}],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
        fused=True,
    )


def epoch_batches(images: Images, starts: np.ndarray, *, recipe: Recipe, generator: torch.Generator) -> list[tuple]:
    """One epoch drawn ahead: for each batch its tracklets (B,), frames (B, T), boxes (B * T, 4) and flips (B * T,).

    The last, incomplete batch is dropped.
    """
    count = len(starts) - 1
    frames = sample_frames(starts, recipe.frames_per_tracklet, generator=generator)
    order = torch.randperm(count, generator=generator)[: count // recipe.batch_size * recipe.batch_size]
    flat = frames[order].flatten()
    if recipe.augmentation == "reid":
        boxes = random_boxes(images, flat, generator=generator)
        flip = torch.rand(len(flat), generator=generator) < 0.5
    else:
        boxes, flip = whole_boxes(images, flat), torch.zeros(len(flat), dtype=torch.bool)
    per_batch = recipe.batch_size * frames.shape[1]
    return list(
        zip(
            order.split(recipe.batch_size),
            frames[order].split(recipe.batch_size),
            boxes.split(per_batch),
            flip.split(per_batch),
            strict=True,
        )
    )


def augmented(images: Images, frames: Tensor, boxes: Tensor, flip: Tensor, *, image_size, device) -> Tensor:
    """The frames (B, T) of a batch, cropped and normalized: (B, T, 3, H, W) on ``device``."""
    pixels = images.pixels[frames.flatten().to(images.pixels.device)].to(device)
    out = crop_and_resize(pixels, boxes.to(device), flip.to(device), image_size)
    return out.unflatten(0, tuple(frames.shape))


def learning_rates(recipe: Recipe, stage: int, *, video: bool) -> list[float]:
    """The head's rate in each epoch of a stage: 0.1, a tenth after ``learning_rate_drop`` epochs; later stages 0.01."""
    if stage > 0:
        epochs = recipe.later_stage_epochs_video if video else recipe.later_stage_epochs
        return [recipe.later_learning_rate] * epochs
    drop = recipe.learning_rate_drop
    return [recipe.learning_rate * (1.0 if e < drop else 0.1) for e in range(recipe.first_stage_epochs)]
