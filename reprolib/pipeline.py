"""A run, from what is asked for to its record: alone, beside other processes, or taken up where one was cut off."""

from collections.abc import Callable
from pathlib import Path

import torch

from reprolib.algorithm import Algorithm
from reprolib.criteria import require_linkage
from reprolib.datasets import Split
from reprolib.files import locked
from reprolib.model import Model
from reprolib.plan import Plan, make_plan, prepare
from reprolib.recipe import Recipe
from reprolib.record import RecordError, RunRecord, load_record
from reprolib.state import RANKED_ON, first_stage_folder, require_same
from reprolib.team import Team, team


def run(
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
    fresh: bool = False,
    wait: bool = True,
    on_stage: Callable[[RunRecord, int], None] | None = None,
) -> RunRecord:
    """Train, merge and evaluate a recipe on a dataset; every stage is saved before the next begins.

    A run that was cut off goes on after the last epoch saved, as if nothing had been; a finished one is read back.
    Processes that ``torchrun`` started train together; the first does all else and writes.

    Args:
        recipe: the method.
        dataset: a name of ``load_dataset``, or a Split, whose order is then left as it is.
        seed: decides initial weights, order, crops, dropout and, with ``identities``, which are drawn.
        device: "cpu", "cuda", "cuda:1"; None takes CUDA where there is one.
        precision: "float32", "tf32" (CUDA alone) or "bf16", of the network's products; None takes TF32 on CUDA.
        compiled: train the backbone by ``torch.compile``: on a GPU a minute first, then faster; the record says so.
            A finished run is read back whether it was or not.
        backbone: resnet50, resnet18, resnet18-cifar or mobilenet_v2; None takes the dataset's own of ``NETWORKS``,
            else the papers'.
        weights: "imagenet", "none", a local file, or "catalogue", the embedded datasets' stand-in for ImageNet.
        image_size: (height, width).
        identities: train on this many identities, drawn at random; query and gallery stay whole.
        samples: train on this many samples, drawn at random; of CIFAR-10, the gallery are the same.
        data_root: folder of the datasets; None takes ``$REPROLIB_DATA``, else ``data/``.
        fresh: forget what an earlier run of the same settings left.
        wait: for another process that is at the same run, or at the first stage that it shares.
        on_stage: called after each stage with the record as far as it goes, and the number of stages.

    Returns:
        The record, also written to ``results/runs``.

    Raises:
        ValueError: settings that cannot be, data that cannot be read, a folder that cannot be written to, or state
            that was made with something else; the message says what to do.
        Busy: another process is at it, and ``wait`` is False.
    """
    network = {"device": device, "precision": precision, "compiled": compiled, "backbone": backbone, "weights": weights}
    data = {"image_size": image_size, "identities": identities, "samples": samples, "data_root": data_root}
    plan = make_plan(recipe, dataset, seed=seed, **network, **data)
    with team(plan.device) as together:
        if together.rank > 0:
            return _begin(plan, together).follow()
        wait = wait or together.size > 1  # one that does not would leave the others behind
        with locked(plan.folder, wait=wait):
            if fresh:
                plan.forget()
            if plan.file.exists():
                return together.tell(_read_back(plan))
            if not wait and not (plan.folder / "stage_00").exists():
                with locked(first_stage_folder(plan.settings), wait=False):
                    pass  # nobody is at the first stage either
            return together.tell(_begin(plan, together).finish(on_stage))


def start_over(recipe: Recipe, dataset: str | Split, **settings) -> None:
    """Forget what an earlier run left, the first stage that it shares with others included.

    ``settings`` are those of :func:`run`, from ``seed`` to ``data_root``.
    """
    plan = make_plan(recipe, dataset, **settings)
    with locked(plan.folder):
        plan.forget()


def _read_back(plan: Plan) -> RunRecord:
    record = load_record(plan.file)
    if record.name != plan.file.stem:
        raise RecordError(f"{plan.file}: holds the record {record.name}; restore its own, or run --fresh")
    if then := record.provenance.get("tested_on"):
        forgiven = {"train identities", "linkage"} - then.keys()  # of which records of earlier code say nothing
        require_same(plan.file, then, {k: v for k, v in plan.tested_on().items() if k not in forgiven})
    return record


def _begin(plan: Plan, together: Team) -> Algorithm:
    """A run with its model and data, none of its stages done yet."""
    if plan.compiled and together.size > 1:
        raise ValueError("compiled=True is for a model that one process trains: leave it out under torchrun")
    with torch.random.fork_rng([]):
        torch.manual_seed(plan.settings["seed"])
        frozen = plan.split.is_video
        model = Model(plan.recipe, backbone=plan.settings["backbone"], weights=plan.weights, freeze_stem=frozen)
    if plan.recipe.has_own_linkage:  # said now, and not after the first stage
        require_linkage(plan.recipe.criterion.linkage, torch.empty(0, model.head[0].in_features, device=plan.device))
    parts = ("train", *RANKED_ON) if together.rank == 0 else ("train",)  # the first alone ranks
    data = prepare(plan.split, tuple(plan.settings["image_size"]), parts=parts, device=plan.device)
    model.place(plan.device)
    if plan.compiled:
        model.compile_backbone()
    return Algorithm(plan, data, model, together)
