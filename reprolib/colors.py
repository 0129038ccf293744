"""Color jitter and random grayscale of instance discrimination (Wu et al. 2018), for a whole batch on its device.

Each image gets its own factors. The four changes are applied in a fixed order, whereas instance discrimination draws
the order too. Each change equals that of torchvision, which takes one factor for all images.
"""

import torch
from torch import Tensor

JITTER = 0.4  # factors of 0.6 to 1.4 for brightness, contrast and saturation; hue shifts of -0.4 to 0.4 of the circle
GRAYSCALE = 0.2  # share of images that are turned gray
LUMA = (0.2989, 0.587, 0.114)


def draw_colors(count: int, *, generator: torch.Generator) -> Tensor:
    """Draw factors (count, 5): brightness, contrast, saturation, hue, and whether to turn the image gray (1 or 0)."""
    u = torch.rand(count, 5, generator=generator)
    factors = 1 + JITTER * (2 * u[:, :3] - 1)
    return torch.cat([factors, JITTER * (2 * u[:, 3:4] - 1), (u[:, 4:] < GRAYSCALE).float()], dim=1)


def jitter(images: Tensor, colors: Tensor) -> Tensor:
    """Change the colors of ``images`` (B, 3, H, W), from 0 to 1, by ``colors`` (B, 5) of :func:`draw_colors`."""
    *factors, to_gray = colors[:, :, None, None, None].unbind(1)  # each (B, 1, 1, 1)
    for change, factor in zip((brightness, contrast, saturation, hue), factors, strict=True):
        images = change(images, factor)
    return torch.where(to_gray > 0, gray(images), images)


def gray(images: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W)."""
    return sum(share * channel for share, channel in zip(LUMA, images.split(1, dim=1), strict=True))


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the image by ``factor`` (B, 1, 1, 1)."""
    return (images * factor).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the difference from the mean luma of the image."""
    return _blend(images, gray(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the difference from gray."""
    return _blend(images, gray(images), factor)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp(0, 1)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue by ``shift`` (B, 1, 1, 1), a fraction of the circle, keeping value and saturation (HSV)."""
    value, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - low
    red, green, blue = (images / chroma.clamp_min(1e-12)).split(1, dim=1)
    sector = torch.where(
        images[:, :1] == value, green - blue, torch.where(images[:, 1:2] == value, 2 + blue - red, 4 + red - green)
    )
    turned = sector / 6 + shift  # fraction of the circle; pixels without chroma have no hue and stay unchanged
    # HSV back to RGB: each channel is the value minus the share of the chroma that the hue takes from it.
    k = (torch.arange(5, 0, -2, device=images.device)[:, None, None] + 6 * turned) % 6  # red 5, green 3, blue 1
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
