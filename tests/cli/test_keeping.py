"""Runs that add classes to those of a base, which go on as they were."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.foreign import rewrite
from helpers.new_classes import NEW, keeping, make_base, make_new
from helpers.runs import COLOURS, make_config, make_images
from helpers.squares import Command
from visionlora.adapters.header import read_header
from visionlora.data.classification.transforms import eval_transform
from visionlora.data.images import read_image
from visionlora.errors import InputError
from visionlora.exports.opening import open_trained
from visionlora.models.extended import Extended
from visionlora.models.joined_outputs import JoinLogits
from visionlora.tasks.about import Keeps, Rule
from visionlora.tasks.extending import likeness_of
from visionlora.tasks.registry import task_of
from visionlora.tasks.together import old_and_new
from visionlora.tasks.trained import ADAPTER, load_trained, write_plain
from visionlora.training.concluding import Result
from visionlora.training.folder import REPORT
from visionlora.training.run import train

OLD = sorted(COLOURS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keeping")


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return make_base(folder)


@pytest.fixture(scope="module")
def new(folder: Path) -> Path:
    return make_new(folder / "new")


@pytest.fixture(scope="module")
def finished(base: Path, new: Path, folder: Path) -> tuple[Result, str]:
    """A run, and what it showed. Not to be changed."""
    screen = StringIO()
    return train(keeping(new, base, folder / "run"), console=Console(file=screen, width=200)), screen.getvalue()


def rule_of(result: Result) -> Rule:
    """The one in the run's file."""
    return Keeps.model_validate(read_header(result.folder / ADAPTER).extra["keeps"]).rule


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_old_logits_are_the_bases_and_new_ones_the_adapters(
    finished: tuple[Result, str], base: Path, pictures: Tensor
) -> None:
    result, shown = finished
    trained, alone = load_trained(result.folder), load_trained(result.folder, alone=True)
    known = load_trained(base)
    assert trained.classes == [*OLD, *sorted(NEW)] and alone.classes == sorted(NEW)
    assert old_and_new(trained) == (OLD, sorted(NEW))
    found = trained.model(pictures)
    assert torch.equal(found[:, :3], known.model(pictures))
    assert result.kept is not None and result.kept.compared == 8
    rule = rule_of(result)
    assert rule.means is not None and len(rule.means) == 3 and result.kept.rule["least"] == rule.least
    join = JoinLogits({"new": rule.shift}, likeness=likeness_of({"new": rule}))
    assert torch.equal(found, join(known.model(pictures), {"new": alone.model(pictures)}))
    assert torch.equal(load_trained(result.folder, base=True).model(pictures), known.model(pictures))
    assert "with the base's 3 classes beside the 2 new" in shown and "bit for bit, on 8 images" in shown


def test_the_report_knows_both_sets_of_classes(finished: tuple[Result, str]) -> None:
    result, _ = finished
    report = json.loads((result.folder / REPORT).read_text())
    assert report["kept"]["old"] == 3 and report["kept"]["new"] == 2
    assert report["scores"]["top1"] > 0.8 and list(report["per_class"]) == sorted(NEW)
    # Nine of ten images of a new class are answered by a new one, by the rule; which of them, the adapter says.
    assert report["kept"]["scores"]["top1"] >= report["scores"]["top1"] - 0.15
    assert report["kept"]["groups"]["old"] == {} and report["kept"]["groups"]["new"]["recall"] > 0.6


def test_eval_scores_old_and_new_and_both(
    finished: tuple[Result, str], new: Path, folder: Path, visionlora: Command
) -> None:
    result, _ = finished
    assert "new: mean of those of 2" in visionlora("eval", result.folder).out
    everything = make_images(folder / "everything", train=1)
    for name in NEW:
        (everything / "val" / name).symlink_to(new / "val" / name)
    out = folder / "eval.json"
    shown = visionlora("eval", result.folder, f"data.root={everything}", "--part", "val", "--out", out).out
    assert "old: mean of those of 3" in shown and "blue" in shown and "yellow" in shown
    groups = json.loads(out.read_text())["groups"]
    confusion = torch.tensor(json.loads(out.read_text())["confusion"]).float()
    recall = confusion.diagonal() / confusion.sum(1)
    assert groups["old"]["recall"] == pytest.approx(recall[:3].mean().item())
    assert groups["new"]["recall"] == pytest.approx(recall[3:].mean().item())
    old = visionlora("eval", result.folder, f"data.root={everything}", "--part", "val", "--base")
    assert old.code == 2 and "is not among the training classes" in old.err  # the base alone knows no new ones


def test_retain_says_what_is_answered_on_the_bases_images(
    finished: tuple[Result, str], base: Path, folder: Path, visionlora: Command
) -> None:
    result, _ = finished
    old = make_images(folder / "retained", train=1) / "val"
    out = folder / "answers"
    outcome = visionlora("eval", result.folder, "--retain", old, "--retain-out", out)
    assert not outcome.code, outcome.err
    found = json.loads((out / "retained.json").read_text())
    transform = eval_transform(load_trained(base).preprocessing)
    images = torch.stack([transform(read_image(path)) for path in sorted(old.rglob("*.png"))])
    truth = torch.arange(3).repeat_interleave(4)
    with torch.no_grad():
        said, says = (load_trained(path).model(images).argmax(1) for path in (base, result.folder))
    expected = {"images": 12, "base": (said == truth), "now": (says == truth), "agreement": (said == says)}
    shares = {key: value if key == "images" else value.float().mean().item() for key, value in expected.items()}
    assert found == pytest.approx({**shares, "taken": (says > 2).float().mean().item()})
    assert "agreement with the base" in outcome.out
    refused = visionlora("eval", result.folder, "--retain", old, "--retain-at-least", 0.9, "--retain-out", folder / "n")
    assert refused.code == 2 and "the base's classes are kept beside it" in refused.err


def test_predict_names_both(finished: tuple[Result, str], new: Path, folder: Path, visionlora: Command) -> None:
    result, _ = finished
    out = folder / "found.json"
    assert not visionlora("predict", result.folder, new / "val", "--out", out, "--top", 5).code
    labels = [{name for name, _ in entry["labels"]} for entry in json.loads(out.read_text())]
    assert labels and all(found == {*OLD, *NEW} for found in labels)


@pytest.mark.parametrize("form", ["torchvision", "onnx"])
def test_one_exported_file_holds_all(
    form: str, finished: tuple[Result, str], folder: Path, pictures: Tensor, visionlora: Command
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    result, _ = finished
    out = folder / form
    exported = visionlora("export", result.folder, "--to", form, "--out", out, "--rounds", 1)
    assert not exported.code, exported.err
    card = (out / "README.md").read_text()
    assert "3 of the base, whose outputs are the base's own" in card and "2 new" in card
    found = open_trained(out)
    assert found.classes == [*OLD, *sorted(NEW)] and old_and_new(found) == (OLD, sorted(NEW))
    with torch.no_grad():
        expected = load_trained(result.folder).model(pictures)
        torch.testing.assert_close(found.model(pictures), expected, rtol=1e-3, atol=1e-3)
        if form == "torchvision":
            assert torch.equal(found.model(pictures), expected) and isinstance(found.model, Extended)
            size = (out / "model.safetensors").stat().st_size
            own = sum(tensor.nbytes for tensor in load_file(out / "model.safetensors").values())
            assert size < own + 100_000


def test_a_third_set_goes_on_top_and_one_is_taken_off(
    finished: tuple[Result, str], base: Path, folder: Path, pictures: Tensor, visionlora: Command
) -> None:
    first, _ = finished
    more = make_new(folder / "more", {"black": (10, 10, 10), "white": (250, 250, 250)})
    second = train(keeping(more, base, folder / "second", epochs=2), quiet=True)
    both, less = folder / "both.safetensors", folder / "less.safetensors"
    assert not visionlora("merge", first.folder, "--with", second.folder, "--out", both).code
    assert not visionlora("merge", both, "--without", "run", "--out", less).code
    one, two, all_, left = (load_trained(path) for path in (first.folder, second.folder, both, less))
    assert all_.classes == [*one.classes, "black", "white"] and left.classes == two.classes
    with torch.no_grad():
        found = [trained.model(pictures) for trained in (one, two, all_, left)]
    assert torch.equal(found[2], torch.cat([found[0], found[1][:, 3:]], dim=1)) and torch.equal(found[3], found[1])
    damaged = rewrite(both, folder / "damaged.safetensors", classes=[*all_.classes[:-1], "another"])
    with pytest.raises(InputError, match="its classes are not those of its models together"):
        load_trained(damaged)
    assert visionlora("merge", less, "--without", "second", "--out", folder / "none.safetensors").code == 2
    assert visionlora("merge", first.folder, "--with", first.folder, "--out", folder / "no.safetensors").code == 2


def test_one_model_learns_old_classes_from_the_bases_answers(base: Path, new: Path, folder: Path) -> None:
    result = train(keeping(new, base, folder / "distilled", "distill", epochs=8), quiet=True)
    trained, known = load_trained(result.folder), load_trained(base)
    assert trained.classes == [*OLD, *sorted(NEW)] and not isinstance(trained.model, Extended)
    assert old_and_new(trained) == (OLD, sorted(NEW)) and result.scores["top1"] > 0.7
    # The teacher's answers on the same images, counted here.
    transform = eval_transform(trained.preprocessing)
    images = torch.stack([transform(read_image(path)) for path in sorted((new / "val").rglob("*.png"))])
    with torch.no_grad():
        said, now = known.model(images).argmax(1), trained.model(images)[:, :3].argmax(1)
    assert result.kept is not None and result.kept.agreement == pytest.approx((said == now).float().mean().item())
    assert "of what the base says of its 3 classes" in str(result.kept)
    # Before the first step its old rows are the base's, and so are their logits.
    setup = task_of("classification").set_up(keeping(new, base, folder / "x", "distill"))
    with torch.no_grad():
        model = setup.built.model.eval()
        torch.testing.assert_close(model(images)[:, :3], known.model(images), rtol=1e-5, atol=1e-5)
        batch = {"image": images[:2], "target": torch.tensor([3, 4])}
        loss = setup.training.loss(model, batch)
        assert setup.training.loss_parts["base"] < 1e-10
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(model(images[:2]), batch["target"]))
        model.fc.bias += torch.tensor([1.0, -1, 1, 0, 0])
        setup.training.loss(model, batch)
        assert setup.training.loss_parts["base"].item() == pytest.approx(1.0, abs=1e-5)


def test_a_class_of_an_old_ones_name_is_that_class_where_asked(base: Path, folder: Path, pictures: Tensor) -> None:
    both = make_new(folder / "also_red", {"grey": (128, 128, 128), "red": (200, 50, 40)}, 2, 2)
    config = keeping(both, base, folder / "merged", epochs=1)
    asked = config.model_copy(update={"train": config.train.model_copy(update={"merge_classes": True})})
    result = train(asked, quiet=True)
    trained, alone, known = load_trained(result.folder), load_trained(result.folder, alone=True), load_trained(base)
    assert trained.classes == [*OLD, "grey"] and result.kept is not None and not result.kept.compared
    with torch.no_grad():
        found, old, new = (one.model(pictures) for one in (trained, known, alone))
    rule = rule_of(result)
    join = JoinLogits({"new": rule.shift}, likeness=likeness_of({"new": rule}))
    new = join(old, {"new": new})[:, 3:]
    assert torch.equal(found[:, :2], old[:, :2]) and torch.equal(found[:, 3], new[:, 0])
    assert torch.equal(found[:, 2], torch.maximum(old[:, 2], new[:, 1]))


def test_what_can_not_be_kept_is_refused_in_one_line(
    finished: tuple[Result, str], base: Path, new: Path, folder: Path
) -> None:
    def refused(match: str, config: object) -> None:
        with pytest.raises(InputError, match=match) as caught:
            train(config, quiet=True)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    result, _ = finished
    same = make_new(folder / "same", {"grey": (128, 128, 128), "red": (200, 50, 40)}, 2, 2)
    refused("data: red is a class already without it; give the new one another", keeping(same, base, folder / "x"))
    headless = folder / "headless.safetensors"
    save_file({key: value for key, value in load_file(base).items() if not key.startswith("fc.")}, headless)
    refused("holds no head, so there are no classes of it to keep", keeping(new, headless, folder / "x"))
    refused("model test_resnet: holds no head", make_config(new, folder / "x", keep_classes=True))
    refused("is an adapter and no base; merge it first", keeping(new, result.folder / ADAPTER, folder / "x"))
    full = keeping(new, base, folder / "x")
    full = full.model_copy(update={"train": full.train.model_copy(update={"method": "full"})})
    refused("needs a frozen base, and train.method=full changes it", full)
    assert not (folder / "x").exists()


def test_a_base_that_is_not_the_one_of_then_is_refused(finished: tuple[Result, str], base: Path, folder: Path) -> None:
    result, _ = finished
    known = load_trained(base)
    shown = known.preprocessing.to_dict()

    def another(name: str, classes: list[str]) -> Path:
        path = folder / f"{name}.safetensors"
        write_plain(known.model, path, classes, shown, known.about)
        return path

    with pytest.raises(InputError, match="its base has its classes in another order: red, green, blue, not blue"):
        load_trained(result.folder, another("order", OLD[::-1]))
    with pytest.raises(InputError, match="its base has other classes"):
        load_trained(result.folder, another("others", ["a", "b", "c"]))
    with torch.no_grad():
        known.model.fc.weight[0] += 1  # type: ignore[union-attr,operator,index]
    with pytest.raises(InputError, match="its base has another head than when it was trained"):
        load_trained(result.folder, another("head", OLD))
    with torch.no_grad():
        known.model.conv1[0].weight += 1  # type: ignore[union-attr,operator,index]
    with pytest.raises(InputError, match="conv1"):
        load_trained(result.folder, another("body", OLD))
