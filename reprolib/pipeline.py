"""A run, from its settings to its record: in one process, beside other processes, or resumed after an interruption."""

from collections.abc import Callable
from pathlib import Path

import torch

from reprolib.algorithm import Algorithm
from reprolib.criteria import require_linkage
from reprolib.datasets import Split
from reprolib.files import locked
from reprolib.model import Model
from reprolib.plan import Plan, decode, make_plan
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

    An interrupted run resumes after the last saved epoch, as if it had not been interrupted; the record of a finished
    run is read back. Processes started by ``torchrun`` train together; the first process does everything else and
    writes the files.

    Args:
        recipe: the method.
        dataset: a dataset name of ``load_dataset``, or a Split, which is used in its own order.
        seed: determines initial weights, order, crops, dropout and, with ``identities``, which identities are drawn.
        device: "cpu", "cuda" or "cuda:1"; None means CUDA if available.
        precision: precision of the network's products: "float32", "tf32" (only on CUDA) or "bf16"; None means float32
            on a CPU and TF32 on CUDA.
        compiled: train the backbone with ``torch.compile``: on a GPU it takes about a minute to compile and is faster
            afterwards; the record says so. A finished run is read back whether it was compiled or not.
        backbone: resnet50, resnet18, resnet18-cifar or mobilenet_v2. None means resnet50, as in the papers; resnet18
            for the synthetic datasets, resnet18-cifar for cifar10.
        weights: "imagenet", "none", a local file, or "catalogue", which replaces ImageNet for the synthetic datasets.
            None means imagenet; catalogue for the synthetic datasets, none for cifar10.
        image_size: (height, width) in pixels. None means (256, 128); (64, 32) for the synthetic datasets, (32, 32) for
            cifar10.
        identities: train on this many identities, drawn at random; query and gallery stay complete. As many of the
            other identities, if there are any, become the validation set.
        samples: train on this many samples, drawn at random; for CIFAR-10 they are also the gallery.
        data_root: folder of the datasets; None means ``$REPROLIB_DATA``, else ``data/``.
        fresh: first delete the record, labels, t-SNE map and state of an earlier run with the same settings, including
            the first stage that it shares with other runs.
        wait: wait for another process that is working on the same run, or on the first stage that it shares.
        on_stage: called after each stage with the record so far and the total number of stages.

    Returns:
        The record, which is also written to ``results/runs``.

    Raises:
        ValueError: invalid settings, unreadable data, a folder that is not writable, or saved state that was made
            by other code, versions or data, or on another kind of device; the message gives the remedy.
        Busy: another process is working on the run, and ``wait`` is False.
    """
    plan = make_plan(
        recipe,
        dataset,
        seed=seed,
        device=device,
        precision=precision,
        compiled=compiled,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        identities=identities,
        samples=samples,
        data_root=data_root,
    )
    with team(plan.device) as together:
        if together.rank > 0:
            return _begin(plan, together).follow()
        wait = wait or together.size > 1  # a process that does not wait would leave the others waiting
        with locked(plan.folder, wait=wait):
            if fresh:
                plan.forget()
            if plan.file.exists():
                return together.tell(_read_back(plan))
            if not wait and not (plan.folder / "stage_00").exists():
                with locked(first_stage_folder(plan.settings), wait=False):
                    pass  # no other process is working on the first stage either
            return together.tell(_begin(plan, together).finish(on_stage))


def _read_back(plan: Plan) -> RunRecord:
    record = load_record(plan.file)
    if record.name != plan.file.stem:
        raise RecordError(
            f"{plan.file}: contains another record, {record.name}; restore the right one, or run again with --fresh"
        )
    if then := record.provenance.get("tested_on"):
        forgiven = {"train identities", "linkage"} - then.keys()  # missing in records of earlier code
        require_same(plan.file, then, {k: v for k, v in plan.tested_on().items() if k not in forgiven})
    return record


def _begin(plan: Plan, together: Team) -> Algorithm:
    """Prepare a run with its model and data, before its first stage."""
    if plan.compiled and together.size > 1:
        raise ValueError("compiled=True works only in a single process; leave it out under torchrun")
    with torch.random.fork_rng([]):
        torch.manual_seed(plan.settings["seed"])
        frozen = plan.split.is_video
        model = Model(plan.recipe, backbone=plan.settings["backbone"], weights=plan.weights, freeze_stem=frozen)
    if plan.recipe.has_own_linkage:  # checked now rather than after the first stage
        require_linkage(plan.recipe.criterion.linkage, torch.empty(0, model.head[0].in_features, device=plan.device))
    parts = ("train", *RANKED_ON) if together.rank == 0 else ("train",)  # only the first process ranks
    images = decode(plan.split, tuple(plan.settings["image_size"]), parts=parts, device=plan.device)
    model.place(plan.device)
    if plan.compiled:
        model.compile_backbone()
    return Algorithm(plan, images, model, together)
