"""The verb `explain`: pictures, arrays, records; rows, files of the user's; what stays hidden."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fewlabels
from fewlabels.core.errors import DataError, UsageError
from fewlabels.explain.saliency import MAPS
from fewlabels.pipeline.explain import explain
from fewlabels.pipeline.frozen import features
from fewlabels.pipeline.starts import open_model
from fewlabels.pipeline.subjects import default_split
from fewlabels.pipeline.surroundings import visible_rows
from fewlabels.pipeline.task import DataOptions, open_task
from fewlabels.pipeline.verbs import pretrain
from fewlabels.report import write_report
from fewlabels.results.runfolder import RunFolder
from fewlabels.study.plan import make_units
from fewlabels.training.progress import Reporter

pytestmark = pytest.mark.medium

Run = tuple[Path, dict[str, Any]]
QUIET = Reporter(quiet=True)


def shown(run: Path, images: tuple[Path | str, ...] = (), **settings: Any) -> dict[str, Any]:
    return explain(run, images, device="cpu", reporter=QUIET, **settings)


@pytest.fixture(scope="module")
def explained(classifier: Run) -> dict[str, Any]:
    """Return an explanation of four held-out images."""
    return shown(classifier[0], count=4)


def test_by_default_mistakes_and_right_answers_of_validation(
    classifier: Run, explained: dict[str, Any]
) -> None:
    assert explained["split"] == "val"
    assert explained["looks_at_test"] == 0  # no label of test was read
    rows = explained["images"]
    assert len(rows) == 4
    for row in rows:
        assert (row["kind"] == "mistake") == (row["label"] != row["predicted"])
        assert row["explained"] == row["predicted"]
        assert 0.5 <= row["probability"] <= 1
    sure = [row["probability"] for row in rows if row["kind"] == "mistake"]
    assert sure == sorted(sure, reverse=True)


def test_every_file_is_there_and_sealed(classifier: Run, explained: dict[str, Any]) -> None:
    folder = Path(explained["folder"])
    assert folder == classifier[0] / "records" / "explain-1"
    assert {path.name for path in folder.iterdir()} == explained["files"].keys()
    for name, digest in explained["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    for row in explained["images"]:
        with Image.open(row["picture"]) as picture:
            assert picture.format == "PNG"
            assert picture.width > 600
    assert RunFolder(classifier[0]).records("explain")[0] == explained
    assert RunFolder(classifier[0]).verify() == []


def test_arrays_are_what_python_gets(
    classifier: Run, explained: dict[str, Any], pictures: DataOptions
) -> None:
    with np.load(explained["arrays"]) as arrays:
        assert arrays["views"].shape == (4, 16, 16, 3)
        assert arrays["near"].shape == (4, 5, 16, 16, 3)
        assert arrays["filters"].shape[3] == 3
        drawn = {row["map"] for row in explained["maps"] if row["shown"]}
        assert drawn <= set(arrays.files)
        assert "occlusion" in drawn
        maps = arrays["occlusion"]
    files = [Path(pictures.data) / row["path"] for row in explained["images"]]
    again = fewlabels.load(classifier[0], device="cpu").saliency(files, "occlusion")
    np.testing.assert_allclose(again, maps, atol=1e-4)


def test_neighbours_are_training_images_with_visible_labels_alone(
    classifier: Run, explained: dict[str, Any], pictures: DataOptions
) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(classifier[0] / "manifest.parquet").to_pylist()
    split = {row["path"]: row["split"] for row in table}
    near = [one for row in explained["images"] for one in row["neighbours"]]
    assert {split[one["path"]] for one in near} == {"train"}
    labelled = {one["path"] for one in near if one["label"] is not None}
    assert all(path.startswith(("a/", "b/")) for path in labelled)
    assert len(labelled) < len({one["path"] for one in near})  # 16 of about 110 may be shown
    for row in explained["images"]:
        likeness = [one["similarity"] for one in row["neighbours"]]
        assert likeness == sorted(likeness, reverse=True)


def test_the_map_of_images_hides_what_was_hidden(explained: dict[str, Any]) -> None:
    with np.load(Path(explained["folder"]) / "embedding.npz") as found:
        kind, label = found["kind"], found["label"]
    assert set(kind.tolist()) == {"labelled", "unlabelled", "test"}
    assert (label[kind == "labelled"] >= 0).all()
    assert (kind == "labelled").sum() == 16
    assert (label[kind != "labelled"] == -1).all()


def test_a_look_at_labels_of_test_is_counted(classifier: Run) -> None:
    before = shown(classifier[0], count=2, maps=["grad_cam"])["looks_at_test"]
    found = shown(classifier[0], split="test", count=2, maps="grad_cam")  # one, as a word
    assert found["looks_at_test"] == before + 1
    assert [row["map"] for row in found["maps"]] == ["grad_cam"]
    with np.load(Path(found["folder"]) / "embedding.npz") as arrays:
        assert (arrays["label"][arrays["kind"] == "test"] >= 0).all()


def test_files_and_rows_may_be_named(
    classifier: Run, pictures: DataOptions, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    mine = tmp_path / "mine.png"
    mine.write_bytes((Path(pictures.data) / "b/003.png").read_bytes())
    found = shown(classifier[0], (tmp_path, "a/001.png"), maps=["occlusion"], label="b")
    assert [Path(row["path"]).name for row in found["images"]] == ["mine.png", "001.png"]
    assert [row["label"] for row in found["images"]] == [None, "a"]
    assert [row["explained"] for row in found["images"]] == ["b", "b"]
    assert any("broken.png" in text for text in found["warnings"])


def test_without_the_data_files_can_be_explained_still(
    classifier: Run, pictures: DataOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise DataError("data.missing", "photos/ does not exist")

    monkeypatch.setattr("fewlabels.pipeline.explain.open_stored", gone)
    found = shown(classifier[0], (Path(pictures.data) / "a/001.png",), maps=["occlusion"])
    assert found["images"][0]["neighbours"] == []
    assert found["looks_at_test"] is None
    assert "photos/ does not exist" in found["warnings"][0]
    with pytest.raises(DataError, match="does not exist"):
        shown(classifier[0])


def test_an_encoder_has_neighbours_and_paintings_but_no_maps(encoder: Run) -> None:
    found = shown(encoder[0], count=3)
    assert [row["kind"] for row in found["images"]] == ["sample"] * 3
    assert all(row["predicted"] is None and row["label"] is None for row in found["images"])
    assert all(len(row["neighbours"]) == 5 for row in found["images"])
    assert not any(row["shown"] for row in found["maps"])
    assert "predicts nothing" in found["maps"][0]["reason"]
    assert Path(found["paintings"]).exists()
    (one,) = found["painted"]
    assert (one["encoder"], one["picture"]) == (None, found["paintings"])
    with np.load(one["arrays"]) as painted:
        assert painted["picture"].shape == painted["painted"].shape == (8, 16, 16, 3)
    sums = json.loads((encoder[0] / "checksums.json").read_text())["files"]
    assert {"figures/paintings.npz", "figures/paintings.png"} <= sums.keys()


def test_the_page_shows_it(classifier: Run, encoder: Run, explained: dict[str, Any]) -> None:
    page = write_report(classifier[0]).read_text(encoding="utf-8")
    assert "What it looks at" in page and "How the network sees the images" in page
    assert "Do the maps depend on what was learned?" in page
    other = write_report(encoder[0]).read_text(encoding="utf-8")
    assert "What the pre-training paints" in other
    assert "No maps: not possible: an encoder predicts nothing" in other
    assert "Do the maps depend" not in other


def test_a_code_of_two_numbers_is_drawn_as_it_is(pictures: DataOptions, tmp_path: Path) -> None:
    out = tmp_path / "code"
    trained = pretrain(
        pictures,
        method="dense_autoencoder",
        budget="20 steps",
        device="cpu",
        out=out,
        reporter=QUIET,
    )
    final = trained["final"]
    assert final["reconstruction_error"] == final["loss"] > 0
    found = shown(out, count=2)
    assert found["layout"] == "code"
    with np.load(found["embedding_arrays"]) as arrays:
        drawn, kind = arrays["xy"], arrays["kind"]
        assert str(arrays["layout"]) == "code"
    saved = open_model(out)
    task = open_task(pictures, policy="auto", device="cpu", reporter=QUIET)
    test = task.dataset.rows("test")
    codes = features(task, saved.backbone, test).numpy()
    assert codes.shape == (len(test), 2)
    np.testing.assert_allclose(drawn[kind == "test"], codes, rtol=1e-4, atol=1e-5)
    page = write_report(out).read_text(encoding="utf-8")
    for text in (
        "The code of each image",
        "<dt>Reconstruction error</dt>",
        "reconstruction error<",
    ):
        assert text in page
    assert "final loss" not in page


def test_paintings_of_a_comparisons_encoders_are_found(
    classifier: Run, encoder: Run, tmp_path: Path
) -> None:
    """Those of the start come first, then those of the encoders of a comparison."""
    run = tmp_path / "run"
    shutil.copytree(classifier[0], run, ignore=shutil.ignore_patterns("records"))
    for name in ("b", "a"):
        shutil.copytree(encoder[0] / "figures", run / "encoders" / name / "figures")
    (run / "encoders" / "none").mkdir()
    found = shown(run, count=1, maps=["occlusion"])
    start = found["painted"][0]
    assert found["paintings"] == start["picture"] == str(encoder[0] / "figures/paintings.png")
    assert [one["encoder"] for one in found["painted"][1:]] == ["a", "b"]
    for one in found["painted"]:
        with np.load(one["arrays"]) as arrays:
            assert {"picture", "painted"} <= set(arrays.files)


def test_longer_features_are_laid_out_by_neighbourhood(explained: dict[str, Any]) -> None:
    assert explained["layout"] == "t-SNE"
    assert explained["embedding_arrays"].endswith("explain-1/embedding.npz")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": "train"}, "split"),
        ({"maps": ["gradcam"]}, "grad_cam"),
        ({"label": "c"}, "class 'c'"),
        ({"count": 0}, "--count 0"),
    ],
)
def test_what_cannot_be_asked(classifier: Run, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        shown(classifier[0], **settings)
    assert said in str(caught.value)


def test_a_withdrawn_map_is_not_shown_and_that_is_said(
    classifier: Run, monkeypatch: pytest.MonkeyPatch, make_edges: Callable[..., Any]
) -> None:
    monkeypatch.setitem(MAPS, "occlusion", make_edges)
    found = shown(classifier[0], count=2, maps=["occlusion"])
    (row,) = found["maps"]
    assert not row["shown"]
    assert "withdrawn" in row["reason"] and row["correlation"] > 0.99
    with np.load(found["arrays"]) as arrays:
        assert "occlusion" not in arrays.files
    page = write_report(classifier[0]).read_text(encoding="utf-8")
    assert "withdrawn: with random weights" in page
    assert "<figcaption>occlusion</figcaption>" not in page


@pytest.fixture
def make_edges() -> Callable[..., Any]:
    """Return a map that draws the image and asks no network."""
    return lambda _classifier, x, _targets: x.mean(1).abs().cpu()


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("labels", [None, [1, 4]])
def test_visible_labels_of_a_run_are_those_of_its_classifier(
    pictures: DataOptions, given: bool, labels: list[int] | None
) -> None:
    task = open_task(pictures, policy="auto", device="cpu", reporter=QUIET)
    unit = make_units(given=given, draws=3, pretraining_seeds=2, seed=2, own_labels=labels is None)[
        0
    ]
    config = {"verb": "run", "settings": {"labels": labels, "seed": 2}}
    expected = task.dataset.visible(max(labels) if labels else None, unit.draws[0])
    np.testing.assert_array_equal(visible_rows(task, config), expected)
    # Without --labels the run has learned from validation images as well.
    assert default_split(task.dataset, config, None) == ("val" if labels else "test")
