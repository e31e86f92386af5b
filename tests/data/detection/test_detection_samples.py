"""Samples of the detection data set: the same everywhere, different in every epoch, and mapped back to the file."""

import hashlib
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.coloured import draw, extent, labels_of
from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject, Polygons
from visionlora.data.augmentations import STRENGTHS
from visionlora.data.detection.dataset import DetectionDataset, collate
from visionlora.data.detection.mapping import boxes_to_original, paste_masks
from visionlora.data.detection.transforms import DetectionEvalTransform, DetectionTrainTransform
from visionlora.data.loading import batches, make_loader
from visionlora.errors import InputError

RANDOM_STRENGTHS = [strength for strength in STRENGTHS if strength != "none"]


def picture(seed: int, width: int = 240, height: int = 160) -> tuple[np.ndarray, list[LabelledObject]]:
    drawn = draw(np.random.default_rng(seed), width, height, "ellipse", "polygon")
    return drawn.image, drawn.objects


@pytest.fixture
def data(tmp_path: Path) -> AnnotatedImages:
    """Landscape and portrait; number 3 has no object, and in number 4 one is a crowd."""
    images = []
    for i in range(6):
        width, height = (240, 160) if i % 2 else (150, 260)
        image, objects = picture(i, width, height)
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        if i == 3:
            objects = []
        if i == 4:
            objects[0] = LabelledObject(0, objects[0].box, crowd=True)
        images.append(AnnotatedImage(tmp_path / f"{i}.png", width, height, tuple(objects)))
    return AnnotatedImages(images, list("abcdef"))


def digest(strength: str, seeds: range) -> str:
    transform = DetectionTrainTransform(200, strength, masks=True)
    image, objects = picture(0)
    parts = []
    for seed in seeds:
        tensor, target = transform(image, objects, seed)
        parts += [tensor, *target.values()]
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def same(first: dict, second: dict) -> bool:
    """Whether two samples or batches hold the same numbers."""
    return pickle.dumps(plain(first)) == pickle.dumps(plain(second))


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return (str(value.dtype), value.tolist()) if isinstance(value, torch.Tensor) else value


def test_a_sample_holds_image_target_and_the_way_back(data: AnnotatedImages) -> None:
    sample = DetectionDataset(data, DetectionEvalTransform(130, masks=True), seed=0)[(0, 2)]
    assert sample["image"].dtype == torch.float32
    assert sample["image"].shape == (3, 130, 75)
    assert 0 <= sample["image"].min() < 0.2 < 0.9 < sample["image"].max() <= 1
    n = len(data.images[2].objects)
    assert {name: tuple(part.shape) for name, part in sample["target"].items() if name != "image_id"} == {
        "boxes": (n, 4),
        "labels": (n,),
        "iscrowd": (n,),
        "area": (n,),
        "masks": (n, 130, 75),
    }
    assert sample["target"]["labels"].tolist() == [thing.label for thing in data.images[2].objects]
    assert (sample["index"], sample["target"]["image_id"]) == (2, 2)
    assert (sample["window"].tolist(), sample["original_size"].tolist()) == ([0, 0, 150, 260], [260, 150])


@pytest.mark.parametrize("size", [37, 130, 260, 500])
def test_boxes_and_masks_go_back_to_the_file(data: AnnotatedImages, size: int) -> None:
    dataset = DetectionDataset(data, DetectionEvalTransform(size, masks=True), seed=0)
    for index in range(len(dataset)):
        sample = dataset[(0, index)]
        height, width = sample["image"].shape[1:]
        window = tuple(sample["window"].tolist())
        back = boxes_to_original(sample["target"]["boxes"], width, height, window)
        truth = torch.tensor([thing.box for thing in data.images[index].objects]).reshape(-1, 4)
        torch.testing.assert_close(back, truth.float(), rtol=0, atol=1e-3)
        full_height, full_width = sample["original_size"].tolist()
        masks = paste_masks(sample["target"]["masks"], window, full_width, full_height)
        original = labels_of(np.asarray(Image.open(data.images[index].path)))
        assert masks.shape == (len(truth), *original.shape)
        for label, mask in zip(sample["target"]["labels"].tolist(), masks.numpy(), strict=True):
            if label < len(truth) and not data.images[index].objects[label].crowd:
                drawn = original == label
                limit = 0.97 if size >= 260 else 0.9 if size == 130 else 0.6
                assert (mask & drawn).sum() / (mask | drawn).sum() > limit


def test_no_object_and_crowds(data: AnnotatedImages) -> None:
    train = DetectionDataset(data, DetectionTrainTransform(200, "none"), seed=0)
    val = DetectionDataset(data, DetectionEvalTransform(200), seed=0)
    assert train[(0, 3)]["target"]["boxes"].shape == (0, 4)
    assert train[(0, 3)]["target"]["boxes"].dtype == torch.float32
    assert len(val[(0, 4)]["target"]["boxes"]) == len(train[(0, 4)]["target"]["boxes"]) + 1
    assert val[(0, 4)]["target"]["iscrowd"].tolist()[0] == 1
    assert not train[(0, 4)]["target"]["iscrowd"].any()
    assert "masks" not in val[(0, 4)]["target"]


def test_strength_none_shows_what_evaluation_shows(data: AnnotatedImages) -> None:
    train = DetectionDataset(data, DetectionTrainTransform(200, "none", masks=True), seed=0)
    val = DetectionDataset(data, DetectionEvalTransform(200, masks=True), seed=5)
    assert same(train[(3, 1)], val[(0, 1)])


@pytest.mark.parametrize("strength", RANDOM_STRENGTHS)
def test_a_sample_follows_from_seed_epoch_and_index(data: AnnotatedImages, strength: str) -> None:
    dataset = DetectionDataset(data, DetectionTrainTransform(200, strength, masks=True), seed=1)
    other = DetectionDataset(data, DetectionTrainTransform(200, strength, masks=True), seed=2)
    first = {key: dataset[key] for key in [(0, 1), (1, 1), (0, 2)]}
    copied = pickle.loads(pickle.dumps(dataset))
    for key in reversed(first):
        assert same(dataset[key], first[key])
        assert same(copied[key], first[key])
        assert not torch.equal(other[key]["image"], first[key]["image"])
    assert not torch.equal(first[(0, 1)]["image"], first[(1, 1)]["image"])
    boxes = {str(dataset[(epoch, 1)]["target"]["boxes"].tolist()) for epoch in range(12)}
    assert len(boxes) == 12  # the view changes too, not the colours alone
    assert first[(0, 1)]["image"].shape == first[(1, 1)]["image"].shape == (3, 133, 200)


@pytest.mark.parametrize("strength", RANDOM_STRENGTHS)
def test_augmentation_leaves_its_input_and_global_random_state_alone(strength: str) -> None:
    random.seed(1)
    np.random.seed(1)
    before = (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
    here = digest(strength, range(20))
    assert before == (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
    random.seed(2)
    np.random.seed(2)
    assert digest(strength, range(20)) == here
    image, objects = picture(0)
    transform = DetectionTrainTransform(200, strength, masks=True)
    for seed in range(20):
        transform(image, objects, seed)
    assert np.array_equal(image, picture(0)[0])
    assert objects == picture(0)[1]


def test_another_process_augments_alike() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import test_detection_samples as t; "
        "print(*(t.digest(strength, range(10)) for strength in t.RANDOM_STRENGTHS))"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", code, here, here.parents[1]]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [digest(strength, range(10)) for strength in RANDOM_STRENGTHS]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_equals_the_uninterrupted_one(data: AnnotatedImages, workers: int) -> None:
    dataset = DetectionDataset(data, DetectionTrainTransform(120, "surveillance", masks=True), seed=4)
    whole = batches([4, 2, 0, 2, 3, 1, 5], 5, 2, drop_last=False)
    uninterrupted = list(make_loader(dataset, whole, 0, collate))
    resumed = list(make_loader(dataset, whole[1:], workers, collate))
    assert (len(uninterrupted), len(resumed)) == (4, 3)
    for ours, theirs in zip(resumed, uninterrupted[1:], strict=True):
        assert same(ours, theirs)


def test_a_batch_holds_lists_of_images_and_targets(data: AnnotatedImages) -> None:
    dataset = DetectionDataset(data, DetectionEvalTransform(100), seed=0)
    [batch] = make_loader(dataset, [[(0, 1), (0, 2), (0, 3)]], 0, collate)
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 67, 100), (3, 100, 58), (3, 67, 100)]
    assert [target["image_id"] for target in batch["target"]] == batch["index"].tolist() == [1, 2, 3]
    assert batch["window"].tolist() == [[0, 0, 240, 160], [0, 0, 150, 260], [0, 0, 240, 160]]
    assert batch["original_size"].tolist() == [[160, 240], [260, 150], [160, 240]]


@pytest.mark.parametrize("kind", ["exif", "palette", "sixteen", "grey"])
def test_any_image_that_can_be_read_has_its_boxes_in_place(tmp_path: Path, kind: str) -> None:
    pixels = np.full((90, 140, 3), 40, np.uint8)
    pixels[20:50, 60:100] = 255
    image, path = Image.fromarray(pixels), tmp_path / "picture.png"
    if kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6  # stored on its side
        image = image.transpose(Image.Transpose.ROTATE_90)
        image.save(path, exif=exif)
    elif kind == "palette":
        image.quantize(8).save(path)
    elif kind == "sixteen":
        Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(path)
    else:
        image.convert("L").save(path)
    box = (60.0, 20.0, 100.0, 50.0)
    mask = Polygons(((60, 20, 100, 20, 100, 50, 60, 50),))
    data = AnnotatedImages([AnnotatedImage(path, 140, 90, (LabelledObject(0, box, mask),))], ["a"])
    for transform in (DetectionEvalTransform(70, masks=True), DetectionTrainTransform(70, "none", masks=True)):
        sample = DetectionDataset(data, transform, seed=0)[(0, 0)]
        bright = (sample["image"] > 0.6).all(dim=0).numpy()
        assert sample["target"]["boxes"].tolist() == [extent(bright)] == [[30, 10, 50, 25]]
        assert np.array_equal(sample["target"]["masks"][0].bool(), bright)


@pytest.mark.parametrize("shape", [(1, 70), (70, 1), (1, 1), (3, 500), (5, 5)])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_slivers_of_images_are_augmented_too(shape: tuple[int, int], strength: str) -> None:
    height, width = shape
    objects = [LabelledObject(0, (0, 0, width, height), Polygons(((0, 0, width, 0, width, height, 0, height),)))]
    transform = DetectionTrainTransform(32, strength, masks=True)
    for seed in range(30):
        tensor, target = transform(np.full((*shape, 3), 200, np.uint8), objects, seed)
        assert tensor.shape[1:] == target["masks"].shape[1:]
        assert max(tensor.shape[1:]) == 32


def test_a_file_that_is_not_as_annotated_is_refused(data: AnnotatedImages) -> None:
    Image.new("RGB", (100, 50)).save(data.images[2].path)
    with pytest.raises(InputError, match=r"2\.png: has 100 x 50 pixels, but was annotated with 150 x 260"):
        DetectionDataset(data, DetectionEvalTransform(64), seed=0)[(0, 2)]


def test_a_missing_mask_is_refused_by_name(data: AnnotatedImages) -> None:
    box = LabelledObject(0, (0, 0, 9, 9), source="annotation 17")
    image = AnnotatedImage(data.images[0].path, 150, 260, (box,))
    boxes = AnnotatedImages([*data.images, image], data.classes)
    with pytest.raises(InputError, match=r"0\.png, annotation 17: an object has no mask"):
        DetectionDataset(boxes, DetectionTrainTransform(64, masks=True), seed=0)
    DetectionDataset(boxes, DetectionTrainTransform(64), seed=0)


@pytest.mark.parametrize("size", [1, 0, -3])
def test_sizes_that_cannot_be_are_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"is to be {size} px"):
        DetectionEvalTransform(size)
    with pytest.raises(InputError, match=f"is to be {size} px"):
        DetectionTrainTransform(size)


def test_an_unknown_strength_is_refused() -> None:
    with pytest.raises(InputError, match=r"'lihgt' \(did you mean 'light'\?\)"):
        DetectionTrainTransform(64, "lihgt")
