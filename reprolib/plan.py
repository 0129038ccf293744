"""The plan of a run: all settings with their defaults filled in, its files, and its images."""

import hashlib
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Number
from pathlib import Path

import numpy as np
import torch

from reprolib import paths
from reprolib.datasets import Split, fingerprint, identities_fingerprint, load_dataset, require_usable
from reprolib.decoding import SMALLEST
from reprolib.devices import choose_device, choose_precision
from reprolib.files import locked
from reprolib.images import Images, load_images
from reprolib.model import describe_weights, require_backbone, require_weights
from reprolib.pretraining import catalogue_weights
from reprolib.recipe import Recipe
from reprolib.record import run_name
from reprolib.state import RANKED_ON, first_stage_folder, forget
from reprolib.training import require_batch

# Default network of a dataset: (backbone, weights, image size).
PAPERS_NETWORK = ("resnet50", "imagenet", (256, 128))  # the size is the programs'; the papers name none
NETWORKS = {
    "synthetic": ("resnet18", "catalogue", (64, 32)),
    "synthetic-video": ("resnet18", "catalogue", (64, 32)),
    "cifar10": ("resnet18-cifar", "none", (32, 32)),
}

MOST_SEEDS = 10**15  # the seed of a stage is about a thousand times that of the run


@dataclass(frozen=True, eq=False)
class Plan:
    """The settings of a run, and where its files are kept."""

    recipe: Recipe
    split: Split
    settings: dict  # settings of the record
    weights: str  # "imagenet", "none" or a file; the settings have its name and digest
    device: torch.device
    compiled: bool = False

    @property
    def file(self) -> Path:
        """The file of the record."""
        return paths.RUNS / f"{run_name(self.settings)}.json"

    @property
    def folder(self) -> Path:
        """The folder of the stages."""
        return paths.STATE / run_name(self.settings)

    def tested_on(self) -> dict[str, str]:
        """Return fingerprints of what the name of a run does not cover.

        These are the sets that the stages are ranked on, including labels; the training identities, which are used for
        diagnosis; and a custom linkage.
        """
        sets = {part: getattr(self.split, part) for part in RANKED_ON}
        found = {part: fingerprint(held, labels=True) for part, held in sets.items() if held is not None}
        linkage = (
            {"linkage": _fingerprint_of_code(self.recipe.criterion.linkage)} if self.recipe.has_own_linkage else {}
        )
        return found | {"train identities": identities_fingerprint(self.split)} | linkage

    def forget(self) -> None:
        """Remove the record and all that belongs to it; the caller must hold the folder's lock."""
        forget(self.folder)
        first = first_stage_folder(self.settings)
        with locked(first):
            forget(first)
        for file in (self.file, *(folder / f"{self.file.stem}.npz" for folder in (paths.LABELS, paths.MAPS))):
            file.unlink(missing_ok=True)


def make_plan(
    recipe: Recipe,
    dataset: str | Split,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: str | None = None,
    compiled: bool = False,
    backbone: str | None = None,
    weights: str | None = None,
    image_size: tuple[int, int] | None = None,
    identities: int | None = None,
    samples: int | None = None,
    data_root: str | Path | None = None,
) -> Plan:
    """Fill in the defaults of the arguments of :func:`reprolib.run`; raise ValueError for invalid ones."""
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{recipe!r} is not a Recipe; pass reprolib.BUC or another Recipe")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < MOST_SEEDS:
        raise ValueError(f"seed={seed!r} must be an integer of at least 0 and below {MOST_SEEDS:,}")
    for name, number in (("identities", identities), ("samples", samples)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise ValueError(f"{name}={number!r} must be an integer, or None for all")
    identities, samples = (None if number is None else int(number) for number in (identities, samples))
    if not isinstance(dataset, str | Split):
        raise ValueError(f"dataset is a {type(dataset).__name__}; pass a dataset's name, or a Split of your images")
    device = choose_device(device)
    precision = choose_precision(precision, device)
    if backbone:
        require_backbone(backbone)
    split = _loaded(recipe, dataset, data_root)
    split = split if identities is None else split.keep_identities(identities, seed=seed)
    split = split if samples is None else split.keep_samples(samples, seed=seed)
    if samples is not None and recipe.train_order == "sorted":  # they were drawn in any order
        split = split.sort()
    require_usable(split)
    _require_trainable(recipe, split)
    default = NETWORKS.get(split.name, PAPERS_NETWORK)
    backbone, image_size = backbone or default[0], _checked_size(default[2] if image_size is None else image_size)
    weights, source = weights or default[1], ""
    if weights == "catalogue":
        weights, source = str(catalogue_weights(backbone, image_size=image_size)), "catalogue "
    require_weights(weights, backbone)
    settings = {
        "dataset": split.name,
        "fingerprint": fingerprint(split.train),
        "identities": identities,
        "recipe": recipe.settings(),
        "backbone": backbone,
        "weights": source + describe_weights(weights),
        "image_size": list(image_size),
        "seed": int(seed),
    }
    settings |= {"images": split.images} if split.images else {}  # missing: as published
    settings |= {"samples": samples} if samples is not None else {}  # missing: all
    settings |= {"precision": precision} if precision != "float32" else {}  # missing: float32
    return Plan(recipe, split, settings, weights, device, compiled)


def _loaded(recipe: Recipe, dataset: str | Split, data_root: str | Path | None) -> Split:
    """Return a named dataset as the recipe wants it; a Split is used as it is."""
    if isinstance(dataset, str):
        return load_dataset(dataset, root=data_root, train_order=recipe.train_order, junk=recipe.junk)
    if (recipe.junk, recipe.train_order) != ("left_out", "shuffled"):
        raise ValueError(
            f"{recipe.name} changes the junk or the order of the images, but a Split is used as it is; add the junk or "
            "sort the Split yourself"
        )
    if recipe.table_start == "stale_means" and dataset.is_sorted:
        warnings.warn(
            f"{dataset.name} is sorted by identity, and {recipe.name} would learn identities from that order (see "
            "docs/audit.md); use split.shuffle(0)",
            stacklevel=4,
        )
    return dataset


def _fingerprint_of_code(function: Callable) -> str:
    """Return a digest of a function, of the functions of the same module that it calls, and of their constants."""
    known = [function]
    for found in known:  # which grows meanwhile
        known += [v for v in _used(found).values() if _is_beside(function, v) and v not in known]
    return hashlib.blake2b("".join(map(_text, known)).encode(), digest_size=8).hexdigest()


def _is_beside(function: Callable, value) -> bool:
    return inspect.isfunction(value) and value.__module__ == function.__module__


def _used(function: Callable) -> dict[str, object]:
    """Return what a function closes over, reads from its module, or has as defaults, by name."""
    if not inspect.isfunction(function):
        return {}
    used, parameters = inspect.getclosurevars(function), inspect.signature(function).parameters
    return used.globals | used.nonlocals | {n: p.default for n, p in parameters.items() if p.default is not p.empty}


def _text(function: Callable) -> str:
    """Return the source of a function (its bytecode if there is none) and the numbers, texts and arrays it uses."""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        text = repr((code.co_code, code.co_consts, code.co_names)) if code else repr(type(function))
    values = {n: v for n, v in _used(function).items() if not (callable(v) or inspect.ismodule(v))}
    return text + "".join(f"{name}={_form(values[name])};" for name in sorted(values))


def _form(value) -> str:
    """Return a text that is the same for equal values in every process; for objects of other kinds only their type."""
    if isinstance(value, torch.Tensor | np.ndarray):
        array = torch.as_tensor(value).detach().cpu().numpy()
        return hashlib.blake2b(np.ascontiguousarray(array)).hexdigest()
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_form(k)}: {_form(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_form, value))}]"
    if isinstance(value, set | frozenset):  # their order differs from process to process
        return f"[{', '.join(sorted(map(_form, value)))}]"
    return repr(value) if isinstance(value, Number | str) else type(value).__name__


def _checked_size(image_size: tuple[int, int]) -> tuple[int, int]:
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) and side >= SMALLEST for side in sides):
        raise ValueError(f"image_size={image_size!r} must be (height, width), each at least {SMALLEST} pixels")
    return tuple(map(int, sides))


def _require_trainable(recipe: Recipe, split: Split) -> None:
    require_batch(len(split.train), recipe)
    if recipe.selection == "test" and split.query is None:
        raise ValueError(
            "selection='test' needs a query and a gallery; pass them, or use selection='silhouette' or 'last'"
        )
    if recipe.start == "identities" and not split.knows_identities:
        raise ValueError(f"{recipe.name} trains on identities, but not all identities of {split.name} are known")
    if recipe.selection == "validation" and split.validation is None:
        raise ValueError("selection='validation' needs identities that are left out of training; set identities=...")
    if recipe.selection == "silhouette" and recipe.criterion is None:
        raise ValueError(
            f"selection='silhouette' needs clusters, but {recipe.name} does not merge; use another selection"
        )


def decode(
    split: Split, image_size: tuple[int, int], *, parts: Sequence[str], device: torch.device
) -> dict[str, Images]:
    """Decode those of ``parts`` that a split has (or memory-map the cache of an earlier run); move them to a device."""
    size, found = "x".join(map(str, image_size)), {}
    for part in parts:
        if (tracklets := getattr(split, part)) is not None:
            cache = paths.CACHE / f"{split.name}-{part}-{size}-{fingerprint(tracklets, written=True)}.npy"
            found[part] = load_images(tracklets.frames, image_size, cache=cache).to(device)
    return found
