"""The command line as its users meet it: words in; stdout, stderr and exit code out."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fewlabels.cli import main, output
from fewlabels.cli.commands import STUDIES, VERBS
from fewlabels.core import errors
from fewlabels.report import paper_table

NAMES = [verb.__name__ for verb in VERBS]

INSPECTED = {
    "schema": 1,
    "images": 12,
    "labelled": 10,
    "unlabelled": 1,
    "classes": {"cat [tabby]": 7, "dog": 3},
    "splits": {"train": 9, "val": 1, "test": 1},
    "unreadable": 1,
    "quarantine": [{"path": "cat/7.jpg", "reason": "truncated"}],
    "duplicates": [],
    "leaks": [],
    "imbalance": 7 / 3,
    "warnings": ["imbalance: beware"],
}
TRAINED = {
    "schema": 1,
    "run": "runs/pretrain-photos-1",
    "method": "simclr",
    "backbone": "tiny",
    "parameters": 400_000,
    "steps": 20,
    "images_seen": 5_120,
    "seconds": 3.5,
    "images_per_second": 1_400.0,
    "peak_memory_mb": None,
    "final": {"loss": 4.5},
    "probe": {"value": 0.5, "low": 0.4, "high": 0.6},
}
SCORED = {
    "schema": 1,
    "run": "runs/finetune-photos-1",
    "split": "test",
    "n": 40,
    "accuracy": {"value": 0.75, "low": 0.6, "high": 0.87},
    "per_class": [{"name": "cat", "n": 20, "precision": 0.8, "recall": 0.7, "f1": 0.75}],
    "looks_at_test": 2,
}
COMPARED = {
    "schema": 1,
    "run": "",
    "arms": [
        {"name": "simclr+features", "start": "simclr", "method": "simclr", "transfer": "features"},
        {"name": "scratch", "start": "scratch", "method": None, "transfer": None},
    ],
    "cells": [],
    "curves": [
        {"arm": "simclr+features", "shots": 4, "seeds": 5, "mean": 0.8, "low": 0.7, "high": 0.9},
        {"arm": "scratch", "shots": 4, "seeds": 5, "mean": 0.6, "low": 0.5, "high": 0.7},
    ],
    "verdicts": [],
    "label_saving": [],
    "primary": {
        **{"arm": "simclr+features", "baseline": "scratch", "shots": 4, "metric": "accuracy"},
        **{"difference": 0.2, "low": 0.1, "high": 0.3, "p": 0.01, "verdict": "helps"},
        **{"detectable": 0.08, "sentence": "With 4 labels per class, SimCLR beats scratch."},
    },
    "best": {"name": "simclr+features", "reason": "best in cross-validation"},
    "warnings": [],
}
EXPLAINED = {
    "schema": 1,
    "run": "runs/finetune-photos-1",
    "split": "test",
    "looks_at_test": 3,
    "folder": "runs/finetune-photos-1/records/explain-1",
    "images": [
        {
            **{"path": "test/cat/1.jpg", "kind": "mistake", "label": "cat", "predicted": "dog"},
            **{"probability": 0.875, "explained": "dog", "picture": "0001.png"},
            "neighbours": [
                {"path": "train/dog/7.jpg", "label": "dog", "similarity": 0.9},
                {"path": "unlabelled/9.jpg", "label": None, "similarity": 0.8},
            ],
        }
    ],
    "maps": [
        {"map": "grad_cam", "shown": True, "correlation": 0.125, "reason": ""},
        {"map": "occlusion", "shown": False, "correlation": 0.9, "reason": "withdrawn: alike"},
    ],
    "warnings": [],
}
PREDICTED = [
    {"path": "a.jpg", "label": "cat", "probability": 0.9, "probabilities": {"cat": 0.9, "dog": 0.1}}
]

SUSPECTED = [{"path": "a.jpg", "label": "cat", "suggested": "dog", "score": 0.875}]
SUGGESTED = [{"path": "a.jpg", "rank": 1, "score": 0.5, "reason": "like no other image"}]


@dataclass(frozen=True)
class Options:
    data: str
    image_size: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    target: str | None = None
    group_by: str | None = None
    leaks: str = "drop"
    verify: bool = False


class Library:
    """Stands in for the verbs: keeps what it was called with, answers or raises as told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answers: dict[str, Any] = {
            **{"inspect": INSPECTED, "pretrain": TRAINED, "finetune": TRAINED},
            **{"evaluate": SCORED, "compare": COMPARED, "run": COMPARED, "demo": COMPARED},
            **{"predict_table": PREDICTED, "models": [], "explain": EXPLAINED},
            **{"suggest": SUGGESTED, "suspects": SUSPECTED, "label_study": COMPARED},
        }

    def verb(self, name: str) -> Callable[..., Any]:
        def call(*given: Any, **settings: Any) -> Any:
            self.calls.append((name, given, settings))
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            return answer() if callable(answer) else answer

        return call

    @property
    def settings(self) -> dict[str, Any]:
        return self.calls[-1][2]

    @property
    def data(self) -> Options:
        found = self.calls[-1][1][0]
        assert isinstance(found, Options)
        return found


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    fake = Library()
    verbs = {n: fake.verb(n) for n in fake.answers}
    modules = {
        "fewlabels.pipeline.task": {"DataOptions": Options},
        "fewlabels.pipeline.verbs": verbs,
        "fewlabels.pipeline.predict": verbs,
        "fewlabels.pipeline.choosing": verbs,
        "fewlabels.study.compare": verbs,
        "fewlabels.study.main_job": verbs,
        "fewlabels.study.suggest": verbs,
        "fewlabels.pipeline.suspects": verbs,
        "fewlabels.study.labelling": verbs,
        "fewlabels.training.progress": {"Reporter": lambda: None},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def python(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# ---- help ------------------------------------------------------------------------------------


def test_help_needs_no_heavy_library() -> None:
    heavy = {"torch", "numpy", "pandas", "sklearn", "timm", "pyarrow", "rich"}
    code = "import sys, fewlabels.cli as c; c.main(['run', '-h']); "
    code += f"print(sys.modules.keys() & {heavy})"
    done = python("-c", code)
    assert done.stdout.rstrip().endswith("set()"), done.stdout + done.stderr


@pytest.mark.medium
def test_help_is_quick() -> None:
    def seconds() -> float:
        """Of the processor, not of the clock: other tests run beside this one."""
        before = os.times()
        assert python("-m", "fewlabels", "--help").returncode == 0
        after = os.times()
        spent = after.children_user - before.children_user
        return spent + after.children_system - before.children_system

    assert min(seconds() for _ in range(5)) < 0.5


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert [name for name in NAMES if f"  {name} " not in shown] == []
    assert "..." not in shown.partition("Commands:")[2].partition("Begin")[0]


@pytest.mark.parametrize("name", NAMES)
def test_help_reads_as_documentation(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"\n    fewlabels {name}" in shown  # an example that can be copied
    assert "--json" in shown
    assert "--debug" in shown
    assert "  -h, --help" in shown


@pytest.mark.parametrize("name", NAMES)
def test_examples_parse(name: str, library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    for example in next(v for verb, v in VERBS.items() if verb.__name__ == name):
        words = example.split()[1:]
        if name == "report" or "--out" in words:
            words.append("--help")  # parsed; what it would write is tested below
        assert main(words) == 0, capsys.readouterr().err


def test_studies_are_commands_of_their_own(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, examples in STUDIES.items():
        assert main(["study", verb.__name__, "--help"]) == 0
        assert f"fewlabels study {verb.__name__}" in capsys.readouterr().out
        for example in examples:
            assert main(example.split()[1:]) == 0, capsys.readouterr().err
    assert library.settings["arms"] == ["coverage", "margin", "uniform"]
    assert library.settings["labels"] == [10, 40]
    assert main(["study"]) == 2
    assert main(["study", "lable", "digits"]) == 2
    assert "label" in capsys.readouterr().err


def test_people_read_why_an_image_is_suggested(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suggest", "runs/x", "--count", "7", "--strategy", "margin"]) == 0
    assert capsys.readouterr().out.split() == ["1", "a.jpg", "like", "no", "other", "image"]
    kept = {key: library.settings[key] for key in ("count", "strategy", "seed")}
    assert kept == {"count": 7, "strategy": "margin", "seed": 0}


def test_people_read_which_labels_are_suspect(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suspects", "runs/x", "--seed", "3"]) == 0
    assert capsys.readouterr().out == "0.88  a.jpg  labelled cat, may be dog\n"
    assert library.settings["seed"] == 3
    library.answers["suspects"] = []
    assert main(["suspects", "runs/x"]) == 0
    assert capsys.readouterr().out == "no label is suspect\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fewlabels 0.")


# ---- words that cannot be used ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ruin", "digits"], "Did you mean 'run'"),
        (["run", "digits", "--lables", "4"], "--labels"),
        (["run"], "DATA"),
        (["run", "digits", "--labels", "0"], "--labels"),
        (["run", "digits", "--labels", "1,4"], "--labels"),
        (["run", "digits", "--seeds", "0"], "--seeds"),
        (["run", "digits", "--image-size", "7"], "--image-size"),
        (["run", "digits", "--image-size", "1025"], "--image-size"),
        (["run", "digits", "--device", "tpu"], "cuda"),
        (["compare", "digits", "--labels", "1,0"], "1,4,25"),
        (["compare", "digits", "--labels", "few"], "1,4,25"),
        (["compare", "digits", "--labels", ","], "1,4,25"),
        (["compare", "digits", "--arms", ","], "--arms"),
        (["finetune", "digits"], "--from"),
        (["evaluate", "run", "--split", "train"], "val"),
        (["predict", "run"], "FILES"),
        (["suggest", "run", "--count", "0"], "--count"),
        (["study", "label", "digits", "--labels", "few"], "10,40"),
        (["explain"], "RUN"),
        (["explain", "run", "--count", "0"], "--count"),
        (["explain", "run", "--maps", ","], "--maps"),
        (["compare", "digits", "--format", "latex", "--json"], "without --json"),
        (["compare", "digits", "--format", "csv", "--list-cells"], "without --json, --list-cells"),
        (["compare", "digits", "--format", "csv", "--cell", "abc"], "and --cell"),
        (["compare", "digits", "--format", "word"], "--format"),
    ],
)
def test_usage_errors(
    words: list[str], said: str, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error[usage.")
    assert said in shown.err
    assert "\n  try: " in shown.err
    assert library.calls == []


# ---- what the verbs are called with ----------------------------------------------------------


def test_flags_reach_the_library(library: Library) -> None:
    words = "pretrain photos --method denoising --budget 2000steps --labels 4 --leaks stop --verify"
    assert main([*words.split(), "--image-size", "64", "--group-by", "patient"]) == 0
    assert library.data == Options("photos", 64, None, None, None, "patient", "stop", True)
    kept = {key: library.settings[key] for key in ("method", "budget", "labels", "device", "out")}
    expected = {"method": "denoising", "budget": "2000steps", "labels": 4, "device": "auto"}
    assert kept == {**expected, "out": None}


def test_lists_reach_the_library(library: Library) -> None:
    words = ["--labels", "25,1,4", "--arms", "simclr+features, scratch"]
    assert main(["compare", "digits", *words]) == 0
    assert library.settings["labels"] == [1, 4, 25]
    assert library.settings["arms"] == ["simclr+features", "scratch"]
    assert "baseline" not in library.settings


def test_a_recipe_reaches_the_library(library: Library) -> None:
    assert main(["run", "digits", "--recipe", "auto"]) == 0
    assert library.settings["recipe"] == "auto"
    assert not {"arms", "baseline", "seeds"} & set(library.settings)


def test_finetune_starts_from(library: Library) -> None:
    assert main(["finetune", "digits", "--from", "runs/x", "--transfer", "features"]) == 0
    assert library.settings["start"] == "runs/x"


def test_parts_of_a_training_reach_the_library(library: Library) -> None:
    words = ["--imbalance", "logits", "--optimizer", "sgd", "--keep", "last"]
    words += ["--unlabelled-loss", "freematch"]
    assert main(["finetune", "digits", "--from", "scratch", *words]) == 0
    parts = ("imbalance", "optimizer", "keep", "unlabelled_loss")
    kept = [library.settings[key] for key in parts]
    assert kept == ["logits", "sgd", "last", "freematch"]
    assert main(["pretrain", "digits", "--optimizer", "adam"]) == 0
    assert library.settings["optimizer"] == "adam"
    for verb in ("run", "compare"):
        assert main([verb, "digits", "--imbalance", "weights"]) == 0
        assert library.settings["imbalance"] == "weights"


def test_people_read_how_near_unlabelled_images_are(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"auc": 0.973, "p": 0.005, "farthest": ["x.png"]}
    library.answers["inspect"] = {**INSPECTED, "likeness": found}
    assert main(["inspect", "photos"]) == 0
    said = capsys.readouterr().out
    assert "told from a labelled one in 97 of 100 pairs (50 by guessing)" in said


def test_people_read_why_a_training_ended(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    library.answers["finetune"] = {**TRAINED, "stopping": {"said": "the validation loss fell"}}
    assert main(["finetune", "digits", "--from", "scratch"]) == 0
    assert "the validation loss fell" in capsys.readouterr().out


def test_run_keeps_the_command(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/fewlabels", "run", "my photos", "--debug"])
    assert main() == 0
    assert library.settings["command"] == "fewlabels run 'my photos'"


# ---- --config --------------------------------------------------------------------------------


def config(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_flags_beat_config_beats_defaults(library: Library, tmp_path: Path) -> None:
    text = "labels: 4\nbudget: 3m\nimage-size: 64\npolicy: null\ndry_run: true\nleaks: keep\n"
    assert main(["run", "digits", "--config", config(tmp_path, text), "--labels", "9"]) == 0
    assert library.settings["labels"] == 9
    assert library.settings["budget"] == "3m"
    assert library.settings["policy"] == "auto"
    assert library.settings["dry_run"] is True
    assert library.data.image_size == 64
    assert library.data.leaks == "keep"


def test_config_names_data_and_lists(library: Library, tmp_path: Path) -> None:
    text = "data: digits\nlabels: [1, 4]\narms: [simclr+features, scratch]\n"
    assert main(["compare", "--config", config(tmp_path, text)]) == 0
    assert library.data.data == "digits"
    assert library.settings["labels"] == [1, 4]
    assert library.settings["arms"] == ["simclr+features", "scratch"]


def test_config_declares_a_grid(library: Library, tmp_path: Path) -> None:
    text = (
        "data: digits\narms:\n  - simclr+features\n  - simclr:resnet18+parameters\n  - scratch\n"
        "baseline: scratch\nlabels:\n  - 25\n  - 1\nseeds: 10\npretraining_seeds: 3\n"
        "metric: f1_macro\nalso: [here, there]\ncollect: true\n"
    )
    assert main(["compare", "--config", config(tmp_path, text), "--seeds", "4"]) == 0
    said = library.settings
    assert said["arms"] == ["simclr+features", "simclr:resnet18+parameters", "scratch"]
    assert (said["labels"], said["seeds"], said["pretraining_seeds"]) == ([1, 25], 4, 3)
    assert (said["baseline"], said["metric"]) == ("scratch", "f1_macro")
    assert said["also"] == [Path("here"), Path("there")]


def test_config_takes_the_names_of_flags(library: Library, tmp_path: Path) -> None:
    assert main(["finetune", "digits", "--config", config(tmp_path, "from: scratch\n")]) == 0
    assert library.settings["start"] == "scratch"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lables: 4\n", "did you mean labels"),
        ("method: simclr\n", "'method'"),  # a flag, but not of this verb
        ("labels: 0\n", "--labels"),
        ("labels: {a: 1}\n", "labels"),
        ("- labels\n", "name: value"),
        ("labels: [\n", "cannot read"),
        ("as_json: true\n", "'as_json'"),
    ],
)
def test_config_that_cannot_be_used(
    text: str, said: str, library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "digits", "--config", config(tmp_path, text)]) == 2
    assert said in capsys.readouterr().err
    assert library.calls == []


def test_config_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "digits", "--config", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


# ---- results ---------------------------------------------------------------------------------


def test_json_is_one_value_and_all_of_stdout(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty() -> dict[str, Any]:
        sys.stdout.write("a library prints\n")
        return {"schema": 1, "nll": float("nan"), "name": "caf\udce9"}

    library.answers["pretrain"] = chatty
    assert main(["pretrain", "digits", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"schema": 1, "nll": None, "name": "caf\udce9"}
    assert shown.err == "a library prints\n"


def test_predict_prints_an_array(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "runs/x", "a.jpg", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == PREDICTED
    assert library.calls[-1][1] == (Path("runs/x"), [Path("a.jpg")])


def test_predict_table_and_csv(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.csv"
    assert main(["predict", "runs/x", "a.jpg", "--out", str(out)]) == 0
    assert "a.jpg" in capsys.readouterr().out
    assert main(["predict", "runs/x", "a.jpg", "--format", "csv"]) == 0
    assert capsys.readouterr().out == out.read_text(encoding="utf-8")
    assert out.read_text(encoding="utf-8").splitlines()[1] == "a.jpg,cat,0.9,0.9,0.1"


@pytest.mark.parametrize("done", [False, True])
def test_a_table_for_a_paper_is_all_that_is_printed(
    done: bool, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    library.answers["compare"] = COMPARED | ({"already_done": True} if done else {})
    shown = {}
    for form in ("latex", "markdown", "csv"):
        assert main(["compare", "digits", "--format", form]) == 0
        shown[form] = capsys.readouterr().out
        assert shown[form] == paper_table(COMPARED, form)
    assert shown["markdown"].splitlines()[2] == "| approach | 4 / class |"
    assert len(list(csv.DictReader(io.StringIO(shown["csv"])))) == 2
    assert "layout" not in library.settings


@pytest.mark.parametrize("known", [True, False])
def test_harm_is_printed_with_its_likely_reason(
    known: bool, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "The encoder has collapsed."
    reason = {"code": "collapsed", "sentence": sentence, "measured": {}, "also": []}
    lost = {"difference": -0.2, "low": -0.3, "high": -0.1, "verdict": "hurts"}
    primary = COMPARED["primary"] | lost | {"reason": reason if known else None}
    other = primary | {"baseline": "pixels"}
    library.answers["compare"] = COMPARED | {"primary": primary, "verdicts": [primary, other]}
    assert main(["compare", "digits"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = "Likely reason: the encoder has collapsed." if known else "Nothing measured explains it."
    assert lines[1] == said
    others = [line for line in lines if "loses to raw pixels" in line]
    assert len(others) == 1
    assert others[0].endswith(said)


def test_what_auto_stands_for_is_printed_with_its_reason(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"recipe": "scratch", "reason": "too little time", "uncovered": ""}
    rows = [{"shots": 1, **row}, {"shots": 4, **row}]
    rows += [{"shots": 25, **row, "recipe": "pixels", "uncovered": "no committed table"}]
    library.answers["compare"] = COMPARED | {"auto": rows}
    assert main(["compare", "digits"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "auto is scratch at 1, 4 labels: too little time." in lines
    assert "auto is pixels at 25 labels: too little time (no committed table)." in lines


def test_a_plan_has_no_table(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    plan = {"stage": "pretrain simclr:tiny", "steps": 5, "seconds": 1.0}
    library.answers["compare"] = {"plan": [plan], "seconds": 1.0}
    assert main(["compare", "digits", "--dry-run", "--format", "csv"]) == 0
    assert "nothing was run" in capsys.readouterr().out


def test_predict_never_writes_over_an_image(library: Library, tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"picture")
    assert main(["predict", "runs/x", str(image), "--out", str(image)]) == 2
    assert image.read_bytes() == b"picture"


def test_people_read_what_was_inspected(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "photos"]) == 0
    shown = capsys.readouterr().out
    for text in ("cat [tabby]", "10 in 2 classes", "2.3 to 1", "cat/7.jpg: truncated", "beware"):
        assert text in shown


def test_people_read_what_was_trained(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.answers["finetune"] = {**TRAINED, "already_done": True, "start": "x", "val": SCORED}
    assert main(["finetune", "photos", "--from", "x"]) == 0
    shown = capsys.readouterr().out
    for text in ("already done", "runs/pretrain-photos-1", "75.0 %", "loss 4.5", "50.0 %"):
        assert text in shown


def test_people_read_scores(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/x"]) == 0
    shown = capsys.readouterr().out
    assert "75.0 % (60.0" in shown
    assert "looked at 2 times" in shown
    scores = {"mse": {"value": 0.25, "low": 0.2, "high": 0.3}, "per_class": [], "accuracy": None}
    output.show_scores({**SCORED, **scores})
    assert "0.25" in capsys.readouterr().out


def test_explain_is_told_what_to_look_at(library: Library) -> None:
    words = "explain runs/x a.jpg b --split val --class cat --maps grad_cam,occlusion --count 3"
    assert main(words.split()) == 0
    assert library.calls[-1][1] == (Path("runs/x"), ["a.jpg", "b"])
    told = {"split": "val", "label": "cat", "maps": ["grad_cam", "occlusion"], "count": 3}
    assert {key: library.settings[key] for key in told} == told
    assert main(["explain", "runs/x"]) == 0
    assert library.calls[-1][1] == (Path("runs/x"), [])
    assert library.settings.keys() == {"count", "device", "reporter"}
    assert main(["explain", "w.pth", "a.jpg", "--backbone", "resnet18"]) == 0
    assert library.settings["backbone"] == "resnet18"


def test_people_read_what_was_explained(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "runs/x"]) == 0
    shown = capsys.readouterr().out
    for text in ("test/cat/1.jpg", "87.5", "dog, ?", "0.12", "withdrawn: alike", "so far: 3"):
        assert text in shown
    assert f"pictures:         {EXPLAINED['folder']}\n" in shown
    assert "fewlabels report runs/finetune-photos-1" in shown
    library.answers["explain"] = EXPLAINED | {"weights": "resnet18"}
    assert main(["explain", "resnet18", "a.jpg"]) == 0
    assert "fewlabels report" not in capsys.readouterr().out


def test_people_read_numbers_that_were_explained(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    near = [
        {"path": "1.png", "label": None, "value": -7.25, "similarity": 0.9},
        {"path": "2.png", "label": None, "similarity": 0.8},
    ]
    row = EXPLAINED["images"][0] | {"label": None, "value": 39.75, "predicted": 19.166}
    row |= {"probability": None, "explained": None, "neighbours": near}
    about = {"name": "angle (deg)", "unit": "deg"}
    library.answers["explain"] = EXPLAINED | {"images": [row], "target": about}
    assert main(["explain", "runs/x"]) == 0
    shown = capsys.readouterr().out
    for text in ("1 images, angle (deg)", "39.75", "19.17", "-7.25, ?", "predicted"):
        assert text in shown
    assert "called" not in shown


def test_a_reconstruction_error_is_called_so(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    final = {"loss": 0.0625, "reconstruction_error": 0.0625}
    library.answers["pretrain"] = TRAINED | {"final": final}
    assert main(["pretrain", "photos"]) == 0
    shown = capsys.readouterr().out
    assert "reconstruction error 0.0625" in shown
    assert "loss" not in shown
    assert main(["pretrain", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["final"] == final


def test_people_read_the_verdict(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.html").write_text("page")
    library.answers["run"] = {
        **{"schema": 1, "run": str(tmp_path), "report": str(tmp_path / "report.html")},
        **{"compare": COMPARED, "best": "simclr+features", "test": SCORED},
    }
    assert main(["run", "photos"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("With 4 labels per class, SimCLR beats scratch.\n")
    for text in ("* simclr+features", "80.0 (70.0", "best in cross-validation", "75.0 %"):
        assert text in shown
    assert f"report:           {tmp_path / 'report.html'}\n" in shown


def test_a_comparison_leaves_its_page(library: Library, tmp_path: Path) -> None:
    compared = {**COMPARED, "run": str(tmp_path)}
    (tmp_path / "comparison.json").write_text(json.dumps(compared), encoding="utf-8")
    library.answers["compare"] = compared
    assert main(["compare", "photos"]) == 0
    assert "SimCLR beats scratch" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(tmp_path)]) == 0


LISTED = {
    **{"schema": 1, "kind": "cells", "run": "runs/shared"},
    "cells": [
        {"id": "a1", "arm": "pixels", "shots": 4, "streams": {}, "done": True, "failed": None},
        {"id": "b2", "arm": "scratch", "shots": 0, "streams": {}, "done": False, "failed": "nan"},
    ],
}


def test_cells_are_listed_one_a_line(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.answers["compare"] = LISTED
    assert main(["compare", "photos", "--out", "runs/shared", "--list-cells"]) == 0
    assert capsys.readouterr().out == "a1\nb2\n"
    assert library.settings["list_cells"] is True
    assert main(["compare", "photos", "--list-cells", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == LISTED


def test_cells_are_computed_by_name(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.answers["compare"] = {**LISTED, "already_done": True}
    assert main(["compare", "photos", "--out", "runs/shared", "--cell", "a1, b2,a1"]) == 0
    assert library.settings["cells"] == ["a1", "b2"]
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "a1  pixels at 4 labels: already done",
        "b2  scratch at all labels: failed: nan",
    ]
    assert main(["compare", "photos", "--cell", ","]) == 2


def test_a_comparison_is_collected_and_shared(library: Library) -> None:
    words = ["compare", "photos", "--out", "x", "--collect", "--also", "y", "--also", "z"]
    assert main(words) == 0
    assert library.settings["collect"] is True
    assert library.settings["also"] == [Path("y"), Path("z")]
    assert main(["compare", "photos", "--workers", "4"]) == 0
    assert library.settings["workers"] == 4
    assert not library.settings.keys() & {"cells", "collect", "also", "list_cells"}
    assert main(["compare", "photos", "--workers", "0"]) == 2


def test_a_collected_page_is_made_anew(library: Library, tmp_path: Path) -> None:
    compared = {**COMPARED, "kind": "comparison", "run": str(tmp_path)}
    (tmp_path / "comparison.json").write_text(json.dumps(compared), encoding="utf-8")
    page = tmp_path / "report.html"
    page.write_text("old")
    library.answers["compare"] = {**compared, "already_done": True}
    assert main(["compare", "photos", "--collect"]) == 0
    assert page.read_text() == "old"
    library.answers["compare"] = compared
    assert main(["compare", "photos", "--collect"]) == 0
    assert "SimCLR beats scratch" in page.read_text(encoding="utf-8")


def test_plan(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    stage = {"stage": "pretrain simclr", "steps": 1200, "seconds": 95.0, "note": "shared"}
    told = {"said": "differences from about 4.0 points"}
    plan = {"plan": [stage], "seconds": 100.0, "disk_mb": 12.0, "precision": told}
    library.answers["run"] = plan
    assert main(["run", "photos", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for text in ("pretrain simclr", "1,200", "1 min 35 s", "shared", "12 MB", told["said"]):
        assert text in shown


def test_cache_shows_and_clears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path))
    store = tmp_path / "stores" / ("0" * 32)
    store.mkdir(parents=True)
    (store / "pixels.u8").write_bytes(bytes(1000))
    assert main(["cache", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    sizes = {"bytes": 1000, "downloads": 0, "freed": 0}
    assert found == {"schema": 1, "path": str(tmp_path), **sizes}
    assert main(["cache", "--clear"]) == 0
    assert "freed" in capsys.readouterr().out
    assert not store.exists()


# ---- errors ----------------------------------------------------------------------------------


class Interrupted(BaseException):
    exit_code = 143


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.UsageError("usage.method", "unknown", "simclr"), 2, "error[usage.method]: unknown"),
        (errors.DataError("data.empty", "no images", "check"), 3, "\n  try: check\n"),
        (errors.ModelError("run.missing", "no run"), 4, "error[run.missing]: no run\n"),
        (errors.DivergedError("training.diverged", "nan"), 5, "error[training.diverged]"),
        (errors.OutOfMemoryError("memory.training", "big"), 6, "error[memory.training]: big"),
        (MemoryError(), 6, "error[memory.full]: out of memory\n"),
        (errors.DiskError("disk.full", "full"), 7, "error[disk.full]: full"),
        (OSError(errno.ENOSPC, "No space left"), 7, "error[disk.full]"),
        (errors.LockedError("run.locked", "in use"), 8, "error[run.locked]"),
        (ZeroDivisionError("caf\udce9"), 1, "a defect of ours"),
        (PermissionError(errno.EACCES, "no"), 1, "--debug"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted("stopped; everything is saved"), 143, "everything is saved"),
        (BrokenPipeError(), 141, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exit_codes(
    error: BaseException,
    code: int,
    said: str,
    library: Library,
    capsys: pytest.CaptureFixture[str],
) -> None:
    library.answers["run"] = error
    assert main(["run", "digits", "--json"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "Traceback" not in shown.err


def test_debug_shows_the_traceback(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.answers["run"] = errors.DataError("data.empty", "no images")
    assert main(["run", "digits", "--debug"]) == 3
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error[data.empty]: no images\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
def test_a_closed_pipe_is_no_defect() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "fewlabels", "cache", "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
