"""Frames decoded once to uint8, then cropped, resized, flipped and normalized in batch on the device."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageError(ValueError):
    """A file that is not a readable image; the message names it and the remedy."""


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded frames of one set."""

    pixels: Tensor  # (n, h, w, 3) uint8
    sizes: Tensor  # (n, 2) float32: height and width before the cache's own resize

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.pixels)

    def to(self, device: torch.device) -> "Images":
        """The same frames on ``device``."""
        return Images(self.pixels.to(device), self.sizes.to(device))


def load_images(
    frames: tuple[Path, ...] | np.ndarray, image_size: tuple[int, int], *, cache: Path | None = None
) -> Images:
    """Decode every frame once.

    Frames are kept at their own size when all agree and none exceeds ``image_size`` (height, width): a crop is
    then taken from the original pixels, as the released programs do. Otherwise each is resized to ``image_size``.
    ``cache`` names a ``.npy`` file to map when it is there and to write (whole, then renamed) when it is not.
    """
    if isinstance(frames, np.ndarray) and _fits(frames.shape[1:3], image_size):
        sizes = torch.tensor(frames.shape[1:3], dtype=torch.float32).expand(len(frames), 2)
        return Images(torch.from_numpy(frames), sizes)
    sizes_file = cache and cache.with_suffix(".sizes.npy")
    if cache is None or not (cache.exists() and sizes_file.exists()):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sizes = np.array(list(pool.map(_size, frames)), dtype=np.float32)
            native = tuple(int(s) for s in sizes[0])
            size = native if (sizes == sizes[0]).all() and _fits(native, image_size) else image_size
            pixels = _decode(frames, size, pool, cache)
        if cache is None:
            return Images(torch.from_numpy(pixels), torch.from_numpy(sizes))
        np.save(sizes_file, sizes)
        os.replace(_partial(cache), cache)  # the commit point: a cache that has its name is whole
    sizes = np.load(sizes_file)
    pixels = np.load(cache, mmap_mode="c")  # copy on write: torch wants writable memory, the file stays as it is
    if len(pixels) != len(frames) or len(sizes) != len(frames):
        raise ImageError(f"{cache}: holds {len(pixels)} images, {len(frames)} expected; delete it, it is made anew")
    return Images(torch.from_numpy(pixels), torch.from_numpy(sizes))


def _fits(size: tuple[int, int], image_size: tuple[int, int]) -> bool:
    return size[0] <= image_size[0] and size[1] <= image_size[1]


def _partial(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.{os.getpid()}.partial")


def _open(frame: Path | np.ndarray) -> Image.Image:
    if isinstance(frame, np.ndarray):
        return Image.fromarray(frame)
    try:
        return Image.open(frame)
    except (OSError, Image.DecompressionBombError) as error:
        raise ImageError(f"{frame}: not a readable image ({error}); restore it from the dataset's archive") from error


def _size(frame: Path | np.ndarray) -> tuple[int, int]:
    with _open(frame) as image:
        return image.height, image.width


def _decode(frames, size: tuple[int, int], pool: ThreadPoolExecutor, cache: Path | None) -> np.ndarray:
    """All frames as one (n, height, width, 3) uint8 array, in memory or in the cache's partial file."""
    shape = (len(frames), *size, 3)
    if cache is None:
        pixels = np.empty(shape, np.uint8)
    else:
        cache.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(_partial(cache), mode="w+", dtype=np.uint8, shape=shape)

    def decode(i: int) -> None:
        with _open(frames[i]) as image:
            try:
                rgb = image.convert("RGB")
            except OSError as error:
                raise ImageError(f"{frames[i]}: {error}; restore it from the dataset's archive") from error
            pixels[i] = rgb if rgb.size == size[::-1] else rgb.resize(size[::-1], Image.Resampling.BILINEAR)

    try:
        for _ in pool.map(decode, range(len(frames))):
            pass
    except BaseException:
        if cache is not None:
            _partial(cache).unlink(missing_ok=True)
        raise
    return pixels


def crop_and_resize(pixels: Tensor, boxes: Tensor, flip: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Crop each frame to its box, resize bilinearly, flip, normalize by ImageNet's mean and deviation.

    Args:
        pixels: (B, h, w, 3) uint8.
        boxes: (B, 4) float: top, left, height, width in pixels.
        flip: (B,) bool, mirrored left to right.
        image_size: (H, W), at least as large as the boxes, since there is no antialiasing for a reduction.

    Returns:
        (B, 3, H, W) float32, channels last. Equal to PIL's crop and bilinear resize to within its rounding.
    """
    top, left, height, width = boxes.unbind(1)
    rows, row_weight = _sample(top, height, image_size[0])
    columns, column_weight = _sample(left, width, image_size[1], flip)
    b = torch.arange(len(pixels), device=pixels.device)[:, None]
    lines = torch.lerp(pixels[b, rows[0]].float(), pixels[b, rows[1]].float(), row_weight[:, :, None, None])
    lines = lines.transpose(1, 2)  # (B, w, H, 3): columns first, to gather them
    out = torch.lerp(lines[b, columns[0]], lines[b, columns[1]], column_weight[:, :, None, None])
    mean, std = (torch.tensor(v, device=out.device) * 255 for v in (IMAGENET_MEAN, IMAGENET_STD))
    return out.sub_(mean).div_(std).permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last)


def _sample(start: Tensor, length: Tensor, count: int, flip: Tensor | None = None):
    """The two source pixels of each of ``count`` target pixels along one axis, (B, count), and the second's weight."""
    target = torch.arange(count, device=start.device) + 0.5
    position = target * (length / count)[:, None] - 0.5
    if flip is not None:
        position = torch.where(flip[:, None], length[:, None] - 1 - position, position)
    position = position.clamp(min=0).minimum(length[:, None] - 1) + start[:, None]
    first = position.floor()
    last = (start + length - 1).ceil()[:, None]
    return (first.long(), (first + 1).minimum(last).long()), position - first


def whole_boxes(images: Images, index: Tensor) -> Tensor:
    """Boxes (B, 4) that keep each frame whole."""
    height, width = images.pixels.shape[1:3]
    return torch.tensor([0.0, 0.0, height, width], device=images.pixels.device).expand(len(index), 4)


def random_boxes(images: Images, index: Tensor, *, generator: torch.Generator) -> Tensor:
    """Boxes (B, 4) of the released programs' training crop, in pixels of the cache.

    Ten tries an image: an area of 0.64 to 1 of the original, a height to width ratio of 2 to 3; the first that
    fits is placed at random, and where none fits the frame is kept whole.
    """
    original = images.sizes[index].cpu()
    full_height, full_width = original[:, :1], original[:, 1:]
    u = torch.rand(4, len(index), 10, generator=generator)
    area = (0.64 + 0.36 * u[0]) * full_height * full_width
    ratio = 2 + u[1]
    height, width = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (height <= full_height) & (width <= full_width)
    top = (u[2] * (full_height - height + 1)).floor()
    left = (u[3] * (full_width - width + 1)).floor()
    tries = torch.stack([top, left, height, width], -1)  # (B, 10, 4)
    first = fits.int().argmax(1)
    boxes = tries[torch.arange(len(index)), first]
    whole = torch.cat([torch.zeros_like(original), original], 1)
    boxes = torch.where(fits.any(1)[:, None], boxes, whole)
    cached = torch.tensor(images.pixels.shape[1:3], dtype=torch.float32)
    return (boxes * (cached / original).repeat(1, 2)).to(images.pixels.device)


def sample_frames(starts: np.ndarray, count: int, *, generator: torch.Generator) -> Tensor:
    """Frame indices (n, count): drawn without replacement and in order; with, where a tracklet has fewer."""
    lengths = torch.from_numpy(np.diff(starts))
    if bool((lengths == 1).all()):
        return torch.from_numpy(starts[:-1, None]).expand(-1, 1)
    keys = torch.rand(len(lengths), int(lengths.max()), generator=generator)
    keys[torch.arange(keys.shape[1]) >= lengths[:, None]] = 2  # past the end: drawn last
    if keys.shape[1] < count:
        keys = torch.nn.functional.pad(keys, (0, count - keys.shape[1]), value=2)
    drawn = keys.argsort(1)[:, :count]
    again = (torch.rand(len(lengths), count, generator=generator) * lengths[:, None]).long()
    drawn = torch.where((lengths < count)[:, None], again, drawn)
    return torch.from_numpy(starts[:-1, None]) + drawn.sort(1).values
