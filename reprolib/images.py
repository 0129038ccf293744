"""Images: frames are decoded once to uint8, then cropped, resized, flipped and normalized in batches on the device."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reprolib.colors import jitter
from reprolib.decoding import ImageError, opened
from reprolib.devices import cores
from reprolib.files import locked, replacing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded frames of one set."""

    pixels: Tensor  # (n, h, w, 3) uint8
    sizes: Tensor  # (n, 2) float32, on the host: height and width of the frames before they were resized for the cache

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.pixels)

    def to(self, device: torch.device) -> "Images":
        """Move the frames to ``device``, unless they need over half of its free memory; then they move in batches."""
        if device.type == "cuda" and self.pixels.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        return Images(self.pixels.to(device), self.sizes)

    def take(self, index: Tensor, device: torch.device) -> Tensor:
        """Return the frames (n, h, w, 3) at ``index`` on ``device``, asynchronously if ``index`` is with the pixels."""
        pixels = self.pixels[index.to(self.pixels.device)]
        if device.type == "cuda" and not pixels.is_cuda:
            pixels = pixels.pin_memory()
        return pixels.to(device, non_blocking=True)


def load_images(
    frames: tuple[Path, ...] | np.ndarray, image_size: tuple[int, int], *, cache: Path | None = None
) -> Images:
    """Decode every frame once.

    If all frames have the same size and it does not exceed ``image_size`` (height, width), they keep that size: crops
    are then taken from the original pixels, as in the released programs. Otherwise each frame is resized to
    ``image_size``. ``cache`` names a ``.npy`` file, which is memory-mapped if it exists and written otherwise
    (completely, then renamed).

    Raises:
        ImageError: a file that cannot be read, or an array that is not (n, h, w, 3) uint8.
    """
    if isinstance(frames, np.ndarray) and (frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3):
        raise ImageError(
            f"frames must be (n, h, w, 3) uint8, RGB from 0 to 255, not {frames.dtype} of shape {frames.shape}"
        )
    if isinstance(frames, np.ndarray) and _fits(frames.shape[1:3], image_size):
        sizes = torch.tensor(frames.shape[1:3], dtype=torch.float32).expand(len(frames), 2)
        return Images(torch.from_numpy(np.require(frames, requirements=["C", "W"])), sizes)
    if cache is None:
        pixels, sizes = _decode(frames, image_size)
        return Images(torch.from_numpy(pixels), torch.from_numpy(sizes))
    sizes_file = cache.with_suffix(".sizes.npy")
    if not (cache.exists() and sizes_file.exists()):
        with locked(cache):
            _fill(cache, sizes_file, frames, image_size)
    try:
        sizes = np.load(sizes_file)
        # Copy on write: torch needs writable memory, and the file stays unchanged.
        pixels = np.load(cache, mmap_mode="c")
        if len(pixels) != len(frames) or len(sizes) != len(frames):
            raise ValueError(f"holds {len(pixels)} images, expected {len(frames)}")
        if pixels.dtype != np.uint8 or pixels.shape[3:] != (3,) or not _fits(pixels.shape[1:3], image_size):
            size = "x".join(map(str, image_size))
            raise ValueError(f"holds {pixels.dtype} of shape {pixels.shape}, not images of at most {size}")
    except Exception as error:  # a damaged file fails in any way
        raise ImageError(f"{cache}: {error}; delete it and {sizes_file.name}, they will be made again") from error
    return Images(torch.from_numpy(pixels), torch.from_numpy(sizes))


def _fits(size: tuple[int, int], image_size: tuple[int, int]) -> bool:
    return size[0] <= image_size[0] and size[1] <= image_size[1]


def _fill(cache: Path, sizes_file: Path, frames: Sequence[Path] | np.ndarray, image_size: tuple[int, int]) -> None:
    """Make the cache, unless the process that held the lock before has already made it."""
    if cache.exists() and sizes_file.exists():
        return
    with replacing(cache) as file:
        _, sizes = _decode(frames, image_size, file)
        with replacing(sizes_file) as partial, partial.open("wb") as written:
            np.save(written, sizes)


def _decode(
    frames: Sequence[Path] | np.ndarray, image_size: tuple[int, int], file: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return all frames (n, h, w, 3) uint8, in memory or mapped to ``file``, and their own sizes (n, 2) float32."""
    with ThreadPoolExecutor(cores()) as pool:
        sizes = np.array(list(pool.map(_size, frames)), dtype=np.float32)
        native = tuple(int(s) for s in sizes[0])
        size = native if (sizes == sizes[0]).all() and _fits(native, image_size) else image_size
        pixels = _allocate((len(frames), *size, 3), file)

        def decode(i: int) -> None:
            with opened(frames[i]) as image:
                rgb = image.convert("RGB")
                pixels[i] = rgb if rgb.size == size[::-1] else rgb.resize(size[::-1], Image.Resampling.BILINEAR)

        for _ in pool.map(decode, range(len(frames))):
            pass
    return pixels, sizes


def _allocate(shape: tuple[int, ...], file: Path | None) -> np.ndarray:
    if file is None:
        return np.empty(shape, np.uint8)
    pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # on a full disk this is an error; writing to the map would kill the process
        with file.open("rb+") as written:
            os.posix_fallocate(written.fileno(), 0, file.stat().st_size)
    return pixels


def _size(frame: Path | np.ndarray) -> tuple[int, int]:
    with opened(frame) as image:
        return image.height, image.width


def crop_and_resize(
    pixels: Tensor, boxes: Tensor, flip: Tensor, image_size: tuple[int, int], colors: Tensor | None = None
) -> Tensor:
    """Crop each frame to its box, resize it bilinearly, flip it, and normalize by ImageNet's mean and deviation.

    Args:
        pixels: (B, h, w, 3) uint8.
        boxes: (B, 4) float: top, left, height, width in pixels.
        flip: (B,) bool: whether to mirror the frame left to right.
        image_size: (H, W), at least as large as the boxes, because shrinking is not antialiased.
        colors: (B, 5) factors of :mod:`reprolib.colors`; (B, 0) or None leaves the colors unchanged.

    Returns:
        (B, 3, H, W) float32, channels last. Equal to PIL's crop and bilinear resize up to PIL's rounding.
    """
    top, left, height, width = boxes.unbind(1)
    rows, row_weight = _sample(top, height, image_size[0], pixels.shape[1])
    columns, column_weight = _sample(left, width, image_size[1], pixels.shape[2], flip)
    b = torch.arange(len(pixels), device=pixels.device)[:, None]
    lines = torch.lerp(pixels[b, rows[0]].float(), pixels[b, rows[1]].float(), row_weight[:, :, None, None])
    lines = lines.transpose(1, 2)  # (B, w, H, 3): columns first, to gather them
    out = torch.lerp(lines[b, columns[0]], lines[b, columns[1]], column_weight[:, :, None, None])
    if colors is not None and colors.shape[1]:
        out = 255 * jitter(out.permute(0, 3, 1, 2) / 255, colors).permute(0, 2, 3, 1)
    return _normalized(out).permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last)


def resize(pixels: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Resize and normalize whole frames: (B, h, w, 3) uint8 -> (B, 3, H, W) float32, as :func:`crop_and_resize`."""
    size = tuple(pixels.shape[1:3])
    if size == tuple(image_size):  # same result without four look-ups per pixel
        return _normalized(pixels.float()).permute(0, 3, 1, 2)
    boxes = torch.zeros(len(pixels), 4, device=pixels.device)
    boxes[:, 2], boxes[:, 3] = size
    return crop_and_resize(pixels, boxes, torch.zeros_like(boxes[:, 0], dtype=torch.bool), image_size)


def _normalized(pixels: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its deviation, in place: (..., 3) with values from 0 to 255."""
    mean, std = _moments(pixels.device)
    return pixels.sub_(mean).div_(std)


@cache
def _moments(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ImageNet's mean and deviation for pixels of 0 to 255; moved once, since a CUDA graph cannot move them."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(v, device=device) * 255 for v in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def _sample(start: Tensor, length: Tensor, count: int, extent: int, flip: Tensor | None = None):
    """Return the two source pixels (B, count) of each target pixel along one axis, and the weight of the second one.

    ``count`` is the number of target pixels and ``extent`` that of source pixels: due to rounding, a scaled box may end
    slightly beyond the last source pixel.
    """
    target = torch.arange(count, device=start.device) + 0.5
    position = target * (length / count)[:, None] - 0.5
    if flip is not None:
        position = torch.where(flip[:, None], length[:, None] - 1 - position, position)
    position = position.clamp(min=0).minimum(length[:, None] - 1) + start[:, None]
    first = position.floor()
    last = (start + length - 1).ceil().clamp(max=extent - 1)[:, None]
    return (first.long(), (first + 1).minimum(last).long()), position - first


def whole_boxes(images: Images, index: Tensor) -> Tensor:
    """Return boxes (B, 4), on the host, that cover each frame completely."""
    height, width = images.pixels.shape[1:3]
    return torch.tensor([0.0, 0.0, height, width]).expand(len(index), 4)


def random_boxes(images: Images, index: Tensor, *, generator: torch.Generator, augmentation: str = "reid") -> Tensor:
    """Draw boxes (B, 4) for training crops, on the host, in pixels of the cache.

    Ten sizes are drawn per image, and the first one that fits is placed at random; if none fits, the whole frame is
    used. "reid" (both released programs): area 0.64 to 1 of the original, ratio of height to width 2 to 3. "instance"
    (Wu et al. 2018): area 0.2 to 1, ratio 3/4 to 4/3 with a uniform logarithm.
    """
    original = images.sizes[index]
    full_height, full_width = original[:, :1], original[:, 1:]
    u = torch.rand(4, len(index), 10, generator=generator)
    if augmentation == "reid":
        share, ratio = 0.64 + 0.36 * u[0], 2 + u[1]
    else:
        share, ratio = 0.2 + 0.8 * u[0], (4 / 3) ** (2 * u[1] - 1)
    area = share * full_height * full_width
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
    return boxes * (cached / original).repeat(1, 2)


def sample_frames(starts: np.ndarray, count: int, *, generator: torch.Generator) -> Tensor:
    """Draw frame indices (n, count) in order: without replacement, or with it if a tracklet has fewer frames."""
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
