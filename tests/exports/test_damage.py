"""An exported file of which a byte has changed is refused by name."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from visionlora.errors import InputError
from visionlora.exports.opening import open_trained
from visionlora.exports.result import Exported
from visionlora.models.classifier import create_classifier


@pytest.mark.parametrize(
    ("to", "file"), [("timm", "model.safetensors"), ("timm", "config.json"), ("onnx", "model.onnx")]
)
def test_a_flipped_or_cut_file_is_refused(
    exported: Callable[[str, str], Exported], tmp_path: Path, to: str, file: str
) -> None:
    generator = random.Random(to)
    folder = shutil.copytree(exported("resnet", to).out, tmp_path / "export")
    open_trained(folder)
    content = (folder / file).read_bytes()
    for number in range(30):
        damaged = bytearray(content)
        if number % 3:
            damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        else:
            del damaged[generator.randrange(len(content)) :]
        (folder / file).write_bytes(damaged)
        with pytest.raises(InputError, match=re.escape(file)) as error:
            open_trained(folder)
        assert "\n" not in str(error.value)


def test_a_damaged_folder_is_no_base_of_a_run(exported: Callable[[str, str], Exported], tmp_path: Path) -> None:
    folder = shutil.copytree(exported("resnet", "timm").out, tmp_path / "export")
    name = f"local-dir:{folder}"
    create_classifier(name, 3, img_size=(32, 32))
    for file in ("config.json", "model.safetensors"):
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content.replace(b"classifier", b"classified", 1) + b" ")
        with pytest.raises(InputError, match=re.escape(file)):
            create_classifier(name, 3, img_size=(32, 32))
        (folder / file).write_bytes(content)
    (folder / "config.json").unlink()
    open_trained(folder)  # weights alone are whole
