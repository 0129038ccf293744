"""Recipes: a frozen dataclass holds the whole method; the named recipes are the two papers and the two programs.

The defaults follow the paper. Where the paper is silent they follow the released program. To change a setting:
``dataclasses.replace(BUC, merge_percent=0.1)``.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, get_args, get_origin


def _check_choices(settings) -> None:
    """Raise ValueError for a field whose type or choice does not match its annotation; an int may become a float."""
    kinds = {bool: bool, int: int, float: int | float, str: str}
    for f in fields(settings):
        value, choices = getattr(settings, f.name), get_args(f.type) if get_origin(f.type) is Literal else None
        if choices and value not in choices:
            raise ValueError(f"{f.name}={value!r} is not one of {', '.join(map(repr, choices))}")
        is_number = f.type in (int, float)
        if (f.type in kinds and not isinstance(value, kinds[f.type])) or (is_number and isinstance(value, bool)):
            raise ValueError(f"{f.name}={value!r} must be of type {f.type.__name__}")
        if f.type is float:  # 1 and 1.0 are the same setting, so they must give a run the same name
            object.__setattr__(settings, f.name, float(value))


LINKAGES = ("minimum", "maximum", "centroid", "average")


@dataclass(frozen=True)
class Criterion:
    """Dissimilarity of two clusters, ``linkage + regularizer_weight * regularizer``, and how pairs are ranked by it.

    The comment at each field in ``reprolib/recipe.py`` says what it means; in a notebook ``Criterion??`` shows them.
    """

    linkage: str | Callable = "minimum"  # one of LINKAGES (BUC Eq. 4 and text; DBC Eq. 4), or a function like those
    regularizer: Literal["none", "size", "dispersion"] = "none"  # BUC Eq. (5); DBC Eq. (5)
    regularizer_weight: float = 0.0  # λ of BUC Eq. (6) and DBC Eq. (5)
    distance: Literal["euclidean", "squared"] = "euclidean"  # both released programs square it
    ranking: Literal["once", "each_merge"] = "once"  # pairs ranked once a stage, or again after each merge
    absorbed: Literal["follow", "skip"] = "follow"  # ranked once: a pair with a cluster absorbed in this stage
    dispersion: Literal["sum", "mean"] = "sum"  # Σ over ordered pairs / n (DBC Eq. 3), or / n² (released)
    dispersion_update: Literal["eq7", "exact"] = "eq7"  # each_merge: by DBC Eq. (7), or by the definition

    def __post_init__(self):
        """Check every field."""
        _check_choices(self)
        if not callable(self.linkage) and self.linkage not in LINKAGES:
            raise ValueError(f"linkage={self.linkage!r} is not one of {', '.join(map(repr, LINKAGES))}, or a function")
        if callable(self.linkage) and getattr(self.linkage, "__name__", "<lambda>") in ("<lambda>", *LINKAGES):
            raise ValueError(
                f"{self.linkage!r}: a record identifies a linkage by its name; define it by def, with a name that is "
                "not one of the built-in linkages"
            )
        if callable(self.linkage) and self.ranking != "once":
            raise ValueError("a custom linkage has no update formula; use ranking='once'")
        if not 0 <= self.regularizer_weight < float("inf"):
            raise ValueError(f"regularizer_weight={self.regularizer_weight} must be finite and not negative")


AT_LEAST_ONE = (
    "embedding_dim",
    "embedding_layers",
    "first_stage_epochs",
    "later_stage_epochs",
    "later_stage_epochs_video",
    "frames_per_tracklet",
    "frames_at_most",
)


@dataclass(frozen=True)
class Recipe:
    """All settings of a method: everything that determines a run apart from its data, backbone and seed.

    The comment at each field in ``reprolib/recipe.py`` says what it means; in a notebook ``Recipe??`` shows them. A
    recipe is changed by ``dataclasses.replace(BUC, merge_percent=0.1)``, the fields of its criterion by
    ``BUC.changed(ranking="each_merge")``.
    """

    name: str
    criterion: Criterion | None  # None: no merging, every image remains its own class
    start: Literal["singletons", "identities"] = "singletons"  # identities: the supervised bound, not in the papers
    merge_percent: float = 0.05  # mp; m = int(N * mp) merges a stage
    stage_rule: Literal["paper", "released", "first"] = "paper"  # while C > m (Alg. 1); int(1 / mp) - 1; a single one
    temperature: float = 0.1  # τ of BUC Eq. (2)
    normalize_table: bool = False  # after V_y <- (V_y + v) / 2 scale V_y to unit length (released)
    table_start: Literal["zeros", "means", "stale_means"] = "zeros"  # stale: means of the clusters before the merge
    embedding_dim: int = 2048
    embedding_layers: int = 1  # linear layers of the head, with BatchNorm after the last
    embedding_between: Literal["batchnorm_relu", "nothing"] = "batchnorm_relu"  # between two layers; DBC does not say
    dropout: float = 0.5
    dropout_position: Literal["before_normalize", "after_normalize"] = "before_normalize"
    batch_size: int = 16  # the last, incomplete batch of an epoch is dropped
    first_stage_epochs: int = 20
    later_stage_epochs: int = 2  # image datasets
    later_stage_epochs_video: int = 5
    learning_rate: float = 0.1
    learning_rate_drop: int = 15  # first stage: epochs before the rate falls to a tenth
    later_learning_rate: float = 0.01
    backbone_rate: float = 0.1  # the backbone learns at this fraction of the head's rate
    momentum: float = 0.9  # SGD, Nesterov
    weight_decay: float = 5e-4
    train_order: Literal["shuffled", "sorted"] = "shuffled"  # sorted: by identity, as the released programs read it
    # reid: area 0.64-1, height / width 2-3, flip. instance (discrimination): area 0.2-1, ratio 3/4-4/3, flip, colors.
    augmentation: Literal["reid", "instance", "none"] = "reid"
    frames_per_tracklet: int = 16  # video: frames sampled from a tracklet in training
    frames_at_most: int = 900  # video: frames of a tracklet used in merging and evaluation
    junk: Literal["left_out", "in_gallery"] = "left_out"  # Market-1501: 15,913 gallery images, or 19,732 with its junk
    # Which stage is kept. test: the best rank-1 on the test set, as in both programs (the papers say "validation set").
    # validation: the best rank-1 on held-out training identities. last: the last stage. silhouette: the stage whose
    # clusters have the best silhouette, which needs no labels.
    selection: Literal["test", "last", "validation", "silhouette"] = "test"

    def __post_init__(self):
        """Check every field."""
        _check_choices(self)
        if not re.fullmatch(r"[\w.+-]+", self.name):
            raise ValueError(
                f"name={self.name!r} is used in file names; use only letters, digits, '.', '-', '+' and '_'"
            )
        if not isinstance(self.criterion, Criterion | None):
            raise ValueError(f"criterion={self.criterion!r} must be a Criterion, or None for no merging")
        for name in ("learning_rate", "later_learning_rate", "backbone_rate", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be finite and not negative")
        if not 0 < self.merge_percent < 1:
            raise ValueError(f"merge_percent={self.merge_percent} must lie between 0 and 1")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be positive and finite")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and less than 1")
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size} must be at least 2: BatchNorm needs more than one sample")
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.start == "identities" and self.criterion is not None:
            raise ValueError("start='identities' leaves nothing to merge; use criterion=None")

    def with_weight(self, weight: float) -> "Recipe":
        """Return this recipe with another λ (BUC Fig. 3a, DBC Fig. 4); the new value is added to its name."""
        return replace(self.changed(regularizer_weight=weight), name=f"{self.name}_weight_{weight:g}")

    def with_linkage(self, linkage: str | Callable) -> "Recipe":
        """Return this recipe with another linkage (BUC Table 3), which is added to its name.

        The regularizer stays: with ``BUC`` the cluster sizes are still added, with ``BUC_UNREGULARIZED`` nothing is.
        """
        return replace(self.changed(linkage=linkage), name=f"{self.name}_{getattr(linkage, '__name__', linkage)}")

    def changed(self, **values) -> "Recipe":
        """Return this recipe with some fields of it or of its criterion changed; the name stays the same.

        Raises:
            ValueError: an unknown field, an invalid value, or a field that has no effect in the changed recipe.
        """
        if "criterion" in values:
            raise ValueError("a whole criterion is changed by dataclasses.replace(recipe, criterion=...)")
        own, of_criterion = ({f.name for f in fields(kind)} - {"criterion"} for kind in (Recipe, Criterion))
        if unknown := values.keys() - own - of_criterion:
            raise ValueError(
                f"{sorted(unknown)[0]!r} is not a field of a recipe; use one of {', '.join(sorted(own | of_criterion))}"
            )
        changes = {name: value for name, value in values.items() if name in of_criterion}
        if changes and self.criterion is None:
            raise ValueError(f"{self.name} does not merge, so it has no {sorted(changes)[0]}")
        criterion = replace(self.criterion, **changes) if changes else self.criterion
        if changes.get("regularizer_weight") and criterion.regularizer == "none":
            raise ValueError(f"{self.name} has no regularizer to weight; also set regularizer='size' or 'dispersion'")
        changed = replace(self, criterion=criterion, **{k: v for k, v in values.items() if k in own})
        idle = changed._without_effect()
        if named := values.keys() & idle.keys():
            raise ValueError(f"{self.name}: {min(named)} has no effect, because {idle[min(named)]}")
        return changed

    def _without_effect(self) -> dict[str, str]:
        """Return the fields that do not matter in this recipe, each with the reason."""
        idle, c = {}, self.criterion
        if self.embedding_layers == 1:
            idle["embedding_between"] = "the head has one layer"
        if c is None:
            return idle | {"table_start": "nothing is merged"}
        if c.ranking == "each_merge":
            idle["absorbed"] = "pairs are ranked after each merge"
        else:
            idle["dispersion_update"] = "pairs are ranked once a stage"
        if c.regularizer != "dispersion":
            idle |= dict.fromkeys(("dispersion", "dispersion_update"), "the regularizer is not the dispersion")
        return idle

    @property
    def has_own_linkage(self) -> bool:
        """Whether the linkage is a function of the user."""
        return self.criterion is not None and callable(self.criterion.linkage)

    def settings(self) -> dict:
        """Return the fields as a dictionary for the record; a custom linkage is stored by its name only.

        ``embedding_between`` is left out if it is the default, so that runs from before this field keep their names.
        """
        settings = asdict(self)
        if self.embedding_between == "batchnorm_relu":
            del settings["embedding_between"]
        if self.has_own_linkage:
            settings["criterion"]["linkage"] = self.criterion.linkage.__name__
        return settings

    def merges_per_stage(self, num_tracklets: int) -> int:
        """Return ``m = N * mp`` (BUC Section 3.2), rounded down as in the released program, and at least 1.

        BUC Algorithm 1 rounds up: 647 on Market-1501, where this function gives 646.
        """
        return max(1, int(num_tracklets * self.merge_percent))

    def num_stages(self, num_tracklets: int) -> int:
        """Return the number of stages, that is, how many times the network is trained."""
        if self.stage_rule == "first":
            return 1
        stages = -(-num_tracklets // self.merges_per_stage(num_tracklets)) - 1
        if self.stage_rule == "released":
            stages = min(stages, int(1 / self.merge_percent) - 1)  # fewer only if N < 1 / mp
        return max(1, stages)


BUC = Recipe("buc", Criterion("minimum", "size", 0.003))
DBC = Recipe(
    "dbc",
    # λ: the text lists 0.5 among the settings and 0.1 as the best value in Fig. 4, whose result is that of the tables.
    Criterion("average", "dispersion", 0.1, ranking="each_merge"),
    embedding_dim=1024,
    embedding_layers=2,
)
OIM = replace(BUC, name="oim", criterion=None)

_RELEASED = {
    "stage_rule": "released",
    "normalize_table": True,
    "embedding_dim": 2048,
    "embedding_layers": 1,
    "dropout_position": "after_normalize",
    "learning_rate_drop": 16,
}
BUC_RELEASED = replace(
    BUC, name="buc_released", criterion=Criterion("minimum", "size", 0.003, distance="squared"), **_RELEASED
)
DBC_RELEASED = replace(
    DBC,
    name="dbc_released",
    # The program computes the regularizer term and then ranks the pairs without it.
    criterion=Criterion("average", "none", distance="squared", absorbed="skip", dispersion="mean"),
    table_start="stale_means",
    **_RELEASED,
)

# The ablations of both papers: the same method without the regularizer.
BUC_UNREGULARIZED = replace(BUC, name="buc_unregularized", criterion=Criterion("minimum"))
DBC_UNREGULARIZED = replace(DBC, name="dbc_unregularized", criterion=Criterion("average", ranking="each_merge"))

# DBC's criterion with BUC's embedding head: measures the effect of DBC's two-layer, 1024-dimensional head.
DBC_ONE_LAYER = replace(DBC, name="dbc_one_layer_head", embedding_dim=2048, embedding_layers=1)

# CIFAR-10 (BUC Table 4) shows objects: crops and colors as in instance discrimination, all else as above.
OIM_CIFAR10, BUC_CIFAR10, DBC_CIFAR10 = (
    replace(recipe, name=f"{recipe.name}_cifar10", augmentation="instance") for recipe in (OIM, BUC, DBC)
)

# Supervised upper bound: the same network and loss trained on the true identities, for one long stage.
SUPERVISED = replace(
    OIM, name="supervised", start="identities", stage_rule="first", first_stage_epochs=40, learning_rate_drop=30
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        BUC,
        DBC,
        OIM,
        BUC_RELEASED,
        DBC_RELEASED,
        BUC_UNREGULARIZED,
        DBC_UNREGULARIZED,
        DBC_ONE_LAYER,
        OIM_CIFAR10,
        BUC_CIFAR10,
        DBC_CIFAR10,
        SUPERVISED,
    )
}
