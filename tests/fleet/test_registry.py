"""A fleet's folder: versions come and go back whole, whoever is killed, and what is damaged or foreign is refused."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import visionlora as vl
from attacks.fleets import attack_fleet, faults, two_writers
from helpers.fleets import save_cameras
from visionlora.errors import InputError
from visionlora.fleet.index import INDEX, read_index
from visionlora.fleet.registry import adapter_file, adapter_files, add, check, rollback, unnamed_files


def base(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three over one base. Not to be changed."""
    return list(save_cameras(base(), tmp_path_factory.mktemp("adapters"), {}, {}, {}).values())


@pytest.fixture
def fleet(tmp_path: Path, adapters: list[Path]) -> Path:
    """``gate`` at version 2 of 2, ``yard`` at its only one."""
    folder = tmp_path / "fleet"
    add(folder, "gate", adapters[0])
    add(folder, "gate", adapters[1], note="after the storm")
    add(folder, "yard", adapters[2])
    return folder


def test_what_is_added_is_what_comes_back(fleet: Path, adapters: list[Path]) -> None:
    assert adapter_file(fleet, "gate").read_bytes() == adapters[1].read_bytes()
    assert rollback(fleet, "gate").number == 1
    assert adapter_file(fleet, "gate").read_bytes() == adapters[0].read_bytes()
    assert rollback(fleet, "gate", to=2, note="no").number == 2
    assert add(fleet, "gate", adapters[2]).number == 3
    index = read_index(fleet)
    told = [(change.what, change.camera, change.before, change.version) for change in index.audit]
    assert told == [
        ("add", "gate", 0, 1),
        ("add", "gate", 1, 2),
        ("add", "yard", 0, 1),
        ("rollback", "gate", 2, 1),
        ("rollback", "gate", 1, 2),
        ("add", "gate", 2, 3),
    ]
    assert [change.note for change in index.audit if change.note] == ["after the storm", "no"]
    assert check(fleet) == unnamed_files(fleet) == faults(fleet) == []


def test_the_current_adapters_are_a_fleet(fleet: Path, adapters: list[Path]) -> None:
    mixed = vl.Fleet(base().eval(), adapter_files(fleet))
    images = torch.randn(2, 4)
    alone = vl.Fleet(base().eval(), {"gate": adapters[1], "yard": adapters[2]})
    assert torch.equal(mixed(images, ["yard", "gate"]), alone(images, ["yard", "gate"]))


def test_refusals_change_nothing(fleet: Path, adapters: list[Path], tmp_path: Path) -> None:
    foreign = save_cameras(base(1), tmp_path, {})["camera0"]
    other = save_cameras(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "other", {})["camera0"]
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(adapters[0].read_bytes()[:-9])
    changed = bytearray(adapters[0].read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(changed)
    text = tmp_path / "text.safetensors"
    text.write_text("nothing")
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "mine.txt").write_text("x")
    before = (fleet / INDEX).read_bytes()
    for arguments, words in (
        ((fleet, "gate", adapters[1]), "is version 2 of 'gate' already"),
        ((fleet, "gate", foreign), r"another base than 'gate'.*'0\.bias' first"),
        ((fleet, "new", other), "another architecture|another base"),
        ((fleet, "gate", cut), "cut"),
        ((fleet, "gate", tmp_path / "changed.safetensors"), "damaged"),
        ((fleet, "gate", text), "text"),
        ((fleet, "gate", tmp_path / "none"), "no such file"),
        ((fleet, "no good", adapters[0]), "can't name an adapter"),
        ((fleet, "keys", adapters[0]), "can't name an adapter"),
        ((filled, "gate", adapters[0]), "holds mine.txt"),
        ((adapters[0], "gate", adapters[0]), "is a file"),
    ):
        with pytest.raises(InputError, match=words):
            add(*arguments)
    for to, camera, words in (
        (None, "yard", "none before"),
        (2, "gate", "at version 2 already"),
        (9, "gate", "no version 9; there are 1 to 2"),
        (None, "gaet", "did you mean 'gate'"),
    ):
        with pytest.raises(InputError, match=words):
            rollback(fleet, camera, to)
    assert (fleet / INDEX).read_bytes() == before and faults(fleet) == []
    assert not (filled / INDEX).exists()


def test_damage_is_told_and_not_rolled_back_to(fleet: Path, adapters: list[Path]) -> None:
    first = fleet / read_index(fleet).cameras["gate"].version(1).file("gate")
    shutil.copy(adapters[2], first)
    (found,) = check(fleet)
    assert found.startswith("gate, version 1: ") and "not the file that was added" in found
    with pytest.raises(InputError, match="not the file that was added"):
        rollback(fleet, "gate")
    first.unlink()
    with pytest.raises(InputError, match="is missing"):
        rollback(fleet, "gate")
    assert read_index(fleet).cameras["gate"].current == 2
    (fleet / "adapters" / "gate" / "stray").write_text("x")
    assert [path.name for path in unnamed_files(fleet)] == ["stray"]


def test_an_index_that_is_none_or_was_changed_is_refused(fleet: Path) -> None:
    text = (fleet / INDEX).read_text(encoding="utf-8")
    other = json.dumps({**json.loads(text), "format_version": 2})
    for content, words in (
        (text.replace('"current": 2', '"current": 1'), "its hash is not what it says"),
        (text[: len(text) // 2], "is damaged"),
        ("[]", "is no index of a fleet"),
        (other, "reads format 1"),
    ):
        (fleet / INDEX).write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=re.escape(words)):
            read_index(fleet)
    with pytest.raises(InputError, match="it is no fleet"):
        read_index(fleet / "adapters")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_killed_writers_leave_no_half_state(tmp_path: Path, adapters: list[Path]) -> None:
    assert attack_fleet(tmp_path / "fleet", adapters, kills=5, seed=0, longest=0.1) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_two_writers_at_once_lose_nothing(tmp_path: Path, adapters: list[Path]) -> None:
    assert two_writers(tmp_path / "fleet", adapters, changes=6) == []
