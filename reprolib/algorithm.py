"""Algorithm 1 of both papers: in every stage train, extract, evaluate, merge and relabel; returns a run record."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from reprolib import paths
from reprolib.assessment import metrics_of, select_stage
from reprolib.devices import keeping_freed_memory
from reprolib.epochs import learning_rates
from reprolib.extraction import extract
from reprolib.files import discard, locked, replacing
from reprolib.images import Images
from reprolib.memory import LookupTable, cluster_means
from reprolib.merging import merge_clusters
from reprolib.model import Model, Output
from reprolib.plan import Plan
from reprolib.quality import MANY, cluster_quality, cluster_validity
from reprolib.record import RunRecord, provenance
from reprolib.state import (
    Checkpoint,
    first_stage,
    first_stage_folder,
    load_array,
    load_content,
    load_weights,
    make_origin,
    save_folder,
)
from reprolib.team import Team
from reprolib.training import train_stage


class Algorithm:
    """Algorithm 1 for one run, with the state that is passed from stage to stage."""

    def __init__(self, plan: Plan, images: dict[str, Images], model: Model, team: Team):
        """Prepare a run; ``images`` are those of each set, or for followers in a team of the training set alone."""
        recipe, settings, device, tested_on = plan.recipe, plan.settings, plan.device, plan.tested_on()
        self.recipe, self.split, self.images, self.model, self.device = recipe, plan.split, images, model, device
        self.precision, self.team = settings.get("precision", "float32"), team
        self.folder = plan.folder
        self.image_size = tuple(settings["image_size"])
        self.seed = settings["seed"]
        self.labels = torch.arange(len(plan.split.train))  # every sample its own cluster
        if recipe.start == "identities":  # supervised upper bound: the only place where training sees a pid
            self.labels = torch.from_numpy(np.unique(plan.split.train_pids, return_inverse=True)[1])
        self.table_start: Tensor | None = None  # initial table of the next stage; None: zeros
        self.record = RunRecord(settings, provenance(device, self.precision), untrained={})
        if team.size > 1:
            self.record.provenance["processes"] = team.size
        compiled = {"compiled": True} if plan.compiled else {}
        self.record.provenance |= {"tested_on": tested_on, **compiled}
        self.origin = make_origin(settings, device=device.type, **tested_on, **compiled)
        self.num_stages = recipe.num_stages(len(self.labels))
        self.merges_per_stage = recipe.merges_per_stage(len(self.labels))

    @keeping_freed_memory()
    def finish(self, on_stage: Callable[[RunRecord, int], None] | None) -> RunRecord:
        """Run all remaining stages and return the record."""
        self._resume()
        if not self.record.stages:
            self.record.untrained = self._evaluate()
        first = len(self.record.stages)
        with tqdm(total=self.num_stages, initial=first, desc=self.recipe.name, unit="stage") as bar:
            for stage in range(first, self.num_stages):
                entry = self._stage(stage)
                metrics = entry["metrics"]
                shown = {"rank-1": f"{metrics['rank-1']:.1%}"} if metrics else {}
                bar.set_postfix({"clusters": entry["num_clusters"], **shown})
                bar.update()
                if on_stage:
                    on_stage(self.record, self.num_stages)
        self.record.selected = select_stage(self.record.stages, self.recipe.selection)
        self.record.provenance["seconds"] = round(sum(sum(s["seconds"].values()) for s in self.record.stages), 1)
        labels = np.stack([load_array(self._stage_folder(s), "labels") for s in range(self.num_stages)])
        pids = self.split.train_pids
        with replacing(paths.LABELS / f"{self.record.name}.npz") as partial, partial.open("wb") as file:
            np.savez_compressed(file, pseudo_labels=labels.astype(np.int32), pids=pids)
        self.record.save()
        return self.record

    @keeping_freed_memory()
    def follow(self) -> RunRecord:
        """Train with the first process of a team until it sends the record (the other processes' part)."""
        while not isinstance(news := self.team.tell(), RunRecord):
            stage, self.labels, start = news
            self.table_start = None if start is None else start.to(self.device)
            self._train(stage, int(self.labels.max()) + 1, None)
        return news

    def _stage(self, stage: int) -> dict:
        """Train on the labels, evaluate, merge, save."""
        labels = self.labels
        checkpoint = Checkpoint(self._stage_folder(stage), self.origin)
        entry = self._first_stage() if stage == 0 else self._learn(stage, checkpoint)
        clock = _Clock(entry["seconds"], self.device)
        entry["metrics"] = self._evaluate()
        entry |= {"validation": self._validate()} if "validation" in self.images else {}
        clock.lap("evaluate")
        entry |= {"quality": asdict(cluster_quality(labels, self.split.train_pids)), "validity": {}}
        merging = self.recipe.criterion is not None and stage + 1 < self.num_stages
        judging = self.recipe.criterion is not None and (len(labels) <= MANY or self.recipe.selection == "silhouette")
        if merging or judging:
            output = self._extract("train")
            clock.lap("extract")
        if judging:
            entry["validity"] = cluster_validity(output.feature, labels)
            clock.lap("validity")
        if merging:
            how = {"criterion": self.recipe.criterion, "merges_per_stage": self.merges_per_stage}
            self.labels = merge_clusters(output.feature, labels.to(self.device), **how).cpu()
            clock.lap("merge")
            self._start_table(output.embedding, old=labels, new=self.labels)
        self._save(entry, labels)
        checkpoint.forget()
        return entry

    def _first_stage(self) -> dict:
        """Train the stage before any merge; recipes that differ only in later stages share it."""
        folder, origin = first_stage_folder(self.record.settings), first_stage(self.origin)
        with locked(folder):
            checkpoint = Checkpoint(folder, origin)
            entry = load_content(folder, origin, shared=True)
            if entry is None:
                entry = self._learn(0, checkpoint)
                discard(folder)  # a stage made by other code or versions, if there is one
                save_folder(folder, origin, entry, self.model)
            else:
                load_weights(folder, self.model)
            checkpoint.forget()
        return entry

    def _learn(self, stage: int, checkpoint: Checkpoint) -> dict:
        """Train a stage on the current labels."""
        num_clusters, clock = int(self.labels.max()) + 1, _Clock({}, self.device)
        self.team.tell((stage, self.labels, None if self.table_start is None else self.table_start.cpu()))
        losses = self._train(stage, num_clusters, checkpoint)
        clock.lap("train", before=checkpoint.seconds)
        return {"stage": stage, "num_clusters": num_clusters, "losses": losses, "seconds": clock.seconds}

    def _train(self, stage: int, num_clusters: int, checkpoint: Checkpoint | None) -> list[float]:
        rows = num_clusters if self.table_start is None else len(self.table_start)
        dim = self.recipe.embedding_dim
        table = LookupTable(rows, dim, normalize=self.recipe.normalize_table, device=self.device)
        if self.table_start is not None:
            table.weight.copy_(self.table_start)
        rates = learning_rates(self.recipe, stage, video=self.split.is_video)
        title = {"desc": f"stage {stage}, {num_clusters} clusters", "unit": "epoch", "leave": False}
        quiet = {"disable": True} if self.team.rank > 0 else {}  # {}: as $TQDM_DISABLE says
        with tqdm(total=len(rates), **title, **quiet) as bar:

            def show(epoch: int, loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.3f}")
                bar.update(epoch + 1 - bar.n)

            return train_stage(
                self.model,
                self.images["train"],
                self.split.train.starts,
                self.labels,
                table,
                recipe=self.recipe,
                image_size=self.image_size,
                learning_rates=rates,
                seed=self.seed * 1000 + stage,
                device=self.device,
                precision=self.precision,
                team=self.team,
                checkpoint=checkpoint,
                on_epoch=show,
            )

    def _extract(self, part: str) -> Output:
        return extract(
            self.model,
            self.images[part],
            getattr(self.split, part).starts,
            image_size=self.image_size,
            device=self.device,
            frames_at_most=self.recipe.frames_at_most,
            precision=self.precision,
        )

    def _evaluate(self) -> dict:
        if self.split.query is None:
            return {}
        features = self._extract("query").feature, self._extract("gallery").feature
        return metrics_of(features, self.split.query, self.split.gallery)

    def _validate(self) -> dict:
        """Evaluate on the held-out identities: each of their images is a query against all of these images."""
        held, feature = self.split.validation, self._extract("validation").feature
        return metrics_of((feature, feature), held, held)

    def _start_table(self, embeddings: Tensor, *, old: Tensor, new: Tensor) -> None:
        if self.recipe.table_start != "zeros":
            labels = old if self.recipe.table_start == "stale_means" else new
            self.table_start = cluster_means(embeddings, labels.to(self.device))

    def _stage_folder(self, stage: int) -> Path:
        return self.folder / f"stage_{stage:02}"

    def _save(self, entry: dict, labels: Tensor) -> None:
        """Save the stage; keep only the weights of the latest stage and of the best stage so far."""
        self.record.stages.append(entry)
        content = {"untrained": self.record.untrained, "entry": entry}
        arrays = {"labels": labels, "next_labels": self.labels}
        if self.table_start is not None:
            arrays["table"] = self.table_start.cpu()
        save_folder(self._stage_folder(entry["stage"]), self.origin, content, self.model, **arrays)
        best = select_stage(self.record.stages, self.recipe.selection)
        for earlier in range(entry["stage"]):
            if earlier != best:
                (self._stage_folder(earlier) / "model.safetensors").unlink(missing_ok=True)

    def _resume(self) -> None:
        """Resume after the last complete stage, if an earlier process left one."""
        while content := load_content(folder := self._stage_folder(len(self.record.stages)), self.origin):
            Checkpoint(folder, self.origin).forget()  # that process may have ended before it could do so
            self.record.untrained = content["untrained"]
            self.record.stages.append(content["entry"])
        if self.record.stages:
            folder = self._stage_folder(len(self.record.stages) - 1)
            self.labels = torch.from_numpy(load_array(folder, "next_labels"))
            if (folder / "table.npy").exists():
                self.table_start = torch.from_numpy(load_array(folder, "table")).to(self.device)
            load_weights(folder, self.model)


class _Clock:
    """Measures the seconds of each part of a stage, including its work on the device, in a dictionary."""

    def __init__(self, seconds: dict[str, float], device: torch.device):
        self.seconds, self.device = seconds, device
        self._last = time.perf_counter()

    def lap(self, part: str, *, before: float = 0.0) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[part] = round(before + now - self._last, 3)
        self._last = now
