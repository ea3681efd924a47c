"""A backbone with a head, and the folder that holds both: safetensors and JSON, nothing pickled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.core.types import Backbone, Batch, Pictures
from fewlabels.data.augment import plain
from fewlabels.models.backbones import create_backbone, pooled_features
from fewlabels.models.heads import (
    AverageHead,
    LinearHead,
    MixtureHead,
    NeighbourAverage,
    NeighbourHead,
    RegressionHead,
    answers,
)
from fewlabels.models.taps import Taps, untapped
from fewlabels.models.weights import not_finite
from fewlabels.results.files import write_atomic
from fewlabels.results.seals import read_sealed, write_sealed

SCHEMA = 1
_DAMAGE = (
    *(OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, AssertionError, MemoryError),
)
Near = TypeVar("Near", bound=NeighbourHead)
Part = TypeVar("Part", bound=nn.Module)


class Classifier(nn.Module):
    """A backbone, its pooling and a head: images in, logits (or a number) out.

    Parameters
    ----------
    backbone : Backbone
        From `create_backbone`.
    head : nn.Module
        One of `fewlabels.models.heads`, over features pooled on the `grid`.
    grid : int
        Side of the raster the last map is averaged over.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, *, grid: int = 1) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``(B, C, S, S)`` to logits ``(B, num_classes)``, or ``(B, 1)``."""
        logits: Tensor = self.head(pooled_features(self.backbone, x, self.grid).float())
        return logits

    @torch.inference_mode()
    def probabilities(self, batch: Batch, pictures: Pictures, *, bf16: bool = False) -> np.ndarray:
        """Return class probabilities ``(B, num_classes)`` float32 of the evaluation views.

        With a `RegressionHead`: numbers ``(B,)`` float64 in their unit.
        """
        self.eval()
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=bf16):
            outputs = self(plain(batch, pictures))
        return answers(self.head, outputs)


@dataclass(frozen=True, slots=True)
class Saved:
    """What lies in a model folder: the parts, and the preprocessing that belongs to them."""

    backbone: Backbone
    head: nn.Module | None
    pictures: Pictures
    short_side: int
    classes: tuple[str, ...]
    config: dict[str, Any]

    @property
    def target(self) -> str | None:
        """Return the column of the numbers that it predicts; None where it names classes."""
        return self.config.get("target")

    @property
    def classifier(self) -> Classifier:
        """Return backbone and head together.

        Raises
        ------
        ModelError
            The folder holds an encoder without a head.
        """
        if self.head is None:
            raise ModelError(
                "model.no_head",
                "this model is an encoder without a classifier",
                "fewlabels finetune DATA --from RUN",
            )
        return Classifier(self.backbone, self.head, grid=int(self.config["grid"]))


def save_model(  # noqa: PLR0913 - a model, and what belongs to it
    folder: Path,
    backbone: Backbone,
    name: str,
    pictures: Pictures,
    *,
    short_side: int,
    head: nn.Module | None = None,
    classes: tuple[str, ...] = (),
    target: str | None = None,
    grid: int = 1,
) -> None:
    """Write ``model.safetensors`` and ``config.json`` into `folder`.

    Parameters
    ----------
    classes : tuple of str
        What it tells apart.
    target : str, optional
        For regression, the column of the numbers instead.

    Raises
    ------
    DiskError
        The disk is full or not writable.
    """
    tensors = {f"backbone.{k}": v for k, v in untapped(backbone).state_dict().items()}
    config: dict[str, Any] = {
        "schema": SCHEMA,
        "backbone": name,
        "pictures": asdict(pictures),
        "short_side": short_side,
        "classes": list(classes),
        "target": target,
        "grid": grid,
        "options": dict(backbone.options),
        "head": None,
    }
    if isinstance(backbone, Taps):
        config["stages"] = list(backbone.stages)
    if head is not None:
        tensors |= {f"head.{k}": v for k, v in head.state_dict().items()}
        config["head"] = _describe_head(head)
    ready = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    raw = save_tensors(ready)
    write_atomic(folder / "model.safetensors", raw)
    write_sealed(folder / "config.json", config | {"weights_sha256": _sha256(raw)})


def _describe_head(head: nn.Module) -> dict[str, Any]:
    if isinstance(head, RegressionHead):
        scale = {"centre": head.centre, "spread": head.spread}
        return {"kind": "regression", **scale, "inner": _describe_head(head.inner)}
    if isinstance(head, MixtureHead | AverageHead):
        parts = (_describe_head(head.linear), _describe_head(head.neighbours))
        kind = "mixture" if isinstance(head, MixtureHead) else "average"
        return {"kind": kind, "linear": parts[0], "neighbours": parts[1]}
    if isinstance(head, NeighbourHead):
        features, directions = head.turn.shape
        return {
            "kind": "neighbour-average" if isinstance(head, NeighbourAverage) else "neighbours",
            "entries": len(head.bank),
            "features": features,
            "directions": directions,
            "num_classes": head.votes.shape[1],
            "k": head.k,
            "temperature": head.temperature,
        }
    assert isinstance(head, LinearHead)
    return {
        "kind": "linear",
        "features": head.linear.in_features,
        "num_classes": head.linear.out_features,
    }


def _build_head(about: dict[str, Any]) -> nn.Module:
    if about["kind"] == "mixture":
        near = _neighbours(about["neighbours"], NeighbourHead)
        return MixtureHead(_linear(about["linear"]), near)
    if about["kind"] == "linear":
        return _linear(about)
    if about["kind"] == "neighbours":
        return _neighbours(about, NeighbourHead)
    if about["kind"] == "neighbour-average":
        return _neighbours(about, NeighbourAverage)
    if about["kind"] == "average":
        near = _neighbours(about["neighbours"], NeighbourAverage)
        return AverageHead(_linear(about["linear"]), near)
    if about["kind"] == "regression":
        inner = _build_head(about["inner"])
        return RegressionHead(inner, float(about["centre"]), float(about["spread"]))
    raise ValueError(f"unknown head {about['kind']!r}")


def _linear(about: dict[str, Any]) -> LinearHead:
    return LinearHead(int(about["features"]), int(about["num_classes"]))


def _neighbours(about: dict[str, Any], kind: type[Near]) -> Near:
    return kind(
        int(about["entries"]),
        int(about["features"]),
        int(about["directions"]),
        int(about["num_classes"]),
        k=int(about["k"]),
        temperature=float(about["temperature"]),
    )


def load_model(folder: Path) -> Saved:
    """Read a model folder; shapes are checked against its configuration.

    Raises
    ------
    ModelError
        A file is missing or damaged, or weights and configuration do not fit.
    """
    config = read_sealed(folder / "config.json")
    try:
        tensors = _tensors(folder / "model.safetensors", config.get("weights_sha256"))
        pictures = Pictures(
            size=int(config["pictures"]["size"]),
            channels=int(config["pictures"]["channels"]),
            mean=tuple(float(v) for v in config["pictures"]["mean"]),
            std=tuple(float(v) for v in config["pictures"]["std"]),
            crop=float(config["pictures"].get("crop", 1.0)),
            interpolation=str(config["pictures"].get("interpolation", "")),
        )
        backbone = _filled(partial(_build_backbone, config, pictures), "backbone.", tensors)
        about = config["head"]
        head = _filled(partial(_build_head, about), "head.", tensors) if about else None
        if stages := config.get("stages"):
            backbone = Taps(backbone, stages, channels=pictures.channels, size=pictures.size)
        short_side, classes = int(config["short_side"]), tuple(map(str, config["classes"]))
    except UsageError as error:  # a backbone that neither we nor timm know
        raise ModelError("model.damaged", f"cannot load {folder}: {error.message}") from error
    except (*_DAMAGE, SafetensorError) as error:
        raise ModelError("model.damaged", f"cannot load the model in {folder}: {error}") from error
    backbone = backbone.to(memory_format=torch.channels_last).eval()
    return Saved(backbone, head, pictures, short_side, classes, config)


def _tensors(path: Path, known: str | None) -> dict[str, Tensor]:
    raw = path.read_bytes()
    if known not in (None, _sha256(raw)):
        raise ValueError(f"{path.name} is damaged: its checksum does not fit")
    return load_tensors(raw)


def _build_backbone(config: dict[str, Any], pictures: Pictures) -> Backbone:
    return create_backbone(
        config["backbone"],
        in_chans=pictures.channels,
        image_size=pictures.size,
        options=config.get("options"),
    )


def _filled(build: Callable[[], Part], prefix: str, tensors: dict[str, Tensor]) -> Part:
    """Build a part and fill it; before it takes memory, its shapes must be those of the file."""
    part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if odd := not_finite(part):
        raise ValueError(f"its tensor {prefix}{odd} holds values that are no finite numbers")
    with torch.device("meta"):
        needed = {name: value.shape for name, value in build().state_dict().items()}
    if needed != {name: value.shape for name, value in part.items()}:
        raise ValueError(f"its {prefix.rstrip('.')} and config.json do not fit each other")
    module = build()
    module.load_state_dict(part, strict=True)
    return module


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
