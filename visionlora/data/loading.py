"""Samples in batches, in an order that follows from (seed, epoch) alone.

Nothing here keeps a position: a run resumes in the middle of an epoch by building the same list of batches
and leaving out those that are done.
"""

import atexit
import hashlib
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from visionlora.data.leaving_out import CollateReadable, Tolerant
from visionlora.errors import InputError, some
from visionlora.stopping import deaf_children, end_with_parent

Key = tuple[int, int]
"""(epoch, index): which image, and in which epoch, so that its augmentation differs from epoch to epoch."""

REPEAT = 2**32
"""Added to a key's epoch for each earlier draw of the same image in that epoch (see ``batches``)."""


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A 64-bit seed for one sample in one epoch, the same in every process and Python version."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """A permutation of 0 to n - 1 that depends on (seed, epoch), both >= 0, alone."""
    return np.random.default_rng([seed, epoch]).permutation(n).tolist()


def balanced_order(labels: Sequence[Sequence[int]], n_classes: int, seed: int, epoch: int) -> list[int]:
    """len(labels) draws with replacement, each class equally likely, from (seed, epoch) alone.

    ``labels[i]`` are the classes of image i. A draw picks a class, then one of its images; classes without
    images are left out, and images without any label (multi-label only) count as one more class.
    """
    groups: list[list[int]] = [[] for _ in range(n_classes + 1)]
    for index, label in enumerate(labels):
        for group in label or (n_classes,):
            groups[group].append(index)
    groups = [group for group in groups if group]
    generator = np.random.default_rng([seed, epoch])
    drawn = (groups[which] for which in generator.integers(len(groups), size=len(labels)))
    return [group[generator.integers(len(group))] for group in drawn]


def batches(order: list[int], epoch: int, batch_size: int, drop_last: bool) -> list[list[Key]]:
    """Cut an epoch's order into batches of keys.

    An image that is drawn again in the same epoch gets ``epoch + REPEAT``, then ``epoch + 2 * REPEAT``: under
    one key a rare class would be seen under the same augmentation all epoch long. Pass the whole epoch's
    order and slice the result, so that repeats stay the same when a run resumes or uses several processes.
    """
    seen: dict[int, int] = {}
    keys = []
    for index in order:
        repeat = seen.get(index, 0)
        seen[index] = repeat + 1
        keys.append((epoch + repeat * REPEAT, index))
    cut = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    if drop_last and cut and len(cut[-1]) < batch_size:
        cut.pop()
    return cut


def one_left_over(images: int, batch_size: int) -> bool:
    """Whether a last batch would hold a single image, which breaks models whose unfrozen BatchNorm needs two."""
    return images > batch_size and images % batch_size == 1


def share_of(batch: Sequence[Key], rank: int, size: int) -> Sequence[Key]:
    """The part of a batch that process ``rank`` of ``size`` sees. Where there are fewer samples than processes, those
    that are left without one get the first, which must then count for nothing.
    """
    return batch[len(batch) * rank // size : len(batch) * (rank + 1) // size] or batch[:1]


def in_shares(loader: DataLoader[Any], size: int) -> list[DataLoader[Any]]:
    """So many loaders (see ``make_loader``) with the batches of one, each some that follow each other.

    No batch is taken apart, and where the data set has ``image_of(index)``, samples of one image stay together.
    """
    keys: Any = loader.batch_sampler
    image_of = getattr(loader.dataset, "image_of", lambda index: index)
    cuts = [0]
    for rank in range(1, size):
        cut = max(cuts[-1], len(keys) * rank // size)
        while 0 < cut < len(keys) and image_of(keys[cut - 1][-1][1]) == image_of(keys[cut][0][1]):
            cut += 1
        cuts.append(cut)
    return [
        make_loader(loader.dataset, keys[start:end], loader.num_workers, loader.collate_fn)
        for start, end in zip(cuts, [*cuts[1:], len(keys)], strict=True)
    ]


def make_loader(
    dataset: Dataset[Any],
    batch_list: list[list[Key]],
    workers: int,
    collate: Callable[[list[Any]], Any] | None = None,
    leave_out: bool = False,
) -> "_Loader":
    """A loader over exactly these batches; an InputError in a worker arrives as the one line that it was.

    Where a worker dies, others take up its work, once; a second time is an InputError, with the images' names if the
    data set has ``path_of(index)``.

    Args:
        dataset: of samples by key.
        batch_list: their keys.
        workers: processes.
        collate: makes a batch of a list of samples; without it, their tensors are stacked.
        leave_out: an InputError over a sample is no error, and the batch says so; see ``CollateReadable``.
    """
    if leave_out:
        dataset, collate = Tolerant(dataset), CollateReadable(collate or default_collate)
    return _Loader(
        dataset,
        batch_sampler=batch_list,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_initialized(),  # not where a run on the CPU leaves a GPU alone
        worker_init_fn=_start_worker,
        # An iterator draws a number when it starts; from here, so that a resumed run's global state is untouched.
        generator=torch.Generator(),
    )


_RUNNING: "WeakSet[Generator[Any, None, None]]" = WeakSet()


@atexit.register
def _end_workers() -> None:
    """What an error left in the middle of its batches ends its workers."""
    for running in list(_RUNNING):
        running.close()


class _Loader(DataLoader[Any]):
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator instead of torch's iterator
        running = self._batches()
        _RUNNING.add(running)
        return running

    def _batches(self, again: bool = False) -> Generator[Any, None, None]:
        with deaf_children(), _sigchld_kept():  # a signal to the whole group is the parent's to answer
            batches = super().__iter__()
        keys: Any = self.batch_sampler
        done = 0
        try:
            for batch in batches:
                yield batch
                done += 1
        except InputError as error:
            if not str(error).startswith("Caught "):
                raise
            # torch rebuilds a worker's error with the whole traceback for its message; the end is ours
            line = str(error).rpartition(f"{InputError.__module__}.{InputError.__name__}: ")[2]
            raise InputError(line.removesuffix(r"\n")) from error
        except RuntimeError as error:
            died = _died(batches)
            if not died:
                raise
            what = f"a process that reads images died ({died}) near {self._names(keys[done : done + self.num_workers])}"
            if again:
                raise InputError(
                    f"{what}, and so did the one in its place; look at these images and at the free memory, or set "
                    "data.workers=0"
                ) from error
        else:
            return
        finally:
            # torch ends workers when the iterator is collected, which an error's traceback puts off; and a process
            # that ends would wait for ever for workers that heed no signal.
            if isinstance(batches, _MultiProcessingDataLoaderIter):
                batches._shutdown_workers()
        warnings.warn(f"{what}; others go on in its place", stacklevel=2)
        # A batch follows from its keys alone, so the rest is what it would have been.
        yield from make_loader(self.dataset, keys[done:], self.num_workers, self.collate_fn)._batches(again=True)

    def _names(self, batch_list: list[list[Key]]) -> str:
        """Files of some batches, or their indices."""
        path_of = getattr(self.dataset, "path_of", lambda index: f"image {index}")
        return some(dict.fromkeys(path_of(index) for batch in batch_list for _, index in batch), 4)


def _died(batches: Any) -> str:
    """How the first of the workers ended that are no longer there, in words; empty if all are."""
    workers = batches._workers if isinstance(batches, _MultiProcessingDataLoaderIter) else []
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if not codes:
        return ""
    return f"signal {-codes[0]}" if codes[0] < 0 else f"exit code {codes[0]}"


@contextmanager
def _sigchld_kept() -> Iterator[None]:
    """torch has the end of a worker raise an error wherever the program is; here it is one where a batch is awaited."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


def _start_worker(_worker: int) -> None:
    """One thread per worker; torch sees to its own, OpenCV would start one per core."""
    import cv2

    end_with_parent()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
