"""Tiny adapters and their exports, each made once. Not to be changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

import visionlora as vl
from helpers.tiny_models import MODELS, make_adapter, write_image
from visionlora.exports.result import Exported


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``adapter("fcos")`` is the file of one of ``MODELS``."""
    root, made = tmp_path_factory.mktemp("adapters"), {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = make_adapter(root / name, MODELS[name])
        return made[name]

    return make


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four pictures of several shapes."""
    root = tmp_path_factory.mktemp("images")
    for index, size in enumerate([(120, 80), (64, 100), (96, 96), (48, 33)]):
        write_image(root / f"{index}.png", index, size)
    return root


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, adapter: Callable[[str], Path], images: Path
) -> Callable[[str, str], Exported]:
    """``exported("fcos", "onnx")`` is what the export of one of ``MODELS`` came to."""
    root, made = tmp_path_factory.mktemp("exported"), {}

    def make(name: str, to: str) -> Exported:
        if (name, to) not in made:
            made[name, to] = vl.export(adapter(name), to, root / f"{name}_{to}", images=[images], rounds=1)
        return made[name, to]

    return make
