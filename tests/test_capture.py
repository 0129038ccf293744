"""The training step as a CUDA graph: what it asks for is shown on any machine, what it gives on a GPU."""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partialmethod
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import reprolib
from reprolib import BUC, BUC_RELEASED, LookupTable, memory, pipeline, results, training
from reprolib.capture import WARM_UP, Captured
from reprolib.devices import autocast, choose_precision, computing_in
from reprolib.extraction import extract
from reprolib.images import Images
from reprolib.model import Model
from reprolib.plan import make_plan

RECIPE = replace(BUC, embedding_dim=32, batch_size=8)
CPU = torch.device("cpu")
NEEDS_GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


def on_gpu(test):
    for mark in NEEDS_GPU:
        test = mark(test)
    return test


def make_training(recipe, device, precision="float32"):
    """A stage in the making on the tiny network, its weights drawn on the host."""
    torch.manual_seed(0)
    model = Model(recipe, backbone="resnet18", weights="none").train().place(device)
    table = LookupTable(40, recipe.embedding_dim, normalize=recipe.normalize_table, device=device)
    optimizer, generator = training.make_optimizer(model, recipe), torch.Generator()
    return training._Training(
        model, table, optimizer, generator, device, recipe, (32, 16), precision, training.ALONE
    )  # fmt: skip


def batch(device, *, frames=2, seed=0, colors=0):
    """Arguments of a step on 8 tracklets: pixels, boxes, flips, colors and labels, of which some are twice there."""
    generator = torch.Generator().manual_seed(seed)
    count = 8 * frames
    pixels = torch.randint(256, (count, 30, 14, 3), dtype=torch.uint8, generator=generator)
    flip = torch.rand(count, generator=generator) < 0.5
    labels = torch.randint(12, (8,), generator=generator)
    boxes = torch.tensor([2.0, 1.0, 25.0, 12.0]).expand(count, 4).contiguous()
    drawn = pixels, boxes, flip, torch.ones(count, colors), labels
    return [argument.to(device) for argument in drawn]


@pytest.mark.parametrize("colors", [0, 5])
@pytest.mark.parametrize("recipe", [BUC, BUC_RELEASED], ids=lambda r: r.name)
@pytest.mark.usefixtures("tiny_network")
def test_a_step_looks_at_no_value_and_has_the_shapes_of_its_arguments(recipe, colors, monkeypatch):
    """On the meta device there are shapes alone, and whatever asks for a value raises."""
    meta, sgd = torch.device("meta"), torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda *a, fused, **k: sgd(*a, **k))  # no fused one for shapes alone
    monkeypatch.setattr(torch.Tensor, "new_tensor", lambda *_: pytest.fail("a copy from the host: none in a graph"))
    stage = make_training(replace(recipe, embedding_dim=32, batch_size=8), meta)
    loss = stage.step(*batch(meta, colors=colors))
    assert (loss.shape, loss.dtype, loss.requires_grad) == ((), torch.float32, False)
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


@pytest.mark.parametrize("normalize", [False, True])
def test_an_update_without_a_look_at_the_labels_matches_the_one_by_turns(normalize):
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        samples, labels = torch.randn(12, 5, generator=rng), torch.randint(4, (12,), generator=rng)
        table = LookupTable(6, 5, normalize=normalize)
        table.weight.normal_(generator=rng)
        blind = table.weight.clone()
        table.update(samples, labels)
        unseen = memory._update_normalized if normalize else memory._update_at_once
        unseen(blind, samples, labels)
        torch.testing.assert_close(blind, table.weight)


def test_every_device_has_a_precision_of_its_own_and_names_those_that_it_lacks():
    assert choose_precision(None, CPU) == "float32"
    assert choose_precision(None, torch.device("cuda")) == "tf32"
    assert choose_precision("bf16", CPU) == "bf16"
    with pytest.raises(ValueError, match="'tf32' needs CUDA"):
        choose_precision("tf32", CPU)
    with pytest.raises(ValueError, match="'int4' is unknown; use float32, tf32, bf16"):
        choose_precision("int4", CPU)


@pytest.mark.parametrize(("precision", "products"), [("float32", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")])
def test_a_precision_holds_for_its_block_alone(precision, products):
    def now():
        cudnn = torch.backends.cudnn
        return cudnn.benchmark, cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision

    before = now()
    with computing_in(precision, torch.device("cuda")):
        assert now() == (True, products, products)
    assert now() == before


@pytest.mark.usefixtures("tiny_network")
def test_mixed_precision_leaves_vectors_and_weights_in_float32():
    stage = make_training(RECIPE, CPU, "bf16")
    seen = []
    stage.model.body.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    loss = stage.step(*batch(CPU))
    plain = make_training(RECIPE, CPU).step(*batch(CPU))
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in stage.model.parameters()} == {torch.float32}
    torch.testing.assert_close(loss, plain, atol=0.02, rtol=0.02)
    with autocast("float32", CPU):
        assert stage.model.pool(torch.rand(2, 3, 32, 16)).dtype == torch.float32


def test_a_function_runs_while_it_warms_up_is_captured_once_and_then_replayed_on_new_arguments(monkeypatch):
    """With stand-ins for CUDA's streams and graphs: who calls what, in which order."""
    happened = []

    class Stream:
        device = CPU

        def __init__(self, device=None):
            pass

        def wait_stream(self, other):
            pass

    class Graph:
        def replay(self):
            happened.append("replay")
            captured.result.copy_(2 * captured.arguments[0])

    def double(x):
        happened.append("run")
        return 2 * x

    stand_ins = {"Stream": Stream, "CUDAGraph": Graph, "current_stream": Stream}
    stand_ins |= {"stream": nullcontext, "graph": lambda graph, stream: nullcontext()}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    captured = Captured(double, CPU)
    given = [torch.full((2,), float(k)) for k in range(6)]
    assert [float(captured(x)[0]) for x in given] == [0, 2, 4, 6, 8, 10]
    assert happened == ["run"] * (WARM_UP + 1) + ["replay"] * 3
    assert captured.arguments[0] is not given[WARM_UP]


@pytest.mark.parametrize(
    ("device", "backend"), [("cpu", "aot_eager"), pytest.param("cuda", "inductor", marks=NEEDS_GPU)]
)
@pytest.mark.usefixtures("tiny_network")
@pytest.mark.filterwarnings("default")  # torch's compiler warns of torch's own past
def test_a_compiled_backbone_gives_the_losses_of_a_plain_one_and_a_copy_trains_its_own_weights(device, backend):
    device, found = torch.device(device), []
    for compiled in (True, False):
        stage = make_training(RECIPE, device)
        if compiled:
            stage.model.compile_backbone(backend=backend)
        torch.manual_seed(1)
        stage.set_rate(0.01)
        found.append(torch.stack([stage.step(*batch(device, seed=k)) for k in range(4)]))
        frames, copy = torch.rand(4, 3, 32, 16, device=device), deepcopy(stage.model)
        before = stage.model.pool(frames)
        copy.stem[0][0].weight.data.zero_()
        assert not torch.allclose(copy.pool(frames), before)
        torch.testing.assert_close(stage.model.pool(frames), before, atol=1e-5, rtol=1e-4)
    tolerance = 1e-6 if device.type == "cpu" else 5e-3
    torch.testing.assert_close(*found, atol=tolerance, rtol=tolerance)


@pytest.mark.usefixtures("results_folder", "tiny_network")
def test_a_compiled_run_says_so_and_is_for_one_process(tiny_split, monkeypatch):
    monkeypatch.setattr(Model, "compile_backbone", partialmethod(Model.compile_backbone, backend="aot_eager"))
    recipe = replace(RECIPE, merge_percent=0.4, first_stage_epochs=1)
    settings = {"backbone": "resnet18", "weights": "none", "image_size": (32, 16), "device": "cpu"}
    compiled = reprolib.run(recipe, tiny_split, compiled=True, **settings)
    plain = reprolib.run(recipe, tiny_split, fresh=True, **settings)
    assert compiled.provenance["compiled"] is True
    assert "compiled" not in plain.provenance
    shown = results.provenance([compiled, plain])["device"]
    assert [text.split(", ", 2)[2] for text in shown] == ["float32, compiled", "float32"]
    assert compiled.name == plain.name
    assert compiled.curve("rank-1") == plain.curve("rank-1")
    with pytest.raises(ValueError, match="leave it out under torchrun"):
        pipeline._begin(make_plan(recipe, tiny_split, compiled=True, **settings), SimpleNamespace(size=2))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.usefixtures("results_folder", "tiny_network")
def test_a_run_names_its_precision_and_of_float32_keeps_its_name(tiny_split, device):
    recipe = replace(RECIPE, merge_percent=0.4, first_stage_epochs=2)
    settings = {"backbone": "resnet18", "weights": "none", "image_size": (32, 16), "device": device}
    mixed = reprolib.run(recipe, tiny_split, precision="bf16", **settings)
    full = reprolib.run(recipe, tiny_split, precision="float32", **settings)
    assert mixed.settings["precision"] == mixed.provenance["precision"] == "bf16"
    assert full.provenance["precision"] == "float32"
    assert "precision" not in full.settings
    assert mixed.name != full.name
    for ours, exact in zip(mixed.stages[0]["losses"], full.stages[0]["losses"], strict=True):
        assert ours == pytest.approx(exact, rel=0.1)


@on_gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("recipe", [BUC, BUC_RELEASED], ids=lambda r: r.name)
def test_captured_steps_give_the_losses_and_the_table_of_plain_ones(tiny_network, recipe, precision):
    device, recipe = torch.device("cuda"), replace(recipe, embedding_dim=32, batch_size=8)
    found = []
    for captured in (True, False):
        stage = make_training(recipe, device, precision)
        torch.manual_seed(1)
        stage.set_rate(0.01)
        advance = Captured(stage.step, device) if captured else stage.step
        with computing_in(precision, device):
            losses = [advance(*batch(device, seed=k)).clone() for k in range(12)]
        found.append((torch.stack(losses), stage.table.weight))
        assert not captured or advance.graph is not None
    # In float32 too: cuDNN may choose other algorithms, and a ReLU that rounding flips moves a few entries by 3e-3.
    tolerance = {"float32": 5e-3, "tf32": 1e-2, "bf16": 5e-2}[precision]
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, atol=tolerance, rtol=tolerance)


@on_gpu
def test_replays_draw_new_dropout_and_take_new_rates(tiny_network):
    device = torch.device("cuda")
    stage = make_training(RECIPE, device)
    arguments = batch(device)
    stage.set_rate(0.0)
    advance, losses = Captured(stage.step, device), set()
    table = torch.nn.functional.normalize(torch.randn(stage.table.weight.shape, device=device))
    for _ in range(8):
        stage.table.weight.copy_(table)  # so that dropout alone can change the loss
        losses.add(float(advance(*arguments)))
    weight = stage.model.head[0].weight
    before = weight.clone()
    assert len(losses) > 4
    stage.set_rate(0.1)
    advance(*arguments)
    assert not torch.equal(weight, before)


@on_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_nothing_waits_for_the_device_within_an_epoch(tiny_network, tiny_split, monkeypatch, resident):
    device = torch.device("cuda")
    images = Images(torch.from_numpy(tiny_split.train.frames), torch.tensor([32.0, 16.0]).expand(48, 2))
    images = images.to(device) if resident else images
    epoch, seen = training._Training.epoch, []

    def watched(self, *arguments):
        seen.append(1)
        torch.cuda.set_sync_debug_mode("error" if len(seen) > 1 else "default")  # the first one captures
        try:
            return epoch(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(training._Training, "epoch", watched)
    model = Model(RECIPE, backbone="resnet18", weights="none").place(device)
    losses = training.train_stage(
        model, images, tiny_split.train.starts, torch.arange(48), LookupTable(48, 32, device=device),
        recipe=RECIPE, image_size=(32, 16), learning_rates=[0.1] * 3, seed=0, device=device,
    )  # fmt: skip
    assert len(seen) == len(losses) == 3


@on_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("tf32", 1e-2), ("bf16", 4e-2)])
def test_features_of_few_bits_are_those_of_the_host_to_their_precision(tiny_split, precision, tolerance):
    device = torch.device("cuda")
    torch.manual_seed(0)
    model = Model(RECIPE, backbone="resnet18", weights="none")
    images = Images(torch.from_numpy(tiny_split.train.frames), torch.tensor([32.0, 16.0]).expand(48, 2))
    starts = np.arange(49)
    exact = extract(model, images, starts, image_size=(32, 16), device=CPU).feature
    quick = extract(
        model.place(device), images.to(device), starts, image_size=(32, 16), device=device, precision=precision
    )
    assert torch.linalg.vector_norm(quick.feature.cpu() - exact, dim=1).max() < tolerance
