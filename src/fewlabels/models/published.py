"""Weights that somebody else trained: published under a name, or in a file of the user's.

`find` says what they are, before any network is built; `fewlabels.models.loading` loads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fewlabels.core.errors import ModelError, UsageError, unknown
from fewlabels.core.types import Pictures
from fewlabels.models import vision
from fewlabels.models.backbones import LISTED, OURS
from fewlabels.models.changes import RESERVED
from fewlabels.models.weights import SUFFIXES, digest_in_name, read_weights
from fewlabels.results.files import read_json

SMALLEST = 65  # pixels; below, our ResNets have another stem, which published weights do not fit
LOCAL = "local-dir:"
# As timm looks for them in a folder.
_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """Weights before they are read.

    Attributes
    ----------
    name : str
        As it was given.
    backbone : str
        What they are weights of.
    pictures : Pictures
        The images that they were trained on.
    file : Path or None
        Where they lie; None where timm or torchvision fetch them.
    options : mapping
        How the architecture differs from the one its name stands for.
    num_classes : int or None
        Outputs of their classifier, where that is known before they are read.
    classes : tuple of str
        Names of its outputs, as far as they are told.
    """

    name: str
    backbone: str
    pictures: Pictures
    file: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    classes: tuple[str, ...] = ()


def find(start: str, backbone: str = "auto") -> Published:
    """Find published weights by name, or weights in a file or a folder of timm's.

    Parameters
    ----------
    start : str
        A timm name, ``torchvision:NAME``, a file, or a folder (also as ``local-dir:FOLDER``).
    backbone : str
        What a file without a description is of; otherwise ``auto``, or what the weights are of.

    Raises
    ------
    UsageError
        Nobody has published such weights; or a file does not say what it is of, and
        `backbone` does not either.
    ModelError
        The file or folder is missing or damaged.
    """
    place = Path(start.removeprefix(LOCAL))
    if start.startswith(LOCAL) or place.is_dir():
        found = _in_folder(start, place)
    elif place.is_file():
        return _in_file(start, place, backbone)
    elif place.suffix in SUFFIXES or len(place.parts) > 1:
        raise ModelError("run.missing", f"there is no run folder or file {start}")
    elif start.startswith(vision.PREFIX) or _only_vision(start):
        found = _of_vision(start)
    else:
        found = _of_timm(start)
    if backbone not in ("auto", found.backbone):
        raise UsageError(
            "usage.backbone",
            f"{start} is a {found.backbone}, and cannot become a {backbone}",
            "leave --backbone out, or --transfer structure",
        )
    return found


def is_timm_folder(place: Path) -> bool:
    """Say whether a folder holds a model as timm saves it."""
    config = place / "config.json"
    return config.is_file() and "architecture" in _json(config)


def _json(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelError("model.damaged", f"{path} holds no settings by name")
    return value


def _only_vision(name: str) -> bool:
    import timm

    return name not in OURS and not timm.is_model(name) and vision.is_vision(name)


def _of_vision(name: str) -> Published:
    plain = vision.PREFIX + vision.architecture(name)
    classes = tuple(vision.weights_of(name).meta["categories"])
    pictures = vision.vision_pictures(name)
    return Published(name, plain, pictures, num_classes=len(classes), classes=_imagenet())


def _of_timm(name: str) -> Published:
    import timm

    if name in OURS:
        raise UsageError(
            "usage.start",
            f"there are no published weights of the backbone {name!r}",
            f"--from random --backbone {name}, or --from RUN",
        )
    if not timm.is_model(name):
        names = ["scratch", "random", *timm.list_models()]
        raise unknown("start", name, names, otherwise=LISTED)
    about = timm.get_pretrained_cfg(name)
    if about is None or not about.has_weights:
        raise UsageError("usage.start", f"nobody has published weights of {name!r}")
    named = _imagenet() if about.num_classes == 1000 else ()
    return Published(
        name, name, _timm_pictures(asdict(about)), num_classes=about.num_classes, classes=named
    )


def _timm_pictures(about: Mapping[str, Any]) -> Pictures:
    channels, size = int(about["input_size"][0]), int(about["input_size"][-1])
    mean, std = (tuple(float(v) for v in about[key]) for key in ("mean", "std"))
    crop, resize = float(about.get("crop_pct") or 1.0), str(about.get("interpolation") or "")
    return Pictures(size, channels, mean, std, crop, resize)


def _in_folder(start: str, place: Path) -> Published:
    import timm

    if not is_timm_folder(place):
        raise ModelError(
            "model.missing", f"there is no model in {place}: neither a run's nor one of timm's"
        )
    config = _json(place / "config.json")
    backbone = str(config["architecture"])
    if not timm.is_model(backbone):
        raise ModelError("model.architecture", f"timm knows no {backbone!r}, which {place} is of")
    file = next((place / name for name in _FILES if (place / name).is_file()), None)
    if file is None:
        raise ModelError("model.missing", f"{place} describes a model and holds no weights")
    given = timm.get_pretrained_cfg(backbone)
    try:
        about = {**(asdict(given) if given else {}), **config.get("pretrained_cfg", config)}
        options = {k: v for k, v in config.get("model_args", {}).items() if k not in RESERVED}
        count = int(config.get("num_classes", about.get("num_classes", 1000)))
        labels = config.get("label_names") or about.get("label_names") or ()
        names = tuple(map(str, labels.values() if isinstance(labels, dict) else labels))
        pictures = _timm_pictures(about)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError("model.damaged", f"{place}/config.json: {error!r}") from error
    classes = names if len(names) == count else ()
    return Published(start, backbone, pictures, file, options, count, classes)


def _in_file(start: str, place: Path, backbone: str) -> Published:
    published = _known_file(place)
    name = backbone if backbone != "auto" else published or read_weights(place).architecture
    if not name:
        raise UsageError(
            "usage.backbone",
            f"{start} does not say what it holds the weights of",
            "--backbone NAME, as resnet50 or torchvision:alexnet; in an arm FILE:NAME+features",
        )
    if name in OURS:
        raise UsageError("usage.backbone", f"{name} is read from run folders alone", "--from RUN")
    # Only of a file that is known to be the published one are the classes known.
    classes = _imagenet() if published == name else ()
    return Published(start, name, _native(name), place, {}, None, classes)


def needs_backbone(start: str) -> bool:
    """Say whether a start is a file of weights that does not tell what it holds them of."""
    place = Path(start)
    return place.is_file() and not (_known_file(place) or read_weights(place).architecture)


def _known_file(place: Path) -> str:
    """Return the name of a file that torchvision published, told by its name and its hash."""
    from torchvision.models import get_model_weights

    for name in vision.architectures():
        for member in get_model_weights(name):
            if member.url.rpartition("/")[2] == place.name and digest_in_name(place):
                return vision.PREFIX + name
    return ""


def _native(name: str) -> Pictures:
    """Return the format that an architecture's first published weights were trained in."""
    import timm

    if timm.is_model(name):
        about = timm.get_pretrained_cfg(name)
        return _timm_pictures(asdict(about or timm.models.PretrainedCfg()))
    if vision.is_vision(name):
        return vision.vision_pictures(vision.PREFIX + vision.architecture(name))
    names = [*timm.list_models(), *vision.architectures()]
    raise unknown("backbone", name, names, otherwise=LISTED)


def _imagenet() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes in their usual order; no two are alike."""
    from timm.data.imagenet_info import ImageNetInfo

    about: Any = ImageNetInfo("imagenet-1k")
    words, codes = about.label_descriptions(), about.label_names()
    return tuple(
        word if words.count(word) == 1 else f"{word} ({code})"
        for word, code in zip(words, codes, strict=True)
    )


def format_for(weights: Published, *, image_size: int | None, channels: int) -> Pictures:
    """Return the picture format in which the weights can take some images.

    Parameters
    ----------
    image_size : int, optional
        By default the size the weights were trained at.
    channels : int
        Of the images; where the weights know others, 1 takes the mean of the statistics.

    Raises
    ------
    UsageError
        The size is too small.
    """
    native = weights.pictures
    size = image_size or native.size
    if size < SMALLEST:
        raise UsageError(
            "usage.image_size",
            f"published weights cannot take {size}x{size} images",
            f"--image-size {native.size}; small images are enlarged",
        )
    return replace(native, size=size).for_channels(channels)
