"""Feature extraction: images -> features, in eval mode with a large batch."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reprolib import paths
from reprolib.datasets.split import Tracklets
from reprolib.devices import autocast, choose_device, computing_in, keeping_freed_memory
from reprolib.images import Images, load_images, resize
from reprolib.model import Model, Output
from reprolib.recipe import Recipe
from reprolib.record import RecordError, RunRecord
from reprolib.state import load_weights


@keeping_freed_memory()
@torch.inference_mode()
def extract(
    model: Model,
    images: Images,
    starts: np.ndarray,
    *,
    image_size: tuple[int, int],
    device: torch.device,
    frames_at_most: int = 900,
    precision: str = "float32",
    batch_size: int | None = None,
) -> Output:
    """Extract the embedding (n, d) and the feature (n, D) of every tracklet, on ``device``.

    The vector of a tracklet is the mean over its frames, taken before the head and before normalization (BUC Section
    4.2); of a longer tracklet only the first ``frames_at_most`` frames are used (released code: 900). ``precision`` is
    the backbone's, one of ``devices.PRECISIONS``; the vectors are always float32. ``batch_size`` is the number of
    frames: None means 64 on a CPU and 256 on CUDA. It is halved for as long as the batch does not fit into memory.
    """
    training = model.training
    model.eval()
    pool = folded(model)
    lengths = np.minimum(np.diff(starts), frames_at_most)
    owner = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
    frames = torch.from_numpy(np.concatenate([np.arange(s, s + n) for s, n in zip(starts[:-1], lengths, strict=True)]))
    frames = frames.to(images.pixels.device)
    pooled, first, size = None, 0, batch_size or (64 if device.type == "cpu" else 256)
    while first < len(frames):
        chosen = frames[first : first + size]
        filling = size - len(chosen) if device.type == "cuda" else 0  # for a new shape cuDNN would choose again
        try:
            with computing_in(precision, device), autocast(precision, device):
                vectors = pool(resize(images.take(pad(chosen, (0, filling)), device), image_size))
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise ValueError(
                    f"out of memory on {device} with one image of {image_size[0]}x{image_size[1]}; use a smaller "
                    "image_size or backbone, or a device with more memory"
                ) from error
            size //= 2
            continue
        if pooled is None:
            pooled = torch.zeros(len(lengths), vectors.shape[1], device=device)
        pooled.index_add_(0, owner[first : first + size], vectors[: len(chosen)])
        first += size
    pooled /= torch.from_numpy(lengths).to(device)[:, None]
    output = model.embed(pooled)
    model.train(training)
    return output


def extract_features(
    record: RunRecord,
    frames: Sequence[str | Path] | np.ndarray,
    *,
    starts: np.ndarray | None = None,
    device: str | torch.device | None = None,
) -> Tensor:
    """Extract features of images with the network of a run's kept stage: (n, D) unit rows, on the host.

    Args:
        record: record of a run whose weights are on this disk, as for :func:`load_model`.
        frames: paths of image files, or (N, h, w, 3) uint8.
        starts: (n + 1,) first frame of each tracklet, and the end; None: every frame is a tracklet of its own.
        device: as for :func:`reprolib.run`; products are always float32.

    Raises:
        RecordError: the weights are missing.
        ValueError: no frames, an unreadable frame, or ``starts`` that do not match the frames.
    """
    tracklets = Tracklets(frames, starts, None)
    if len(tracklets) == 0:
        raise ValueError("frames is empty; pass at least one frame")
    model, device, size = load_model(record), choose_device(device), tuple(record.settings["image_size"])
    images = load_images(tracklets.frames, size)
    how = {"image_size": size, "device": device, "frames_at_most": record.settings["recipe"]["frames_at_most"]}
    return extract(model.place(device), images.to(device), tracklets.starts, **how).feature.cpu().clone()


def load_model(record: RunRecord) -> Model:
    """Load the network of a run's kept stage, in eval mode on the host: images (B, T, 3, H, W) -> embedding, feature.

    Images are RGB of size ``record.settings["image_size"]``, normalized by ImageNet's mean and deviation. The weights
    are in the folder ``state`` of the results folder that the record was read from.

    Raises:
        RecordError: the weights are missing.
    """
    folder = (record.root / "state" if record.root else paths.STATE) / record.name / f"stage_{record.kept:02}"
    if not (folder / "model.safetensors").exists():
        raise RecordError(
            f"{folder}: does not contain model.safetensors; load the record where it was run, or run again with --fresh"
        )
    recipe = Recipe(**record.settings["recipe"] | {"criterion": None})  # the network does not need it
    with torch.random.fork_rng([]):  # initial weights are drawn, but not used
        model = Model(recipe, backbone=record.settings["backbone"], weights="none")
    load_weights(folder, model)
    return model.eval()


def folded(model: Model):
    """Return ``model.pool`` with each BatchNorm folded into its convolution: nearly twice as fast on a CPU."""
    copy = deepcopy(model)
    for parent in copy.modules():
        for (name, convolution), (norm_name, norm) in pairwise(parent.named_children()):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm):
                setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, norm_name, nn.Identity())
    return copy.pool
