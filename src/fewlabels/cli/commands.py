"""The verbs of the command line, in the order of the journey, each with its examples."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

import fewlabels
from fewlabels.cli import choosing, labelling, stages, studies, taking
from fewlabels.cli.job import Job

VERBS: dict[Callable[..., Job], tuple[str, ...]] = {
    studies.demo: ("fewlabels demo", "fewlabels demo --labels 1,4 --out runs/demo"),
    studies.run: (
        "fewlabels run photos/ --labels 25 --budget 10m",
        "fewlabels run photos/ --recipe auto --budget 10m",
    ),
    stages.inspect: (
        "fewlabels inspect photos/",
        "fewlabels inspect photos.zip",
        "fewlabels inspect labels.csv --json",
    ),
    stages.pretrain: ("fewlabels pretrain photos/ --method simclr --budget 5m --out runs/encoder",),
    choosing.models: (
        "fewlabels models resnet",
        "fewlabels models --available --fit photos/ --labels 25 --from runs/encoder",
    ),
    stages.finetune: (
        "fewlabels finetune photos/ --from runs/encoder --transfer features --labels 25",
        "fewlabels finetune photos/ --from torchvision:alexnet --transfer features",
        "fewlabels finetune leaves.csv --from runs/encoder --target area --labels 50",
    ),
    stages.evaluate: ("fewlabels evaluate runs/classifier --split test",),
    stages.explain: (
        "fewlabels explain runs/classifier",
        "fewlabels explain runs/classifier a.jpg b.jpg --class cat",
        "fewlabels explain resnet18 a.jpg b.jpg",
    ),
    labelling.suggest: (
        "fewlabels suggest runs/encoder --count 40",
        "fewlabels suggest runs/classifier --count 100 --json",
    ),
    labelling.suspects: (
        "fewlabels suspects runs/encoder",
        "fewlabels suspects runs/encoder --json",
    ),
    studies.compare: (
        "fewlabels compare photos/ --arms simclr+features,pixels,scratch --labels 1,4,25",
        "fewlabels compare photos/ --labels 4 --workers 4",
        "fewlabels compare photos/ --labels 4 --list-cells --out runs/shared",
        "fewlabels compare photos/ --labels 1,4,25 --budget 2000000images --format markdown",
    ),
    studies.report: ("fewlabels report runs/run-photos-1",),
    taking.predict: (
        "fewlabels predict runs/run-photos-1 new/ --out predictions.csv",
        "fewlabels predict runs/run-photos-1 a.jpg b.jpg --json",
        "fewlabels predict resnet50 new/",
    ),
    taking.export: ("fewlabels export runs/classifier --format timm --out classifier-timm",),
    taking.cache: ("fewlabels cache", "fewlabels cache --clear"),
}

STUDIES: dict[Callable[..., Job], tuple[str, ...]] = {
    labelling.label: (
        "fewlabels study label photos/ --from runs/encoder --labels 10,40",
        "fewlabels study label digits --from simclr --budget 12s --arms coverage,margin,uniform",
    ),
}

HELP = "From a folder of images with few labels to a verdict: does pre-training help?"
# click leaves the lines of a paragraph alone that begins with a backspace.
BEGIN = """\b
Begin with:
  fewlabels demo
  fewlabels inspect photos/
  fewlabels run photos/ --labels 25 --budget 10m

'fewlabels VERB --help' explains a verb. Exit codes: 0 done, 1 a defect of ours, 2 usage,
3 data, 4 model file, 5 training diverged, 6 out of memory, 7 disk, 8 run folder in use,
130 interrupted with everything saved.
"""


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"fewlabels {fewlabels.__version__}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the flags that come before a verb."""


def build() -> typer.Typer:
    """Return the parser of the command line."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    commands = typer.Typer(
        name="fewlabels",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain text: the same in a pipe, and rich need not be loaded
        context_settings=settings,
    )
    commands.callback(help=HELP, epilog=BEGIN)(_root)
    _add(commands, VERBS, settings)
    studies_of = typer.Typer(rich_markup_mode=None, context_settings=settings)
    _add(studies_of, STUDIES, settings)
    commands.add_typer(studies_of, name="study", help="Simulate a choice on data with labels.")
    return commands


def _add(
    commands: typer.Typer,
    verbs: dict[Callable[..., Job], tuple[str, ...]],
    settings: dict[str, Any],
) -> None:
    for verb, examples in verbs.items():
        shown = "\b\nExample:\n" + "\n".join(f"  {example}" for example in examples)
        commands.command(epilog=shown, context_settings=settings)(verb)
