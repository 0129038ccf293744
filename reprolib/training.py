"""One training stage: images and pseudo-labels -> weights."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reprolib.capture import Captured
from reprolib.devices import autocast, computing_in, keeping_freed_memory
from reprolib.epochs import epoch_batches
from reprolib.images import Images, crop_and_resize
from reprolib.memory import LookupTable, repelled_loss
from reprolib.model import Model
from reprolib.recipe import Recipe
from reprolib.state import Checkpoint
from reprolib.team import ALONE, Team


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
    precision: str = "float32",
    team: Team = ALONE,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train the model in place with the repelled loss (BUC Eq. 3); the table is updated after every step.

    On a single CUDA device the step is captured as a graph, and nothing waits for the device within an epoch.

    Args:
        model: trained in place.
        images: frames of the training set.
        starts: (N + 1,) first frame of each tracklet, and the end.
        pseudo_labels: (N,) int64 in [0, C), on the host.
        table: C rows, updated in place.
        recipe: batch size, optimizer and augmentation.
        image_size: (H, W) of the network's input.
        learning_rates: the head's rate in each epoch; the backbone's rate is ``recipe.backbone_rate`` times that.
        seed: determines order, crops, flips, frames and dropout.
        device: where the model and the table are.
        precision: precision of the network's products, one of ``devices.PRECISIONS``.
        team: the processes that share each batch; all must get the same arguments.
        checkpoint: state to resume from (bit for bit on a CPU) and to update; only that of the first process counts.
        on_epoch: called with each epoch and its mean loss.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: fewer tracklets than a batch, a batch size that is not divisible by the number of processes, a label
            without a row, a loss that is not finite, or a batch that does not fit into the device's memory.
    """
    require_batch(len(pseudo_labels), recipe)
    if recipe.batch_size % team.size:
        raise ValueError(
            f"batch_size={recipe.batch_size} cannot be divided among {team.size} processes; start fewer processes"
        )
    table.check(pseudo_labels)
    team.align(model)
    optimizer, generator = make_optimizer(model, recipe), torch.Generator().manual_seed(seed)
    training = _Training(model, table, optimizer, generator, device, recipe, tuple(image_size), precision, team)
    alone_on_gpu = device.type == "cuda" and team.size == 1
    advance = Captured(training.step, device) if alone_on_gpu else training.step
    labels = pseudo_labels.to(device)
    model.train()
    own_random_state = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with own_random_state, computing_in(precision, device), keeping_freed_memory():
        torch.manual_seed(seed)  # dropout draws from the default generator
        losses = training.restore(team.tell(checkpoint.load() if checkpoint else {}))
        for epoch, rate in list(enumerate(learning_rates))[len(losses) :]:
            training.set_rate(rate)
            batches = epoch_batches(images, starts, recipe=recipe, generator=generator, device=device)
            losses.append(float(training.epoch(batches, images, labels, advance)) / len(batches))
            if not np.isfinite(losses[-1]):
                raise ValueError(
                    f"the loss is {losses[-1]} in epoch {epoch} with learning_rate={rate}; use a lower learning rate"
                )
            if checkpoint:
                checkpoint.save(training.state(losses))
            on_epoch(epoch, losses[-1])
    return losses


def require_batch(samples: int, recipe: Recipe) -> None:
    """Raise ValueError if there are fewer samples than in one batch."""
    if samples < recipe.batch_size:
        few = f"{samples} training samples are fewer than one batch of {recipe.batch_size}"
        raise ValueError(f"{few}; use more identities or samples, or a smaller batch_size")


@dataclass(frozen=True, eq=False)
class _Training:
    """The state that the epochs of a stage pass on to each other, and the settings that they share."""

    model: Model
    table: LookupTable
    optimizer: torch.optim.SGD
    generator: torch.Generator  # order, crops, flips, frames
    device: torch.device
    recipe: Recipe
    image_size: tuple[int, int]
    precision: str
    team: Team

    def epoch(self, batches: list[tuple], images: Images, labels: Tensor, advance: Callable[..., Tensor]) -> Tensor:
        """Train on the batches of :func:`epoch_batches`; return the sum of their losses, still on the device.

        ``advance`` is :meth:`step`, possibly captured as a CUDA graph.
        """
        total = torch.zeros((), device=self.device)
        for index, *drawn in batches:
            frames, *changes = map(self.team.own, drawn)
            try:
                total += advance(images.take(frames.flatten(), self.device), *changes, labels[index])
            except torch.OutOfMemoryError as error:
                traceback.clear_frames(error.__traceback__)  # its frames keep the tensors alive
                fits = ""
                if self.team.size == 1:  # the other processes of a team cannot be asked any more
                    fits = f": {self._largest_batch(images, frames, changes, labels[index]) or 'none'} would fit"
                raise ValueError(
                    f"out of memory on {self.device} with batch_size={len(index)}{fits}; use a recipe with a smaller "
                    "batch_size, a smaller image_size or backbone, or a device with more memory"
                ) from error
        return total

    def step(self, pixels: Tensor, boxes: Tensor, flip: Tensor, colors: Tensor, labels: Tensor) -> Tensor:
        """Do one update on frames (B * T, h, w, 3), augmented as drawn, and labels (B,); return the loss.

        It reads no values and its shapes depend only on those of its arguments, as a CUDA graph requires.
        """
        batch = crop_and_resize(pixels, boxes, flip, self.image_size, colors)
        batch = batch.unflatten(0, (len(labels) // self.team.size, -1))
        settings = {"recipe": self.recipe, "precision": self.precision, "team": self.team}
        return step(self.model, self.table, self.optimizer, batch, labels, **settings)

    def _largest_batch(self, images: Images, frames: Tensor, changes: list[Tensor], labels: Tensor) -> int:
        """Halve the batch until a step fits into memory and return its size; 0 if not even 2 samples fit."""
        size, frames_each = len(labels), frames.shape[1]
        with torch.compiler.set_stance("force_eager"):  # each size would be compiled anew
            while (size := size // 2) > 1:
                some = size * frames_each
                try:
                    self.optimizer.zero_grad()
                    pixels = images.take(frames[:size].flatten(), self.device)
                    self.step(pixels, *(change[:some] for change in changes), labels[:size])
                    return size
                except torch.OutOfMemoryError as error:
                    traceback.clear_frames(error.__traceback__)
        return 0

    def set_rate(self, rate: float) -> None:
        """Set the head's learning rate, and the backbone's; a captured step reads them from the device."""
        for group, share in zip(self.optimizer.param_groups, (self.recipe.backbone_rate, 1.0), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * share)
            else:
                group["lr"] = rate * share

    def state(self, losses: list[float]) -> dict[str, Tensor]:
        """Return everything that the next epoch depends on, and the losses so far."""
        on_gpu = self.device.type == "cuda"
        generators = {
            "generator": self.generator.get_state(),
            "dropout": torch.cuda.get_rng_state(self.device) if on_gpu else torch.get_rng_state(),
        }
        return {**self._weights(), **generators, "losses": torch.tensor(losses, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> list[float]:
        """Restore the result of :meth:`state`, if any; return the losses so far."""
        if not state:
            return []
        for name, tensor in self._weights().items():
            tensor.copy_(state[name])
        self.generator.set_state(state["generator"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["dropout"], self.device)
        else:
            torch.set_rng_state(state["dropout"])
        return state["losses"].tolist()

    def _weights(self) -> dict[str, Tensor]:
        """Return the tensors of model, momentum and table by name, without copying them."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        momentum = {f"momentum.{k}": self.optimizer.state[p]["momentum_buffer"] for k, p in enumerate(parameters)}
        model = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        return {**model, **momentum, "table": self.table.weight}


def step(
    model: Model,
    table: LookupTable,
    optimizer: torch.optim.SGD,
    batch: Tensor,
    labels: Tensor,
    *,
    recipe: Recipe,
    precision: str = "float32",
    team: Team = ALONE,
) -> Tensor:
    """Update the network on a batch (B, T, 3, H, W) and its labels (B,), then the table; return the detached loss.

    In a team, ``batch`` is the share of this process, and ``labels`` are those of the whole batch.
    """
    optimizer.zero_grad()
    with autocast(precision, batch.device):
        pooled = model.pool_tracklets(batch)
    embedding = model.embed(team.gather(pooled)).embedding
    loss = repelled_loss(embedding, labels, table, temperature=recipe.temperature)
    loss.backward()
    team.add_gradients(optimizer.param_groups[0]["params"])  # the head's gradients already cover the whole batch
    optimizer.step()
    table.update(embedding.detach(), labels)
    return loss.detach()


def make_optimizer(model: Model, recipe: Recipe) -> torch.optim.SGD:
    """Make SGD with two groups, backbone and head; their rates are set in every epoch, on CUDA as device tensors."""
    backbone = [p for part in (model.stem, model.body) for p in part.parameters() if p.requires_grad]
    head = list(model.head.parameters())
    optimizer = torch.optim.SGD(
        [{"params": backbone}, {"params": head}],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,  # PyTorch rejects it without momentum
        fused=True,
    )
    for group in optimizer.param_groups if head[0].is_cuda else []:
        group["lr"] = torch.full((), recipe.learning_rate, device=head[0].device)
    for parameter in backbone + head:  # the first step gives the same result as without
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
