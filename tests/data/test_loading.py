"""Order, batches and workers."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.classification.samples import ClassificationDataset
from visionlora.data.classification.transforms import Preprocessing, eval_transform, train_transform
from visionlora.data.loading import (
    REPEAT,
    balanced_order,
    batches,
    epoch_order,
    in_shares,
    make_loader,
    sample_seed,
    share_of,
)
from visionlora.errors import InputError

PRE = Preprocessing(
    height=32, width=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_pct=1.0
)


@pytest.fixture
def data(tmp_path: Path) -> LabelledImages:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(14)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return LabelledImages(paths, [(i % 2,) for i in range(14)], ["a", "b"])


def train_set(data: LabelledImages, seed: int = 3) -> ClassificationDataset:
    return ClassificationDataset(data, train_transform(PRE, "strong"), seed=seed, train=True)


def test_samples_hold_image_label_and_index(data: LabelledImages) -> None:
    sample = ClassificationDataset(data, eval_transform(PRE), seed=0, train=False)[(0, 5)]
    assert sample["image"].shape == (3, 32, 32)
    assert sample["target"].dtype == torch.int64
    assert (int(sample["target"]), sample["index"]) == (1, 5)


def test_multilabel_samples_are_multi_hot(data: LabelledImages) -> None:
    several = LabelledImages(data.paths[:3], [(0, 2), (), (1,)], ["a", "b", "c"], multilabel=True)
    dataset = ClassificationDataset(several, eval_transform(PRE), seed=0, train=False)
    labels = torch.stack([dataset[(0, i)]["target"] for i in range(3)])
    assert labels.dtype == torch.float32
    assert labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_augmentation_follows_from_seed_epoch_and_index(data: LabelledImages) -> None:
    dataset = train_set(data)
    image = dataset[(1, 0)]["image"]
    assert torch.equal(train_set(data)[(1, 0)]["image"], image)
    assert not torch.equal(dataset[(2, 0)]["image"], image)
    assert not torch.equal(train_set(data, seed=4)[(1, 0)]["image"], image)


def test_evaluation_is_the_same_in_every_epoch(data: LabelledImages) -> None:
    dataset = ClassificationDataset(data, eval_transform(PRE), seed=0, train=False)
    assert torch.equal(dataset[(0, 4)]["image"], dataset[(9, 4)]["image"])


def test_sample_seeds_are_distinct_and_the_same_in_another_process() -> None:
    seeds = {sample_seed(s, e, i) for s in range(5) for e in range(20) for i in range(50)}
    assert len(seeds) == 5000
    assert all(0 <= seed < 2**64 for seed in seeds)
    code = "from visionlora.data.loading import sample_seed; print(sample_seed(1, 2, 3))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) == sample_seed(1, 2, 3)


def test_an_epoch_is_a_permutation_by_seed_and_epoch() -> None:
    assert sorted(epoch_order(50, seed=1, epoch=2)) == list(range(50))
    assert epoch_order(50, 1, 2) == epoch_order(50, 1, 2)
    assert len({tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_balanced_draws_favour_no_class() -> None:
    labels = [(0,)] * 950 + [(1,)] * 40 + [(3,)] * 10  # class 2 has no image
    order = balanced_order(labels, 4, seed=0, epoch=0)
    assert len(order) == 1000
    drawn = Counter(labels[index][0] for index in order)
    assert set(drawn) == {0, 1, 3}
    assert all(280 < count < 390 for count in drawn.values())
    assert order == balanced_order(labels, 4, 0, 0)
    assert order != balanced_order(labels, 4, 0, 1)


def test_balanced_draws_keep_images_without_a_label() -> None:
    labels: list[tuple[int, ...]] = [(), (0, 1), (0,), (0,)] * 25
    drawn = Counter(labels[index] for index in balanced_order(labels, 2, seed=0, epoch=0))
    assert set(drawn) == {(), (0, 1), (0,)}


def test_batches_cut_the_order() -> None:
    assert batches([4, 2, 0, 1, 3], 7, 2, drop_last=False) == [[(7, 4), (7, 2)], [(7, 0), (7, 1)], [(7, 3)]]
    assert batches([4, 2, 0, 1, 3], 7, 2, drop_last=True) == [[(7, 4), (7, 2)], [(7, 0), (7, 1)]]
    assert batches([1, 0], 0, 2, drop_last=True) == [[(0, 1), (0, 0)]]
    assert batches([], 0, 2, drop_last=True) == []


def test_an_image_drawn_again_is_augmented_differently(data: LabelledImages) -> None:
    [keys] = batches([0, 1, 0, 0], 2, 4, drop_last=False)
    assert keys == [(2, 0), (2, 1), (2 + REPEAT, 0), (2 + 2 * REPEAT, 0)]
    dataset = train_set(data)
    assert not torch.equal(dataset[keys[0]]["image"], dataset[keys[2]]["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_equals_the_uninterrupted_one(data: LabelledImages, workers: int) -> None:
    whole = batches(epoch_order(len(data), 3, 5), 5, 4, drop_last=False)
    uninterrupted = list(make_loader(train_set(data), whole, workers=0))
    resumed = list(make_loader(train_set(data), whole[2:], workers))
    assert len(uninterrupted) == len(whole) == 4
    assert len(resumed) == 2
    for ours, theirs in zip(resumed, uninterrupted[2:], strict=True):
        assert ours.keys() == theirs.keys() == {"image", "target", "index"}
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_line_with_its_name(data: LabelledImages, workers: int) -> None:
    data.paths[9].write_bytes(b"damaged")
    loader = make_loader(train_set(data), batches(list(range(14)), 0, 4, drop_last=False), workers)
    with pytest.raises(InputError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"{data.paths[9]}: not an image of a known format")
    assert "\n" not in str(caught.value)


def test_workers_use_one_thread_each() -> None:
    [threads] = make_loader(Threads(), [[(0, 0)]], workers=1)
    assert threads.tolist() == [[1, 1]]


class Threads(torch.utils.data.Dataset):
    """Samples that tell how many threads OpenCV and torch use where they are made."""

    def __getitem__(self, _key: tuple[int, int]) -> torch.Tensor:
        import cv2

        return torch.tensor([cv2.getNumThreads(), torch.get_num_threads()])


LEAVING = """
import sys
import torch
from visionlora.data.loading import make_loader
from visionlora.errors import InputError

class Samples(torch.utils.data.Dataset):
    def __getitem__(self, key):
        if key[1] == 6 and sys.argv[1] == "in a worker":
            raise InputError("this one")
        return torch.zeros(1)

for number, batch in enumerate(make_loader(Samples(), [[(0, n)] for n in range(20)], workers=2)):
    if number == 3 and sys.argv[1] == "beside the loader":
        raise InputError("this one")
    if number == 3 and sys.argv[1] == "in another's exception":
        try:
            raise InputError("this one")
        except InputError:
            sys.exit(2)
"""


@pytest.mark.parametrize("place", ["in a worker", "beside the loader", "in another's exception"])
def test_a_process_that_fails_ends_with_its_workers(place: str) -> None:
    """They heed no signal, so it is the parent that must tell them."""
    outcome = subprocess.run([sys.executable, "-c", LEAVING, place], capture_output=True, text=True, timeout=120)
    assert outcome.returncode == (2 if place == "in another's exception" else 1)
    assert "Exception ignored" not in outcome.stderr
    assert ("InputError: this one" in outcome.stderr) == (outcome.returncode == 1)


KILLED = """
import os, signal, time, torch
from visionlora.data.loading import make_loader

class Samples(torch.utils.data.Dataset):
    def __getitem__(self, key):
        if key[1] >= 2:
            time.sleep(600)
        return torch.tensor(os.getpid())

batches = iter(make_loader(Samples(), [[(0, n)] for n in range(4)], workers=2))
print(*(int(next(batches)) for _ in range(2)), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can be asked to end a process with its parent")
def test_workers_end_with_a_process_that_is_killed() -> None:
    """They have its connections to other processes, which would wait for it as long as one of them lives."""
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=120)  # a worker that lived on would hold the pipe open
    assert process.returncode == -signal.SIGKILL and len(said.split()) == 2


class Deadly(ClassificationDataset):
    """Image 9 kills the process that reads it, as often as there are files in ``deaths``."""

    deaths: tuple[Path, ...] = ()

    def __getitem__(self, key: tuple[int, int]) -> dict[str, object]:
        left = [path for path in self.deaths if path.exists()]
        if key[1] == 9 and left:
            left[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)


@pytest.mark.parametrize("deaths", [1, 2])
def test_the_work_of_a_worker_that_dies_is_done_by_others_once(
    data: LabelledImages, tmp_path: Path, deaths: int
) -> None:
    dataset = Deadly(data, train_transform(PRE, "strong"), seed=3, train=True)
    batch_list = batches(epoch_order(14, 1, 0), 0, 3, drop_last=False)
    expected = [batch["image"] for batch in make_loader(dataset, batch_list, workers=0)]
    dataset.deaths = tuple(tmp_path / str(number) for number in range(deaths))
    for path in dataset.deaths:
        path.touch()
    before, found = signal.getsignal(signal.SIGCHLD), []
    with pytest.warns(UserWarning, match=r"a process that reads images died \(signal 9\) near .*png"):
        if deaths == 1:
            found = [batch["image"] for batch in make_loader(dataset, batch_list, workers=2)]
        else:
            with pytest.raises(InputError, match=r"died \(signal 9\) near .*9\.png.*and so did the one in its place"):
                list(make_loader(dataset, batch_list, workers=2))
    assert signal.getsignal(signal.SIGCHLD) == before
    if deaths == 1:
        assert len(found) == len(expected)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def test_processes_share_a_batch_and_none_is_without_a_sample() -> None:
    batch = [(0, index) for index in range(7)]
    for size in (1, 2, 3, 7):
        shares = [list(share_of(batch, rank, size)) for rank in range(size)]
        assert [key for share in shares for key in share] == batch
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [list(share_of(batch[:2], rank, 4)) for rank in range(4)] == [[(0, 0)], [(0, 0)], [(0, 0)], [(0, 1)]]


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_loaders_in_shares_have_all_batches_in_order_and_take_no_image_apart(size: int) -> None:
    class Tiles(torch.utils.data.Dataset[torch.Tensor]):
        def image_of(self, index: int) -> int:
            return index // 3

        def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
            return torch.tensor(key[1])

    dataset = Tiles()
    whole = make_loader(dataset, batches(list(range(30)), 0, 2, drop_last=False), workers=0)
    shares = [[batch.tolist() for batch in loader] for loader in in_shares(whole, size)]
    assert [batch for share in shares for batch in share] == [batch.tolist() for batch in whole]
    images = [{index // 3 for batch in share for index in batch} for share in shares]
    assert sum(map(len, images)) == 10  # no image in two of them
    assert size > 5 or all(images)
