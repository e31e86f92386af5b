"""Weights that must have a hash, of a file here or of a hub, which is a folder in these tests."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf

from visionlora.config import check_config
from visionlora.errors import InputError
from visionlora.models import pinning
from visionlora.models.classifier import create_classifier
from visionlora.tasks.registry import task_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = f"hf-hub:me/net@{COMMIT}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[tuple[str, Any]]]:
    """The folder of me/net, a classifier of three classes, and what was asked of it: file and revision."""
    folder, asked = tmp_path / "hub", list[tuple[str, Any]]()
    save_for_hf(timm.create_model("test_resnet", num_classes=3), str(folder), safe_serialization=True)

    def fetch(repo_id: str, filename: str, revision: str | None = None, **_: Any) -> str:
        assert repo_id == "me/net"
        asked.append((filename, revision))
        return str(folder / filename)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", fetch)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    return folder, asked


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(**model: Any) -> Any:
    config = check_config({"model": {"img_size": 32, **model}})
    return task_of("classification").build(config.model, ["a", "b", "c"])


@pytest.mark.parametrize("hashed", [False, True])
def test_a_revision_reaches_the_hub(hub: tuple[Path, list[tuple[str, Any]]], hashed: bool) -> None:
    """For the model's description and for its weights; the head has as many classes, and is kept."""
    folder, asked = hub
    model = build(name=NAME, sha256=digest(folder / "model.safetensors") if hashed else None).model
    expected = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    assert {file for file, _ in asked} == {"config.json", "model.safetensors"}
    assert {revision for _, revision in asked} == {COMMIT}
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["hub", "checkpoint"])
def test_another_file_is_refused_before_it_is_read(
    hub: tuple[Path, list[tuple[str, Any]]], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    file = hub[0] / "model.safetensors"
    right = digest(file)
    settings = {"name": NAME} if kind == "hub" else {"name": "test_resnet", "checkpoint": str(file)}
    build(**settings, sha256=right.upper())
    file.write_bytes(b"x" + file.read_bytes())
    monkeypatch.setattr("visionlora.models.timm_models.read_state_dict", lambda *_: pytest.fail("was read"))
    with pytest.raises(InputError, match=f"is another file, its SHA-256 is {digest(file)}, and model.sha256={right}"):
        build(**settings, sha256=right)


@pytest.mark.parametrize("name", ["test_resnet", "torchvision/resnet18"])
def test_a_hash_of_no_file_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="names neither"):
        build(name=name, sha256="0" * 64)
    assert build(name=name, sha256="0" * 64, pretrained=False)


def test_a_hash_is_64_digits() -> None:
    with pytest.raises(InputError, match="model.sha256 is 'abc'"):
        check_config({"model": {"name": "test_resnet", "sha256": "abc"}})


def test_a_hub_without_known_files_or_out_of_reach_says_so(
    hub: tuple[Path, list[tuple[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to https://me:secret@host/x?token=secret")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(InputError, match="could not be fetched") as error:
        pinning.pinned(NAME, True, None, "0" * 64)
    assert "secret" not in str(error.value)


def test_a_local_file_goes_before_a_folders_own(hub: tuple[Path, list[tuple[str, Any]]], tmp_path: Path) -> None:
    other = timm.create_model("test_resnet", num_classes=3)
    file = tmp_path / "other.pth"
    torch.save(other.state_dict(), file)
    for name in (f"local-dir:{hub[0]}", NAME):
        model = create_classifier(name, 3, checkpoint=file).model
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
