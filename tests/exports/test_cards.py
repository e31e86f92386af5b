"""The README's code runs as it stands, without what it says is not needed, and gives what predict gives."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny_models import MODELS, write_image
from visionlora.data.images import read_image
from visionlora.exports.card import write_card
from visionlora.exports.result import Exported
from visionlora.exports.source import Source, load_source
from visionlora.tasks.classification.inference import classify
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained

Export = Callable[[str, str], Exported]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    # No compression: what decodes it must not matter.
    return write_image(tmp_path / "picture.png", 5, (150, 90))


def code_of(result: Exported, image: Path) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", (result.out / "README.md").read_text(), re.DOTALL)
    assert len([line for line in block.splitlines() if not line.startswith(("import ", "from "))]) <= 9
    return str(block).replace('"image.jpg"', repr(str(image)))


def run_alone(result: Exported, code: str, missing: list[str]) -> str:
    """What the code prints in a fresh interpreter in the folder where some packages can't be imported."""
    block = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in missing)
    done = subprocess.run(
        [sys.executable, "-B", "-c", block + code],
        cwd=result.out,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_timm_folder_needs_timm_alone(exported: Export, adapter: Callable[[str], Path], image: Path) -> None:
    printed = run_alone(exported("resnet", "timm"), code_of(exported("resnet", "timm"), image), ["visionlora"])
    (labels,) = classify(load_trained(adapter("resnet")), [read_image(image)])
    assert printed.strip() == labels[0][0]


@pytest.mark.parametrize(
    ("name", "to"), [("resnet", "onnx"), ("fcos", "onnx"), ("ssdlite", "onnx-heads"), ("unet", "onnx")]
)
def test_an_onnx_file_needs_no_torch(
    name: str, to: str, exported: Export, adapter: Callable[[str], Path], image: Path
) -> None:
    result = exported(name, to)
    answer = "\nimport json\nprint('ANSWER', json.dumps(found if not hasattr(found, 'tolist') else found.tolist()))"
    missing = ["torch", "torchvision", "timm", "visionlora", "onnx", "cv2", "safetensors"]
    printed = run_alone(result, code_of(result, image) + answer, missing)
    found = json.loads(printed.partition("ANSWER")[2])
    trained = load_trained(adapter(name))
    if name == "resnet":
        (labels,) = classify(trained, [read_image(image)])
        assert list(found) == [word for word, _ in labels]
        assert list(found.values()) == pytest.approx([share for _, share in labels], abs=1e-5)
    elif MODELS[name].task == "detection":
        assert_same_detections(found, trained, image)
    else:
        from visionlora.tasks.segmentation.inference import segment

        (expected,) = segment(trained.model, [read_image(image)], trained.preprocessing, torch.device("cpu"))
        # Where two classes are as likely, the last digits decide.
        assert (torch.tensor(found) == torch.tensor(expected)).double().mean() > 0.999


def assert_same_detections(found: list[dict[str, Any]], trained: Any, image: Path) -> None:
    from visionlora.tasks.detection.inference import predict_detections, thresholds_of

    (expected,) = predict_detections(trained, [read_image(image)], thresholds_of(trained), torch.device("cpu"))
    assert len(expected["scores"]) > 2, "too few for a test"
    order = sorted(range(len(found)), key=lambda index: -found[index]["score"])
    assert [found[i]["class"] for i in order] == [trained.classes[label] for label in expected["labels"].tolist()]
    for index, box, score in zip(order, expected["boxes"], expected["scores"], strict=True):
        assert found[index]["score"] == pytest.approx(float(score), abs=1e-4)
        assert found[index]["box"] == pytest.approx(box.tolist(), abs=1e-2)


@pytest.mark.parametrize("name", ["shufflenet", "ssdlite", "lraspp", "fcos"])
def test_plain_weights_need_torchvision_alone(
    name: str,
    exported: Export,
    adapter: Callable[[str], Path],
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result, kind, trained = exported(name, "torchvision"), task_of(MODELS[name].task), load_trained(adapter(name))
    names: dict[str, Any] = {}
    monkeypatch.chdir(result.out)
    if name == "fcos":
        assert "visionlora, which builds this" in Path("README.md").read_text()
    else:
        monkeypatch.setitem(sys.modules, "visionlora", None)
        monkeypatch.setitem(sys.modules, "timm", None)
    exec(code_of(result, image), names)
    seen = kind.to_input(read_image(image), trained.preprocessing)
    with torch.no_grad():
        expected = kind.run(trained.model, seen)
    if MODELS[name].task == "detection":
        assert kind.difference(names["found"], expected, seen, trained.model) <= 1e-4
    else:
        logits = names["logits"].reshape(expected["logits"].shape)
        assert torch.allclose(logits, expected["logits"], atol=1e-3)


def test_a_detector_with_its_librarys_odd_eps_gets_it_from_the_loader(adapter: Callable[[str], Path]) -> None:
    from visionlora.exports import torchvision_folder
    from visionlora.exports.readme_code import run_loader

    trained = load_trained(adapter("ssdlite"))
    tiny = torch.finfo(torch.float32).tiny
    for module in trained.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = tiny
    code = torchvision_folder.loader(Source(trained, None, None)).partition("from safetensors")[0]
    made = [m.eps for m in run_loader(code).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert made
    assert set(made) == {tiny}


def test_the_card_says_where_the_base_is_from_and_no_folder_of_this_machine(
    exported: Export, adapter: Callable[[str], Path]
) -> None:
    for name, to in (("resnet", "timm"), ("resnet", "onnx"), ("fcos", "torchvision")):
        result = exported(name, to)
        card = (result.out / "README.md").read_text()
        assert "base.safetensors" in card
        assert "not known for that file" in card
        assert all(word in card for word in MODELS[name].classes)
        root = str(adapter(name).parent).encode()
        for path in result.out.rglob("*"):
            assert path.is_dir() or root not in path.read_bytes(), path


def test_the_card_of_pretrained_weights_states_their_licence(
    adapter: Callable[[str], Path], exported: Export, tmp_path: Path
) -> None:
    trained = load_trained(adapter("resnet"))
    trained.about["model"].update(checkpoint=None, pretrained=True)
    source = load_source(adapter("resnet"), trained, None)
    write_card(source, "timm", "", "", exported("resnet", "timm"), tmp_path)
    assert "licence: apache-2.0, as timm states it" in (tmp_path / "README.md").read_text()
