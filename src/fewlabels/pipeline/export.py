"""The verb `export`: a model that other programs load without this library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from fewlabels.core.errors import ModelError, UsageError, unknown
from fewlabels.models.backbones import TimmBackbone
from fewlabels.models.classifier import Saved
from fewlabels.models.heads import LinearHead, RegressionHead
from fewlabels.models.published import LOCAL
from fewlabels.models.taps import Taps
from fewlabels.pipeline.folders import default_folder
from fewlabels.pipeline.starts import open_model
from fewlabels.results.files import to_json, write_atomic
from fewlabels.results.schema import validate
from fewlabels.training.progress import Reporter

FORMATS = ("timm",)
CHECKED = 4  # random images on which both networks must agree
# What timm's settings say of where the weights were once fetched from.
_SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture")


@dataclass(frozen=True, slots=True, eq=False)
class _Plain:
    """A plain timm network, and the arguments that build it again."""

    net: Any
    arguments: dict[str, Any]


def export(
    run: Path,
    *,
    format: str = "timm",
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Write the model of a run folder in a form that others read.

    Parameters
    ----------
    run : Path
        A run folder whose backbone is one of timm's.
    format : {"timm"}
        A folder for ``timm.create_model("local-dir:FOLDER", pretrained=True)``. An encoder
        becomes a network without a classifier.
    out : Path, optional
        A folder that does not exist yet, or is empty.
    reporter : Reporter, optional

    Returns
    -------
    dict
        ``path``, ``format``, ``max_abs_difference`` of the logits of what was written, loaded
        back, from ours, and ``bytes``.

    Raises
    ------
    UsageError
        The format is unknown, cannot hold this model, or the folder is taken.
    ModelError
        There is no model, or it is damaged.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    saved = open_model(Path(run))
    plain = _as_timm(saved)
    place = Path(out) if out else default_folder("export", Path(run).resolve().name)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError("usage.out", f"{place} is there already", "another --out")
    tensors = {k: v.contiguous().clone() for k, v in plain.net.state_dict().items()}
    write_atomic(place / "model.safetensors", save_tensors(tensors, {"format": "pt"}))
    # Last: without it the folder is no model yet.
    write_atomic(place / "config.json", to_json(_config(saved, plain)) + "\n")
    result = {
        "path": str(place),
        "format": format,
        "max_abs_difference": _difference(saved, place),
        "bytes": sum(file.stat().st_size for file in place.iterdir()),
    }
    return validate("export", result)


def _as_timm(saved: Saved) -> _Plain:
    import timm

    name = str(saved.config["backbone"])
    if isinstance(saved.backbone, Taps):
        stages = ", ".join(map(str, saved.backbone.stages))
        what = f"no timm network has a classifier on its stages {stages}"
        raise UsageError("usage.format", what, "a run without --stages")
    if not isinstance(saved.backbone, TimmBackbone):
        raise UsageError("usage.format", f"{name} is no network of timm's", "a timm --backbone")
    weights = dict(saved.backbone.net.state_dict())
    arguments = {**saved.backbone.options, "in_chans": saved.pictures.channels}
    if timm.get_pretrained_cfg_value(name, "fixed_input_size"):
        arguments["img_size"] = saved.pictures.size
    net: Any = timm.create_model(name, num_classes=_outputs(saved), **arguments)
    if saved.head is not None:
        weights |= _classifier(net, saved)
    try:
        net.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise UsageError(
            "usage.format",
            f"timm cannot build this {name}: for images of at most 64 pixels its stem is ours "
            "(3x3, stride 1, no pooling)",
            "--image-size 65 or more, when it is trained",
        ) from error
    return _Plain(net.eval(), arguments)


def _outputs(saved: Saved) -> int:
    """Return how many outputs a model has: its classes, or one number."""
    return len(saved.classes) or int(saved.target is not None)


def _classifier(net: Any, saved: Saved) -> dict[str, Tensor]:
    """Return timm's classifier: our linear head, its standardisation multiplied out.

    Where a number is predicted, it comes out in its unit.
    """
    head, last = saved.head, net.get_classifier()
    centre, spread = 0.0, 1.0
    if isinstance(head, RegressionHead):
        centre, spread = head.centre, head.spread
        head = head.inner
    if not isinstance(head, LinearHead) or saved.config["grid"] != 1:
        raise UsageError(
            "usage.format",
            "timm's networks end in one linear layer, and the head of this one is no such",
            "fewlabels finetune with --transfer parameters, logistic, ridge, svm or centroid",
        )
    if not isinstance(last, nn.Linear) or last.in_features != head.linear.in_features:
        raise UsageError(
            "usage.format", f"the classifier of {saved.config['backbone']} is not one linear layer"
        )
    place = next(name for name, part in net.named_modules() if part is last)
    weight = head.linear.weight.double() * head.scale.double()
    bias = head.linear.bias.double() - weight @ head.mean.double()
    return {
        f"{place}.weight": (spread * weight).float(),
        f"{place}.bias": (centre + spread * bias).float(),
    }


def _config(saved: Saved, plain: _Plain) -> dict[str, Any]:
    pictures, net = saved.pictures, plain.net
    about = {k: v for k, v in net.pretrained_cfg.items() if k not in _SOURCES}
    for key in ("label_names", "label_descriptions", "label_offset", "test_input_size"):
        about.pop(key, None)
    about |= {
        "input_size": [pictures.channels, pictures.size, pictures.size],
        "mean": list(pictures.mean),
        "std": list(pictures.std),
        "crop_pct": pictures.crop,
        "interpolation": pictures.interpolation or "bicubic",
        "num_classes": _outputs(saved),
        "pool_size": None,
        "custom_load": False,
    }
    return {
        "architecture": str(saved.config["backbone"]).partition(".")[0],
        "num_classes": _outputs(saved),
        "num_features": int(net.num_features),
        "label_names": list(saved.classes) or ([saved.target] if saved.target else []),
        "model_args": plain.arguments,
        "pretrained_cfg": about,
    }


def _difference(saved: Saved, place: Path) -> float:
    """Return how far the outputs of what was written are from ours, at most."""
    import timm

    try:
        net: nn.Module = timm.create_model(f"{LOCAL}{place}", pretrained=True).eval()
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError("model.export", f"timm does not load {place}: {error}") from error
    shape = (CHECKED, saved.pictures.channels, saved.pictures.size, saved.pictures.size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours: nn.Module = saved.backbone if saved.head is None else saved.classifier
    with torch.no_grad():
        expected = ours.eval()(x)
        if isinstance(saved.head, RegressionHead):
            expected = saved.head.centre + saved.head.spread * expected
        return float((net(x) - expected).abs().max())
