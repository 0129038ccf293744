"""Inputs that resemble those of a run: features in groups, clusters of neighbors, ids with junk and distractors."""

import torch
from torch import Tensor

IMAGES_OF_AN_IDENTITY = 17  # Market-1501: 12,936 training images of 751 people
LATENT_DIM = 128  # people differ in far fewer directions than the features have dimensions


def features(count: int, dim: int, *, seed: int = 0, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Make unit rows (count, dim) without negative values, like pooled features, and their identities (count,).

    The images of a person lie around a center, some close to it and some far away. This determines how many pairs are
    near the threshold of a stage, and therefore the cost of a stage after the product.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    centers, spread = normal(-(-count // IMAGES_OF_AN_IDENTITY), LATENT_DIM), normal(LATENT_DIM, dim)
    identities = torch.randint(len(centers), (count,), generator=generator, device=device)
    rows = torch.empty(count, dim, device=device)
    for some, identity in zip(rows.split(2048), identities.split(2048), strict=True):
        away = 0.2 + 0.8 * torch.rand(len(some), 1, generator=generator, device=device)
        latent = centers[identity] + away * normal(len(some), LATENT_DIM)
        torch.nn.functional.normalize(torch.relu_(latent @ spread), out=some)
    return rows, identities


def clusters(identities: Tensor, num_clusters: int, *, seed: int = 0) -> Tensor:
    """Make pseudo-labels (N,) as after some stages: clusters of many sizes, of one person or of two."""
    count, device = len(identities), identities.device
    generator = torch.Generator(device).manual_seed(seed)
    starts = torch.zeros(count, dtype=torch.int64, device=device)
    starts[1 + torch.randperm(count - 1, generator=generator, device=device)[: num_clusters - 1]] = 1
    names = torch.randperm(num_clusters, generator=generator, device=device)
    return torch.empty_like(starts).index_copy_(0, identities.argsort(), names[starts.cumsum(0)])


def ids(queries: int, gallery: int, *, junk: bool = True, seed: int = 0) -> dict[str, Tensor]:
    """Make pids and camids as in Market-1501: a fifth of the gallery are distractors (pid 0, which no query has).

    Without ``junk`` queries and gallery are from different cameras, so that no gallery image is left out.
    """
    generator = torch.Generator().manual_seed(seed)
    people = -(-gallery // 20)
    pids = torch.randint(1, people + 1, (gallery,), generator=generator)
    pids[torch.rand(gallery, generator=generator) < 0.2] = 0
    cameras = torch.randint(6, (queries + gallery,), generator=generator)
    own = torch.randint(1, people + 1, (queries,), generator=generator)
    own[0] = pids[pids > 0][0]  # so that at least one query has a match
    away = 0 if junk else 6
    return {
        "query_pids": own,
        "gallery_pids": pids,
        "query_camids": cameras[:queries],
        "gallery_camids": cameras[queries:] + away,
    }
