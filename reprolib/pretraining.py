"""Pretraining for the synthetic datasets, instead of ImageNet: the backbone learns to name garments on studio pictures.

The papers start from a network pretrained on general images. A network with random weights recognizes cameras by their
backgrounds, does not find the same person in two cameras, and therefore has nothing useful to merge.
"""

from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from reprolib import paths
from reprolib.datasets.synthetic import load_catalogue
from reprolib.files import locked, replacing
from reprolib.images import crop_and_resize, load_images, random_boxes
from reprolib.model import load_backbone

EPOCHS, BATCH_SIZE, PEAK_RATE = 3, 32, 0.1


def catalogue_weights(backbone: str, *, image_size: tuple[int, int]) -> Path:
    """Return the weights file of a backbone pretrained on the catalogue; it is made once and then kept."""
    height, width = image_size
    file = paths.CACHE / f"catalogue-{backbone}-{height}x{width}.safetensors"
    if file.exists():
        return file
    with locked(file):
        if not file.exists():  # no other process has made it meanwhile
            how_long = "half a minute on one core for resnet18 at 64x32"
            print(f"pretraining {backbone} at {height}x{width} on the catalogue, once: {how_long}", flush=True)
            state = {k: v.contiguous() for k, v in pretrain(backbone, image_size).state_dict().items()}
            with replacing(file) as partial:
                partial.write_bytes(save(state))
    return file


def pretrain(backbone: str, image_size: tuple[int, int]) -> nn.Module:
    """Train a torchvision network on the CPU to recognize in a studio picture what the person wears."""
    pictures, answers = load_catalogue(image_size=image_size)
    images, answers = load_images(pictures, image_size), torch.from_numpy(answers)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network, stem, body, width = load_backbone(backbone, "none")
        head = nn.Linear(width, answers.shape[1])
    # Any other arithmetic, even a faster one, would give other weights, and new runs would get a column of their own.
    layout = torch.contiguous_format if backbone.startswith("resnet") else torch.channels_last
    network.to(memory_format=layout)
    parameters = [*stem.parameters(), *body.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = len(answers) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(answers), generator=generator)[: steps * BATCH_SIZE].split(BATCH_SIZE):
            boxes = random_boxes(images, index, generator=generator)
            flip = torch.rand(len(index), generator=generator) < 0.5
            batch = crop_and_resize(images.pixels[index], boxes, flip, image_size).contiguous(memory_format=layout)
            loss = (head(body(stem(batch)).mean((2, 3))) - answers[index]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network
