"""The verbs of single stages: inspect, pretrain, finetune, evaluate, explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import fewlabels
from fewlabels.cli import options as flag
from fewlabels.cli import output
from fewlabels.cli.job import Job, counts_list, given, mapping, names_list


def inspect(  # noqa: PLR0913 - one parameter a flag
    data: flag.Data,
    image_size: flag.ImageSize = None,
    image_column: flag.ImageColumn = None,
    label_column: flag.LabelColumn = None,
    target: flag.Target = None,
    group_by: flag.GroupBy = None,
    leaks: flag.LeaksFlag = flag.Leaks.drop,
    verify: flag.Verify = False,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Say what is in a folder of images.

    Classes and counts (or the range and spread of --target), unlabelled and unreadable files,
    duplicates, pictures that lie in two splits, imbalance and sizes. Nothing is trained and no
    file of yours is changed.
    """

    def call() -> Any:
        return fewlabels.inspect(
            fewlabels.DataOptions(
                data, image_size, image_column, label_column, target, group_by, leaks.value, verify
            )
        )

    return Job(call, output.show_inspect, as_json)


def pretrain(  # noqa: PLR0913 - one parameter a flag
    data: flag.Data,
    method: flag.Method = "simclr",
    backbone: flag.Backbone = "auto",
    budget: Annotated[
        str,
        typer.Option(metavar="TIME", help="As 90s, 5m, 1h, 2000steps, 20epochs or 2000000images."),
    ] = "5m",
    policy: flag.Policy = "auto",
    optimizer: flag.Optimizer = "auto",
    labels: flag.Labels = None,
    seed: flag.Seed = 0,
    image_size: flag.ImageSize = None,
    image_column: flag.ImageColumn = None,
    label_column: flag.LabelColumn = None,
    target: flag.Target = None,
    group_by: flag.GroupBy = None,
    leaks: flag.LeaksFlag = flag.Leaks.drop,
    verify: flag.Verify = False,
    device: flag.DeviceFlag = flag.Device.auto,
    out: flag.Out = None,
    resume: flag.ResumeFlag = flag.Resume.auto,
    dry_run: flag.DryRun = False,
    config: flag.Config = None,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Train an encoder on all images, labelled or not.

    Labels are learned from by --method supervised alone; otherwise those that are visible serve a
    probe that watches the training (leave-one-out nearest neighbours). Test images are left out.
    The run folder then serves 'fewlabels finetune --from'. A run that was interrupted goes on
    exactly where it stopped.
    """

    def call() -> Any:
        return fewlabels.pretrain(
            fewlabels.DataOptions(
                data, image_size, image_column, label_column, target, group_by, leaks.value, verify
            ),
            method=method,
            backbone=backbone,
            budget=budget,
            policy=policy,
            optimizer=optimizer,
            labels=labels,
            seed=seed,
            device=device.value,
            out=out,
            dry_run=dry_run,
            **given(resume=flag.asked(resume)),
        )

    return Job(call, output.show_training, as_json, shared=True)


def finetune(  # noqa: PLR0913 - one parameter a flag
    data: flag.Data,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="START",
            show_default=False,
            help="A run folder of pretrain, 'scratch', 'random', a timm name, torchvision:NAME, a "
            "file of weights (.safetensors, .pth) or a folder of timm's.",
        ),
    ],
    transfer: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="parameters: train the weights; structure: carry over what fits the --backbone "
            "named and train it as from scratch; features: freeze them and fit a small model "
            "(to name it: logistic, ridge, svm, centroid, knn or spreading; with --target ridge or "
            "knn).",
        ),
    ] = "parameters",
    tune: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="Trained beside the head: all stages, the last, none (head), or one after the "
            "other (gradual).",
        ),
    ] = "all",
    layer_decay: Annotated[
        float,
        typer.Option(metavar="X", help="Factor on the rate from each stage to the one before."),
    ] = 1.0,
    layer_weight_decay: Annotated[
        float,
        typer.Option(
            metavar="X", help="Factor on the weight decay from each stage to the one before."
        ),
    ] = 1.0,
    l2_sp: Annotated[
        float,
        typer.Option("--l2-sp", metavar="X", help="How hard weights are held near their start."),
    ] = 0.0,
    stages: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N]",
            show_default=False,
            help="Of which stages frozen features are, side by side; 1 sees the images. Default: "
            "the network's own.",
        ),
    ] = None,
    imbalance: flag.Imbalance = "none",
    optimizer: flag.Optimizer = "auto",
    unlabelled_loss: flag.UnlabelledLoss = "none",
    keep: Annotated[
        flag.Keep,
        typer.Option(
            help="Without --labels and with 100 validation images: best ends early and keeps the "
            "weights of the lowest validation loss, last trains to the end.",
        ),
    ] = flag.Keep.best,
    labels: flag.Labels = None,
    seed: flag.Seed = 0,
    backbone: flag.Backbone = "auto",
    change: flag.Change = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="As 90s, 2m, 500steps, 20epochs or 32000images.")
    ] = "2m",
    policy: flag.Policy = "auto",
    image_size: flag.ImageSize = None,
    image_column: flag.ImageColumn = None,
    label_column: flag.LabelColumn = None,
    target: flag.Target = None,
    group_by: flag.GroupBy = None,
    leaks: flag.LeaksFlag = flag.Leaks.drop,
    verify: flag.Verify = False,
    device: flag.DeviceFlag = flag.Device.auto,
    out: flag.Out = None,
    resume: flag.ResumeFlag = flag.Resume.auto,
    dry_run: flag.DryRun = False,
    config: flag.Config = None,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Turn an encoder and the labels into a classifier or regressor.

    With --labels N only N labels per class are read, the validation images' included; all others
    stay hidden. With --target COLUMN a number is predicted, and N are the labels in all. The run
    folder then serves 'fewlabels evaluate' and 'fewlabels predict'.
    """

    def call() -> Any:
        return fewlabels.finetune(
            fewlabels.DataOptions(
                data, image_size, image_column, label_column, target, group_by, leaks.value, verify
            ),
            start=start,
            transfer=transfer,
            tune=tune,
            layer_decay=layer_decay,
            layer_weight_decay=layer_weight_decay,
            l2_sp=l2_sp,
            imbalance=imbalance,
            optimizer=optimizer,
            unlabelled_loss=unlabelled_loss,
            keep=keep.value,
            labels=labels,
            seed=seed,
            backbone=backbone,
            budget=budget,
            policy=policy,
            device=device.value,
            out=out,
            dry_run=dry_run,
            **given(
                stages=counts_list(stages, "stages", "3,4"),
                change=mapping(change),
                resume=flag.asked(resume),
            ),
        )

    return Job(call, output.show_training, as_json, shared=True)


def evaluate(
    run: flag.Run,
    split: Annotated[flag.Split, typer.Option(help="Which held-out images.")] = flag.Split.test,
    data: flag.MovedData = None,
    device: flag.DeviceFlag = flag.Device.auto,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Score a classifier or a regressor on held-out images.

    Each number has its 95 % interval. Every look at a test set is counted, in whatever folder: the
    more looks, the less a good number means. While you are still choosing, use --split val.
    """

    def call() -> Any:
        return fewlabels.evaluate(run, split=split.value, device=device.value, **given(data=data))

    return Job(call, output.show_scores, as_json)


def explain(  # noqa: PLR0913 - one parameter a flag
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="A finished run folder; or published weights, with images: a timm name, "
            "torchvision:NAME, a file of weights or a folder of timm's.",
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE...",
            show_default=False,
            help="Files, folders, or paths as in the manifest. Default: the worst mistakes on "
            "held-out images, and some right answers.",
        ),
    ] = None,
    split: Annotated[
        flag.Split | None,
        typer.Option(help="Which held-out images. Default: val if it has labels, else test."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=200, metavar="N", help="How many, where none are named.")
    ] = 12,
    label: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="NAME", help="What to look for. Default: each predicted class."
        ),
    ] = None,
    maps: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="grad_cam, integrated_gradients, occlusion. Default: all three.",
        ),
    ] = None,
    data: flag.MovedData = None,
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="What a file of weights is of.")
    ] = "auto",
    device: flag.DeviceFlag = flag.Device.auto,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Show where a network looks and what it finds alike.

    Pictures and arrays go into the run folder, and 'fewlabels report' puts them on its page; those
    of published weights go into a new folder. A kind of map that hardly changes when the weights
    are replaced by random ones explains nothing: it is withdrawn, and that is said.
    """

    def call() -> Any:
        kinds = names_list(maps, "maps", "grad_cam,occlusion")
        chosen = given(split=split and split.value, label=label, maps=kinds, data=data)
        if backbone != "auto":
            chosen["backbone"] = backbone
        return fewlabels.explain(run, images or [], count=count, device=device.value, **chosen)

    return Job(call, output.show_explained, as_json)
