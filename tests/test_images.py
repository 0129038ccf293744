"""Decoding, the cache, and cropping in batch, held against PIL."""

import errno
import math
import os
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from reprolib import images as image_module
from reprolib.decoding import ImageError
from reprolib.files import FolderError
from reprolib.images import (
    Images,
    crop_and_resize,
    load_images,
    random_boxes,
    resize,
    sample_frames,
    whole_boxes,
)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_images(folder, sizes):
    files = []
    for k, (height, width) in enumerate(sizes):
        files.append(folder / f"{k}.png")
        Image.fromarray(noise(height, width, 3)).save(files[-1])
    return tuple(files)


def denormalized(batch):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # the released programs'
    return (batch.permute(0, 2, 3, 1) * std + mean) * 255


@pytest.mark.parametrize("image_size", [(128, 64), (256, 128), (131, 67)])
def test_crop_and_resize_equals_pil_to_rounding(image_size):
    pixels = noise(8, 128, 64, 3)
    boxes = torch.tensor([[3, 5, 110, 50], [0, 0, 128, 64], [10, 0, 100, 41], [0, 14, 128, 50]] * 2).float()
    flip = torch.tensor([False] * 4 + [True] * 4)
    ours = denormalized(crop_and_resize(torch.from_numpy(pixels), boxes, flip, image_size))
    for k, (top, left, height, width) in enumerate(boxes.int().tolist()):
        crop = Image.fromarray(pixels[k]).crop((left, top, left + width, top + height))
        theirs = crop.resize(image_size[::-1], Image.Resampling.BILINEAR)
        theirs = theirs.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip[k] else theirs
        assert np.abs(np.asarray(theirs, np.float32) - ours[k].numpy()).max() <= 1.01  # PIL rounds twice


@pytest.mark.parametrize("image_size", [(128, 64), (131, 67)])
def test_resizing_whole_frames_is_cropping_nothing_bit_for_bit(image_size):
    pixels = torch.from_numpy(noise(8, 128, 64, 3))
    whole = torch.tensor([0.0, 0.0, 128.0, 64.0]).expand(8, 4)
    cropped = crop_and_resize(pixels, whole, torch.zeros(8, dtype=torch.bool), image_size)
    resized = resize(pixels, image_size)
    assert torch.equal(resized, cropped)
    assert resized.is_contiguous(memory_format=torch.channels_last)


def test_images_larger_than_the_network_sees_are_reduced_as_pil_does(tmp_path):
    pixels = noise(2, 90, 50, 3)
    files = []
    for k, image in enumerate(pixels):
        files.append(tmp_path / f"{k}.png")
        Image.fromarray(image).save(files[-1])
    for frames in (tuple(files), pixels):
        images = load_images(frames, (64, 32))
        assert images.sizes.tolist() == [[90, 50]] * 2
        for ours, image in zip(images.pixels, pixels, strict=True):
            assert np.array_equal(ours, Image.fromarray(image).resize((32, 64), Image.Resampling.BILINEAR))


def test_a_photo_is_upright_as_its_camera_marked_it(tmp_path):
    flat = Image.fromarray(np.repeat(noise(1, 64, 3), 32, axis=0))
    marked = Image.Exif()
    marked[0x0112] = 6  # to be turned by a quarter, clockwise
    flat.save(tmp_path / "0.jpg", exif=marked, quality=100, subsampling=0)
    flat.rotate(-90, expand=True).save(tmp_path / "1.jpg", quality=100, subsampling=0)
    turned, upright = (load_images([tmp_path / name], (64, 32)) for name in ("0.jpg", "1.jpg"))
    assert turned.pixels.shape == upright.pixels.shape == (1, 64, 32, 3)
    assert (turned.pixels.int() - upright.pixels.int()).abs().max() < 8  # JPEG's loss


def test_an_array_turned_from_bgr_or_not_to_be_written_to_is_taken():
    pixels = noise(2, 64, 32, 3)
    turned = pixels[..., ::-1]
    turned.flags.writeable = False
    images = load_images(turned, (64, 32))
    assert np.array_equal(images.pixels, pixels[..., ::-1])
    assert np.shares_memory(load_images(pixels, (64, 32)).pixels.numpy(), pixels)  # where it can, it copies nothing


def test_random_boxes_have_the_released_areas_and_ratios_and_lie_inside():
    images = Images(torch.zeros(1, 128, 64, 3, dtype=torch.uint8), torch.tensor([[128.0, 64.0]]))
    index = torch.zeros(4000, dtype=torch.long)
    top, left, height, width = random_boxes(images, index, generator=torch.Generator().manual_seed(0)).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 128).all()
    assert (left + width <= 64).all()
    share, ratio = height * width / (128 * 64), height / width
    assert 0.62 < share.min() < 0.67
    assert share.max() > 0.97
    assert 1.95 <= ratio.min() < 2.05
    assert 2.9 < ratio.max() <= 3.1


def released_crop(height, width, draw):
    """The released programs' crop, literally: ten tries, then the frame whole."""
    for _ in range(10):
        area, ratio = draw.uniform(0.64, 1) * height * width, draw.uniform(2, 3)
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            return draw.randint(0, height - h), draw.randint(0, width - w), h, w
    return 0, 0, height, width


@pytest.mark.parametrize("size", [(128, 64), (300, 100), (90, 60)])
def test_random_boxes_are_distributed_as_the_released_programs_crops(size):
    count, draw = 6000, random.Random(0)
    images = Images(torch.zeros(1, *size, 3, dtype=torch.uint8), torch.tensor([size]).float())
    index = torch.zeros(count, dtype=torch.long)
    ours = random_boxes(images, index, generator=torch.Generator().manual_seed(0))
    theirs = torch.tensor([released_crop(*size, draw) for _ in range(count)], dtype=torch.float32)
    for of_ours, of_theirs in zip(ours.T, theirs.T, strict=True):
        spread = of_theirs.std()
        assert abs(of_ours.mean() - of_theirs.mean()) < 0.08 * spread  # the means' own is 0.018 of it
        assert abs(of_ours.std() - spread) < 0.08 * spread
        quantiles = torch.tensor([0.1, 0.5, 0.9])
        assert (of_ours.quantile(quantiles) - of_theirs.quantile(quantiles)).abs().max() < 0.12 * spread + 1


@pytest.mark.parametrize("size", [(256, 128), (160, 80), (384, 128)])
def test_a_crop_of_resized_frames_stays_inside_them(size):
    """A box of the original, scaled in float32, may end a hair behind the last pixel."""
    originals = torch.cartesian_prod(torch.arange(95.0, 400, 5), torch.arange(45.0, 200, 5))
    frames = Images(torch.zeros(1, *size, 3, dtype=torch.uint8), originals)
    boxes = random_boxes(frames, torch.arange(len(originals)).repeat(20), generator=torch.Generator().manual_seed(0))
    for axis, extent in enumerate(size):
        (first, second), weight = image_module._sample(boxes[:, axis], boxes[:, 2 + axis], extent, extent)
        assert first.min() >= 0
        assert second.max() == extent - 1
        assert (weight[first == extent - 1] < 1e-3).all()


def test_frames_stay_on_the_host_where_they_would_fill_the_device(monkeypatch):
    images = Images(torch.zeros(10, 8, 8, 3, dtype=torch.uint8), torch.full((10, 2), 8.0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images.pixels.nbytes - 1, 2**40))
    assert images.to(torch.device("cuda")) is images


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_streamed_frames_are_those_that_lie_on_the_device():
    device, index = torch.device("cuda"), torch.tensor([3, 0, 3, 9])
    images = Images(torch.from_numpy(noise(10, 16, 8, 3)), torch.full((10, 2), 8.0))
    resident = images.to(device)
    assert resident.pixels.is_cuda
    assert torch.equal(images.take(index, device), resident.take(index.to(device), device))


def test_a_wide_frame_that_fits_no_crop_is_kept_whole():
    images = Images(torch.zeros(1, 20, 40, 3, dtype=torch.uint8), torch.tensor([[20.0, 40.0]]))
    boxes = random_boxes(images, torch.zeros(5, dtype=torch.long), generator=torch.Generator().manual_seed(0))
    assert torch.equal(boxes, whole_boxes(images, torch.zeros(5, dtype=torch.long)))


def test_boxes_of_a_resized_frame_keep_the_shape_of_the_original():
    images = Images(torch.zeros(1, 64, 32, 3, dtype=torch.uint8), torch.tensor([[300.0, 100.0]]))
    boxes = random_boxes(images, torch.zeros(500, dtype=torch.long), generator=torch.Generator().manual_seed(0))
    original = boxes * torch.tensor([300 / 64, 100 / 32]).repeat(2)
    ratio = original[:, 2] / original[:, 3]
    assert ratio.min() > 1.95
    assert ratio.max() < 3.1


def test_frames_keep_their_own_size_unless_they_differ_or_are_too_large(tmp_path):
    small = write_images(tmp_path, [(64, 32)] * 3)
    assert load_images(small, (128, 64)).pixels.shape == (3, 64, 32, 3)
    assert load_images(small, (32, 16)).pixels.shape == (3, 32, 16, 3)
    mixed = write_images(tmp_path, [(64, 32), (100, 40)])
    images = load_images(mixed, (128, 64))
    assert images.pixels.shape == (2, 128, 64, 3)
    assert images.sizes.tolist() == [[64, 32], [100, 40]]


def test_the_cache_gives_what_decoding_gives_and_is_read_the_second_time(tmp_path):
    files = write_images(tmp_path, [(64, 32)] * 3)
    cache = tmp_path / "cache" / "train.npy"
    first = load_images(files, (128, 64), cache=cache)
    for file in files:
        file.unlink()
    second = load_images(files, (128, 64), cache=cache)
    assert torch.equal(first.pixels, second.pixels)
    assert not list(cache.parent.glob("*.partial"))


def test_a_truncated_image_is_named_and_leaves_no_cache(tmp_path):
    files = write_images(tmp_path, [(64, 32)] * 3)
    files[1].write_bytes(files[1].read_bytes()[:600])
    with pytest.raises(ImageError, match=r"1\.png"):
        load_images(files, (128, 64), cache=tmp_path / "cache" / "train.npy")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["train.npy.lock"]


def test_a_cache_that_there_is_no_room_for_is_named_before_it_is_written(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(FolderError, match=r"cache: cannot be written to .*No space left"):
        load_images(write_images(tmp_path, [(64, 32)] * 3), (128, 64), cache=tmp_path / "cache" / "train.npy")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["train.npy.lock"]


def test_a_cache_of_another_length_is_refused(tmp_path):
    files = write_images(tmp_path, [(64, 32)] * 3)
    cache = tmp_path / "train.npy"
    load_images(files, (128, 64), cache=cache)
    with pytest.raises(ImageError, match="delete it"):
        load_images(files[:2], (128, 64), cache=cache)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda cache: cache.write_bytes(cache.read_bytes()[:-5]), "mmap length"),
        (lambda cache: cache.write_bytes(b"not an array"), "delete it"),
        (lambda cache: np.save(cache, noise(3, 300, 32, 3)), r"shape \(3, 300, 32, 3\), not images of at most 128x64"),
        (lambda cache: np.save(cache, noise(3, 64, 32)), "not images"),
        (lambda cache: np.save(cache, noise(3, 64, 32, 3).astype(np.float32)), "holds float32"),
    ],
    ids=["cut off", "no array", "too large", "gray", "float"],
)
def test_a_cache_is_checked_when_it_is_opened(tmp_path, damage, message):
    files, cache = write_images(tmp_path, [(64, 32)] * 3), tmp_path / "train.npy"
    load_images(files, (128, 64), cache=cache)
    damage(cache)
    with pytest.raises(ImageError, match=rf"train.npy: .*{message}"):
        load_images(files, (128, 64), cache=cache)


def test_frames_are_sampled_in_order_and_repeat_only_where_a_tracklet_is_short():
    starts = np.array([0, 20, 23, 40])
    frames = sample_frames(starts, 6, generator=torch.Generator().manual_seed(0))
    assert frames.shape == (3, 6)
    assert torch.equal(frames, frames.sort(1).values)
    for row, start, end in zip(frames.tolist(), starts[:-1], starts[1:], strict=True):
        assert all(start <= f < end for f in row)
        assert len(set(row)) == 6 or end - start < 6


def test_an_image_dataset_has_one_frame_a_tracklet():
    frames = sample_frames(np.arange(5), 16, generator=torch.Generator())
    assert frames.tolist() == [[0], [1], [2], [3]]


def test_crops_of_instance_discrimination_are_torchvisions():
    images = Images(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), torch.full((1, 2), 32.0))
    index, generator = torch.zeros(4000, dtype=torch.long), torch.Generator().manual_seed(0)
    boxes = random_boxes(images, index, generator=generator, augmentation="instance")
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(images.pixels[0].permute(2, 0, 1), (0.2, 1), (3 / 4, 4 / 3)) for _ in index]
    torch.testing.assert_close(boxes.mean(0), torch.tensor(theirs, dtype=torch.float32).mean(0), atol=0.4, rtol=0)
    torch.testing.assert_close(boxes.std(0), torch.tensor(theirs, dtype=torch.float32).std(0), atol=0.3, rtol=0)


def test_colors_are_changed_between_crop_and_normalization():
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes, flip = torch.tensor([[0.0, 0, 8, 8]]).expand(2, 4), torch.zeros(2, dtype=torch.bool)
    to_gray = torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]])
    plain, changed = (crop_and_resize(pixels, boxes, flip, (8, 8), colors) for colors in (None, to_gray))
    torch.testing.assert_close(changed[1], plain[1], atol=1e-4, rtol=0)
    red, green, blue = denormalized(changed)[0].unbind(-1)
    assert (red - green).abs().max() < 0.01
    assert (red - blue).abs().max() < 0.01


def test_a_tracklet_of_just_enough_frames_gives_each_once():
    frames = sample_frames(np.array([0, 6, 26]), 6, generator=torch.Generator().manual_seed(0))
    assert frames[0].tolist() == list(range(6))
