"""Colors are changed as torchvision changes them, each image by a factor of its own."""

import pytest
import torch
from torchvision.transforms import functional

from reprolib import colors

CHANGES = {
    "brightness": (colors.brightness, functional.adjust_brightness, (0.6, 1.0, 1.4)),
    "contrast": (colors.contrast, functional.adjust_contrast, (0.6, 1.0, 1.4)),
    "saturation": (colors.saturation, functional.adjust_saturation, (0.6, 1.0, 1.4)),
    "hue": (colors.hue, functional.adjust_hue, (-0.4, 0.0, 0.3)),
}


def pictures():
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images[1, :, 0] = 0.5  # gray, and below black and white: colors without a hue
    images[1, :, 1], images[1, :, 2] = 0.0, 1.0
    return images


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_equals_torchvisions(name):
    ours, theirs, factors = CHANGES[name]
    images = pictures()
    changed = ours(images, torch.tensor(factors)[:, None, None, None])
    for image, factor, result in zip(images, factors, changed, strict=True):
        torch.testing.assert_close(result, theirs(image, factor), atol=2e-6, rtol=0)


def test_gray_images_lose_their_color_and_others_keep_it():
    factors = torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]])
    changed = colors.jitter(pictures(), factors)
    torch.testing.assert_close(changed[0], functional.rgb_to_grayscale(pictures()[0], 3), atol=2e-6, rtol=0)
    torch.testing.assert_close(changed[1:], pictures()[1:], atol=2e-6, rtol=0)


def test_factors_are_drawn_evenly_from_their_ranges_and_by_the_generator():
    drawn = colors.draw_colors(20000, generator=torch.Generator().manual_seed(0))
    assert drawn[:, :3].amin() >= 0.6
    assert drawn[:, :3].amax() <= 1.4
    assert drawn[:, 3].abs().max() <= 0.4
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, 1.0, 1.0, 0.0, 0.2]), atol=0.02, rtol=0)
    assert torch.equal(drawn, colors.draw_colors(20000, generator=torch.Generator().manual_seed(0)))
