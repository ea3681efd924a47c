"""Predictions from files are those of the store, and bad files never stop the good ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fewlabels
from fewlabels.core.errors import DataError, ModelError
from fewlabels.models.classifier import load_model
from fewlabels.pipeline.predict import load, predict_table
from fewlabels.pipeline.stages import score
from fewlabels.pipeline.starts import in_format
from fewlabels.pipeline.task import DataOptions, open_task
from fewlabels.training.progress import Reporter

Run = tuple[Path, dict[str, Any]]


def test_files_give_what_the_store_gives(
    classifier: Run, pictures: DataOptions, tmp_path: Path
) -> None:
    out, _ = classifier
    data = tmp_path / "data"
    for number in range(6):  # larger than the store keeps them, and of several shapes
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (40 + number, 90 - 9 * number, 3), dtype=np.uint8)
        place = data / "ab"[number % 2] / f"{number}.{'jpg' if number % 3 else 'png'}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    options = DataOptions(str(data), image_size=16)
    task = open_task(options, policy="auto", device="cpu", reporter=Reporter(quiet=True))
    saved = load_model(out / "model")
    saved = type(saved)(
        saved.backbone,
        saved.head,
        saved.pictures,
        task.dataset.store.short_side,
        saved.classes,
        saved.config,
    )
    from fewlabels.pipeline.predict import Predictor

    expected = score(in_format(task, saved, "run"), saved.classifier, np.arange(6))
    files = [data / path for path in task.dataset.source.paths]
    found = Predictor(saved, device="cpu").predict_proba(files)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_five_lines(classifier: Run, pictures: DataOptions) -> None:
    predictor = fewlabels.load(str(classifier[0]))
    assert predictor.classes_.tolist() == ["a", "b"]
    files = [Path(pictures.data) / name for name in ("b/000.png", "a/000.png", "b/001.png")]
    shares = predictor.predict_proba(files)
    assert shares.shape == (3, 2)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert predictor.predict(files) == predictor.classes_[shares.argmax(1)].tolist()
    assert predictor.predict(str(files[0])) == predictor.predict(files[:1])
    assert predictor.predict_proba([]).shape == (0, 2)


def test_a_table_goes_on_past_what_cannot_be_read(
    classifier: Run, pictures: DataOptions, tmp_path: Path
) -> None:
    broken = tmp_path / "new" / "broken.png"
    (tmp_path / "new" / "deep").mkdir(parents=True)
    broken.write_bytes(b"no picture")
    source = Path(pictures.data) / "a/000.png"
    (tmp_path / "new/deep/good.png").write_bytes(source.read_bytes())
    rows = predict_table(classifier[0], [tmp_path / "new", source, tmp_path / "gone.png"])
    assert [Path(row["path"]).name for row in rows] == [
        "broken.png",
        "good.png",
        "000.png",
        "gone.png",
    ]
    assert [row["label"] is None for row in rows] == [True, False, False, True]
    assert "not a JPEG" in rows[0]["issue"]
    assert "no such file" in rows[3]["issue"]
    assert rows[1]["probabilities"] == pytest.approx(rows[2]["probabilities"], abs=1e-6)
    assert rows[1]["probability"] == max(rows[1]["probabilities"].values())
    with pytest.raises(DataError, match=r"broken\.png"):
        load(classifier[0]).predict([source, broken])


def test_nothing_to_predict_or_to_predict_with(
    classifier: Run, encoder: Run, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="does not exist"):
        predict_table(classifier[0], [tmp_path / "gone"])
    with pytest.raises(DataError, match="no pictures"):
        predict_table(classifier[0], [tmp_path])
    with pytest.raises(ModelError, match="without a classifier") as caught:
        load(encoder[0])
    assert "finetune" in caught.value.hint
    with pytest.raises(ModelError, match="no run folder"):
        load(tmp_path / "none")
