"""Several processes train as one: the same gradients and weights, one end for all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import fewlabels
from fewlabels.core import collectives, processes
from fewlabels.core.errors import UsageError
from fewlabels.methods import METHODS
from fewlabels.training.loop import fresh_seed
from fewlabels.training.progress import Reporter

SCRIPT = Path(__file__).parent / "together.py"
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ended:
    """How one process ended."""

    code: int
    said: str


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(task: str, folder: Path, counts: tuple[int, ...]) -> dict[int, list[Ended]]:
    """Run a task of `together.py` in so many processes each, all at once."""
    began: dict[int, list[subprocess.Popen[str]]] = {}
    for count in counts:
        port = free_port()
        for rank in range(count):
            place = dict(
                zip(
                    PLACE,
                    (str(rank), str(count), str(rank), "127.0.0.1", str(port)),
                    strict=True,
                )
            )
            began.setdefault(count, []).append(
                subprocess.Popen(
                    [sys.executable, "-W", "error", str(SCRIPT), task, str(folder)],
                    env=os.environ | place | {"OMP_NUM_THREADS": "1"},
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
    try:
        return {
            count: [Ended(one.wait(300), one.communicate(timeout=300)[1]) for one in several]
            for count, several in began.items()
        }
    finally:
        for several in began.values():
            for one in several:
                one.kill()


def results(task: str, folder: Path, counts: tuple[int, ...]) -> dict[int, list[dict[str, Tensor]]]:
    """Return what each process of each group found."""
    found = {}
    for count, ended in start(task, folder, counts).items():
        assert [one.code for one in ended] == [0] * count, [one.said for one in ended]
        found[count] = [load_file(folder / f"{count}-{rank}.safetensors") for rank in range(count)]
    return found


# ---- two processes and one ------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Tensor]]]:
    """Return all methods trained by one process and by two, with batches of 13 images."""
    return results("parity", tmp_path_factory.mktemp("parity"), (1, 2))


def of(name: str, what: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{what}/{name}/"
    return {k.removeprefix(start): v for k, v in found.items() if k.startswith(start)}


@pytest.mark.medium
@pytest.mark.parametrize("name", sorted(METHODS))
def test_two_processes_end_in_the_weights_of_one(
    name: str, both: dict[int, list[dict[str, Tensor]]]
) -> None:
    one, (first, second) = both[1][0], both[2]
    for what in ("weights", "metrics"):
        alone, together = of(name, what, one), of(name, what, first)
        assert alone
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            error = float((value - together[key]).abs().max())
            assert error <= 1e-8 * max(1.0, float(value.abs().max())), (key, error)
    # In both processes to the last bit: they will not drift apart.
    for key, value in of(name, "weights", first).items():
        assert torch.equal(value, second[f"weights/{name}/{key}"]), key


@pytest.mark.medium
@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"kmeans"}))
def test_two_processes_find_the_gradients_of_one(
    name: str, both: dict[int, list[dict[str, Tensor]]]
) -> None:
    alone, together = of(name, "gradients", both[1][0]), of(name, "gradients", both[2][0])
    assert alone
    assert alone.keys() == together.keys()
    largest = max(float(value.abs().max()) for value in alone.values())
    for key, value in alone.items():
        error = float((value - together[key]).abs().max())
        assert error <= 1e-5 * largest, (key, error, largest)


@pytest.mark.medium
@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_is_compared_was_trained(name: str, both: dict[int, list[dict[str, Tensor]]]) -> None:
    moved = of(name, "moved", both[1][0])
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    weights = [k for k in moved if k.startswith("encoder.") and not k.endswith(statistics)]
    assert weights
    assert max(float(moved[key]) for key in weights) > 1e-5


@pytest.mark.medium
def test_two_processes_learn_from_unlabelled_images_as_one(tmp_path: Path) -> None:
    found = results("both", tmp_path, (1, 2))
    one, (first, second) = found[1][0], found[2]
    assert one.keys() == first.keys() == second.keys()
    assert any("guesser.running.shares" in key for key in one)
    for key, value in one.items():
        error = float((value.double() - first[key].double()).abs().max())
        assert error <= 1e-8 * max(1.0, float(value.double().abs().max())), (key, error)
        if key.startswith("weights/"):
            assert torch.equal(first[key], second[key]), key
    used = {k.split("/")[1]: float(v) for k, v in one.items() if k.endswith("/used")}
    assert used.keys() == {"pseudo", "fixmatch", "freematch", "softmatch"}
    assert min(used.values()) > 0.02  # what is compared was learned from


# ---- what it is made of ---------------------------------------------------------------------


@pytest.mark.medium
def test_sums_norms_and_messages(tmp_path: Path) -> None:
    found = results("tools", tmp_path, (3,))[3]
    whole = torch.arange(12.0, dtype=torch.float64).reshape(6, 2).sin()[:5]
    x = whole.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad((x**3).sum() * (1 + 2 + 3), x, create_graph=True)
    slope.square().sum().backward()
    for key, value in {"slope": slope, "second": x.grad}.items():
        torch.testing.assert_close(torch.cat([one[key] for one in found]), value.detach())

    fresh_seed(1, "norm")
    images = (torch.randn(5, 3, 4, 4, dtype=torch.float64) * 3 + 50).requires_grad_(True)
    norm = nn.BatchNorm2d(3, momentum=None).double()
    nn.init.uniform_(norm.weight)
    norm(images)
    out = norm(images)
    (slope,) = torch.autograd.grad((out**3).sum(), images, create_graph=True)
    slope.square().sum().backward()
    expected = {"out": out, "norm slope": slope, "norm second": images.grad}
    expected["evaluated"] = norm.eval()(images)
    for key, value in expected.items():
        torch.testing.assert_close(torch.cat([one[key] for one in found]), value.detach())

    for one in found:
        assert torch.equal(one["every"], whole)
        assert torch.equal(one["short"], whole[:1].bfloat16().expand(3, 2))
        for key, value in norm.state_dict().items():
            torch.testing.assert_close(one[f"norm {key}"], value)
        for key, parameter in norm.named_parameters():
            # The losses were summed over processes, and gradients are averaged.
            torch.testing.assert_close(one[f"norm gradient {key}"], parameter.grad / 3)
        assert one["start"].tolist() == [0.0, 0.0]
        assert int(one["told"]) == 0


def test_shares_are_consecutive_and_even(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2, 3, 8):
        spans = []
        for rank in range(count):
            world = processes._World(rank, count, None)
            monkeypatch.setattr(processes, "_world", world)
            spans.append(collectives.span(13))
        rows = np.concatenate([np.arange(13)[one] for one in spans])
        assert rows.tolist() == list(range(13))
        assert max(s.stop - s.start for s in spans) - min(s.stop - s.start for s in spans) <= 1
    with pytest.raises(UsageError, match="7 images"):
        collectives.span(7)


def test_one_process_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLACE:
        monkeypatch.delenv(name, raising=False)
    assert processes.launched() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")  # set by schedulers for other reasons, too
    with processes.joined("cpu"):
        assert (processes.rank(), processes.count(), processes.is_main()) == (0, 1, True)
        processes.refuse_several()
    x = torch.ones(3)
    assert collectives.total(x) is x
    assert collectives.stacked(x, 0, 0) is x


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the second of two processes, before they have met."""
    for name, value in zip(PLACE, ("1", "2", "1", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second")
def test_the_second_process_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    from fewlabels.cli import main
    from fewlabels.training.progress import Reporter

    assert Reporter().quiet
    assert not processes.prints()
    assert main(["inspect", "digits"]) == 2  # and the first says why
    said = capsys.readouterr()
    assert said.out == said.err == ""


@pytest.mark.usefixtures("second")
def test_what_one_process_does_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fewlabels.cli import main

    monkeypatch.setenv("RANK", "0")
    assert main(["inspect", "digits"]) == 2
    assert "2 processes were started" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match="no number"):
        processes.launched()


# ---- how they end ---------------------------------------------------------------------------


@pytest.mark.medium
def test_a_signal_to_one_stops_all_and_they_go_on_exactly(tmp_path: Path) -> None:
    first, second = results("resumed", tmp_path, (2,))[2]
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not (tmp_path / "nothing here").exists()  # the first alone reads and writes


@pytest.mark.medium
@pytest.mark.parametrize(
    ("task", "code", "words"),
    [
        ("failing", 3, "a file has changed"),
        ("diverging", 5, "'rotation' is nan at step 0"),
    ],
)
def test_a_failure_of_one_ends_all_alike_and_is_told_once(
    task: str, code: int, words: str, tmp_path: Path
) -> None:
    ended = start(task, tmp_path, (2,))[2]
    said = [one.said for one in ended]
    assert [one.code for one in ended] == [code, code], said
    assert sum(words in text for text in said) == 1, said
    assert sum(bool(text.strip()) for text in said) == 1, said


@pytest.mark.medium
@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_a_process_that_is_killed_is_missed(tmp_path: Path) -> None:
    first, second = start("killed", tmp_path, (2,))[2]
    assert second.code == -9
    assert first.code == 1
    assert "another process has ended" in first.said


@pytest.mark.medium
@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed under /proc")
def test_no_thread_for_talking_is_left_while_python_ends(tmp_path: Path) -> None:
    ended = start("closing", tmp_path, (2,))[2]
    assert [(one.code, one.said) for one in ended] == [(0, ""), (0, "")]


# ---- the command ----------------------------------------------------------------------------


def torchrun(*words: str, once: str) -> dict[str, Any]:
    """Return what the command prints when two processes share it; `once` is said by one."""
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    run += ["--master-port", str(free_port()), "-m", "fewlabels"]
    environment = {k: v for k, v in os.environ.items() if k not in PLACE}
    done = subprocess.run(
        [*run, *words, "--device", "cpu", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(once) == 1, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)  # one value, though two processes made it
    return found


@pytest.mark.medium
def test_torchrun_gives_the_runs_of_one_process(tmp_path: Path) -> None:
    budget = {"budget": "12 steps", "device": "cpu", "reporter": Reporter(quiet=True)}
    one = fewlabels.pretrain("digits", out=tmp_path / "one", **budget)
    words = ("pretrain", "digits", "--budget", "12steps")
    two = torchrun(*words, "--out", str(tmp_path / "two"), once=" 0:00 left")
    assert (one["processes"], two["processes"]) == (1, 2)
    for name in ("steps", "images_seen", "backbone", "parameters"):
        assert one[name] == two[name], name
    # What is gathered from all is computed by each.
    assert two["multiply_adds"] == pytest.approx(one["multiply_adds"], rel=0.05)
    assert two["peak_memory_mb"] > 100
    assert two["final"]["loss"] == pytest.approx(one["final"]["loss"], rel=1e-3)
    assert (tmp_path / "two" / "checksums.json").exists()
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))

    start = str(tmp_path / "one")
    # With all labels, so that training is watched on validation images by both.
    one = fewlabels.finetune("digits", start=start, out=tmp_path / "three", **budget)
    words = ("finetune", "digits", "--from", start, "--budget", "12steps")
    two = torchrun(*words, "--out", str(tmp_path / "four"), once="the validation loss was lowest")
    assert two["stopping"]["kept"] == one["stopping"]["kept"] == "best"
    assert two["steps"] == one["steps"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["multiply_adds"] == two["multiply_adds"] > 0
    assert two["final"]["loss"] == pytest.approx(one["final"]["loss"], rel=1e-3)
    assert two["val"]["n"] == one["val"]["n"]
