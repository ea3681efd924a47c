"""Declared changes of an architecture: settings of our small networks, or a library's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewlabels.core.errors import UsageError
from fewlabels.models.small import SmallCNN

# What a network is built for, and where its weights come from, is never a setting of its own.
RESERVED = (
    *("num_classes", "in_chans", "img_size", "image_size", "input_size"),
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args"),
    *("weights", "checkpoint_path", "cache_dir", "features_only", "progress"),
)

_Width = Annotated[int, Field(ge=1, le=4096)]
_Stride = Annotated[int, Field(ge=1, le=8)]


class SmallChange(BaseModel):
    """What can be changed in a small network; what is None stays as the name has it.

    Attributes
    ----------
    channels : tuple of int
        Depth and width: one number a convolution.
    strides : tuple of int
        How much each block shrinks its map; the first one is the stem. Missing ones are 1.
    pool : tuple of bool
        Where a 2x2 pooling follows. Missing ones are false.
    pooling, activation : str
        Of which kind.
    norm : bool
        Batch normalisation.
    grid, dense : int
        The head of the features: side of the raster the last map is averaged over, and width
        of the dense layer over it, 0 for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: Annotated[tuple[_Width, ...], Field(min_length=1, max_length=64)] | None = None
    strides: tuple[_Stride, ...] | None = None
    pool: tuple[bool, ...] | None = None
    pooling: Literal["max", "avg"] | None = None
    activation: Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"] | None = None
    norm: bool | None = None
    grid: Annotated[int, Field(ge=1, le=64)] | None = None
    dense: Annotated[int, Field(ge=0, le=65536)] | None = None


def changed_small(
    settings: Mapping[str, Any], options: Mapping[str, Any], in_chans: int
) -> SmallCNN:
    """Return a freshly drawn network of some settings, but for the `options`.

    Parameters
    ----------
    settings : mapping
        Of `SmallCNN.settings`.
    options : mapping
        See `SmallChange`.
    in_chans : int

    Raises
    ------
    UsageError
        An option is unknown or cannot be used.

    Examples
    --------
    >>> from fewlabels.models.small import tiny
    >>> changed_small(tiny().settings, {"channels": [8, 16], "dense": 10}, 3).num_features
    10
    """
    try:
        change = SmallChange.model_validate(dict(options)).model_dump(exclude_none=True)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        allowed = ", ".join(SmallChange.model_fields)
        raise UsageError("usage.change", "; ".join(found), f"settings: {allowed}") from error
    wanted = {**settings, **change}
    depth = len(wanted["channels"])
    wanted["strides"] = _fitted(wanted["strides"], 1, depth)
    wanted["pool"] = _fitted(wanted["pool"], False, depth)
    return SmallCNN(in_chans=in_chans, **wanted)


def _fitted(values: tuple[Any, ...], missing: Any, length: int) -> tuple[Any, ...]:
    return (*values, *[missing] * length)[:length]


def library_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that may be handed to a library's constructor.

    Raises
    ------
    UsageError
        One of them says what the images or the labels say, or names files.
    """
    if taken := sorted(options.keys() & set(RESERVED)):
        raise UsageError(
            "usage.change",
            f"{', '.join(taken)} cannot be changed: the data and --from settle it",
            "settings of the architecture alone, such as {act_layer: gelu}",
        )
    return dict(options)
