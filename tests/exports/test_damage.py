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


@pytest.mark.parametrize(("to", "file"), [("timm", "model.safetensors"), ("onnx", "model.onnx")])
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
