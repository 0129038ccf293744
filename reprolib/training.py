"""One training stage: images + pseudo_labels -> weights."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reprolib.images import Images, crop_and_resize, random_boxes, sample_frames, whole_boxes
from reprolib.memory import LookupTable, repelled_loss
from reprolib.model import Model
from reprolib.recipe import Recipe
from reprolib.state import Checkpoint


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
    checkpoint: Checkpoint | None = None,
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
        checkpoint: where to go on from, bit for bit, and what to renew as epochs end.
        on_epoch: called with the epoch and its mean loss.

    Returns:
        Mean loss of each epoch.

    Raises:
        ValueError: fewer tracklets than a batch, a loss that is not finite, or a batch that the device has no room for.
    """
    if len(pseudo_labels) < recipe.batch_size:
        raise ValueError(f"{len(pseudo_labels)} training samples are fewer than one batch of {recipe.batch_size}")
    training = _Training(model, table, make_optimizer(model, recipe), torch.Generator().manual_seed(seed), device)
    model.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout draws from the default generator
        losses = training.restore(checkpoint.load()) if checkpoint else []
        for epoch, rate in list(enumerate(learning_rates))[len(losses) :]:
            for group, share in zip(training.optimizer.param_groups, (recipe.backbone_rate, 1.0), strict=True):
                group["lr"] = rate * share
            batches = epoch_batches(images, starts, recipe=recipe, generator=training.generator)
            losses.append(training.epoch(batches, images, pseudo_labels, recipe=recipe, image_size=image_size))
            if not np.isfinite(losses[-1]):
                raise ValueError(f"the loss is {losses[-1]} in epoch {epoch}: lower learning_rate={rate}")
            if checkpoint:
                checkpoint.save(training.state(losses))
            on_epoch(epoch, losses[-1])
    return losses


@dataclass(frozen=True, eq=False)
class _Training:
    """What a stage's epochs hand on to each other."""

    model: Model
    table: LookupTable
    optimizer: torch.optim.SGD
    generator: torch.Generator  # order, crops, flips, frames
    device: torch.device

    def epoch(self, batches: list[tuple], images: Images, labels: Tensor, *, recipe: Recipe, image_size) -> float:
        """One pass over the batches of :func:`epoch_batches`; the mean loss."""
        total = torch.zeros((), device=self.device)
        for index, frames, boxes, flip in batches:
            try:
                batch = augmented(images, frames, boxes, flip, image_size=image_size, device=self.device)
                total += step(self.model, self.table, self.optimizer, batch, labels[index], recipe=recipe)
            except torch.OutOfMemoryError as error:
                traceback.clear_frames(error.__traceback__)  # they hold the tensors that there was no room for
                fits = self._largest_batch((frames, boxes, flip), images, labels[index], recipe, image_size)
                raise ValueError(
                    f"out of memory on {self.device} with batch_size={len(index)}: {fits or 'none'} would fit; give a "
                    "recipe of another batch_size, a smaller image_size or backbone, or a device with more memory"
                ) from error
        return float(total) / len(batches)

    def _largest_batch(self, drawn: tuple, images: Images, labels: Tensor, recipe: Recipe, image_size) -> int:
        """Half the batch, and half of that, until there is room for a step; 0 if there is none for 2 samples."""
        size, frames_each = len(labels), drawn[0].shape[1]
        while (size := size // 2) > 1:
            frames, boxes, flip = (
                part[: size * n] for part, n in zip(drawn, (1, frames_each, frames_each), strict=True)
            )
            try:
                self.optimizer.zero_grad()
                batch = augmented(images, frames, boxes, flip, image_size=image_size, device=self.device)
                step(self.model, self.table, self.optimizer, batch, labels[:size], recipe=recipe)
                return size
            except torch.OutOfMemoryError as error:
                traceback.clear_frames(error.__traceback__)
        return 0

    def state(self, losses: list[float]) -> dict[str, Tensor]:
        """All that the next epoch depends on, and the losses so far."""
        on_gpu = self.device.type == "cuda"
        generators = {
            "generator": self.generator.get_state(),
            "dropout": torch.cuda.get_rng_state(self.device) if on_gpu else torch.get_rng_state(),
        }
        return {**self._weights(), **generators, "losses": torch.tensor(losses, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> list[float]:
        """Take up what :meth:`state` gave, if anything; the losses so far."""
        if not state:
            return []
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:  # the fused optimizer wants the parameter's own layout
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter)
        for name, tensor in self._weights().items():
            tensor.copy_(state[name])
        self.generator.set_state(state["generator"])
        on_gpu = self.device.type == "cuda"
        torch.cuda.set_rng_state(state["dropout"], self.device) if on_gpu else torch.set_rng_state(state["dropout"])
        return state["losses"].tolist()

    def _weights(self) -> dict[str, Tensor]:
        """Model, momentum and table by name: the tensors themselves, no copies."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        momentum = {f"momentum.{k}": self.optimizer.state[p]["momentum_buffer"] for k, p in enumerate(parameters)}
        model = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        return {**model, **momentum, "table": self.table.weight}


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
