"""`finetune --unlabelled-loss`: who is learned from, what is told, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewlabels.cli import main
from fewlabels.core.errors import UsageError
from fewlabels.models.classifier import load_model
from fewlabels.pipeline import counting, guessing, stages
from fewlabels.pipeline.frozen import feature_space
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.pipeline.verbs import finetune
from fewlabels.report import write_report
from fewlabels.results.files import read_json
from fewlabels.training.progress import Reporter
from fewlabels.transfer.parameters import PRETRAINED, SCRATCH
from fewlabels.transfer.probes import spread_labels
from fewlabels.transfer.unlabelled import UNLABELLED, FineTuneBoth, with_unlabelled

QUIET = Reporter(quiet=True)
LOSSES = [name for name in UNLABELLED if name != "none"]
Run = tuple[Path, dict[str, Any]]


def fit(data: DataOptions, out: Path, **settings: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"start": "scratch", "backbone": "tiny", "labels": 4}
    common |= {"budget": "3 steps", "device": "cpu", "out": out, "reporter": QUIET}
    return finetune(data, **common | settings)


@pytest.fixture(scope="module")
def task(pictures: DataOptions) -> Task:
    return open_task(pictures, policy="auto", device="cpu", reporter=QUIET)


@pytest.mark.parametrize("loss", LOSSES)
def test_it_trains_and_tells(pictures: DataOptions, task: Task, tmp_path: Path, loss: str) -> None:
    result = fit(pictures, tmp_path / "run", unlabelled_loss=loss)
    config = with_unlabelled(SCRATCH, loss)
    assert (result["steps"], result["images_seen"]) == (3, 3 * config.images)
    told = result["unlabelled"]
    assert (told["loss"], told["images"]) == (loss, len(task.dataset.rows("train")))
    assert told["shares"].keys() == {"a", "b"}
    assert sum(told["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert {"loss", "train_accuracy", "unlabelled_loss", "used"} == result["final"].keys()
    assert read_json(tmp_path / "run/results.json") == result
    again = fit(pictures, tmp_path / "run", unlabelled_loss=loss)
    assert again["already_done"] is True
    with pytest.raises(UsageError):
        fit(pictures, tmp_path / "run")


def test_without_one_nothing_is_told(pictures: DataOptions, tmp_path: Path) -> None:
    assert fit(pictures, tmp_path / "run")["unlabelled"] is None


@pytest.mark.parametrize("loss", ["fixmatch", "pseudo"])
def test_it_starts_from_an_encoder(
    pictures: DataOptions, encoder: Run, tmp_path: Path, loss: str
) -> None:
    out = tmp_path / "run"
    result = fit(pictures, out, start=str(encoder[0]), backbone="auto", unlabelled_loss=loss)
    assert result["carried"]["carried"] > 0
    start = load_model(encoder[0] / "model").backbone.state_dict()
    saved = load_model(out / "model").backbone.state_dict()
    assert any(not torch.equal(saved[key], start[key]) for key in start)
    # There are many images, however few labels: statistics are measured anew.
    for key in (key for key in start if "running" in key):
        assert not torch.equal(saved[key], start[key])
    page = write_report(out).read_text()
    assert "learned from without a label" in page


@pytest.mark.medium
def test_a_watched_training_keeps_the_best_teacher(tmp_path: Path) -> None:
    """Without --labels, the digits' validation images are many enough."""
    data, out = DataOptions("digits"), tmp_path / "run"
    result = fit(data, out, labels=None, budget="2 steps", unlabelled_loss="freematch")
    found = result["stopping"]
    assert found["checks"][-1]["step"] == 2
    assert result["unlabelled"]["loss"] == "freematch"
    scored = [check["val_accuracy"] for check in found["checks"]]
    kept = [check["step"] for check in found["checks"]].index(found["best_step"])
    assert result["val"]["accuracy"]["value"] == pytest.approx(scored[kept], abs=0.01)


def test_the_teacher_is_saved(task: Task, pictures: DataOptions) -> None:
    rows = task.dataset.visible(4, 0)
    backbone = stages.new_backbone(task, "tiny", 0)
    config = with_unlabelled(SCRATCH, "fixmatch")
    method = stages.finetune_method(task, backbone, rows, None, 0, config)
    assert isinstance(method, FineTuneBoth)
    tuned = stages.finetune(task, backbone, rows, head=None, steps=2, seed=0, config=config)
    assert not any(p.requires_grad for p in tuned.classifier.parameters())


def test_only_training_images_are_learned_from(task: Task) -> None:
    rows = task.dataset.visible(4, 0)
    backbone = stages.new_backbone(task, "tiny", 0)
    guesses = guessing.propagate(task, feature_space(task, backbone, rows), rows)
    train = set(task.dataset.rows("train").tolist())
    for loss in LOSSES:
        given = guesses if loss == "pseudo" else None
        config = with_unlabelled(PRETRAINED, loss)
        method = stages.finetune_method(task, backbone, rows, None, 0, config, given)
        assert isinstance(method, FineTuneBoth)
        assert set(method.pool.tolist()) == train
        batches = stages.finetune_batches(task, rows, method, 0)
        drawn = {int(i) for step in range(4) for i in batches[step].indices[config.batch_size :]}
        assert drawn <= train
        assert len(drawn) > len(rows)


def test_hidden_labels_change_nothing(task: Task) -> None:
    rows = task.dataset.visible(4, 0)
    space = feature_space(task, stages.new_backbone(task, "tiny", 0), rows)
    before = guessing.propagate(task, space, rows)
    shares = spread_labels(space, rows, task.dataset.labels[rows], task.num_classes)
    unseen = ~np.isin(before.rows, rows)
    np.testing.assert_array_equal(before.classes[unseen], shares.argmax(1).numpy()[unseen])
    labels = task.dataset.labels.copy()
    hidden = np.setdiff1d(np.arange(len(labels)), rows)
    labels[hidden] = 1 - labels[hidden]
    other = replace(task, dataset=replace(task.dataset, labels=labels))
    after = guessing.propagate(other, space, rows)
    for name in ("rows", "classes", "weights"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_arithmetic_counts_the_unlabelled_images(task: Task) -> None:
    rows, backbone = task.dataset.visible(4, 0), stages.new_backbone(task, "tiny", 0)
    each = {
        loss: counting.finetuning_adds(
            task, backbone, rows, head=None, steps=2, config=with_unlabelled(SCRATCH, loss)
        )
        for loss in ("none", "pseudo", "fixmatch")
    }
    forward = counting.feature_adds(task, backbone)
    assert each["fixmatch"] > each["pseudo"] > each["none"]
    pool = with_unlabelled(SCRATCH, "fixmatch")
    extra = 2 * pool.batch_size * pool.ratio * forward
    assert each["fixmatch"] - each["pseudo"] == pytest.approx(extra, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"unlabelled_loss": "fixmtch"}, "unknown unlabelled loss"),
        ({"unlabelled_loss": "fixmatch", "start": "random", "transfer": "logistic"}, "frozen"),
    ],
)
def test_what_cannot_be_is_refused(
    pictures: DataOptions, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        fit(pictures, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_number_is_refused(tmp_path: Path) -> None:
    data = DataOptions(str(tmp_path), target="age")
    with pytest.raises(UsageError, match="'age' is a number"):
        fit(data, tmp_path / "run", unlabelled_loss="freematch")


@pytest.mark.medium
def test_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))
    words = ["finetune", "digits", "--from", "scratch", "--labels", "4", "--device", "cpu"]
    words += ["--budget", "3steps", "--unlabelled-loss", "fixmatch", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "unlabelled" in shown.out
    assert "fixmatch" in shown.out
    assert "fixmatch" in (tmp_path / "run/config.yaml").read_text()
    assert main([*words[:-4], "--unlabelled-loss", "fixmtch"]) == 2
    assert "fixmatch" in capsys.readouterr().err
