"""Too few labels for a test split: compare and run cross-validate, and say so."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fewlabels
from fewlabels.cli import main
from fewlabels.core.errors import DataError, UsageError
from fewlabels.report.paper import paper_table
from fewlabels.results.files import read_json

ABOUT: dict[str, Any] = {
    "arms": ["autoencoder+features", "pixels"],
    "baseline": "pixels",
    "seeds": 2,
    "pretraining_seeds": 2,
    "budget": "8steps",
    "device": "cpu",
}
FLAGS = (
    "--arms autoencoder+features,pixels --baseline pixels --seeds 2 --budget 8steps --device cpu"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 labelled digits of four classes, and 150 without a label."""
    place = tmp_path_factory.mktemp("tiny")
    x, y = load_digits(n_class=4, return_X_y=True)
    images = np.round(x[:198] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    labels = np.array([*y[:48].astype(str), *[""] * 150])
    np.savez(place / "digits.npz", images=images, labels=labels)
    return place


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("FEWLABELS_CACHE", str(place / "cache"))


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("FEWLABELS_CACHE", str(place / "cache"))
        return fewlabels.compare("digits.npz", out=Path("whole"), **ABOUT)


@pytest.mark.medium
def test_every_repeat_tests_every_label_once_with_one_encoder(found: dict[str, Any]) -> None:
    design = found["design"]
    assert (design["folds"], design["draws"], design["splits"]) == (5, 2, 10)
    assert (design["images_test"], design["pretraining_seeds"]) == (48, 2)
    assert "about 5 test images, and 30 are needed" in design["folded_because"]
    assert len(found["cells"]) == 2 * 10
    ours = [cell["streams"] for cell in found["cells"] if cell["arm"] == "autoencoder+features"]
    assert sorted((s["split"], s["pretraining"]) for s in ours) == [(i, i // 5) for i in range(10)]
    assert len(list(Path("whole/encoders").glob("autoencoder-*/result.json"))) == 2
    tested = {
        cell["streams"]["split"]: len(np.load(f"whole/cells/{cell['id']}.npz")["scores"])
        for cell in found["cells"]
    }
    for repeat in range(2):
        assert sum(tested[5 * repeat + fold] for fold in range(5)) == 48
    row = found["primary"]
    assert row["repeats"] == {"splits": 10, "pretraining": 2, "draws": 2}
    assert not any("without a labelled image" in text for text in found["warnings"])


@pytest.mark.medium
def test_the_page_says_so_in_its_first_lines(found: dict[str, Any]) -> None:
    page = Path("whole/report.html").read_text()
    top = page[: page.index("<main")]
    assert "5-fold cross-validation over all 48 labelled images, repeated 2 times" in top
    assert "The folds overlap" in top
    said = f"{found['primary']['outlook']} {found['primary']['unseen']}"
    assert "48 test images" in said and "cannot be seen" in said
    assert "48 test images" in top and "cannot be seen" in top


@pytest.mark.medium
def test_the_classifier_knows_every_label_and_is_not_scored_on_them(
    found: dict[str, Any],
) -> None:
    assert found["best"]["name"] and Path("whole/model/model.safetensors").exists()
    with pytest.raises(DataError) as caught:
        fewlabels.evaluate("whole", device="cpu")
    assert caught.value.code == "data.all_trained"


@pytest.mark.medium
def test_cells_as_commands_give_the_same_comparison(found: dict[str, Any]) -> None:
    about = {**ABOUT, "out": Path("parts")}
    listed = fewlabels.compare("digits.npz", list_cells=True, **about)
    names = [cell["id"] for cell in listed["cells"]]
    assert names == [cell["id"] for cell in found["cells"]]
    for part in (names[7:], names[:7]):
        fewlabels.compare("digits.npz", cells=part, **about)
    again = fewlabels.compare("digits.npz", collect=True, **about)
    assert again["verdicts"] == found["verdicts"]
    assert again["curves"] == found["curves"]


@pytest.mark.medium
def test_labels_are_drawn_from_the_other_folds() -> None:
    found = fewlabels.compare("digits.npz", out=Path("shots"), labels=[2, 4], **ABOUT)
    assert {(cell["shots"], cell["labels"]) for cell in found["cells"]} == {(2, 8), (4, 16)}
    assert len(found["label_saving"]) == 2


@pytest.mark.medium
def test_the_command_line_says_why_and_how_not_to(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*["compare", "digits.npz", "--dry-run", "--json"], *FLAGS.split()]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert "5-fold cross-validation over all 48 labelled images" in said.err
    assert "--folds 0" in said.err
    plan = json.loads(said.out)
    assert plan["plan"][0]["note"] == "2 times, one a pre-training seed"
    assert [row["note"] for row in plan["plan"][1:]] == ["10 cells", "10 cells"]
    assert main([*asked, "--folds", "0"]) == 0
    assert "cross-validation" not in capsys.readouterr().err


@pytest.mark.medium
def test_inspect_says_what_a_comparison_will_do() -> None:
    said = fewlabels.inspect("digits.npz")["warnings"]
    assert "compare and run use 5-fold cross-validation over the labelled images" in said[0]
    assert not any("without a labelled image in test" in text for text in said)


def test_folds_that_cannot_be_are_refused() -> None:
    x, y = load_digits(n_class=4, return_X_y=True)
    images = np.round(x[:90] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    splits = np.repeat(["train", "test"], 45)
    np.savez("given.npz", images=images, labels=y[:90].astype(str), splits=splits)
    for data, folds in (("given.npz", 5), ("digits.npz", 49), ("digits.npz", 1)):
        with pytest.raises(UsageError) as caught:
            fewlabels.compare(data, out=Path("refused"), folds=folds, **ABOUT)
        assert caught.value.code == "usage.folds"


@pytest.mark.medium
def test_without_unlabelled_images_each_fold_pretrains_for_itself() -> None:
    with np.load("digits.npz") as file:
        np.savez("bare.npz", images=file["images"][:48], labels=file["labels"][:48])
    about = {**ABOUT, "seeds": 1}
    found = fewlabels.compare("bare.npz", out=Path("bare"), folds=3, **about)
    assert found["design"]["pretraining_seeds"] == 3
    assert len(list(Path("bare/encoders").glob("autoencoder-*/result.json"))) == 3
    assert found["primary"]["repeats"]["pretraining"] == 3


@pytest.mark.medium
def test_a_paper_s_table_tells_of_the_folds(found: dict[str, Any]) -> None:
    table = paper_table(found, "markdown")
    assert "5-fold cross-validation" in table
    rows = list(csv.DictReader(paper_table(found, "csv").splitlines()))
    assert {row["repeats"] for row in rows} == {str(found["curves"][0]["seeds"])}


@pytest.mark.slow
def test_workers_and_run_do_the_same(found: dict[str, Any]) -> None:
    shared = fewlabels.compare("digits.npz", out=Path("workers"), workers=2, **ABOUT)
    assert shared["verdicts"] == found["verdicts"]
    settings = {key: ABOUT[key] for key in ("arms", "baseline", "device")}
    done = fewlabels.run("digits.npz", out=Path("run"), budget="60s", **settings)
    assert done["compare"]["design"]["folds"] == 5
    assert done["best"] and done["test"] is None
    assert read_json(Path("run/results.json"))["report"].endswith("report.html")
