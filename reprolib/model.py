"""The network: backbone and embedding head, images -> (embedding, feature)."""

import hashlib
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize, unfold

from reprolib.recipe import Recipe

BACKBONES = ("resnet50", "resnet18", "resnet18-cifar", "mobilenet_v2")  # -cifar: 3×3 stem for 32×32 images


class Output(NamedTuple):
    """The network's output for a batch."""

    embedding: Tensor  # (B, d), used by the loss and the lookup table
    feature: Tensor  # (B, D) unit rows, the pooled vector; used for merging and ranking, as in both released programs


class Model(nn.Module):
    """A backbone, the mean over frames, and the embedding head of a recipe.

    Args:
        recipe: its embedding_dim, embedding_layers, embedding_between, dropout and dropout_position define the head.
        backbone: one of ``BACKBONES``, by its torchvision name; "resnet18-cifar" is ResNet-18 whose first convolution
            is 3×3 with stride 1, without the pooling after it, as usual on CIFAR-10. It has no ImageNet weights.
        weights: "imagenet" (torchvision's IMAGENET1K_V1, downloaded once), "none", or a local file.
        freeze_stem: the video protocol: all layers up to stride 8 (conv1 to layer2) keep their weights, and their
            BatchNorm stays in eval mode.
    """

    def __init__(self, recipe: Recipe, *, backbone: str = "resnet50", weights: str = "imagenet", freeze_stem=False):
        """Build the network, initialize it and load its weights."""
        super().__init__()
        _, self.stem, self.body, width = load_backbone(backbone, weights)
        self.freeze_stem = freeze_stem
        layers: list[nn.Module] = []
        for k in range(recipe.embedding_layers):
            linear = nn.Linear(width if k == 0 else recipe.embedding_dim, recipe.embedding_dim)
            nn.init.kaiming_normal_(linear.weight, mode="fan_out")
            nn.init.zeros_(linear.bias)
            bare = k < recipe.embedding_layers - 1 and recipe.embedding_between == "nothing"
            layers += [linear] if bare else [linear, nn.BatchNorm1d(recipe.embedding_dim), nn.ReLU()]
        self.head = nn.Sequential(*layers[:-1])
        self.dropout = nn.Dropout(recipe.dropout)
        self.dropout_position = recipe.dropout_position
        self.backbone = backbone
        self.training_maps = _feature_maps
        for parameter in self.stem.parameters():
            parameter.requires_grad_(not freeze_stem)

    def train(self, mode: bool = True) -> "Model":
        """Set training mode, except for a frozen stem."""
        super().train(mode)
        if self.freeze_stem:
            self.stem.eval()
        return self

    def place(self, device: torch.device) -> "Model":
        """Move to a device in the faster memory layout: weights channels last, except for a ResNet on a CPU."""
        if device.type == "cpu" and self.backbone.startswith("resnet"):
            for module in self.modules():
                if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                    module.__class__ = Convolution
            return self.to(device)
        return self.to(device, memory_format=torch.channels_last)

    def compile_backbone(self, **options) -> None:
        """Train the backbone with torch.compile, which fuses steps such as BatchNorm, ReLU and rounding.

        ``options`` are those of ``torch.compile``. Eval mode, and with it feature extraction, is not affected.
        """
        self.training_maps = torch.compile(_feature_maps, fullgraph=True, dynamic=False, **options)

    def pool(self, frames: Tensor) -> Tensor:
        """Pool frames: (n, 3, H, W) -> (n, D) float32, the mean over positions of the last feature map."""
        feature_maps = self.training_maps if self.training else _feature_maps
        maps = feature_maps(self.stem, self.body, frames.contiguous(memory_format=torch.channels_last))
        return maps.mean((2, 3), dtype=torch.float32)

    def pool_tracklets(self, images: Tensor) -> Tensor:
        """Pool tracklets: (B, T, 3, H, W) -> (B, D) float32, the mean over positions and frames."""
        batch, length = images.shape[:2]
        return self.pool(images.flatten(0, 1)).view(batch, length, -1).mean(1)

    def embed(self, pooled: Tensor) -> Output:
        """Compute embedding and feature from pooled vectors (B, D), which are already means over a tracklet's frames.

        Released code: dropout comes after the normalization, so that the embedding does not have unit length.
        """
        embedding = self.head(pooled)
        if self.dropout_position == "before_normalize":
            embedding = normalize(self.dropout(embedding))
        else:
            embedding = self.dropout(normalize(embedding))
        return Output(embedding, normalize(pooled))

    def forward(self, images: Tensor) -> Output:
        """Compute embedding and feature of tracklets (B, T, 3, H, W); the mean over frames is taken before the head."""
        if images.ndim != 5 or images.shape[2] != 3 or not images.is_floating_point():
            got = f"{tuple(images.shape)} {images.dtype}"
            raise ValueError(f"images must be (B, T, 3, H, W), normalized, not {got}; for single images T is 1")
        return self.embed(self.pool_tracklets(images))


def _feature_maps(stem: nn.Module, body: nn.Module, frames: Tensor) -> Tensor:
    return body(stem(frames))


class Convolution(nn.Conv2d):
    """A convolution that is computed as a matrix product if its output has at most ``FEW_PIXELS`` pixels.

    The weights are then much larger than the feature maps, and on a CPU a plain convolution spends nearly all its time
    on rearranging them at every step. With the matrix product, the last convolutions of ResNet-18, on 2×1 maps of 16
    images of 64×32, take a third of the time.
    """

    FEW_PIXELS = 8

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve: (B, C, H, W) -> (B, out_channels, h, w)."""
        sides = zip(maps.shape[2:], self.kernel_size, self.padding, self.stride, strict=True)
        h, w = ((side + 2 * padding - kernel) // stride + 1 for side, kernel, padding, stride in sides)
        if h * w > self.FEW_PIXELS:
            return super().forward(maps)
        patches = unfold(maps, self.kernel_size, padding=self.padding, stride=self.stride)  # (B, C * 3 * 3, h * w)
        product = self.weight.flatten(1) @ patches.transpose(0, 1).flatten(1)  # (out_channels, B * h * w)
        if self.bias is not None:
            product = product + self.bias[:, None].to(product)
        return product.view(-1, len(maps), h, w).transpose(0, 1).contiguous()


class Backbone(NamedTuple):
    """A torchvision network and its parts."""

    network: nn.Module  # the whole network, including its classifier, which is not used here
    stem: nn.Module  # up to stride 8
    body: nn.Module  # the rest, up to the last feature map
    width: int  # channels of the last feature map


def require_backbone(name: str) -> None:
    """Raise ValueError unless the name is one of ``BACKBONES``."""
    if name not in BACKBONES:
        raise ValueError(f"backbone {name!r} is not one of {', '.join(BACKBONES)}")


def require_weights(weights: str, name: str) -> None:
    """Raise ValueError unless ``weights`` is "imagenet", "none" or a file."""
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        choices = f"'imagenet', 'none', 'catalogue' or a .pth or .safetensors file of {name}"
        raise ValueError(f"{weights}: no such weights; use {choices}")


def load_backbone(name: str, weights: str) -> Backbone:
    """Load a torchvision network by name; ``weights`` is as for :class:`Model`."""
    import torchvision  # takes as long to import as torch itself, and is only needed for training

    require_backbone(name)
    require_weights(weights, name)
    small, of_torchvision = name.endswith("-cifar"), name.removesuffix("-cifar")
    if small and weights == "imagenet":
        raise ValueError(f"{name} has no ImageNet weights; use 'none', or a file with weights of {name}")
    try:
        network = torchvision.models.get_model(
            of_torchvision, weights="IMAGENET1K_V1" if weights == "imagenet" else None
        )
    except OSError as error:
        url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
        raise ValueError(
            f"{url}: cannot be downloaded ({error}); download it on another machine and use --weights FILE"
        ) from error
    if small:
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as its other convolutions
    if name == "mobilenet_v2":
        backbone = Backbone(network, network.features[:7], network.features[7:], network.last_channel)
    else:
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool, network.layer1, network.layer2)
        backbone = Backbone(network, stem, nn.Sequential(network.layer3, network.layer4), network.fc.in_features)
    if weights not in ("imagenet", "none"):
        _load_weights(backbone, Path(weights), name)
    return backbone


def _load_weights(backbone: Backbone, file: Path, name: str) -> None:
    """Load a file in torchvision's format, or a stage saved by a run (without its head)."""
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        network = backbone.network
        if any(key.startswith("stem.") for key in state):
            network = nn.ModuleDict({"stem": backbone.stem, "body": backbone.body})
            state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
        report = network.load_state_dict(state, strict=False)
    except UnpicklingError as error:  # not shown: its text explains how to run the code in the file
        refused = "refused, because it is damaged or contains more than tensors"
        raise ValueError(f"{file}: {refused}; use a state_dict of {name}") from error
    except Exception as error:  # a damaged file can fail in any way
        what = f"{type(error).__name__}: {str(error)[:300]}"
        raise ValueError(f"{file}: not weights of {name}; use a file of that backbone ({what})") from error
    lost = [k for k in report.missing_keys if not k.startswith(("fc.", "classifier."))]
    if lost or report.unexpected_keys:
        raise ValueError(
            f"{file}: not weights of {name}; use a file of that backbone, or name the backbone of this file: "
            f"{len(lost)} missing ({', '.join(lost[:3])}), "
            f"{len(report.unexpected_keys)} unknown ({', '.join(report.unexpected_keys[:3])})"
        )


def describe_weights(weights: str) -> str:
    """Return "imagenet", "none", or the name and digest of a local file, so that no local path gets into a record."""
    file = Path(weights)
    if weights in ("imagenet", "none") or not file.is_file():
        return weights
    with file.open("rb") as content:
        return f"{file.name} {hashlib.file_digest(content, 'blake2b').hexdigest()[:16]}"
