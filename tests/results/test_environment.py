from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from fewlabels.results import environment


def test_describe_names_versions_and_machine() -> None:
    about = environment.describe("cpu")
    assert about["device"] == "cpu"
    assert about["fewlabels"]
    assert about["torch"]
    assert about["cores"] >= 1
    assert about["threads"] >= 1
    assert about["python"] == platform.python_version()


def test_describe_holds_no_path_and_no_host_name() -> None:
    text = json.dumps(environment.describe())
    assert str(Path.home()) not in text or len(str(Path.home())) == 1
    assert str(Path.cwd()) not in text
    assert platform.node() not in text or len(platform.node()) < 4


def test_commit_is_only_ours(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert environment._commit(tmp_path) == ""


def test_tools_that_are_missing_or_fail_say_nothing() -> None:
    assert environment._output(["no-such-program-here"]) == ""
    assert environment._version("no-such-package-here") is None


def test_command_line_hides_home_and_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    argv = ["/x/y", "run", "/home/ann/my photos", "/home/annette/p", "--labels", "1,4", ""]
    expected = "fewlabels run ~/'my photos' /home/annette/p --labels 1,4 ''"
    assert environment.command_line(argv) == expected
