"""Structure transfer: what fits is carried, what overlaps is copied, the rest is new."""

from __future__ import annotations

import torch

from fewlabels.core.types import Backbone
from fewlabels.models.small import SmallCNN, tiny
from fewlabels.transfer.structure import carry_over, compare, counts


def fates(new: SmallCNN, old: SmallCNN) -> dict[str, str]:
    return {one.name: one.fate for one in carry_over(new, old.state_dict())}


def test_the_same_architecture_is_carried_whole() -> None:
    torch.manual_seed(0)
    old, new = tiny(3, 32), tiny(3, 32)
    found = carry_over(new, old.state_dict())
    assert {one.fate for one in found} == {"carried"}
    assert counts(found) == {
        **{"carried": len(old.state_dict()), "reshaped": 0},
        **{"new": 0, "skipped": 0},
    }
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(old.eval()(x), new.eval()(x))


def test_an_added_block_is_new_and_the_others_stay() -> None:
    torch.manual_seed(0)
    old = SmallCNN((8, 16), (1, 2))
    new = SmallCNN((8, 16, 24), (1, 2, 1))
    drawn = {k: v.clone() for k, v in new.state_dict().items()}
    found = fates(new, old)
    for name, value in new.state_dict().items():
        if name.startswith("blocks.2"):
            assert found[name] == "new"
            assert torch.equal(value, drawn[name])
        else:
            assert found[name] == "carried"
            assert torch.equal(value, old.state_dict()[name])


def test_a_wider_layer_keeps_what_it_was_and_draws_the_rest() -> None:
    torch.manual_seed(0)
    old, new = SmallCNN((8,), (1,)), SmallCNN((12,), (1,))
    drawn = new.state_dict()["blocks.0.0.weight"].clone()
    assert fates(new, old)["blocks.0.0.weight"] == "reshaped"
    weight = new.state_dict()["blocks.0.0.weight"]
    assert torch.equal(weight[:8], old.state_dict()["blocks.0.0.weight"])
    assert torch.equal(weight[8:], drawn[8:])


def test_a_narrower_layer_takes_what_it_has_room_for() -> None:
    torch.manual_seed(0)
    old, new = SmallCNN((8,), (1,)), SmallCNN((4,), (1,))
    fates(new, old)
    kept = old.state_dict()["blocks.0.0.weight"][:4]
    assert torch.equal(new.state_dict()["blocks.0.0.weight"], kept)


def test_grey_pictures_get_the_same_answer_from_other_channels() -> None:
    torch.manual_seed(0)
    grey = torch.randn(2, 1, 32, 32)
    colour = grey.expand(-1, 3, -1, -1)
    one, three = tiny(1, 32), tiny(3, 32)
    for old, new, seen, same in (
        (three, tiny(1, 32), colour, grey),
        (one, tiny(3, 32), grey, colour),
    ):
        assert fates(new, old)["blocks.0.0.weight"] == "reshaped"
        assert torch.allclose(old.eval()(seen), new.eval()(same), atol=1e-4)


def test_a_tensor_of_another_rank_is_new() -> None:
    old = {"blocks.0.0.weight": torch.zeros(3)}
    found = carry_over(SmallCNN((8,), (1,)), old)
    assert next(one for one in found if one.name == "blocks.0.0.weight").fate == "new"


def test_a_kernel_of_another_size_keeps_its_middle() -> None:
    large, small = {"stem": torch.arange(49.0).view(1, 1, 7, 7)}, Stem(3)
    found = carry_over(small, large)
    assert [(one.fate, one.before) for one in found] == [("reshaped", (1, 1, 7, 7))]
    assert torch.equal(small.stem[0, 0], large["stem"][0, 0, 2:5, 2:5])
    wide = Stem(9)
    before = wide.stem.detach().clone()
    carry_over(wide, large)
    assert torch.equal(wide.stem[0, 0, 1:8, 1:8], large["stem"][0, 0])
    assert torch.equal(wide.stem[0, 0, 0], before[0, 0, 0])


class Stem(Backbone):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.stem = torch.nn.Parameter(torch.randn(1, 1, side, side))


def test_what_has_no_place_is_skipped() -> None:
    old, new = SmallCNN((8, 16), (1, 2)), SmallCNN((8,), (1,))
    skipped = [one for one in carry_over(new, old.state_dict()) if one.fate == "skipped"]
    assert {one.name for one in skipped} == old.state_dict().keys() - new.state_dict().keys()
    assert all(one.shape == () for one in skipped)


def test_comparing_believes_values_and_not_names() -> None:
    before = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(3), "head": torch.ones(1)}
    now = {"a": torch.ones(2), "b": torch.zeros(2), "c": torch.ones(4), "d": torch.ones(1)}
    assert {one.name: one.fate for one in compare(now, before)} == {
        **{"a": "carried", "b": "new", "c": "reshaped", "d": "new"},
        "head": "skipped",
    }
