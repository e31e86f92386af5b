"""Every command, from a config to numbers, predictions and a plain model."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.squares import Command, write_config
from visionlora.config import load_config
from visionlora.data.classification.transforms import eval_transform
from visionlora.data.images import read_image
from visionlora.models.classifier import create_classifier, creation_code
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.trained import load_trained, read_metadata

CLASSES = ["blue", "green", "red"]


def report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text())  # type: ignore[no-any-return]


def test_a_run_leaves_everything_in_its_folder(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "adapter.safetensors",
        "checkpoints",
        "config.yaml",
        "figures",
        "metrics.jsonl",
        "report.json",
        "tensorboard",
    }
    assert load_config(trained / "config.yaml").model.name == "test_resnet"
    assert report(trained)["scores"].keys() == {"top1", "macro_f1", "calibration_error", "loss"}
    assert np.sum(report(trained)["confusion"]) == 9


def test_training_says_what_it_does(visionlora: Command, config: Path, tmp_path: Path) -> None:
    outcome = visionlora("train", "--config", config)
    assert (outcome.code, outcome.err) == (0, "")
    assert "test_resnet on 18 images of 3 classes, 9 to validate" in outcome.out
    assert "parameters train (" in outcome.out
    assert "epoch 1/1  top1" in outcome.out
    assert f"all of it is in {tmp_path / 'run'}" in outcome.out


def test_a_shipped_config_is_found_by_name(visionlora: Command, tmp_path: Path) -> None:
    outcome = visionlora("train", "--config", "classification_vit_tiny", f"data.root={tmp_path}/none")
    assert (outcome.code, outcome.err.count("no such folder")) == (2, 1)


def test_evaluating_a_run_gives_the_scores_of_its_report(visionlora: Command, trained: Path, tmp_path: Path) -> None:
    outcome = visionlora("eval", trained, "--out", tmp_path / "scores.json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["images"] == 9
    assert found["scores"] == pytest.approx(report(trained)["scores"], abs=1e-6)
    assert found["per_class"].keys() == set(CLASSES)
    assert found["confusion"] == report(trained)["confusion"]
    assert f"{found['scores']['top1']:.4f}" in outcome.out
    for name in CLASSES:
        assert re.search(rf"{name} +3 ", outcome.out)


def test_another_part_and_other_data_can_be_evaluated(
    visionlora: Command, trained: Path, squares: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    assert visionlora("eval", trained, "--part", "train", "--out", out).code == 0
    assert json.loads(out.read_text())["images"] == 18
    shutil.copytree(squares / "val" / "red", tmp_path / "site" / "red")
    assert visionlora("eval", trained, f"data.root={tmp_path}", "--part", "site", "--out", out).code == 0
    found = json.loads(out.read_text())
    assert found["images"] == 3
    assert sum(found["confusion"][CLASSES.index("red")]) == 3


def test_an_adapters_file_alone_is_enough(visionlora: Command, trained: Path, squares: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "camera.safetensors"
    shutil.copy(trained / "adapter.safetensors", adapter)
    out = tmp_path / "scores.json"
    assert visionlora("eval", adapter, f"data.root={squares}", "data.workers=0", "--out", out).code == 0
    assert json.loads(out.read_text())["scores"] == pytest.approx(report(trained)["scores"], abs=1e-6)
    assert visionlora("predict", adapter, squares / "val").code == 0


def test_a_validation_part_split_off_at_random_is_found_again(
    visionlora: Command, squares: Path, config: Path, tmp_path: Path
) -> None:
    arguments = ("--config", config, f"data.root={squares / 'train'}", "data.val_fraction=0.4", "train.seed=3")
    assert visionlora("train", *arguments).code == 0
    assert visionlora("eval", tmp_path / "run", "--out", tmp_path / "scores.json").code == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["images"] == 6
    assert found["scores"] == pytest.approx(report(tmp_path / "run")["scores"], abs=1e-6)


def test_predictions_are_those_of_the_model(visionlora: Command, trained: Path, squares: Path, tmp_path: Path) -> None:
    image = squares / "val" / "red" / "0.png"
    outcome = visionlora("predict", trained, image, "--top", 2, "--out", tmp_path / "found.json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [entry["image"] for entry in found] == [str(image)]
    loaded = load_trained(trained)
    with torch.no_grad():
        scores = loaded.model(eval_transform(loaded.preprocessing)(read_image(image)).unsqueeze(0)).softmax(dim=1)[0]
    best = scores.topk(2)
    assert [name for name, _ in found[0]["labels"]] == [CLASSES[index] for index in best.indices]
    assert [value for _, value in found[0]["labels"]] == pytest.approx(best.values.tolist(), abs=1e-6)
    assert f"{found[0]['labels'][0][0]} {found[0]['labels'][0][1]:.3f}" in outcome.out


@pytest.mark.parametrize(("command", "module"), [("eval", "evaluate"), ("predict", "predict")])
def test_memory_that_an_image_frees_is_kept_for_the_next(
    visionlora: Command, trained: Path, squares: Path, command: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, during = [False], list[bool]()

    @contextmanager
    def noted(device: torch.device, memory: str = "fast") -> Iterator[None]:
        assert (device.type, memory) == ("cpu", "fast")
        kept.append(True)
        yield
        kept.append(False)

    monkeypatch.setattr(f"visionlora.cli.{module}.freed_memory_kept", noted)
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: during.append(kept[-1]))
    images = [squares / "val"] if command == "predict" else []
    try:
        assert visionlora(command, trained, *images, "--device", "cpu").code == 0
    finally:
        hook.remove()
    assert during[-1] and kept == [False, True, False]


def test_folders_and_files_are_predicted_in_order(
    visionlora: Command, trained: Path, squares: Path, tmp_path: Path
) -> None:
    single = squares / "train" / "blue" / "5.png"
    assert visionlora("predict", trained, single, squares / "val", "--out", tmp_path / "found.json").code == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [entry["image"] for entry in found] == [str(single), *map(str, sorted((squares / "val").rglob("*.png")))]
    assert all(len(entry["labels"]) == 3 for entry in found)


def test_of_many_predictions_the_first_are_shown(
    visionlora: Command, trained: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # the folder's name is long
    for index in range(45):
        shutil.copy(squares / "val" / "red" / "0.png", tmp_path / f"{index:02}.png")
    outcome = visionlora("predict", trained, tmp_path)
    assert "39.png" in outcome.out
    assert "40.png" not in outcome.out
    assert "and 5 more; --out FILE writes them all" in outcome.out


def test_names_with_brackets_are_shown_as_they_are(
    visionlora: Command, trained: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("[red].png", "[/red].png", ":car:.png")
    Path("[").mkdir()
    for name in names:
        shutil.copy(squares / "val" / "red" / "0.png", name)
    outcome = visionlora("predict", trained, ".")
    assert outcome.code == 0
    assert all(name in outcome.out for name in names)


def plain_logits(code: str, image: Path, cwd: Path) -> list[float]:
    """What the printed lines and a few more give in a process that never saw visionlora."""
    script = f"""
import json, sys
import torch
{code}
image = torch.load({str(image)!r})
print(json.dumps(model.eval()(image)[0].tolist()))
assert not [name for name in sys.modules if name.startswith("visionlora")]
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=cwd)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_merged_model_runs_without_visionlora(visionlora: Command, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "it's merged.safetensors"
    outcome = visionlora("merge", trained, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    code = outcome.out[outcome.out.index("import ") :]
    image = torch.randn(1, 3, 32, 32)
    torch.save(image, tmp_path / "image.pth")
    with torch.no_grad():
        expected = load_trained(trained, merged=False).model.eval()(image)[0]
    assert torch.allclose(torch.tensor(plain_logits(code, tmp_path / "image.pth", tmp_path)), expected, atol=1e-5)
    with safe_open(out, framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == CLASSES


def test_a_merged_model_has_the_plain_models_tensors(visionlora: Command, trained: Path, tmp_path: Path) -> None:
    assert visionlora("merge", trained, "--out", tmp_path / "m.safetensors").code == 0
    merged, plain = load_file(tmp_path / "m.safetensors"), timm.create_model("test_resnet", num_classes=3).state_dict()
    assert {key: (t.shape, t.dtype) for key, t in merged.items()} == {k: (t.shape, t.dtype) for k, t in plain.items()}


def test_merging_replaces_a_file_only_when_told(visionlora: Command, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    out.write_text("precious")
    refused = visionlora("merge", trained, "--out", out)
    assert (refused.code, out.read_text()) == (2, "precious")
    assert "--overwrite" in refused.err
    assert visionlora("merge", trained, "--out", out, "--overwrite").code == 0
    assert load_file(out)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_resnet", (32, 32)),
        ("test_vit", (160, 160)),
        ("test_vit", (32, 48)),
        ("torchvision/shufflenet_v2_x0_5", (64, 64)),
        ("torchvision/googlenet", (64, 64)),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_the_lines_that_merge_prints_create_the_same_architecture(name: str, size: tuple[int, int]) -> None:
    scope: dict[str, Any] = {}
    exec(creation_code(name, 3, size), scope)
    created = create_classifier(name, 3, pretrained=False, img_size=size)
    scope["model"].load_state_dict(created.model.state_dict(), strict=True)


def test_inspecting_shows_layers_and_cost(visionlora: Command) -> None:
    outcome = visionlora("inspect", "test_vit", "--targets", "attn.qkv", "--rank", 2, "--classes", 7)
    assert (outcome.code, outcome.err) == (0, "")
    total = sum(parameter.numel() for parameter in timm.create_model("test_vit", num_classes=7).parameters())
    assert f"test_vit: {total:,} parameters" in outcome.out
    assert "images of 160 x 160" in outcome.out
    row = next(line for line in outcome.out.splitlines() if line.startswith("blocks.*.attn.qkv"))
    assert row.split()[2] == "6"
    assert row.split()[-2:] == ["2", f"{6 * 2 * (192 + 64):,}"]
    assert "mlp.fc1" in outcome.out  # among those left out


def test_inspecting_counts_what_training_would_cost(visionlora: Command) -> None:
    outcome = visionlora("inspect", "test_resnet", "--size", 32, "--layers", "--trial", "0.01s", "--images", 1600)
    assert (outcome.code, outcome.err) == (0, "")
    for words in ("GFLOP forward", "full fine-tuning", "layer4.*.conv1", "minutes for 1,600 images"):
        assert words in outcome.out
    assert "GFLOP" not in visionlora("inspect", "test_resnet").out
    refused = visionlora("inspect", "test_resnet", "--trial", "20")
    assert (refused.code, refused.err) == (2, "error: --trial 20: give a time, such as 20s\n")


def test_inspecting_an_adapter_shows_what_is_new_in_it(visionlora: Command, trained: Path) -> None:
    outcome = visionlora("inspect", trained, "--directions")
    assert (outcome.code, outcome.err) == (0, "")
    adapted = len(json.loads(read_metadata(trained / "adapter.safetensors")["layers"]))
    rows = [line.split() for line in outcome.out.splitlines() if re.search(r"\d x \d", line)]
    shares = [float(row[-3]) for row in rows]
    assert len(shares) == adapted and all(0 <= share <= 1 for share in shares) and max(shares) > 0
    missing = visionlora("inspect", "test_vit", "--directions")
    assert missing.code == 2 and "test_vit: no such file or run folder" in missing.err


def test_inspecting_counts_what_new_classes_beside_the_bases_cost(visionlora: Command) -> None:
    lines = visionlora("inspect", "test_resnet", "--size", 32, "--extended").out.splitlines()
    ratios = [float(line.split()[-1]) for line in lines if line.startswith("lora.from=")]
    stages = [line.split()[0] for line in lines if line.startswith("lora.from=")]
    assert stages == [f"lora.from={name}" for name in ("conv1", "layer1", "layer2", "layer3", "layer4")]
    assert ratios[0] == 2 and sorted(ratios, reverse=True) == ratios and ratios[-1] > 1


@pytest.mark.parametrize("command", ["", "train", "eval", "predict", "merge", "inspect", "compare", "demo"])
def test_every_command_explains_itself(visionlora: Command, command: str) -> None:
    outcome = visionlora(*[command] if command else [], "--help")
    assert outcome.code == 0
    assert "Usage: visionlora" in outcome.out


@pytest.mark.parametrize(("method", "file"), [("head", "adapter.safetensors"), ("full", "model.safetensors")])
def test_other_methods_go_from_end_to_end(
    visionlora: Command, config: Path, squares: Path, tmp_path: Path, method: str, file: str
) -> None:
    run = tmp_path / "run"
    assert visionlora("train", "--config", config, f"train.method={method}").code == 0
    assert (run / file).is_file()
    assert visionlora("eval", run, "--out", tmp_path / "scores.json").code == 0
    found = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert found == pytest.approx(report(run)["scores"], abs=1e-6)
    assert visionlora("predict", run, squares / "val" / "red").code == 0
    assert visionlora("merge", run, "--out", tmp_path / "m.safetensors").code == 0
    plain = timm.create_model("test_resnet", num_classes=3)
    plain.load_state_dict(load_file(tmp_path / "m.safetensors"))
    trains = plain.fc if method == "head" else plain
    assert report(run)["trainable"] == sum(parameter.numel() for parameter in trains.parameters())
    assert load_file(run / file).keys() == ({"fc.weight", "fc.bias"} if method == "head" else plain.state_dict().keys())


def write_table(squares: Path, path: Path, multilabel: bool) -> None:
    lines = ["path,label,split"]
    for image in sorted(squares.rglob("*.png")):
        part, name = image.relative_to(squares).parts[:2]
        label = name
        if multilabel:
            label = {"red": "red|warm", "green": "green", "blue": ""}[name]
        lines.append(f"{image.relative_to(squares)},{label},{part}")
    path.write_text("\n".join(lines))


def test_a_table_goes_from_end_to_end(visionlora: Command, config: Path, squares: Path, tmp_path: Path) -> None:
    write_table(squares, tmp_path / "table.csv", multilabel=False)
    assert visionlora("train", "--config", config, f"data.csv={tmp_path / 'table.csv'}").code == 0
    assert visionlora("eval", tmp_path / "run", "--out", tmp_path / "scores.json").code == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["scores"] == pytest.approx(report(tmp_path / "run")["scores"], abs=1e-6)
    assert found["images"] == 9
    assert visionlora("eval", tmp_path / "run", "--part", "train").code == 0


def test_several_labels_go_from_end_to_end(visionlora: Command, config: Path, squares: Path, tmp_path: Path) -> None:
    write_table(squares, tmp_path / "table.csv", multilabel=True)
    settings = (f"data.csv={tmp_path / 'table.csv'}", "data.multilabel=true", "data.balanced=true")
    assert visionlora("train", "--config", config, *settings).code == 0
    scores = report(tmp_path / "run")["scores"]
    assert scores.keys() == {"mAP", "macro_f1", "micro_f1", "exact_match", "loss"}
    assert visionlora("eval", tmp_path / "run", "--out", tmp_path / "scores.json").code == 0
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == pytest.approx(scores, abs=1e-6)
    image = squares / "val" / "red" / "0.png"
    assert visionlora("predict", tmp_path / "run", image, "--out", tmp_path / "found.json").code == 0
    labels = dict(json.loads((tmp_path / "found.json").read_text())[0]["labels"])
    assert labels.keys() == {"red", "green", "warm"}
    assert sum(labels.values()) != pytest.approx(1.0, abs=1e-3)
    assert visionlora("eval", tmp_path / "run", "data.multilabel=false").code == 2


def test_mixing_balance_accumulation_and_precision_work_together(visionlora: Command, config: Path) -> None:
    settings = ("train.mixup=0.2", "train.cutmix=1", "train.accumulate=2", "data.balanced=true", "data.augment=strong")
    assert (
        visionlora("train", "--config", config, *settings, "train.autocast=bf16", "train.channels_last=true").code == 0
    )


@pytest.fixture
def damaged(squares: Path, tmp_path: Path) -> Path:
    """The squares with one training and one validation image that can't be read."""
    root = tmp_path / "damaged"
    shutil.copytree(squares, root)
    (root / "train" / "red" / "0.png").write_bytes(b"nothing")
    whole = (root / "val" / "blue" / "1.png").read_bytes()
    (root / "val" / "blue" / "1.png").write_bytes(whole[:60])
    return root


def test_unreadable_images_are_left_out_and_named_when_told(visionlora: Command, damaged: Path, tmp_path: Path) -> None:
    bad = [str(damaged / "train" / "red" / "0.png"), str(damaged / "val" / "blue" / "1.png")]
    config, run = write_config(tmp_path, damaged), tmp_path / "run"
    trained = visionlora("train", "--config", config, "data.skip_unreadable=true")
    assert trained.code == 0
    assert (
        f"17 images of 3 classes, 8 to validate\nleft out because they can't be read: {', '.join(bad)}" in trained.out
    )
    assert report(run)["skipped"] == bad
    evaluated = visionlora("eval", run, "--out", tmp_path / "scores.json")
    assert f"left out because they can't be read: {', '.join(bad)}" in evaluated.out
    assert json.loads((tmp_path / "scores.json").read_text())["images"] == 8
    for command in (("eval", run, "data.skip_unreadable=false"), ("predict", run, damaged / "val")):
        refused = visionlora(*command)
        assert refused.code == 2
        assert bad[1] in refused.err
        assert "--skip-unreadable" in refused.err
        accepted = visionlora(*command, "--skip-unreadable")
        assert accepted.code == 0
        assert bad[1] in accepted.out.replace("\n", "")
    assert "no image is left" in visionlora("predict", run, bad[1], "--skip-unreadable").err


def test_single_faults_are_left_out_and_told_when_asked(visionlora: Command, damaged: Path, tmp_path: Path) -> None:
    (damaged / "train" / "violet").mkdir()
    config, run = write_config(tmp_path, damaged), tmp_path / "run"
    refused = visionlora("train", "--config", config)
    assert (refused.code, "class 'violet' has no image" in refused.err) == (2, True)
    trained = visionlora("train", "--config", config, "data.faulty=leave_out")
    assert trained.code == 0
    assert "17 images of 3 classes, 8 to validate\n3 faults of the annotations mended or left out" in trained.out
    assert [line.partition(" -> ")[2] for line in report(run)["faulty"]] == ["left out", *["image left out"] * 2]
    assert report(run)["skipped"] == []
    out = tmp_path / "scores.json"
    for part in ((), ("--part", "val")):
        evaluated = visionlora("eval", run, *part, "--out", out)
        scored = json.loads(out.read_text())
        assert (evaluated.code, scored["images"], scored["skipped"]) == (0, 8, [])
        faults = report(run)["faulty"] if not part else report(run)["faulty"][-1:]
        assert scored["faulty"] == faults
        number = f"{len(faults)} fault{'s' * (len(faults) > 1)} of the annotations mended or left out"
        assert f"{number} (all are in {out}):\n  {faults[0]}\n" in evaluated.out
    assert "(--out FILE lists all):" in visionlora("eval", run).out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_prediction_that_is_stopped_leaves_nothing_half_written(
    visionlora: Command,
    trained: Path,
    squares: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    from visionlora.tasks.classification import task

    before = signal.signal(number, signal.default_int_handler)
    seen: list[list[str]] = []

    def stopped(*given: object, **more: object) -> None:
        seen.append([path.name for path in tmp_path.iterdir()])
        signal.raise_signal(number)

    monkeypatch.setattr(task, "classify", stopped)
    outcome = visionlora("predict", trained, squares / "val", "--out", tmp_path / "found.json")
    assert signal.signal(number, before) is signal.default_int_handler
    assert (outcome.code, f"stopped by {number.name}; what was not finished is not kept" in outcome.err) == (
        128 + number,
        True,
    )
    assert len(seen) == 1 and seen[0][0].startswith(".found.json")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(
    visionlora: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ClassificationTraining.loss

    def interrupted(task: ClassificationTraining, model: torch.nn.Module, batch: dict[str, Any]) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return plain(task, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTraining, "loss", interrupted)
        stopped = visionlora("train", "--config", config)
    assert stopped.code == 130
    assert stopped.err == "stopped at step 1; the same command with --resume goes on\n"
    assert visionlora("eval", tmp_path / "run").code == 2  # nothing to evaluate yet
    resumed = visionlora("train", "--config", config, "--resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert "resumed from step 1" in resumed.out
    assert (tmp_path / "run" / "report.json").is_file()


def test_an_interruption_before_the_training_writes_nothing(
    visionlora: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("visionlora.tasks.classification.task.load_split", interrupted)
    assert visionlora("train", "--config", config).code == 130
    assert not (tmp_path / "run").exists()


def test_a_run_replaces_another_only_when_told(visionlora: Command, config: Path, tmp_path: Path) -> None:
    assert visionlora("train", "--config", config).code == 0
    before = (tmp_path / "run" / "config.yaml").read_text()
    assert visionlora("train", "--config", config, "lora.rank=2").code == 2
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    assert visionlora("train", "--config", config, "lora.rank=2", "--overwrite").code == 0
    assert load_config(tmp_path / "run" / "config.yaml").lora.rank == 2
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


def test_a_base_that_has_moved_is_named_with_the_option(
    visionlora: Command, config: Path, tmp_path: Path, squares: Path
) -> None:
    base, moved, other = (tmp_path / f"{name}.safetensors" for name in ("base", "moved", "other"))
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), base)
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), other)
    assert visionlora("train", "--config", config, f"model.checkpoint={base}").code == 0
    run = tmp_path / "run"
    scores = report(run)["scores"]
    base.rename(moved)
    lost = visionlora("eval", run)
    assert lost.code == 2
    assert str(base) in lost.err
    assert "--checkpoint" in lost.err
    assert visionlora("eval", run, "--checkpoint", moved, "--out", tmp_path / "s.json").code == 0
    assert json.loads((tmp_path / "s.json").read_text())["scores"] == pytest.approx(scores, abs=1e-6)
    wrong = visionlora("predict", run, squares / "val", "--checkpoint", other)
    assert wrong.code == 2
    assert "made on another base" in wrong.err
    assert wrong.err.count("\n") == 1


def test_the_squares_are_what_the_other_tests_take_them_for(squares: Path) -> None:
    assert Image.open(squares / "val" / "red" / "0.png").size == (32, 32)
    assert len(list(squares.rglob("*.png"))) == 27
