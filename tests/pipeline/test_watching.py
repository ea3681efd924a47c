"""Fine-tunes that are watched: what may be read, when they end, what they keep and say."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewlabels.core.errors import UsageError
from fewlabels.models.classifier import load_model
from fewlabels.pipeline import watching
from fewlabels.pipeline.fitting import Job, _most_steps
from fewlabels.pipeline.judging import overfit
from fewlabels.pipeline.stages import finetune_batches, finetune_method, new_backbone
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.pipeline.verbs import finetune, pretrain
from fewlabels.results.files import read_json, read_lines
from fewlabels.training.durations import parse_duration
from fewlabels.training.loop import Interrupted
from fewlabels.training.progress import Reporter
from fewlabels.training.stopping import Check
from fewlabels.transfer.imbalance import log_priors
from fewlabels.transfer.parameters import SCRATCH, FineTune, FineTuneConfig

pytestmark = pytest.mark.medium

QUIET = Reporter(quiet=True)
Run = tuple[Path, dict[str, Any]]
LOSSES = [1.0, 0.8, 0.6, 0.7, 0.65, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]


def fit(data: DataOptions, out: Path, **settings: Any) -> dict[str, Any]:
    common = {"start": "scratch", "backbone": "tiny", "budget": "12 steps", "device": "cpu"}
    return finetune(data, **common | {"out": out, "reporter": QUIET} | settings)


@pytest.fixture
def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handful of validation images be enough."""
    monkeypatch.setattr(watching, "ENOUGH", 5)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, enough: None) -> dict[int, dict[str, torch.Tensor]]:
    """Make validation losses follow a script; return the weights that were looked at."""
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def look(_task: Task, method: FineTune, *_rows: np.ndarray) -> Any:
        def found(step: int) -> Check:
            state = method.classifier.state_dict()
            seen[step] = {k: v.clone() for k, v in state.items()}
            return Check(step, LOSSES[step - 1], 0.5, 1.0)

        return found

    monkeypatch.setattr(watching, "_look", look)
    return seen


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder).classifier.state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def test_labels_of_validation_beyond_the_budget_are_not_watched(
    pictures: DataOptions, tmp_path: Path, enough: None
) -> None:
    result = fit(pictures, tmp_path / "run", labels=8)
    assert result["stopping"] is None
    assert (result["steps"], result["val"]["n"] > 5) == (12, True)
    assert not any("val_loss" in row for row in read_lines(tmp_path / "run/metrics.jsonl"))


def test_too_few_validation_images_are_not_watched(pictures: DataOptions, tmp_path: Path) -> None:
    result = fit(pictures, tmp_path / "run", budget="2 steps")
    assert result["val"]["n"] < watching.ENOUGH
    assert result["stopping"] is None


def test_curves_of_a_watched_run(pictures: DataOptions, tmp_path: Path, enough: None) -> None:
    result = fit(pictures, tmp_path / "run", keep="last")
    stopping, rows = result["stopping"], read_lines(tmp_path / "run/metrics.jsonl")
    assert stopping["images"] == result["val"]["n"]
    assert [check["step"] for check in stopping["checks"]] == list(range(1, 13))
    assert [row["val_loss"] for row in rows] == pytest.approx(
        [check["val_loss"] for check in stopping["checks"]]
    )
    assert (stopping["kept"], stopping["stopped_early"], result["steps"]) == ("last", False, 12)
    # The last check saw the weights that were kept, and so the same accuracies.
    assert stopping["checks"][-1]["val_accuracy"] == result["val"]["accuracy"]["value"]
    assert stopping["checks"][-1]["plain_train_accuracy"] == pytest.approx(
        result["final"]["train_accuracy"], abs=0.02
    )


def test_it_ends_early_and_keeps_the_best_weights(
    pictures: DataOptions, tmp_path: Path, script: dict[int, dict[str, torch.Tensor]]
) -> None:
    out = tmp_path / "run"
    result = fit(pictures, out)
    stopping = result["stopping"]
    assert (result["steps"], result["images_seen"]) == (6, 6 * 64)
    assert (stopping["best_step"], stopping["steps"], stopping["planned"]) == (3, 6, 12)
    whole = fit(pictures, tmp_path / "whole", keep="last")
    assert result["multiply_adds"] * 2 == whole["multiply_adds"] > 0
    assert (stopping["kept"], stopping["stopped_early"]) == ("best", True)
    assert "lowest at step 3 of 12" in stopping["said"]
    assert "the weights of step 3 are kept" in stopping["said"]
    assert same(weights(out / "model"), script[3])
    assert same(weights(out / "checkpoints/last"), script[6])
    assert not same(script[3], script[6])
    assert not list((out / "checkpoints").glob("step-*"))


def test_the_last_weights_may_be_asked_for(
    pictures: DataOptions, tmp_path: Path, script: dict[int, dict[str, torch.Tensor]]
) -> None:
    out = tmp_path / "run"
    result = fit(pictures, out, keep="last")
    assert (result["steps"], result["stopping"]["best_step"]) == (12, 7)
    assert same(weights(out / "model"), script[12])
    assert same(weights(out / "checkpoints/best"), script[7])
    again = fit(pictures, tmp_path / "again", start=str(out / "checkpoints/best"), backbone="auto")
    assert again["start"].endswith("best")


@pytest.mark.parametrize("moment", [2, 5, 6])
def test_a_watched_run_that_was_interrupted_ends_the_same(
    pictures: DataOptions,
    tmp_path: Path,
    script: dict[int, dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    moment: int,
) -> None:
    def stop(_log: Any, step: int) -> bool:
        if step == moment:
            os.kill(os.getpid(), signal.SIGINT)
        return True

    whole = fit(pictures, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("fewlabels.pipeline.pretraining.TrainingLog.due", stop)
        with pytest.raises(Interrupted):
            fit(pictures, tmp_path / "run")
    result = fit(pictures, tmp_path / "run")
    assert result["stopping"] == whole["stopping"]
    assert (result["steps"], result["final"]) == (6, whole["final"])
    for name in ("model", "checkpoints/last"):
        path = f"{name}/model.safetensors"
        assert (tmp_path / "run" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    steps = [row["step"] for row in read_lines(tmp_path / "run/metrics.jsonl")]
    assert steps == list(range(1, 7))


def test_overfitting_is_said_with_its_curve() -> None:
    found = [Check(10 * n, loss, 0.55, 1.0) for n, loss in enumerate(LOSSES[:6], 1)]
    stopping = watching.record(found, keep="best", images=120, planned=100)
    val = {"accuracy": {"value": 0.55, "low": 0.46, "high": 0.64}}
    (said,) = overfit(1.0, val, stopping)
    assert "100 % of the labelled training images are right and 55 %" in said
    assert "lowest at step 30 of 100 (0.6; 0.9 at step 60); training was stopped there" in said
    assert overfit(0.6, val, stopping) == []


@pytest.mark.medium
def test_labels_drawn_by_lot_are_seen_to_be_learned_by_heart(tmp_path: Path) -> None:
    """120 validation images are enough, and nothing that holds for them can be learned."""
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "noise.npz",
        images=rng.integers(0, 256, (280, 8, 8), dtype=np.uint8),
        labels=rng.choice(["a", "b"], 280),
        splits=np.repeat(["train", "val", "test"], [130, 120, 30]),
    )
    data = DataOptions(str(tmp_path / "noise.npz"))
    common = {"budget": "200 steps", "policy": "none"}
    last = fit(data, tmp_path / "last", keep="last", **common)
    assert last["final"]["train_accuracy"] > 0.9
    (told,) = [text for text in last["warnings"] if text.startswith("overfit")]
    assert "the validation loss was lowest at step" in told
    best = fit(data, tmp_path / "best", **common)
    assert best["stopping"]["stopped_early"]
    assert best["steps"] < 200
    assert best["val"]["nll"] < last["val"]["nll"]
    assert best["stopping"]["checks"] == last["stopping"]["checks"][: best["steps"] // 20]


def test_a_loss_that_is_never_finite_keeps_the_last_weights() -> None:
    found = [Check(n, float("nan"), 0.1, 0.1) for n in range(1, 5)]
    stopping = watching.record(found, keep="best", images=120, planned=4)
    assert (stopping["kept"], stopping["best_step"]) == ("last", None)
    assert "never finite" in stopping["said"]


def test_checks_are_part_of_a_budget_in_seconds() -> None:
    def most(budget: str, held: int | None) -> int:
        rows = None if held is None else np.arange(held)
        parts: list[Any] = [None, None, "tiny", None, "parameters", np.arange(1_000), 0]
        job = Job(*parts, parse_duration(budget), QUIET, SCRATCH, rows)
        return _most_steps(job, 0.1)

    assert most("20s", None) == 200
    assert most("20s", 2_000) == 200 - round(10 * (200 + 500) / (3 * 64))
    assert most("1s", 2_000) == 1
    assert most("200 steps", 2_000) == 200


# Parts that are chosen by name.


@pytest.fixture(scope="module")
def skewed(pictures: DataOptions, tmp_path_factory: pytest.TempPathFactory) -> DataOptions:
    """70 pictures of one class and 14 of the other."""
    place = tmp_path_factory.mktemp("skewed") / "data"
    for name, most in (("a", 70), ("b", 14)):
        (place / name).mkdir(parents=True)
        for path in sorted((Path(pictures.data) / name).glob("*.png"))[:most]:
            (place / name / path.name).write_bytes(path.read_bytes())
    return DataOptions(str(place))


@pytest.mark.parametrize("imbalance", ["weights", "sampling", "logits"])
def test_remedies_reach_the_training(skewed: DataOptions, tmp_path: Path, imbalance: str) -> None:
    plain = fit(skewed, tmp_path / "none", budget="2 steps")
    result = fit(skewed, tmp_path / "run", budget="2 steps", imbalance=imbalance)
    assert result["labels"] == plain["labels"]
    assert not same(weights(tmp_path / "none/model"), weights(tmp_path / "run/model"))
    assert (tmp_path / "run/config.yaml").read_text().count(f"imbalance: {imbalance}") == 1


def test_sampling_changes_the_batches_and_nothing_else(skewed: DataOptions) -> None:
    task = open_task(skewed, policy="auto", device="cpu", reporter=QUIET)
    rows = task.dataset.labelled_rows("train")
    method = finetune_method(
        task, new_backbone(task, "tiny", 0), rows, None, 0, FineTuneConfig(imbalance="sampling")
    )
    batches = finetune_batches(task, rows, method, 0)
    drawn = torch.cat([batches[step].indices for step in range(3)]).numpy()
    assert np.bincount(task.dataset.labels[drawn]).tolist() == [96, 96]
    plain = finetune_method(task, new_backbone(task, "tiny", 0), rows, None, 0, SCRATCH)
    losses = method.aim.loss, plain.aim.loss
    assert all((loss.weight, loss.shift) == (None, None) for loss in losses)


def test_a_head_is_adjusted_by_the_visible_labels(skewed: DataOptions, tmp_path: Path) -> None:
    settings = {"start": "random", "transfer": "logistic"}
    for name in ("none", "logits"):
        result = fit(skewed, tmp_path / name, imbalance=name, **settings)
    none, adjusted = (weights(tmp_path / name / "model") for name in ("none", "logits"))
    assert torch.equal(none["head.linear.weight"], adjusted["head.linear.weight"])
    labels = np.repeat([0, 1], list(result["labels"].values()))
    moved = none["head.linear.bias"] - adjusted["head.linear.bias"]
    assert moved.tolist() == pytest.approx(log_priors(labels, 2).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"imbalance": "weight"}, "unknown imbalance"),
        ({"optimizer": "lbfgs"}, "unknown optimizer"),
        ({"keep": "first"}, "unknown keep"),
        ({"start": "random", "transfer": "logistic", "imbalance": "sampling"}, "draws no batches"),
        ({"start": "random", "transfer": "knn", "imbalance": "weights"}, "knows no --imbalance"),
        ({"start": "random", "transfer": "ridge", "imbalance": "logits"}, "knows no --imbalance"),
        ({"start": "random", "transfer": "features", "optimizer": "sgd"}, "fitted at once"),
        ({"start": "random", "transfer": "features", "keep": "last"}, "fitted at once"),
    ],
)
def test_parts_that_make_no_sense(
    pictures: DataOptions, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        fit(pictures, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_other_optimizers_train_other_weights(
    pictures: DataOptions, encoder: Run, tmp_path: Path, optimizer: str
) -> None:
    net = "conv-32-64-64-tanh-avg"
    for name in ("auto", optimizer):
        fit(pictures, tmp_path / name, budget="2 steps", optimizer=name, backbone=net)
    assert not same(weights(tmp_path / "auto/model"), weights(tmp_path / optimizer / "model"))
    assert load_model(tmp_path / optimizer / "model").config["backbone"] == net
    common = {"method": "simclr", "backbone": "tiny", "budget": "2 steps", "device": "cpu"}
    run = tmp_path / "pretrain"
    pretrain(pictures, optimizer=optimizer, out=run, reporter=QUIET, **common)
    own = tmp_path / "own"
    pretrain(pictures, out=own, reporter=QUIET, **common)
    path = "model/model.safetensors"
    assert (run / path).read_bytes() != (own / path).read_bytes()


def test_a_method_without_an_optimizer_is_refused_one(
    pictures: DataOptions, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no optimizer"):
        pretrain(
            pictures,
            method="kmeans",
            optimizer="sgd",
            budget="2 steps",
            device="cpu",
            out=tmp_path / "run",
            reporter=QUIET,
        )
    assert not (tmp_path / "run").exists()


def test_an_encoder_is_asked_how_near_unlabelled_images_are(
    pictures: DataOptions, tmp_path: Path
) -> None:
    from PIL import Image

    place = tmp_path / "data"
    for path in Path(pictures.data).glob("*/*.png"):
        copy = place / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (place / "unlabelled").mkdir()
    for number in range(40):
        rng = np.random.default_rng(number)
        sky = np.linspace(120, 250, 16)[:, None, None] + rng.integers(0, 9, (16, 16, 3))
        Image.fromarray(sky.clip(0, 255).astype(np.uint8)).save(place / f"unlabelled/{number}.png")
    out = tmp_path / "run"
    result = pretrain(
        DataOptions(str(place)),
        method="simclr",
        backbone="tiny",
        budget="2 steps",
        device="cpu",
        out=out,
        reporter=QUIET,
    )
    assert result["likeness"]["auc"] > 0.9
    assert result["inspect"]["likeness"]["auc"] > 0.9
    assert sum("another world" in text for text in result["warnings"]) == 2
    assert any(text.startswith("in the encoder's features") for text in result["warnings"])
    assert read_json(out / "results.json")["likeness"] == result["likeness"]
