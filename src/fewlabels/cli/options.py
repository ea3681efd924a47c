"""The flags: one definition each, shared by the verbs that use them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fewlabels.cli.config import read_config


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Leaks(StrEnum):
    """What to do with a picture that lies in test and in another split."""

    drop = "drop"
    keep = "keep"
    stop = "stop"


class Resume(StrEnum):
    """What to do with a folder that holds an unfinished run."""

    auto = "auto"
    never = "never"


def asked(resume: Resume) -> str | None:
    """Return what was asked for; None for ``auto``, which every verb does by itself."""
    return None if resume is Resume.auto else resume.value


class Keep(StrEnum):
    """Which weights of a training that is watched on validation images."""

    best = "best"
    last = "last"


class Split(StrEnum):
    """Which held-out images."""

    val = "val"
    test = "test"


class ExportFormat(StrEnum):
    """What a model is exported for."""

    timm = "timm"


class Format(StrEnum):
    """How predictions are written."""

    table = "table"
    csv = "csv"
    json = "json"


class TableFormat(StrEnum):
    """How the table of a comparison is written for a paper."""

    latex = "latex"
    markdown = "markdown"
    csv = "csv"


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="Folder of images, or an archive of one (.zip, .tar, .tar.gz); table of labels (.csv, "
        ".tsv, .parquet); Parquet with the images inside; .npz file; or by name: 'digits', "
        "torchvision:CIFAR10, hf:owner/name.",
    ),
]
Run = Annotated[
    Path, typer.Argument(metavar="RUN", show_default=False, help="A run folder that is finished.")
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=8,
        max=1024,
        metavar="PIXELS",
        help="Training size, 8 to 1024. Default: the images' own up to 64, else 128.",
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Column with the file names. Default: found by its name."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Column with the labels. Default: found by its name."),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column with a number to predict, not classes; --labels N is then N images in all.",
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column (patient, camera) whose equal values stay in one split. Default: none.",
    ),
]
LeaksFlag = Annotated[
    Leaks,
    typer.Option(
        "--leaks",
        help="A picture in test and in train: drop the training copy, keep both, or stop.",
    ),
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Read every file again instead of trusting its size and time."),
]
Method = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Pre-training: simclr, vicreg, barlow_twins, byol, dino, emp, rotation, masked, "
        "kmeans, autoencoder, denoising, dense_autoencoder, vae or gan; supervised learns from the "
        "labels, for another data set to start from.",
    ),
]
Backbone = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="tiny, conv-32-64-128, conv-32-64-64 (also with -sigmoid or -tanh, and -avg), "
        "alexnet or any timm or torchvision: name; auto: by device and size.",
    ),
]
Change = Annotated[
    str | None,
    typer.Option(
        metavar="YAML",
        help="Settings in which a structure is to differ, as '{channels: [32, 64], activation: "
        "gelu}'; in --config a mapping. See docs/transfer.md.",
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Augmentation: natural, turned, digits, medical or none; auto looks at them.",
    ),
]
Imbalance = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="For classes of unequal size: none, class weights, balanced sampling, or logits "
        "adjusted by class frequency.",
    ),
]
UnlabelledLoss = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Learn from unlabelled images as well: pseudo (labels spread over frozen features), "
        "fixmatch, freematch or softmatch; none does not.",
    ),
]
Optimizer = Annotated[
    str,
    typer.Option(metavar="NAME", help="adamw, adam or sgd; auto: what the method comes with."),
]
Labels = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Labels per class that stay visible. Default: all you have."
    ),
]
LabelsList = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...", help="Labels per class that stay visible, as in 1,4,25. Default: all."
    ),
]
Arms = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help="What competes: auto, scratch, pixels, random, method[:backbone]+transfer, as in "
        "simclr+features, or a run folder or timm name with a transfer, as in "
        "runs/source+features; an unlabelled loss is a transfer too, as in scratch+fixmatch; "
        "scratch+long trains for the whole budget. "
        "Default: the eight of docs/getting-started.md.",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Make one classifier with the whole budget and compare it with nothing: auto, chosen "
        "by rules that say why, or the name of an arm.",
    ),
]
Baseline = Annotated[
    str | None, typer.Option(metavar="A", help="The arm to beat. Default: scratch.")
]
Metric = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of the verdicts: accuracy (the default), balanced_accuracy, recall_macro, f1_macro "
        "or nll; with --target mse (the default), mae or r2.",
    ),
]
MovedData = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="DATA", help="Where the images are now. Default: where they were."
    ),
]
Seed = Annotated[int, typer.Option(min=0, metavar="S", help="Which random streams.")]
DeviceFlag = Annotated[
    Device, typer.Option("--device", help="Where to compute; auto takes a GPU if there is one.")
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Run folder. Default: runs/<verb>-<data>-<number>."),
]
ResumeFlag = Annotated[
    Resume,
    typer.Option(
        "--resume", help="auto goes on where an unfinished run in --out stopped; never refuses it."
    ),
]
ListCells = Annotated[
    bool,
    typer.Option(
        "--list-cells", help="Settle the plan in --out, print one cell a line, compute nothing."
    ),
]
Cell = Annotated[
    str | None,
    typer.Option(
        "--cell",
        metavar="ID,ID,...",
        help="Compute these cells of the plan in --out, beside any other process that does.",
    ),
]
Collect = Annotated[
    bool,
    typer.Option("--collect", help="Sum up the cells that are in --out, whether all or not."),
]
Also = Annotated[
    list[Path] | None,
    typer.Option(
        "--also",
        metavar="DIR",
        help="With --collect: take in the cells of another folder with this plan; repeatable.",
    ),
]
Workers = Annotated[
    int, typer.Option(min=1, metavar="N", help="Processes here that share the cells.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan (stages, steps, seconds, disk) and stop.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.yaml",
        is_eager=True,
        callback=read_config,
        help="Flags by name, as in 'budget: 5m'. Flags given here beat the file.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON value on stdout, all else on stderr.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
