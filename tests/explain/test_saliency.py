"""Maps against computations of our own, and against what is known to decide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.errors import ModelError
from fewlabels.core.types import Backbone
from fewlabels.explain.evidence import evidence
from fewlabels.explain.saliency import MAPS, SQUARE, grad_cam, integrated_gradients, occlusion
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import Classifier
from fewlabels.models.heads import (
    AverageHead,
    LinearHead,
    MixtureHead,
    NeighbourAverage,
    NeighbourHead,
    RegressionHead,
    answers,
)

pytestmark = pytest.mark.medium

Seen = tuple[Tensor, Tensor, np.ndarray]


def neighbour_head(features: int, classes: int, *, seed: int = 0, k: int = 3) -> NeighbourHead:
    torch.manual_seed(seed)
    head = NeighbourHead(12, features, features, classes, k=k, temperature=0.1)
    head.turn.copy_(torch.eye(features))
    head.bank.copy_(F.normalize(torch.randn(12, features), dim=1))
    head.votes.copy_(F.one_hot(torch.arange(12) % classes, classes).float())
    return head


def heads(features: int, classes: int) -> dict[str, nn.Module]:
    torch.manual_seed(1)
    linear = LinearHead(features, classes)
    near = neighbour_head(features, classes)
    return {"linear": linear, "neighbours": near, "mixture": MixtureHead(linear, near)}


@pytest.fixture(scope="module")
def seen(squares: Callable[[int, int], Seen]) -> Seen:
    return squares(12, 77)


# ---- against computations of our own ---------------------------------------------------------


def test_grad_cam_by_hooks(knowing: Classifier, seen: Seen) -> None:
    x, labels, _ = seen
    kept: list[Tensor] = []
    handle = knowing.backbone.blocks[-1].register_forward_hook(  # type: ignore[index,union-attr]
        lambda _module, _inputs, out: kept.append(out)
    )
    logits = knowing(x)
    handle.remove()
    (slope,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), kept[0])
    weights = slope.mean((2, 3), keepdim=True)
    small = F.relu((weights * kept[0]).sum(1, keepdim=True))
    wide = F.interpolate(small, size=x.shape[2:], mode="bilinear")[:, 0].detach()
    expected = wide / wide.amax((1, 2), keepdim=True)
    found = grad_cam(knowing, x, labels)
    assert found.dtype == torch.float32
    assert found.shape == (12, 24, 24)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_integrated_gradients_add_up_to_the_difference(knowing: Classifier, seen: Seen) -> None:
    x, labels, _ = seen
    found = integrated_gradients(knowing, x, labels).sum((1, 2))
    with torch.no_grad():
        rows = torch.arange(len(x))
        wanted = knowing(x)[rows, labels] - knowing(torch.zeros_like(x))[rows, labels]
    torch.testing.assert_close(found, wanted, atol=0.03 * float(wanted.abs().mean()), rtol=0.03)


def test_occlusion_by_a_loop(knowing: Classifier, seen: Seen) -> None:
    x, labels = seen[0][:2], seen[1][:2]
    size = x.shape[-1]
    side = round(SQUARE * size)
    step = side // 2
    falls = torch.zeros(2, size, size)
    covered = torch.zeros(size, size)
    starts = range(0, size - side + step, step)  # the last square reaches the edge
    with torch.no_grad():
        rows = torch.arange(2)
        whole = knowing(x)[rows, labels]
        for top in starts:
            for left in starts:
                hidden = x.clone()
                hidden[:, :, top : top + side, left : left + side] = 0.0
                fall = whole - knowing(hidden)[rows, labels]
                falls[:, top : top + side, left : left + side] += fall[:, None, None]
                covered[top : top + side, left : left + side] += 1
    torch.testing.assert_close(occlusion(knowing, x, labels), falls / covered, atol=1e-5, rtol=1e-4)


# ---- what decides is found -------------------------------------------------------------------


@pytest.mark.parametrize(("name", "times"), [("grad_cam", 3.0), ("integrated_gradients", 8.0)])
def test_the_mass_lies_on_the_square(
    name: str, times: float, knowing: Classifier, seen: Seen
) -> None:
    x, labels, inside = seen
    mass = MAPS[name](knowing, x, labels).abs().numpy()
    share = (mass * inside).sum((1, 2)) / mass.sum((1, 2))
    assert share.mean() > times * inside.mean()


def test_the_peak_lies_on_the_square(knowing: Classifier, seen: Seen) -> None:
    x, labels, inside = seen
    for name in MAPS:
        flat = MAPS[name](knowing, x, labels).flatten(1).numpy()
        hits = inside.reshape(len(x), -1)[np.arange(len(x)), flat.argmax(1)]
        assert hits.mean() > 0.8, name


def test_signed_maps_speak_against_the_other_class(knowing: Classifier, seen: Seen) -> None:
    x, labels, inside = seen
    for method in (integrated_gradients, occlusion):
        mine, other = (method(knowing, x, c).numpy()[inside].mean() for c in (labels, 1 - labels))
        assert mine > 0 > other


# ---- heads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "neighbours", "mixture"])
@pytest.mark.parametrize("name", MAPS)
def test_every_head_is_explained(name: str, kind: str) -> None:
    torch.manual_seed(0)
    backbone = create_backbone("tiny", in_chans=3, image_size=16).eval()
    head = heads(backbone.num_features, 4)[kind]
    x = torch.randn(3, 3, 16, 16)
    found = MAPS[name](Classifier(backbone, head).eval(), x, torch.tensor([0, 1, 3]))
    assert found.shape == (3, 16, 16)
    assert (found.flatten(1).std(1) > 0).all()
    if name == "grad_cam":
        assert found.min() >= 0 and found.max() == 1


def test_unanimous_neighbours_have_no_gradient_but_evidence_has() -> None:
    head = neighbour_head(6, 2, k=2)
    head.votes.copy_(F.one_hot(torch.tensor([0] * 6 + [1] * 6), 2).float())
    x = head.bank[:1].clone().requires_grad_(True)  # its nearest are all of one class, or nearly
    head.bank[1].copy_(head.bank[0])
    (own,) = torch.autograd.grad(head(x)[0, 0], x)
    (ours,) = torch.autograd.grad(evidence(head, x * 1.1 + 0.1, torch.tensor([0]))[0], x)
    assert own.abs().max() < 1e-6
    assert ours.abs().max() > 1e-2


def test_evidence_of_neighbours_ranks_as_the_head_does() -> None:
    head = neighbour_head(6, 3, k=12)  # all vote: no class is without
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))
    scores = torch.stack([evidence(head, x, torch.full((20,), c)) for c in range(3)], 1)
    torch.testing.assert_close(scores.log_softmax(1), head(x), atol=1e-3, rtol=1e-3)


def test_evidence_of_a_linear_head_is_its_logit() -> None:
    head = heads(6, 3)["linear"]
    x = torch.randn(5, 6)
    classes = torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(evidence(head, x, classes), head(x)[torch.arange(5), classes])


# ---- a number --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counting(knowing: Classifier) -> Classifier:
    """Return a regressor of years: red squares lower them, blue ones raise them."""
    head = LinearHead(32, 1)
    old = knowing.head.linear
    with torch.no_grad():
        head.linear.weight.copy_((old.weight[1] - old.weight[0])[None])
        head.linear.bias.copy_((old.bias[1] - old.bias[0])[None])
    return Classifier(knowing.backbone, RegressionHead(head, 2000.0, 5.0)).eval()


def test_evidence_of_a_regressor_is_its_number(counting: Classifier, seen: Seen) -> None:
    features = counting.backbone.forward_head(counting.backbone.forward_features(seen[0]))
    found = evidence(counting.head, features, torch.zeros(12, dtype=torch.int64))
    years = torch.from_numpy(answers(counting.head, counting(seen[0]))).float()
    torch.testing.assert_close(found, years - 2000.0, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_a_number_say_what_raises_and_what_lowers_it(
    name: str, counting: Classifier, seen: Seen
) -> None:
    x, labels, inside = seen
    maps = MAPS[name](counting, x, torch.zeros(12, dtype=torch.int64)).numpy()
    red, blue = (maps[labels == c][inside[labels == c]].mean() for c in (0, 1))
    assert red < 0 < blue
    if name == "grad_cam":
        np.testing.assert_allclose(np.abs(maps).max((1, 2)), 1.0, atol=1e-6)


def test_maps_of_a_number_are_in_its_unit(counting: Classifier, seen: Seen) -> None:
    x, none = seen[0], torch.zeros(12, dtype=torch.int64)
    found = integrated_gradients(counting, x, none).sum((1, 2))
    with torch.no_grad():
        years = [answers(counting.head, counting(one)) for one in (x, torch.zeros_like(x))]
    wanted = years[0] - years[1]
    assert np.abs(wanted).mean() > 5
    np.testing.assert_allclose(found, wanted, atol=0.03 * np.abs(wanted).mean(), rtol=0.03)


@pytest.mark.parametrize("kind", ["linear", "neighbours", "average"])
@pytest.mark.parametrize("name", MAPS)
def test_every_head_of_numbers_is_explained(name: str, kind: str) -> None:
    torch.manual_seed(0)
    backbone = create_backbone("tiny", in_chans=3, image_size=16).eval()
    features = backbone.num_features
    linear = LinearHead(features, 1)
    near = NeighbourAverage(12, features, features, 1, k=3, temperature=0.1)
    near.turn.copy_(torch.eye(features))
    near.bank.copy_(F.normalize(torch.randn(12, features), dim=1))
    near.votes.copy_(torch.randn(12, 1))
    inner = {"linear": linear, "neighbours": near, "average": AverageHead(linear, near)}[kind]
    classifier = Classifier(backbone, RegressionHead(inner, 3.0, 2.0)).eval()
    x = torch.randn(3, 3, 16, 16)
    found = MAPS[name](classifier, x, torch.zeros(3, dtype=torch.int64))
    assert (found.flatten(1).std(1) > 0).all()


# ---- what has no map -------------------------------------------------------------------------


class Tokens(Backbone):
    """Sixteen tokens and no map, as a transformer has them."""

    num_features = num_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.embed(x).flatten(2).transpose(1, 2).tanh()

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean(1)


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (Tokens(), "no map of places"),
        (create_backbone("pixels", in_chans=3, image_size=16), "no map of places"),
        (create_backbone("dense", in_chans=3, image_size=16), "no map of places"),
    ],
    ids=["tokens", "pixels", "dense"],
)
def test_without_a_map_grad_cam_refuses_and_the_others_work(backbone: Backbone, said: str) -> None:
    classifier = Classifier(backbone, LinearHead(backbone.num_features, 2)).eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match=said) as caught:
        grad_cam(classifier, x, torch.tensor([0, 1]))
    assert caught.value.code == "model.no_map"
    for name in ("integrated_gradients", "occlusion"):
        assert MAPS[name](classifier, x, torch.tensor([0, 1])).abs().max() > 0


def test_a_map_of_one_cell_cannot_say_where() -> None:
    backbone = create_backbone("conv-32-64-128", in_chans=1, image_size=8)
    classifier = Classifier(backbone, LinearHead(128, 2)).eval()
    with pytest.raises(ModelError, match="1x1"):
        grad_cam(classifier, torch.randn(1, 1, 8, 8), torch.tensor([0]))


class Cells(Tokens):
    """The same as a map, with its channels first or last."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last

    def forward_features(self, x: Tensor) -> Tensor:
        cells = self.embed(x).relu()
        return cells.permute(0, 2, 3, 1) if self.last else cells

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean((1, 2) if self.last else (2, 3))


def test_channels_may_come_last() -> None:
    torch.manual_seed(0)
    first, last = Cells(False), Cells(True)
    last.load_state_dict(first.state_dict())
    head = LinearHead(8, 2)
    x, classes = torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 1])
    maps = [grad_cam(Classifier(one, head).eval(), x, classes) for one in (first, last)]
    assert maps[0].max() == 1
    torch.testing.assert_close(maps[0], maps[1])


def test_frozen_weights_are_explained_too(knowing: Classifier, seen: Seen) -> None:
    x, labels, _ = seen
    free = {name: method(knowing, x, labels) for name, method in MAPS.items()}
    knowing.requires_grad_(False)
    try:
        for name, method in MAPS.items():
            torch.testing.assert_close(method(knowing, x, labels), free[name])
    finally:
        knowing.requires_grad_(True)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet10t", 64), ("convnext_atto", 64), ("swin_tiny_patch4_window7_224", 64)],
)
def test_backbones_of_timm_by_hand(name: str, size: int) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(name, in_chans=3, image_size=size).eval()
    classifier = Classifier(backbone, LinearHead(backbone.num_features, 3)).eval()
    x, classes = torch.randn(4, 3, size, size), torch.tensor([0, 1, 2, 0])
    features = backbone.forward_features(x).detach().requires_grad_(True)
    logits = classifier.head(backbone.forward_head(features))
    (slope,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), features)
    last = name.startswith("swin")  # (B, h, w, C)
    places, channels = ((1, 2), 3) if last else ((2, 3), 1)
    small = F.relu((slope.mean(places, keepdim=True) * features).sum(channels))
    wide = F.interpolate(small[:, None], size=(size, size), mode="bilinear")[:, 0].detach()
    most = wide.amax((1, 2), keepdim=True)
    assert (most > 0).any()
    expected = torch.where(most > 0, wide / most, 0.0)  # where nothing speaks for it: nothing
    torch.testing.assert_close(grad_cam(classifier, x, classes), expected, atol=1e-4, rtol=1e-4)
    assert integrated_gradients(classifier, x, classes).abs().max() > 0
