"""Energy from counters that run over, belong to parts, or cannot be read; none is made up."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fewlabels.training import energy
from fewlabels.training.energy import EnergyMeter, Packages, joules

CPU = torch.device("cpu")


def zone(folder: Path, name: str, called: str, microjoules: int, most: int = 1_000_000) -> Path:
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "name").write_text(f"{called}\n")
    (place / "max_energy_range_uj").write_text(f"{most}\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    return place / "energy_uj"


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """Two packages among other zones; return the files of their counters."""
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 900_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    zone(tmp_path, "intel-rapl:2", "psys", 7)
    (tmp_path / "intel-rapl").mkdir()
    return first, second


def test_packages_add_up_and_counters_run_over(machine: tuple[Path, Path]) -> None:
    first, second = machine
    packages = Packages(first.parents[1])
    assert packages.joules() == 0
    first.write_text("400000")
    second.write_text("950000")
    assert packages.joules() == pytest.approx(0.35)
    second.write_text("50000")  # past its end at 1 J
    assert packages.joules() == pytest.approx(0.45)
    second.write_text("40000")
    assert packages.joules() == pytest.approx(1.44)


def test_what_cannot_be_read_is_none(machine: tuple[Path, Path], tmp_path: Path) -> None:
    packages = Packages(machine[0].parents[1])
    machine[0].write_text("")
    assert packages.joules() is None
    assert Packages(tmp_path / "nowhere").joules() is None
    assert Packages(machine[0].parents[1]).joules() is None
    assert joules(torch.device("meta")) is None


def test_a_long_run_is_read_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    readings, clock = iter([10.0, 70.0, 80.0]), [0.0]
    monkeypatch.setattr(energy, "joules", lambda _device: next(readings))
    monkeypatch.setattr(energy.time, "monotonic", lambda: clock[0])
    meter = EnergyMeter(CPU)
    meter.tick()
    clock[0] = energy.READ_SECONDS + 1
    meter.tick()
    meter.tick()
    assert meter.read() == 70.0


def test_a_board_tells_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def consumption(board: str) -> int:
        if board != "board of GPU-12ab":
            raise NVMLError
        return 2_500

    def uuid(device: torch.device) -> Any:
        return SimpleNamespace(uuid="12ab" if device.index == 0 else "MIG")

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: f"board of {name}",
        nvmlDeviceGetTotalEnergyConsumption=consumption,
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", uuid)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert joules(torch.device("cuda", 0)) is None  # not installed
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert joules(torch.device("cuda", 0)) == 2.5
    assert joules(torch.device("cuda", 1)) is None


@pytest.mark.gpu
def test_a_real_board() -> None:
    pytest.importorskip("pynvml")
    device = torch.device("cuda", 0)
    meter = EnergyMeter(device)
    x = torch.randn(4096, 4096, device=device)
    for _ in range(300):
        x = (x @ x).sigmoid()
    torch.cuda.synchronize()
    taken = meter.read()
    assert taken is not None
    assert 0 < taken < 10_000
