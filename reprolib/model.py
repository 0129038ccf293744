"""Backbone and embedding head: images -> (embedding, feature)."""

import hashlib
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize, unfold

from reprolib.recipe import Recipe

BACKBONES = ("resnet50", "resnet18", "resnet18-cifar", "mobilenet_v2")  # -cifar: 3×3 stem for images of 32×32


class Output(NamedTuple):
    """What a batch becomes."""

    embedding: Tensor  # (B, d): what the loss and the lookup table see
    feature: Tensor  # (B, D) unit rows, the pooled vector: what is merged and ranked, as in both released programs


class Model(nn.Module):
    """A backbone, the mean over frames, and the embedding head of a recipe.

    Args:
        recipe: embedding_dim, embedding_layers, dropout and dropout_position are read.
        backbone: one of ``BACKBONES``, by its torchvision name; "resnet18-cifar" is ResNet-18 with a 3×3 convolution
            of stride 1 and no pooling in front, as usual on CIFAR-10, and has no ImageNet weights.
        weights: "imagenet" (torchvision's IMAGENET1K_V1, downloaded once), "none", or a local file.
        freeze_stem: the video protocol: everything up to stride 8 (conv1 to layer2) keeps its weights, and its
            BatchNorm stays in eval mode.
    """

    def __init__(self, recipe: Recipe, *, backbone: str = "resnet50", weights: str = "imagenet", freeze_stem=False):
        """Build, initialize and load."""
        super().__init__()
        _, self.stem, self.body, width = load_backbone(backbone, weights)
        self.freeze_stem = freeze_stem
        layers: list[nn.Module] = []
        for k in range(recipe.embedding_layers):
            linear = nn.Linear(width if k == 0 else recipe.embedding_dim, recipe.embedding_dim)
            nn.init.kaiming_normal_(linear.weight, mode="fan_out")
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.BatchNorm1d(recipe.embedding_dim), nn.ReLU()]
        self.head = nn.Sequential(*layers[:-1])
        self.dropout = nn.Dropout(recipe.dropout)
        self.dropout_position = recipe.dropout_position
        self.backbone = backbone
        self.training_maps = _feature_maps
        for parameter in self.stem.parameters():
            parameter.requires_grad_(not freeze_stem)

    def train(self, mode: bool = True) -> "Model":
        """Training mode, but for a frozen stem."""
        super().train(mode)
        if self.freeze_stem:
            self.stem.eval()
        return self

    def place(self, device: torch.device) -> "Model":
        """Move to a device, in the form that is faster there: weights channels last, but for a ResNet on a CPU."""
        if device.type == "cpu" and self.backbone.startswith("resnet"):
            for module in self.modules():
                if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                    module.__class__ = Convolution
            return self.to(device)
        return self.to(device, memory_format=torch.channels_last)

    def compile_backbone(self, **options) -> None:
        """Train the backbone by torch.compile's kernels, which do in one what are several: BatchNorm, ReLU, rounding.

        ``options`` are those of ``torch.compile``. In eval mode, as for extraction, nothing changes.
        """
        self.training_maps = torch.compile(_feature_maps, fullgraph=True, dynamic=False, **options)

    def pool(self, frames: Tensor) -> Tensor:
        """(n, 3, H, W) -> (n, D) float32, the mean over positions of the last feature map."""
        feature_maps = self.training_maps if self.training else _feature_maps
        maps = feature_maps(self.stem, self.body, frames.contiguous(memory_format=torch.channels_last))
        return maps.mean((2, 3), dtype=torch.float32)

    def pool_tracklets(self, images: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, D) float32, the mean over positions and frames."""
        batch, length = images.shape[:2]
        return self.pool(images.flatten(0, 1)).view(batch, length, -1).mean(1)

    def embed(self, pooled: Tensor) -> Output:
        """(B, D) pooled vectors, already the mean over a tracklet's frames -> embedding and feature.

        Released code: dropout comes after the normalization, so that the embedding is not of unit length.
        """
        embedding = self.head(pooled)
        if self.dropout_position == "before_normalize":
            embedding = normalize(self.dropout(embedding))
        else:
            embedding = self.dropout(normalize(embedding))
        return Output(embedding, normalize(pooled))

    def forward(self, images: Tensor) -> Output:
        """(B, T, 3, H, W) -> Output; the mean over T frames is taken before the head."""
        return self.embed(self.pool_tracklets(images))


def _feature_maps(stem: nn.Module, body: nn.Module, frames: Tensor) -> Tensor:
    return body(stem(frames))


class Convolution(nn.Conv2d):
    """A matrix product, where the maps that come out have ``FEW_PIXELS`` at most.

    The weights are then many times the maps, and on a CPU nearly all the time goes into arranging them anew at every
    step: ResNet-18's last convolutions, on maps of 2×1 and 16 images of 64×32, take a third of it so.
    """

    FEW_PIXELS = 8

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, h, w)."""
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

    network: nn.Module  # whole, with the classifier that nothing here uses
    stem: nn.Module  # up to stride 8
    body: nn.Module  # the rest, up to the last feature map
    width: int  # channels of the last feature map


def require_backbone(name: str) -> None:
    """ValueError for one that is not of ``BACKBONES``."""
    if name not in BACKBONES:
        raise ValueError(f"backbone {name!r} is not one of {', '.join(BACKBONES)}")


def require_weights(weights: str, name: str) -> None:
    """ValueError for what is neither "imagenet", "none" nor a file."""
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        choices = f"'imagenet', 'none', 'catalogue' or a .pth or .safetensors file of {name}"
        raise ValueError(f"{weights}: no such weights; give {choices}")


def load_backbone(name: str, weights: str) -> Backbone:
    """A torchvision network by name: ``weights`` as for :class:`Model`."""
    import torchvision  # as long as torch itself to import, and only who trains needs it

    require_backbone(name)
    require_weights(weights, name)
    small, of_torchvision = name.endswith("-cifar"), name.removesuffix("-cifar")
    if small and weights == "imagenet":
        raise ValueError(f"{name} has no ImageNet weights; give 'none', or a file of its own")
    try:
        network = torchvision.models.get_model(
            of_torchvision, weights="IMAGENET1K_V1" if weights == "imagenet" else None
        )
    except OSError as error:
        url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
        raise ValueError(f"{url}: cannot be downloaded ({error}); fetch it elsewhere: --weights FILE") from error
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
    """Torchvision's own form, or that in which a run leaves a stage: then all but its head."""
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
    except UnpicklingError as error:  # its own text tells how to run the code
        refused = "refused, for it is damaged or holds more than tensors"
        raise ValueError(f"{file}: {refused}; give a state_dict of {name}") from error
    except Exception as error:  # a damaged file fails in any way
        what = f"{type(error).__name__}: {str(error)[:300]}"
        raise ValueError(f"{file}: not weights of {name}, give such: {what}") from error
    lost = [k for k in report.missing_keys if not k.startswith(("fc.", "classifier."))]
    if lost or report.unexpected_keys:
        raise ValueError(
            f"{file}: not weights of {name}, give such or name their backbone: "
            f"{len(lost)} missing ({', '.join(lost[:3])}), "
            f"{len(report.unexpected_keys)} unknown ({', '.join(report.unexpected_keys[:3])})"
        )


def describe_weights(weights: str) -> str:
    """ "imagenet", "none", or a local file's name and digest, so that no path of this machine is recorded."""
    file = Path(weights)
    if weights in ("imagenet", "none") or not file.is_file():
        return weights
    with file.open("rb") as content:
        return f"{file.name} {hashlib.file_digest(content, 'blake2b').hexdigest()[:16]}"
