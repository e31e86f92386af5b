"""What the frozen part of a model makes of the training images, computed once and kept on disk."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from visionlora.adapters.fingerprint import fingerprint
from visionlora.checksums import file_digest
from visionlora.data.classification.samples import ClassificationDataset
from visionlora.data.classification.transforms import TrainTransform
from visionlora.data.loading import Key, make_loader
from visionlora.errors import InputError
from visionlora.files import write_atomic, write_json
from visionlora.plain_json import read_json
from visionlora.tasks.evaluation import placed
from visionlora.tasks.protocols import Batch, Training
from visionlora.training.cut import IMAGES, Cut, find_cut
from visionlora.training.folder import FEATURES
from visionlora.training.loop import autocast_context
from visionlora.training.state import RunState

_TENSORS, _ABOUT = "features.bin", "features.json"


class CachedTraining(Training):
    """A classifier's training on features: the same images in the same order, and the loss of the model above the cut.

    Args:
        plain: on images.
        images: its samples.
        rows: (images, ...), what stands in the place of each; read from their file when they are used.
        cut: where they come in.
    """

    def __init__(self, plain: Training, images: ClassificationDataset, rows: Tensor, cut: Cut) -> None:
        self.loss_parts = plain.loss_parts
        self._plain, self._cut = plain, cut
        self._samples = _Samples(images, rows)

    def train_batches(self, epoch: int) -> list[list[Key]]:
        """The keys of every batch of an epoch."""
        return self._plain.train_batches(epoch)

    def train_loader(self, batch_list: list[list[Key]]) -> Iterable[Batch]:
        """Features for these batches, as ``image``."""
        return make_loader(self._samples, batch_list, workers=0)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a batch of features, scalar."""
        with self._cut.shown(model):
            return self._plain.loss(model, batch)

    def loss_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """As the plain training has them, of features."""
        with self._cut.shown(model):
            return self._plain.loss_sums(model, batch)

    def loss_of(self, sums: Mapping[str, Tensor]) -> Tensor:
        """As the plain training has it."""
        return self._plain.loss_of(sums)


class _Samples(Dataset[dict[str, Any]]):
    def __init__(self, images: ClassificationDataset, rows: Tensor) -> None:
        self._images, self._rows = images, rows

    def path_of(self, index: int) -> Path:
        return self._images.path_of(index)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        _, index = key
        return {"image": self._rows[index].clone(), "target": self._images.target(index), "index": index}


@dataclass(frozen=True)
class Kept:
    """What a run will keep of its training images.

    Attributes:
        images: as the run trains on them.
        cut: the place.
        shape, dtype: (images, ...) of all rows.
        key: by which they are known again.
    """

    images: ClassificationDataset
    cut: Cut
    shape: tuple[int, ...]
    dtype: torch.dtype
    key: str

    @property
    def size(self) -> int:
        """In bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def to_keep(state: RunState) -> Kept:
    """Find the place to cut at; nothing is written.

    Raises:
        InputError: the run draws its images at random, what is below its adapters is not fixed, there is no place to
            cut at, or the features would take more than ``train.cache_limit`` GB or than the disk has.
    """
    images, model = _fixed_images(state), state.model
    few = [(0, index % len(images)) for index in range(IMAGES)]
    batch = next(iter(make_loader(images, [few], workers=0)))  # which names an image that can't be read
    first = placed(batch, state.device, state.train.channels_last)["image"]
    model.train()
    with autocast_context(state.train, state.device):
        cut = find_cut(model, first)
        one = cut.features(model, first)[0]
    kept = Kept(images, cut, (len(images), *one.shape), one.dtype, _key(state, images, cut, one))
    _refuse_large(state, kept.size)
    return kept


def keep(state: RunState, kept: Kept, say: Callable[[str], None]) -> None:
    """Have the run train on features, which are computed where they are not in its folder."""
    folder, training = state.folder / FEATURES, state.setup.training
    told = f"{kept.size / 1e6:.1f} MB of {len(kept.images)} images in {folder}"
    rows = _read(folder, kept)
    if rows is None:
        say(f"what is below {kept.cut.path} is computed once: {told}")
        _write(state, kept, folder)
        rows = _read(folder, kept)
        assert rows is not None
    else:
        say(f"what is below {kept.cut.path} is there already: {told}")
    state.setup = replace(state.setup, training=CachedTraining(training, kept.images, rows, kept.cut))


def drop_features(folder: Path) -> None:
    """Remove them, when a run has ended."""
    shutil.rmtree(folder / FEATURES, ignore_errors=True)


def _fixed_images(state: RunState) -> ClassificationDataset:
    """The run's training images. InputError unless each is the same in every epoch."""
    images, train = getattr(state.setup.training, "train_set", None), state.train
    where = "train.cache_features: "
    if not isinstance(images, ClassificationDataset):
        raise InputError(f"{where}is for classifiers, and this run is of a {state.task.noun}; leave it out")
    assert isinstance(images.transform, TrainTransform)
    if images.transform.strength != "none":
        raise InputError(
            f"{where}data.augment={images.transform.strength} shows each image otherwise in every epoch; set it to "
            "none, or leave the cache out"
        )
    for name in ("mixup", "cutmix"):
        if getattr(train, name, 0):
            raise InputError(f"{where}train.{name} mixes images at random in every batch; leave one of them out")
    if state.train.compile != "off" or state.train.keep_classes == "distill":
        other = "compile" if state.train.compile != "off" else "keep_classes=distill"
        raise InputError(f"{where}train.{other} runs the model from the image on; leave one of them out")
    if state.processes.several:
        raise InputError(f"{where}is for one process, and there are {state.processes.size}; leave it out")
    return images


def _key(state: RunState, images: ClassificationDataset, cut: Cut, one: Tensor) -> str:
    """By what features are known again: frozen weights, place, transform, image files, precision and program."""
    frozen = {name: fingerprint(p) for name, p in state.model.named_parameters() if not p.requires_grad}
    frozen |= {name: fingerprint(buffer) for name, buffer in state.model.named_buffers()}
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in images.data.paths]
    about = [sorted(frozen.items()), cut.path, state.setup.preprocessing.to_dict(), files, list(one.shape)]
    about += [str(one.dtype), state.device.type, state.train.autocast, torch.__version__]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _refuse_large(state: RunState, size: int) -> None:
    limit, free = state.train.cache_limit * 1e9, shutil.disk_usage(state.folder).free
    if size > min(limit, free):
        what = f"train.cache_limit allows {limit / 1e9:g} GB" if size > limit else f"{free / 1e9:.1f} GB are free"
        raise InputError(
            f"train.cache_features: features of all images take {size / 1e9:.2g} GB in {state.folder}, and {what}; "
            "adapt later stages, raise the limit, or leave the cache out"
        )


def _write(state: RunState, kept: Kept, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    batch_size, keys = state.train.batch_size, [(0, index) for index in range(len(kept.images))]
    batch_list = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    state.model.train()

    def write(path: Path) -> None:
        with path.open("wb") as file, autocast_context(state.train, state.device):
            for batch in make_loader(kept.images, batch_list, state.config.data.workers):
                images = placed(batch, state.device, state.train.channels_last)["image"]
                rows = kept.cut.features(state.model, images)
                file.write(rows.cpu().contiguous().view(torch.uint8).numpy().tobytes())

    write_atomic(folder / _TENSORS, write)
    write_json(folder / _ABOUT, _about(folder, kept))


def _about(folder: Path, kept: Kept) -> dict[str, Any]:
    path = folder / _TENSORS
    return {"key": kept.key, "bytes": path.stat().st_size, "sha256": file_digest(path)}


def _read(folder: Path, kept: Kept) -> Tensor | None:
    """The rows, or None where they are not there, are others, or are not as they were written."""
    try:
        about = read_json((folder / _ABOUT).read_text(encoding="utf-8"))
        if about != _about(folder, kept) or about["bytes"] != kept.size:
            return None
    except (OSError, ValueError):
        return None
    path, count = str(folder / _TENSORS), torch.Size(kept.shape).numel()
    return torch.from_file(path, shared=False, size=count, dtype=kept.dtype).view(kept.shape)
