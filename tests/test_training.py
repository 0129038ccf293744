"""What an epoch is made of, and extraction against the plain forward pass."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from reprolib import BUC, BUC_RELEASED, LookupTable, repelled_loss
from reprolib.epochs import epoch_batches, learning_rates
from reprolib.extraction import extract
from reprolib.images import crop_and_resize, load_images, whole_boxes
from reprolib.model import Model
from reprolib.training import make_optimizer, step, train_stage

CPU = torch.device("cpu")


@pytest.fixture
def images(tiny_split):
    return load_images(tiny_split.train.frames, (32, 16))


def test_an_epoch_takes_every_sample_once_but_for_the_last_incomplete_batch(tiny_split, images):
    recipe = replace(BUC, batch_size=20)
    batches = epoch_batches(images, tiny_split.train.starts, recipe=recipe, generator=torch.Generator().manual_seed(0))
    taken = torch.cat([index for index, *_ in batches])
    assert len(batches) == 2
    assert len(taken) == len(set(taken.tolist())) == 40
    for index, frames, boxes, flip, colors in batches:
        assert torch.equal(frames[:, 0], index)  # one frame a tracklet
        assert boxes.shape == (20, 4)
        assert flip.shape == (20,)
        assert colors.shape == (20, 0)


def test_instance_discrimination_draws_colors_for_every_frame(images, tiny_split):
    recipe, generator = replace(BUC, augmentation="instance"), torch.Generator().manual_seed(0)
    batches = epoch_batches(images, tiny_split.train.starts, recipe=recipe, generator=generator)
    assert {colors.shape for *_, colors in batches} == {(16, 5)}


def test_half_of_the_images_are_mirrored(images, tiny_split):
    generator = torch.Generator().manual_seed(0)
    epochs = [epoch_batches(images, tiny_split.train.starts, recipe=BUC, generator=generator) for _ in range(40)]
    flips = [torch.cat([flip for *_, flip, _ in batches]) for batches in epochs]
    assert abs(torch.cat(flips).float().mean() - 0.5) < 0.04  # of 1,920; three deviations are 0.034
    assert not torch.equal(flips[0], flips[1])


def test_the_rate_drops_where_the_paper_and_the_program_say():
    assert learning_rates(BUC, 0, video=False) == [0.1] * 15 + [0.1 * 0.1] * 5
    assert learning_rates(BUC_RELEASED, 0, video=False) == [0.1] * 16 + [0.1 * 0.1] * 4
    assert learning_rates(BUC, 3, video=False) == [0.01] * 2
    assert learning_rates(BUC, 3, video=True) == [0.01] * 5


def test_the_backbone_learns_at_a_tenth_of_the_heads_rate(tiny_network, tiny_split, images, monkeypatch):
    rates = []
    monkeypatch.setattr(
        "reprolib.training.step", lambda *a, **k: rates.append([g["lr"] for g in a[2].param_groups]) or 0.0
    )
    model = Model(BUC, backbone="resnet18", weights="none")
    labels, table = torch.arange(48), LookupTable(48, 2048)
    train_stage(
        model, images, tiny_split.train.starts, labels, table,
        recipe=BUC, image_size=(32, 16), learning_rates=[0.1, 0.01], seed=0, device=CPU,
    )  # fmt: skip
    assert rates == [[0.1 * 0.1, 0.1]] * 3 + [[0.01 * 0.1, 0.01]] * 3


def test_training_leaves_the_callers_random_numbers_alone(tiny_network, tiny_split, images):
    model = Model(BUC, backbone="resnet18", weights="none")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_stage(
        model, images, tiny_split.train.starts, torch.arange(48), LookupTable(48, 2048, normalize=False),
        recipe=BUC, image_size=(32, 16), learning_rates=[0.01], seed=0, device=CPU,
    )  # fmt: skip
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_extraction_with_folded_batchnorm_equals_the_plain_forward_pass(backbone, tiny_split, images):
    model = Model(BUC, backbone=backbone, weights="none")
    model(torch.rand(16, 1, 3, 32, 16))  # BatchNorm statistics that are not the initial ones
    output = extract(model, images, tiny_split.train.starts, image_size=(32, 16), device=CPU)
    index = torch.arange(48)
    batch = crop_and_resize(images.pixels, whole_boxes(images, index), torch.zeros(48, dtype=torch.bool), (32, 16))
    with torch.inference_mode():
        plain = model.eval()(batch[:, None])
    torch.testing.assert_close(output.feature, plain.feature, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.embedding, plain.embedding, atol=1e-4, rtol=1e-3)


def test_a_tracklets_feature_is_the_mean_of_at_most_so_many_frames(tiny_network, images):
    model = Model(BUC, backbone="resnet18", weights="none").eval()
    starts = np.array([0, 5, 6, 20])
    output = extract(model, images, starts, image_size=(32, 16), device=CPU, frames_at_most=7)
    alone = extract(model, images, np.array([0, 1]), image_size=(32, 16), device=CPU)
    assert alone.feature.shape == (1, 32)
    frames = crop_and_resize(
        images.pixels[6:13], whole_boxes(images, torch.arange(7)), torch.zeros(7, dtype=torch.bool), (32, 16)
    )
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.pool(frames).mean(0, keepdim=True))
    torch.testing.assert_close(output.feature[2:], expected, atol=1e-5, rtol=1e-4)


def test_the_optimizer_is_the_recipes(tiny_network):
    recipe = replace(BUC, momentum=0.7, weight_decay=0.01)
    groups = make_optimizer(Model(recipe, backbone="resnet18", weights="none"), recipe).param_groups
    assert {(group["momentum"], group["weight_decay"], group["nesterov"]) for group in groups} == {(0.7, 0.01, True)}


def test_without_momentum_there_is_none_of_nesterovs(tiny_network):
    recipe = replace(BUC, momentum=0, weight_decay=0.0)
    model = Model(recipe, backbone="resnet18", weights="none")
    optimizer, weight = make_optimizer(model, recipe), model.head[0].weight
    before = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before - recipe.learning_rate)


def test_a_step_compares_with_the_table_as_it_was_and_then_updates_it(tiny_network):
    recipe = replace(BUC, temperature=0.5, dropout=0.0, embedding_dim=8)
    model, table = Model(recipe, backbone="resnet18", weights="none"), LookupTable(4, 8, normalize=False)
    table.weight.copy_(torch.randn(4, 8))
    images, labels = torch.rand(4, 1, 3, 32, 16), torch.arange(4)
    embedding, before = deepcopy(model)(images).embedding.detach(), table.weight.clone()
    loss = step(model, table, make_optimizer(model, recipe), images, labels, recipe=recipe)
    torch.testing.assert_close(loss, repelled_loss(embedding, labels, before, temperature=0.5))
    torch.testing.assert_close(table.weight, (before + embedding) / 2)


def test_images_are_cropped_as_the_recipe_says(tiny_split, images):
    def drawn(augmentation):
        recipe, generator = replace(BUC, augmentation=augmentation), torch.Generator().manual_seed(0)
        batches = epoch_batches(images, tiny_split.train.starts, recipe=recipe, generator=generator)
        return torch.cat([batch[2] for batch in batches]), torch.cat([batch[3] for batch in batches])

    boxes, flip = drawn("none")
    assert torch.equal(boxes, whole_boxes(images, torch.arange(48)))
    assert not flip.any()
    boxes, _ = drawn("instance")
    assert (boxes[:, 2] < 1.5 * boxes[:, 3]).all()  # of height to width, at most 4/3 and rounding
    boxes, _ = drawn("reid")
    assert (boxes[:, 2] > 1.5 * boxes[:, 3]).all()  # 2 at least, and rounding
