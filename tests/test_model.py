"""The model's two outputs, its head against the released program's, and its weights from a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from reprolib import audit
from reprolib.model import Convolution, Model, load_backbone
from reprolib.recipe import BUC, BUC_RELEASED, DBC

GOLDEN = Path(__file__).parent / "golden"


def mobilenet_weights():
    return torchvision.models.mobilenet_v2().features.state_dict(prefix="features.")


def small(recipe=BUC, **settings):
    return Model(recipe, backbone="resnet18", weights="none", **settings)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_head_gives_what_the_released_head_gave(mode):
    golden = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / "head_avgpool.npz").items()}
    model = small(replace(BUC_RELEASED, embedding_dim=16, dropout=0.0))
    model.head = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16))
    when = "before" if mode == "train" else "after"
    names = {"0": "linear", "1": "bn"}
    model.head.load_state_dict(
        {k: golden[f"{when}_{names[k[0]]}{k[1:].replace('.', '_')}"] for k in model.head.state_dict()}
    )
    model.train(mode == "train")
    output = model.embed(golden["x"].mean(1))
    torch.testing.assert_close(output.embedding, golden[f"{mode}_out"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.feature, golden[f"{mode}_pool"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("recipe", "layers"),
    [
        (BUC, ["Linear", "BatchNorm1d"]),
        (DBC, ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]),
        (audit.plainly_headed(DBC), ["Linear", "Linear", "BatchNorm1d"]),
    ],
)
def test_the_head_has_the_layers_of_the_recipe(recipe, layers):
    assert [type(layer).__name__ for layer in small(recipe).head] == layers


@pytest.mark.parametrize(("recipe", "dim"), [(BUC, 2048), (DBC, 1024)])
def test_embedding_and_feature_have_the_papers_shapes_and_unit_length(recipe, dim):
    model = small(recipe).eval()
    output = model(torch.randn(4, 1, 3, 64, 32))
    assert output.embedding.shape == (4, dim)
    assert output.feature.shape == (4, 512)
    for rows in output:
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))


def test_dropout_spoils_the_unit_length_only_where_it_comes_last():
    images = torch.randn(4, 1, 3, 64, 32)
    torch.manual_seed(0)
    torch.testing.assert_close(small(BUC).train()(images).embedding.norm(dim=1), torch.ones(4))
    assert (small(BUC_RELEASED).train()(images).embedding.norm(dim=1) - 1).abs().max() > 0.05


def test_a_tracklet_is_the_mean_of_its_frames():
    model = small().eval()
    frames = torch.randn(2, 3, 3, 64, 32)
    pooled = torch.stack([model.pool(f).mean(0) for f in frames])
    torch.testing.assert_close(model(frames).feature, nn.functional.normalize(pooled))


def test_the_video_protocol_freezes_the_stem_and_its_statistics():
    model = small(freeze_stem=True).train()
    before = {k: v.clone() for k, v in model.stem.state_dict().items()}
    model(torch.randn(4, 2, 3, 64, 32)).embedding.sum().backward()
    assert all(p.grad is None for p in model.stem.parameters())
    assert all(p.grad is not None for p in model.body.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.stem.state_dict().items())


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("mobilenet_v2", 1280), ("resnet50", 2048)])
def test_every_backbone_reduces_by_eight_in_its_stem(name, width):
    _, stem, body, found = load_backbone(name, "none")
    middle = stem.eval()(torch.zeros(1, 3, 64, 32))
    assert middle.shape[2:] == (8, 4)
    assert body.eval()(middle).shape[1] == found == width


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_file_without_classifier_are_loaded(tmp_path, suffix):
    state = {k: v + 1 for k, v in mobilenet_weights().items()}
    file = tmp_path / f"weights{suffix}"
    torch.save(state, file) if suffix == ".pth" else save_file(state, file)
    stem = load_backbone("mobilenet_v2", str(file)).stem
    torch.testing.assert_close(stem[0][0].weight, state["features.0.0.weight"])


def test_weights_of_another_backbone_or_none_at_all_are_refused_by_name(tmp_path):
    file = tmp_path / "wrong.pth"
    torch.save(mobilenet_weights(), file)
    with pytest.raises(ValueError, match=r"wrong\.pth: not weights of resnet18"):
        load_backbone("resnet18", str(file))
    with pytest.raises(ValueError, match="no such weights"):
        load_backbone("resnet18", str(tmp_path / "absent.pth"))
    with pytest.raises(ValueError, match="not one of"):
        load_backbone("vgg16", "none")


def test_cifars_resnet18_keeps_small_images_large_and_has_no_imagenet_weights():
    _, stem, body, width = load_backbone("resnet18-cifar", "none")
    middle = stem.eval()(torch.zeros(1, 3, 32, 32))
    assert middle.shape[2:] == (16, 16)
    assert body.eval()(middle).shape == (1, width, 4, 4)
    with pytest.raises(ValueError, match="no ImageNet weights"):
        load_backbone("resnet18-cifar", "imagenet")


@pytest.mark.parametrize("size", [(2, 1), (4, 2), (5, 3), (16, 8)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_of_few_pixels_is_pytorchs(size, stride, bias):
    torch.manual_seed(0)
    theirs = nn.Conv2d(6, 5, 3, stride=stride, padding=1, bias=bias)
    own = Convolution(6, 5, 3, stride=stride, padding=1, bias=bias)
    own.load_state_dict(theirs.state_dict())
    maps = torch.randn(4, 6, *size)
    results = []
    for convolution in (theirs, own):
        taken = maps.clone().requires_grad_()
        result = convolution(taken)
        result.square().sum().backward()
        results.append([result, taken.grad, *(p.grad for p in convolution.parameters())])
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)


def test_a_resnets_features_do_not_depend_on_how_its_last_convolutions_are_computed(monkeypatch):
    torch.manual_seed(0)
    model, images = small().eval(), torch.randn(3, 1, 3, 64, 32)
    plain = model(images).feature
    feature = model.place(torch.device("cpu"))(images).feature
    torch.testing.assert_close(feature, plain)
    monkeypatch.setattr(Convolution, "forward", nn.Conv2d.forward)
    assert not torch.equal(model(images).feature, feature)  # the last digits tell that they were others
    torch.testing.assert_close(model(images).feature, feature)


def test_a_network_is_placed_and_fed_channels_last():
    model = Model(BUC, backbone="mobilenet_v2", weights="none").place(torch.device("cpu"))
    weights = [p for p in model.stem.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    seen = []
    model.stem.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    model.pool(torch.rand(2, 3, 32, 16))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_weights_that_a_run_left_are_weights_to_begin_from(tmp_path):
    then = Model(BUC, backbone="resnet18", weights="none")
    file = tmp_path / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in then.state_dict().items()}, file)
    now = Model(replace(BUC, embedding_dim=8), backbone="resnet18", weights=str(file))
    images = torch.rand(2, 1, 3, 32, 16)
    assert torch.equal(now.eval()(images).feature, then.eval()(images).feature)
    with pytest.raises(ValueError, match="not weights of mobilenet_v2"):
        Model(BUC, backbone="mobilenet_v2", weights=str(file))
