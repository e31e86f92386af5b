"""Parts of a data set: by what its file says of each image, by class, by order."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.errors import InputError, did_you_mean, some


class Images(Protocol):
    """A data set whose ``images`` have ``fields``: of labelled objects, or of masks."""

    @property
    def images(self) -> Sequence[Any]:
        """In order."""

    def __len__(self) -> int: ...

    def subset(self: "AnyImages", indices: Iterable[int]) -> "AnyImages":
        """These images, in this order."""


AnyImages = TypeVar("AnyImages", bound=Images)


def select(data: AnyImages, wanted: Mapping[str, Collection[Any]]) -> AnyImages:
    """The images whose field has one of the values, for every field: ``{"day": ["20171027", "20171030"]}``.

    Raises:
        InputError: as ``matching``.
    """
    return data.subset(matching([image.fields for image in data.images], wanted))


def matching(fields: Sequence[Mapping[str, Any]], wanted: Mapping[str, Collection[Any]]) -> list[int]:
    """Indices of the images whose fields have one of the values, for every field.

    Values are compared as text, so that a config's 7 finds a file's "7". An image without the field is not taken.

    Raises:
        InputError: no image has such a field, a value that no image has, or nothing is left.
    """
    chosen = list(range(len(fields)))
    for name, values in wanted.items():
        there = values_in(fields, name)
        texts = [str(value) for value in values]
        if unknown := [text for text in texts if text not in there]:
            raise InputError(
                f"no image has {name} '{unknown[0]}'{did_you_mean(unknown[0], there)}; there are {some(there, 12)}"
            )
        chosen = [i for i in chosen if name in fields[i] and str(fields[i][name]) in texts]
    if not chosen:
        text = " and ".join(f"{name} of {some(values, 12)}" for name, values in wanted.items())
        raise InputError(f"no image has {text}")
    return chosen


def values_of(data: Images, name: str) -> list[str]:
    """The values of a field, as text, in the order in which they first occur. InputError if no image has it."""
    return values_in([image.fields for image in data.images], name)


def values_in(fields: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """As ``values_of``."""
    if not any(name in each for each in fields):
        names = list(dict.fromkeys(name for each in fields for name in each))
        raise InputError(f"no image has a field '{name}'{did_you_mean(name, names)}; there are {some(names) or 'none'}")
    return list(dict.fromkeys(str(each[name]) for each in fields if name in each))


def without_classes(data: AnnotatedImages, names: Sequence[str], drop_images: bool = False) -> AnnotatedImages:
    """The data without these classes and their objects; the labels of the others move up.

    By default every image stays: to a detector of the other classes, what is left out is background, and an
    image that holds nothing else is a negative, the more valuable the more it looks like what is sought. Where
    that is not meant, because the objects belong to a class that stays or nobody knows, ``drop_images`` leaves
    out all images that show one.

    Raises:
        InputError: an unknown class, or no class or no image is left.
    """
    if not names:
        return data
    for name in names:
        _known(name, data.classes)
    gone = {data.classes.index(name) for name in names}
    classes = [name for name in data.classes if name not in names]
    if not classes:
        raise InputError(f"all classes ({some(data.classes)}) are left out; keep one")
    label = {data.classes.index(name): index for index, name in enumerate(classes)}
    images = []
    for image in data.images:
        kept = tuple(replace(thing, label=label[thing.label]) for thing in image.objects if thing.label not in gone)
        if len(kept) == len(image.objects) or not drop_images:
            images.append(replace(image, objects=kept))
    if not images:
        raise InputError(f"no image is left without {some(names)}; every one shows some")
    return AnnotatedImages(images, classes)


def every_nth(data: AnyImages, every: int) -> AnyImages:
    """The first image and every ``every``-th after it: enough of a video, whose neighbours are nearly the same.

    Raises:
        InputError: ``every`` is less than 1.
    """
    if every < 1:
        raise InputError(f"every {every}-th image can't be taken; give 1 or more")
    return data.subset(range(0, len(data), every))


def spread(data: AnyImages, images: int | None) -> AnyImages:
    """So many images at equal distances, the first among them; None for all.

    Raises:
        InputError: there are fewer.
    """
    if images is None:
        return data
    if images > len(data):
        raise InputError(f"data.shots is {images}, and there are {len(data)} images to train on; give fewer")
    return data.subset(index * len(data) // images for index in range(images))


def split_in_order(
    data: AnyImages, fraction: float, gap: int = 0, by: str | None = None
) -> tuple[AnyImages, AnyImages]:
    """The first ``fraction`` of the images for training, the last for validation, and ``gap`` images between unused.

    In the order of the file, or of the field ``by``, whose values must then be all numbers or all text.

    Raises:
        InputError: ``fraction`` is not between 0 and 1, ``gap`` is negative, a part would be empty, or ``by`` can't
            be sorted by.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the fraction for training is {fraction}; give a number between 0 and 1")
    if gap < 0:
        raise InputError(f"the gap is {gap} images; give 0 or more")
    order = _order(data, by)
    cut = round(fraction * len(order))
    train, val = order[:cut], order[cut + gap :]
    if not train or not val:
        raise InputError(
            f"{len(data)} images can't be split at {fraction:g} with a gap of {gap}: a part would be empty"
        )
    return data.subset(train), data.subset(val)


def _order(data: Images, by: str | None) -> list[int]:
    order = list(range(len(data)))
    if by is None:
        return order
    values_of(data, by)
    values: list[Any] = [image.fields.get(by) for image in data.images]
    if not any(all(isinstance(value, kind) for value in values) for kind in (int | float, str)):
        raise InputError(f"the images can't be put in order by '{by}': it is not a number, or text, in all of them")
    return sorted(order, key=lambda index: values[index])  # stable: equals stay in the order of the file


def _known(name: str, classes: Sequence[str]) -> None:
    if name not in classes:
        raise InputError(f"no class '{name}' to leave out{did_you_mean(name, classes)}; there are {some(classes, 12)}")
