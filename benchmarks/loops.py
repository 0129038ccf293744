"""Training and extraction in three ways: ours, the bare network (the roof), and a loop as in the papers' programs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks.measure import in_turns
from reprolib.capture import WARM_UP, Captured
from reprolib.devices import autocast, computing_in
from reprolib.extraction import extract, folded
from reprolib.images import IMAGENET_MEAN, IMAGENET_STD, Images
from reprolib.memory import LookupTable, repelled_loss
from reprolib.model import Model, Output
from reprolib.recipe import BUC
from reprolib.training import train_stage


@dataclass(frozen=True)
class Sizes:
    """The network, its inputs, and the amount of data."""

    backbone: str = "resnet50"
    image_size: tuple[int, int] = (256, 128)  # size of the network's input
    source: tuple[int, int] = (128, 64)  # size of the images on disk and in the cache, as in Market-1501
    train: int = 12_936
    query: int = 3368
    gallery: int = 15_913
    batches: tuple[int, ...] = (16, 64, 256)
    repetitions: int = 3
    measured_batches: int = 100  # batches per epoch in our training
    plain_batches: int = 40  # batches measured in the plain loop
    files: int = 1024  # JPEG files that the plain loop reads
    workers: int = 8  # processes that decode for the plain loop


QUICK = Sizes("resnet18", (32, 16), (32, 16), 48, 16, 32, (4, 16), repetitions=2, plain_batches=2, files=16, workers=1)


def resident(sizes: Sizes, count: int, device: torch.device) -> Images:
    """Make noise of Market-1501's shape on the device: the content of the pixels does not affect the time."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, *sizes.source, 3), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.tensor(sizes.source, dtype=torch.float32).expand(count, 2)).to(device)


def train_ours(
    sizes: Sizes, batch: int, precision: str, device: torch.device, *, compiled: bool = False
) -> tuple[list[float], dict[str, float]]:
    """Measure seconds per batch in each epoch but a stage's first one, and the extra time of that first epoch.

    The extra time is returned for a first and for a later stage: in the first stage kernels are chosen and compiled, in
    every stage the step is captured. Epochs have at most ``measured_batches`` batches; the table covers all images.
    """
    recipe, count = replace(BUC, batch_size=batch), min(sizes.train, sizes.measured_batches * batch)
    images, model = resident(sizes, count, device), _model(sizes).place(device)
    if compiled:
        model.compile_backbone()

    def stage() -> list[float]:
        table = LookupTable(sizes.train, recipe.embedding_dim, normalize=recipe.normalize_table, device=device)
        ends = [time.perf_counter()]
        train_stage(
            model,
            images,
            np.arange(count + 1),
            torch.arange(count),
            table,
            recipe=recipe,
            image_size=sizes.image_size,
            learning_rates=[1e-3] * (1 + sizes.repetitions),
            seed=0,
            device=device,
            precision=precision,
            on_epoch=lambda epoch, loss: ends.append(time.perf_counter()),  # the loss is there: the device has finished
        )
        return np.diff(ends).tolist()

    (first, *epochs), (second, *later) = stage(), stage()
    usual = float(np.median(epochs + later))
    once = {"first stage": max(0.0, first - usual), "later stage": max(0.0, second - usual)}
    return [epoch / (count // batch) for epoch in epochs + later], once


def extract_ours(sizes: Sizes, batch: int, precision: str, device: torch.device) -> list[float]:
    """Measure seconds per batch of extracting features from the training set, or from ``measured_batches`` batches."""
    count = min(sizes.train, sizes.measured_batches * batch)
    images, model = resident(sizes, count, device), _model(sizes).place(device)
    settings = {"image_size": sizes.image_size, "device": device, "precision": precision, "batch_size": batch}
    call = partial(extract, model, images, np.arange(count + 1), **settings)
    call()
    return [taken * batch / count for taken in _times(call, sizes.repetitions, device)]


def roof(sizes: Sizes, batch: int, precision: str, device: torch.device, *, training: bool) -> list[float]:
    """Measure seconds of the bare backbone, captured, on one batch that stays in place.

    For training it runs forward and backward, otherwise forward with BatchNorm folded, as in the extraction of a run.
    """
    model = _model(sizes).train(training).to(device, memory_format=torch.channels_last)
    network = model.pool if training else folded(model)
    x = torch.rand(batch, 3, *sizes.image_size, device=device).contiguous(memory_format=torch.channels_last)

    def step(x: Tensor) -> Tensor:
        model.zero_grad()
        with autocast(precision, device), torch.set_grad_enabled(training):
            mean = network(x).mean()
        if training:
            mean.backward()
        return mean.detach()

    call = Captured(step, device) if device.type == "cuda" else step
    with computing_in(precision, device):
        for _ in range(WARM_UP + 2):
            call(x)
        return _times(partial(call, x), 4 * sizes.repetitions, device)


def _embed_plainly(model: Model, images: Tensor) -> Output:
    """Embed images (B, 3, H, W) in this layout, channels first, as the papers' programs do."""
    return model.embed(model.body(model.stem(images)).mean((2, 3)))


def train_plainly(sizes: Sizes, batch: int, device: torch.device, folder: Path) -> list[float]:
    """Measure seconds per batch of plain training: JPEG decoding by workers, float32, eager, table sample by sample."""
    model = _model(sizes).to(device).train()
    table = torch.zeros(sizes.train, BUC.embedding_dim, device=device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, BUC.momentum, weight_decay=BUC.weight_decay, nesterov=True)

    def step(images: Tensor, labels: Tensor) -> None:
        embedding = _embed_plainly(model, images.to(device)).embedding
        loss = repelled_loss(embedding, labels, table, temperature=BUC.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for v, y in zip(embedding.detach(), labels.tolist(), strict=True):
            table[y] = (table[y] + v) / 2
        loss.item()

    return _plain_times(sizes, batch, device, folder, step, augment=True)


def extract_plainly(sizes: Sizes, batch: int, device: torch.device, folder: Path) -> list[float]:
    """Measure seconds per batch of plain extraction: same files and workers, float32, eager, features to the host."""
    model = _model(sizes).to(device).eval()

    def step(images: Tensor, labels: Tensor) -> None:
        with torch.no_grad():
            _embed_plainly(model, images.to(device)).feature.cpu()

    return _plain_times(sizes, batch, device, folder, step, augment=False)


def write_jpegs(sizes: Sizes, folder: Path) -> None:
    """Write smooth noise as JPEG files of about the size of Market-1501's files."""
    rng = np.random.default_rng(0)
    height, width = sizes.source
    for k in range(sizes.files):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{k}.jpg", quality=90)


class _Files(Dataset):
    """JPEG files, read as in the released programs: decoded, cropped, resized and flipped by PIL, one by one."""

    def __init__(self, folder: Path, image_size: tuple[int, int], augment: bool):
        self.files, self.image_size, self.augment = sorted(folder.glob("*.jpg")), image_size, augment

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index]) as file:
            image = file.convert("RGB")
        if self.augment:
            image = image.crop(self._box(*image.size))
        image = image.resize(self.image_size[::-1], Image.Resampling.BILINEAR)
        if self.augment and torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        return (pixels - mean) / std, index

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Draw left, top, right, bottom: 0.64 to 1 of the area, 2 to 3 times as high as wide."""
        for _ in range(10):
            u = torch.rand(4).tolist()
            area, ratio = (0.64 + 0.36 * u[0]) * width * height, 2 + u[1]
            h, w = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if h <= height and w <= width:
                left, top = int(u[2] * (width - w + 1)), int(u[3] * (height - h + 1))
                return left, top, left + w, top + h
        return 0, 0, width, height


def _plain_times(
    sizes: Sizes, batch: int, device: torch.device, folder: Path, step: Callable, *, augment
) -> list[float]:
    files = _Files(folder, sizes.image_size, augment)
    warm_up = max(1, sizes.plain_batches // 4)
    sampler = RandomSampler(files, replacement=True, num_samples=batch * (warm_up + sizes.plain_batches))
    loader = DataLoader(
        files, batch, sampler=sampler, num_workers=sizes.workers, pin_memory=device.type == "cuda", drop_last=True
    )
    with computing_in("float32", device):
        ends = list(_ends(loader, step, device))
    return np.diff(ends[warm_up - 1 :]).tolist()


def _ends(loader: DataLoader, step: Callable, device: torch.device) -> Iterator[float]:
    for images, labels in loader:
        step(images, labels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        yield time.perf_counter()


def _model(sizes: Sizes) -> Model:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Model(BUC, backbone=sizes.backbone, weights="none")


def _times(call: Callable, repetitions: int, device: torch.device) -> list[float]:
    return in_turns({"": call}, repetitions, device.type)[""]
