"""A number through the stages: from `--target` to predictions, and what is never read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn import metrics as reference

from fewlabels.core.errors import DataError, ModelError, UsageError
from fewlabels.data.dataset import Dataset, open_dataset
from fewlabels.models.classifier import load_model
from fewlabels.models.heads import RegressionHead, answers
from fewlabels.pipeline.choosing import models
from fewlabels.pipeline.explain import explain
from fewlabels.pipeline.export import export
from fewlabels.pipeline.frozen import features
from fewlabels.pipeline.goals import Classes, Numbers, goal_of
from fewlabels.pipeline.predict import load, predict_table
from fewlabels.pipeline.stages import finetune as train
from fewlabels.pipeline.stages import learned_rows, new_backbone
from fewlabels.pipeline.task import DataOptions, open_task
from fewlabels.pipeline.verbs import evaluate, finetune, pretrain
from fewlabels.report import write_report
from fewlabels.report.measures import plain
from fewlabels.results.files import read_json, read_lines
from fewlabels.training.progress import Reporter

QUIET = Reporter(quiet=True)
TILT = "tilt (deg)"


@pytest.fixture
def options(bars: Path) -> DataOptions:
    return DataOptions(str(bars), target=TILT)


def fit(options: DataOptions, out: Path, **settings: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"start": "random", "backbone": "tiny", "budget": "30 steps"}
    return finetune(
        options, device="cpu", out=out, reporter=QUIET, **{**defaults, "labels": 40, **settings}
    )


@pytest.fixture(scope="module")
def ridge(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the run folder of a ridge regression on an untrained network, and its result."""
    out = tmp_path_factory.mktemp("ridge") / "run"
    return out, fit(DataOptions(str(bars), target=TILT), out, transfer="features")


@pytest.mark.medium
def test_scores_are_those_of_the_predictions(
    ridge: tuple[Path, dict[str, Any]], bars: Path
) -> None:
    """`evaluate` and `predict` agree, with scikit-learn in between."""
    found = evaluate(ridge[0], device="cpu", reporter=QUIET)
    dataset = open_dataset(bars, target=TILT)
    rows = dataset.rows("test")
    files = [bars.parent / dataset.source.paths[int(row)] for row in rows]
    values = [row["value"] for row in predict_table(ridge[0], files, device="cpu")]
    truth = dataset.truth[rows]
    assert found["n"] == len(rows) == 60
    assert found["mse"]["value"] == pytest.approx(reference.mean_squared_error(truth, values))
    assert found["mae"]["value"] == pytest.approx(reference.mean_absolute_error(truth, values))
    assert found["r2"]["value"] == pytest.approx(reference.r2_score(truth, values))
    np.testing.assert_allclose(np.array(found["pairs"]), np.stack([truth, values], 1), rtol=1e-4)
    assert found["target"] == {"name": TILT, "unit": "deg"}
    assert found["r2"]["value"] > 0.5
    assert found["r2"]["low"] < found["r2"]["value"] < found["r2"]["high"]
    assert "accuracy" not in found
    again = evaluate(ridge[0], device="cpu", reporter=QUIET)
    assert again["looks_at_test"] == found["looks_at_test"] + 1


@pytest.mark.medium
def test_a_predictor_gives_numbers(ridge: tuple[Path, dict[str, Any]], bars: Path) -> None:
    model = load(ridge[0], device="cpu")
    found = model.predict([bars.parent / "000.png", bars.parent / "001.png"])
    assert all(isinstance(value, float) for value in found)
    assert (model.target_, len(model.classes_)) == (TILT, 0)
    with pytest.raises(UsageError, match="no probabilities"):
        model.predict_proba(bars.parent / "000.png")
    rows = predict_table(ridge[0], [bars.parent / "000.png", bars.parent / "none.png"])
    assert rows[0] == {
        "path": (bars.parent / "000.png").as_posix(),
        "value": pytest.approx(found[0], rel=1e-4),
    }
    assert rows[1]["value"] is None
    assert "no such file" in rows[1]["issue"]


@pytest.mark.medium
def test_the_model_keeps_the_scale_of_the_visible_numbers_alone(
    ridge: tuple[Path, dict[str, Any]], bars: Path
) -> None:
    out, result = ridge
    dataset = open_dataset(bars, target=TILT)
    seen = dataset.truth[dataset.visible(40, 0)]
    config = read_json(out / "model/config.json")
    assert (config["target"], config["classes"]) == (TILT, [])
    assert config["head"]["kind"] == "regression"
    assert config["head"]["centre"] == seen.mean()  # to the last bit
    assert config["head"]["spread"] == seen.std()
    assert result["labels"] == {TILT: 40}
    assert result["final"]["train_r2"] > result["val"]["r2"]["value"]
    saved = load_model(out / "model")
    assert isinstance(saved.head, RegressionHead)
    assert saved.target == TILT


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["features", "knn", "mean", "parameters"])
def test_hidden_numbers_change_nothing(kind: str, bars: Path, tmp_path: Path) -> None:
    """Every number but the 40 visible ones is permuted: weights and scale stay as they are."""
    dataset = open_dataset(bars, target=TILT)
    kept = {dataset.source.paths[int(row)] for row in dataset.visible(40, 0)}
    lines = bars.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    hidden = [row for row in rows if row[0] not in kept and row[1]]
    moved = np.random.default_rng(0).permutation([row[1] for row in hidden])
    for row, value in zip(hidden, moved, strict=True):
        row[1] = str(value)
    other = bars.with_name(f"permuted-{kind}.csv")
    other.write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    weights, heads = [], []
    for place, table in enumerate((bars, other)):
        out = tmp_path / str(place)
        fit(DataOptions(str(table), target=TILT), out, transfer=kind)
        weights.append(load_file(out / "model/model.safetensors"))
        heads.append(read_json(out / "model/config.json")["head"])
    other.unlink()
    assert heads[0] == heads[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(v, weights[1][k]) for k, v in weights[0].items())


@pytest.mark.medium
@pytest.mark.parametrize("start", ["scratch", "random"])
def test_parameters_are_trained_towards_the_number(
    start: str, options: DataOptions, tmp_path: Path
) -> None:
    result = fit(
        options, tmp_path / "run", start=start, transfer="parameters", budget="60 steps", labels=80
    )
    assert result["steps"] == 60
    assert result["final"]["train_r2"] > 0.5
    assert result["val"]["r2"]["value"] > 0.3
    log = read_lines(tmp_path / "run/metrics.jsonl")
    if start == "scratch":  # else the head has been fitted before
        assert log[-1]["loss"] < log[0]["loss"]
    # The log tells the error in units, the loss in standard deviations.
    spread = read_json(tmp_path / "run/model/config.json")["head"]["spread"]
    assert log[-1]["train_mse"] == pytest.approx(log[-1]["loss"] * spread**2, rel=1e-4)


@pytest.mark.medium
def test_a_killed_run_goes_on_and_a_finished_one_is_returned(
    ridge: tuple[Path, dict[str, Any]], options: DataOptions
) -> None:
    assert fit(options, ridge[0], transfer="features")["already_done"]


@pytest.mark.medium
def test_a_changed_number_is_other_data(options: DataOptions, bars: Path, tmp_path: Path) -> None:
    """A folder that was begun with one column does not go on with another."""
    out = tmp_path / "run"
    fit(options, out, transfer="mean")
    (out / "checksums.json").unlink()
    text = bars.read_text().replace("000.png,", "000.png,1", 1)
    changed = bars.with_name("changed.csv")
    changed.write_text(text)
    with pytest.raises((UsageError, DataError)):
        fit(replace(options, data=str(changed)), out, transfer="mean")
    changed.unlink()


@pytest.mark.medium
def test_the_live_probe_reports_r2(options: DataOptions, tmp_path: Path) -> None:
    result = pretrain(
        options,
        method="autoencoder",
        backbone="tiny",
        budget="8 steps",
        labels=60,
        device="cpu",
        out=tmp_path / "run",
        reporter=QUIET,
    )
    assert result["probe_score"] == "r2"
    assert result["probe"]["low"] <= result["probe"]["value"] <= result["probe"]["high"] <= 1
    rows = [row for row in read_lines(tmp_path / "run/metrics.jsonl") if "probe_r2" in row]
    assert rows[-1]["probe_r2"] == pytest.approx(result["probe"]["value"])
    assert not any("probe" in row for row in rows)


@pytest.mark.medium
def test_images_are_not_augmented_unless_it_is_asked_for(bars: Path) -> None:
    """A number may not survive a flip; classes, or a policy that is named, are augmented."""
    told = DataOptions(str(bars), target=TILT)
    careful = open_task(told, policy="auto", device="cpu", reporter=QUIET)
    named = open_task(told, policy="natural", device="cpu", reporter=QUIET)
    classes = open_task(DataOptions("digits"), policy="auto", device="cpu", reporter=QUIET)
    nothing = careful.label_policy
    assert (nothing.flip, nothing.crop, nothing.rotate) == (0.0, (1.0, 1.0), 0.0)
    assert careful.policies.views != nothing  # pre-training reads no number
    assert named.label_policy.flip == 0.5
    assert classes.label_policy == classes.policies.views


@pytest.mark.medium
def test_a_fresh_head_says_the_mean(bars: Path) -> None:
    """Before its first step a network from scratch predicts the mean of the visible numbers."""
    told = DataOptions(str(bars), target=TILT)
    task = open_task(told, policy="auto", device="cpu", reporter=QUIET)
    rows = task.dataset.visible(30, 0)
    tuned = train(task, new_backbone(task, "tiny", 0), rows, head=None, steps=1, seed=0)
    assert isinstance(tuned.classifier.head, RegressionHead)
    assert tuned.classifier.head.centre == task.truth[rows].mean()


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"transfer": "logistic"}, "usage.transfer"),
        ({"imbalance": "weights"}, "usage.imbalance"),
        ({"transfer": "knn", "keep": "last"}, "usage.transfer"),
        ({"transfer": "spreading"}, "usage.transfer"),
        ({"labels": 0}, "usage.labels"),
        ({"labels": 91}, "data.few_labels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    settings: dict[str, Any], code: str, options: DataOptions, tmp_path: Path
) -> None:
    with pytest.raises((UsageError, DataError)) as caught:
        fit(options, tmp_path / "run", **settings)
    assert caught.value.code == code or code == "usage.transfer"
    assert not (tmp_path / "run").exists()


def test_mean_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mean"):
        fit(DataOptions("digits"), tmp_path / "run", transfer="mean")


def test_supervised_pretraining_learns_classes(options: DataOptions, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="learns classes"):
        pretrain(options, method="supervised", out=tmp_path / "run", reporter=QUIET)


@pytest.mark.medium
def test_a_model_of_another_number_is_refused(
    ridge: tuple[Path, dict[str, Any]], bars: Path, tmp_path: Path
) -> None:
    text = bars.read_text().replace(TILT, "turn (deg)", 1)
    other = bars.with_name("other.csv")
    other.write_text(text)
    with pytest.raises(DataError, match=r"no column 'tilt \(deg\)'"):
        evaluate(ridge[0], data=str(other), device="cpu", reporter=QUIET)
    other.unlink()
    config = (ridge[0] / "config.yaml").read_text()
    copy = tmp_path / "copy"
    (copy / "model").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (copy / "model" / name).write_bytes((ridge[0] / "model" / name).read_bytes())
    (copy / "config.yaml").write_text(config.replace(f"target: {TILT}", "target: split"))
    with pytest.raises((ModelError, DataError)):
        evaluate(copy, device="cpu", reporter=QUIET)


@pytest.mark.medium
def test_training_is_watched_on_validation_numbers(bars: Path, tmp_path: Path) -> None:
    """Without `--labels` and with 100 images; the kept weights are those of the best loss."""
    head, *rows = bars.read_text().splitlines()
    known = [row.rpartition(",")[0] for row in rows if ",," not in row]
    splits = ["train"] * 50 + ["val"] * 100 + ["test"] * 20
    lines = [f"{row},{split}" for row, split in zip(known, splits, strict=True)]
    table = bars.with_name("watched.csv")
    table.write_text("\n".join([head, *lines]) + "\n")
    result = fit(
        DataOptions(str(table), target=TILT),
        tmp_path / "run",
        start="scratch",
        transfer="parameters",
        labels=None,
        budget="40 steps",
    )
    found = result["stopping"]
    assert found["images"] == 100
    assert {"step", "val_loss", "val_r2", "plain_train_r2"} == found["checks"][0].keys()
    best = min(found["checks"], key=lambda check: check["val_loss"])
    assert found["best_step"] == best["step"]
    spread = read_json(tmp_path / "run/model/config.json")["head"]["spread"]
    assert result["val"]["mse"]["value"] == pytest.approx(best["val_loss"] * spread**2, rel=1e-3)
    assert result["val"]["r2"]["value"] == pytest.approx(best["val_r2"], abs=1e-3)
    table.unlink()


@pytest.mark.medium
def test_timm_gives_the_number_in_its_unit(options: DataOptions, tmp_path: Path) -> None:
    """A regressor on a network of timm's, exported: its only output is the number."""
    import timm
    import torch

    out = tmp_path / "run"
    fit(options, out, backbone="resnet10t", transfer="ridge", labels=20)
    done = export(out, out=tmp_path / "timm")
    spread = read_json(out / "model/config.json")["head"]["spread"]
    assert done["max_abs_difference"] < 1e-3 * spread
    net = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    saved = load_model(out / "model")
    x = torch.randn(2, saved.pictures.channels, saved.pictures.size, saved.pictures.size)
    with torch.no_grad():
        expected = answers(saved.head, saved.classifier.eval()(x))
        np.testing.assert_allclose(net(x)[:, 0].numpy(), expected, rtol=1e-3, atol=1e-2)


@pytest.fixture(scope="module")
def explained(ridge: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """Return an explanation of the regressor on six images of validation."""
    return explain(ridge[0], count=6, device="cpu", reporter=QUIET)


@pytest.mark.medium
def test_largest_errors_and_small_ones_are_explained(
    ridge: tuple[Path, dict[str, Any]], explained: dict[str, Any], bars: Path
) -> None:
    dataset = open_dataset(bars, target=TILT)
    rows = dataset.rows("val")
    names = [dataset.source.paths[int(row)] for row in rows]
    values = load(ridge[0], device="cpu").predict([bars.parent / name for name in names])
    error = np.array(values) - dataset.truth[rows]
    images = explained["images"]
    worst = [names[place] for place in np.argsort(-np.abs(error))[:3]]
    assert [row["path"] for row in images[:3]] == worst
    assert [row["kind"] for row in images] == ["mistake"] * 3 + ["near"] * 3
    for row in images:
        place = names.index(row["path"])
        assert row["value"] == dataset.truth[rows[place]]
        assert row["predicted"] == pytest.approx(values[place], rel=1e-3)
        assert row["error"] == pytest.approx(error[place], abs=1e-2)
        assert row["kind"] == "mistake" or abs(error[place]) <= np.median(np.abs(error))
    assert explained["target"] == {"name": TILT, "unit": "deg"}
    mistakes = read_json(Path(explained["mistakes"]))
    assert [row["path"] for row in mistakes[:3]] == worst


@pytest.mark.medium
def test_neighbours_and_map_carry_visible_numbers_alone(
    explained: dict[str, Any], bars: Path
) -> None:
    dataset = open_dataset(bars, target=TILT)
    number = dict(zip(dataset.source.paths, dataset.truth.tolist(), strict=True))
    seen = {dataset.source.paths[int(row)] for row in dataset.visible(40, 0)}
    near = [one for row in explained["images"] for one in row["neighbours"]]
    assert {one["path"] in seen for one in near} == {True, False}
    for one in near:
        assert one.get("value") == (number[one["path"]] if one["path"] in seen else None)
    with np.load(Path(explained["folder"]) / "embedding.npz") as found:
        kind, label = found["kind"], found["label"]
        assert bool(found["ordered"])
        assert len(found["classes"]) == 5
    assert (np.bincount(label[kind == "labelled"]) == 8).all()  # of 40, in five ranges
    assert (label[kind != "labelled"] == -1).all()


@pytest.mark.medium
def test_maps_are_of_the_number(
    ridge: tuple[Path, dict[str, Any]], explained: dict[str, Any], bars: Path
) -> None:
    with np.load(explained["arrays"]) as arrays:
        maps = {name: arrays[name] for name in ("occlusion", "integrated_gradients")}
    files = [bars.parent / row["path"] for row in explained["images"]]
    model = load(ridge[0], device="cpu")
    for name, drawn in maps.items():
        again = model.saliency(files, name)
        np.testing.assert_allclose(again, drawn, atol=1e-2)
        assert drawn.min() < 0 < drawn.max()
    with pytest.raises(UsageError, match="--class a names a class"):
        explain(ridge[0], label="a", device="cpu", reporter=QUIET)


@pytest.mark.medium
def test_the_page_tells_the_numbers(
    ridge: tuple[Path, dict[str, Any]], explained: dict[str, Any]
) -> None:
    page = write_report(ridge[0]).read_text(encoding="utf-8")
    first = explained["images"][0]
    side = "too high" if first["error"] > 0 else "too low"
    for text in ("What it looks at", "Its largest errors", "Colours are ranges", "raise it"):
        assert text in page
    assert f"{plain(abs(first['error']), 4)} deg {side})" in page
    assert page.count('<i class="range c') == 5
    assert "called" not in page.partition('id="explained"')[2].partition("</section>")[0]


@pytest.mark.medium
def test_without_a_number_a_test_image_has_no_colour(numbers: Dataset) -> None:
    codes, names = goal_of(numbers).colours(np.arange(80, 100))  # the last ten carry none
    assert (codes[10:] == -1).all() and set(codes[:10]) == set(range(5))
    assert len(names) == 5
    assert goal_of(numbers).colours(np.arange(92, 95))[1] == ()


@pytest.mark.medium
def test_starts_are_scored_on_a_number(options: DataOptions) -> None:
    """Turning the bar turns the pixels: features tell the tilt, and shuffled tilts nothing does."""
    settings: dict[str, Any] = {"labels": 60, "device": "cpu", "reporter": QUIET}
    rows = models("conv-32-64-64", available=True, fit=options, **settings)
    best = rows[0]["fit"]
    assert (best["knn"], best["labels"]) == (None, 60)
    assert best["knn_r2"]["low"] < best["knn_r2"]["value"] < best["knn_r2"]["high"] <= 1
    assert best["knn_r2"]["value"] > 0.5
    assert best["logme"] > -1.4  # what nothing but the mean is worth
    task = open_task(options, policy="auto", device="cpu", reporter=QUIET)
    seen = learned_rows(task, 60, 0)
    network = new_backbone(task, rows[0]["name"], 0)
    x = features(task, network, seen)
    around = slow_r2(x.double().numpy(), task.truth[seen])
    assert best["knn_r2"]["value"] == pytest.approx(around, abs=1e-4)
    with pytest.raises(DataError, match="one number"):
        models("conv-32-64-64", available=True, fit=options, **{**settings, "labels": 1})


def slow_r2(x: np.ndarray, numbers: np.ndarray, k: int = 5) -> float:
    """Leave each image out in turn and average the numbers of its five nearest others."""
    unit = x - x.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    guessed = []
    for one in range(len(x)):
        like = unit @ unit[one]
        like[one] = -2
        near = np.argsort(-like)[:k]
        guessed.append(np.average(numbers[near], weights=np.exp(like[near] / 0.1)))
    return float(reference.r2_score(numbers, guessed))


@pytest.fixture
def numbers(bars: Path) -> Dataset:
    return open_dataset(bars, target=TILT)


def test_both_goals_answer_the_same_questions(numbers: Dataset) -> None:
    public = [{name for name in dir(kind) if name[0] != "_"} for kind in (Classes, Numbers)]
    assert public[0] == public[1]
    assert isinstance(goal_of(numbers), Numbers)
    assert isinstance(goal_of(open_dataset("digits")), Classes)


def test_arms_are_chosen_by_squared_error(numbers: Dataset) -> None:
    goal, rows = goal_of(numbers), numbers.rows("test")
    near, far = numbers.truth[rows] + 1, numbers.truth[rows] + 3
    assert goal.goodness(rows, near).mean() == pytest.approx(-1)
    assert goal.goodness(rows, near).mean() > goal.goodness(rows, far).mean()
    found = goal.chosen_by(goal.goodness(rows, far + np.linspace(0, 1, len(rows))))
    assert 0 <= found["low"] < found["score"] < found["high"]  # type: ignore[operator]
    assert goal.best(9.0) == "least squared error (9)"


def test_the_map_is_coloured_by_ranges_with_as_many_images(numbers: Dataset) -> None:
    goal, rows = goal_of(numbers), numbers.rows("test")
    codes, names = goal.colours(rows)
    counts = np.bincount(codes)
    assert len(names) == len(counts) == 5
    assert counts.max() - counts.min() <= 1
    means = [numbers.truth[rows][codes == code].mean() for code in range(5)]
    assert means == sorted(means)


def test_the_worst_mistakes_are_the_largest_errors(numbers: Dataset) -> None:
    rows = numbers.rows("test")
    guess = numbers.truth[rows].copy()
    guess[7] -= 30
    guess[3] += 20
    found = goal_of(numbers).mistakes(rows, guess)
    assert [row["path"] for row in found[:2]] == [
        numbers.source.paths[int(rows[place])] for place in (7, 3)
    ]
    assert [row["error"] for row in found[:2]] == pytest.approx([-30, 20])
    assert found[0]["predicted"] == pytest.approx(found[0]["value"] - 30)
    assert found[0]["thumbnail"].startswith("data:image/png;base64,")
