"""What can be started from, told without a network: size, cost, accuracy, and what is here."""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewlabels.core.arithmetic import MultiplyAdds
from fewlabels.models import vision
from fewlabels.models.backbones import OURS, SMALL, VARIANTS

COUNTED = 40  # timm's networks that are built to be counted in one call; each takes a moment
IMAGE_SIZE = 32  # at which our own networks are counted, in colour

Row = dict[str, Any]


def catalogue(pattern: str = "", *, available: bool = False) -> list[Row]:
    """List our networks and the published weights of torchvision and timm.

    Parameters
    ----------
    pattern : str
        A part of the name; ``*`` stands for anything.
    available : bool
        Only what needs no download.

    Returns
    -------
    list of dict
        ``name``, ``library``, ``parameters``, ``macs`` (multiply-adds of one image),
        ``published_accuracy`` (top-1 on ImageNet, 0 to 1), ``available`` (on this machine),
        ``input_size`` (C, H, W), ``licence``, ``fit`` (None). What is not known is None: timm
        ships no accuracies, and its networks are counted where at most `COUNTED` of them match.
    """
    found = [*_ours(pattern), *_visions(pattern), *_timms(pattern)]
    return [row for row in found if row["available"] or not available]


def _row(name: str, library: str, **known: Any) -> Row:
    unknown = {"parameters": None, "macs": None, "published_accuracy": None, "available": False}
    return {
        "name": name,
        "library": library,
        **unknown,
        "input_size": None,
        "licence": None,
        "fit": None,
        **known,
    }


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name.lower(), f"*{pattern.lower()}*")


def _ours(pattern: str) -> list[Row]:
    size = [3, IMAGE_SIZE, IMAGE_SIZE]
    return [
        _row(
            name,
            "fewlabels",
            available=True,
            input_size=size,
            **count(OURS[name](3, IMAGE_SIZE), size),
        )
        for name in OURS
        if _matches(name, pattern) and (name in SMALL or name not in VARIANTS)
    ]


def _visions(pattern: str) -> list[Row]:
    from torchvision.models import get_model_weights

    rows = []
    for plain in vision.architectures():
        for member in get_model_weights(plain):
            name = f"{vision.PREFIX}{plain}.{member.name.lower()}"
            if _matches(name, pattern):
                rows.append(_vision_row(name, member))
    return rows


def _vision_row(name: str, member: Any) -> Row:
    about = member.meta
    accuracy = about.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
    size = vision.vision_pictures(name).size
    operations = about.get("_ops")
    return _row(
        name,
        "torchvision",
        parameters=about.get("num_params"),
        macs=None if operations is None else round(operations * 1e9),
        published_accuracy=None if accuracy is None else round(accuracy / 100, 5),
        available=(_torch_cache() / member.url.rpartition("/")[2]).is_file(),
        input_size=[3, size, size],
        licence=about.get("license"),
    )


def _timms(pattern: str) -> list[Row]:
    import timm

    names = [name for name in timm.list_pretrained() if _matches(name, pattern)]
    here, rows = hub_cache(), []
    for name in names:
        found: Any = timm.get_pretrained_cfg(name)
        about = asdict(found)
        size = [int(side) for side in about["input_size"]]
        counted = _count_timm(name, size) if len(names) <= COUNTED else {}
        there = is_cached(about, here)
        licence = about.get("license")
        rows.append(
            _row(name, "timm", available=there, input_size=size, licence=licence, **counted)
        )
    return rows


def _count_timm(name: str, size: list[int]) -> dict[str, int | None]:
    import timm

    try:
        with torch.device("meta"):  # shapes alone: neither memory nor arithmetic
            net: nn.Module = timm.create_model(name)
    except (RuntimeError, NotImplementedError, TypeError):  # a few draw numbers when built
        return {}
    return count(net, size)


def count(net: nn.Module, size: list[int]) -> dict[str, int | None]:
    """Return how many ``parameters`` a network has, and ``macs`` it takes for one image.

    Multiply-adds of convolutions, linear maps and attention, as they run; the rest is small.
    """
    parameters = sum(p.numel() for p in net.parameters())
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad(), MultiplyAdds() as counted:
            net.eval()(torch.zeros(1, *size, device=device))
        macs: int | None = counted.total
    except (RuntimeError, NotImplementedError):  # not every operation runs on shapes alone
        macs = None
    return {"parameters": parameters, "macs": macs}


def _torch_cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def hub_cache() -> set[str]:
    """Return the names of the folders in the cache of the Hugging Face hub."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    return {entry.name for entry in place.iterdir()} if place.is_dir() else set()


def is_cached(about: dict[str, Any], here: set[str]) -> bool:
    """Say whether weights that timm describes are on this machine; `here` is of `hub_cache`."""
    from huggingface_hub import try_to_load_from_cache

    url, repo = about.get("url"), about.get("hf_hub_id")
    if isinstance(url, str) and url and (_torch_cache() / url.rpartition("/")[2]).is_file():
        return True
    if not repo or f"models--{repo.replace('/', '--')}" not in here:
        return False
    files = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
    wanted = [*files, *([about["hf_hub_filename"]] if about.get("hf_hub_filename") else [])]
    return any(isinstance(try_to_load_from_cache(repo, name), str) for name in wanted)
