"""N adapters over one base: switched by name, or each image of a batch with its own camera's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters import state
from visionlora.adapters.attached import adapter_names
from visionlora.adapters.example import eagerly, tensors_in
from visionlora.adapters.fleet.answers import in_order, span_of
from visionlora.adapters.fleet.crew import Unforeseen, muster, outputs_of
from visionlora.adapters.fleet.loading import check_camera, load_all
from visionlora.adapters.fleet.mixing import Batch, Group, mixed
from visionlora.adapters.fleet.plan import Plan, plan
from visionlora.adapters.fleet.watching import probe_of, watch
from visionlora.adapters.folding import unfold_batchnorm
from visionlora.adapters.header import Header
from visionlora.adapters.model import detach
from visionlora.errors import InputError, some

_PLANS = 64
"""Kinds of batches that a fleet remembers."""


class Fleet:
    """Adapters of several cameras on one model, with their heads and BatchNorm state.

    ``fleet(images, cameras=["gate", "yard", ...])`` answers what each camera's own adapted model answers for its
    image, in one forward for all. Where a model gives no way to tell a batch's images apart in some part (a region
    proposal's boxes, relative positions that are computed by an adapted layer), that part, or the whole model, is run
    camera by camera; ``fleet.reason`` then says why.

    A fleet is for inference: the model is in eval mode, and nothing trains.

    Args:
        model: the base, without adapters; changed in place. ``detach`` gives it back.
        adapters: camera -> its adapter's file. Heads may have other numbers of classes than the model and each other.

    Attributes:
        model: shows the base, or the camera that ``switch`` named last.
        headers: camera -> what its file says of itself: classes, preprocessing, thresholds (in ``extra``).
        reason: why the last batch was computed camera by camera; empty if it was mixed, or of one camera.

    Raises:
        InputError: no adapters, a model that has some already, a name that can't be one, a file that is damaged or was
            made on another base; the model is then unchanged.
    """

    def __init__(self, model: nn.Module, adapters: Mapping[str, str | Path]) -> None:
        if not adapters:
            raise InputError("a fleet needs at least one camera; give {name: adapter's file}")
        if there := adapter_names(model):
            raise InputError(f"the model has adapters already ({some(there)}); detach them, or create it anew")
        self.model = model
        self.headers: dict[str, Header]
        self.headers, counts = load_all(model, adapters)
        self.reason = ""
        self._crew = muster(model, counts)
        # Camera -> outputs of its head; empty where heads of one camera disagree, None where all have as many.
        self._classes = outputs_of(self._crew, self.cameras) if any(counts[camera] for camera in self.headers) else None
        self._plans: dict[Any, Plan] = {}
        self._shown = state.BASE
        model.eval()
        self._crew.show(state.BASE)

    @property
    def cameras(self) -> list[str]:
        """The cameras' names, in the order in which they were given."""
        return list(self.headers)

    def switch(self, name: str | None) -> nn.Module:
        """Have the model answer as the camera's own adapted model does, until the next switch; None shows the base.

        Returns:
            the model.

        Raises:
            InputError: no such camera.
        """
        if name is not None:
            check_camera(name, self.headers)
        if self._crew.is_folded():
            unfold_batchnorm(self.model)
        self._shown = state.BASE if name is None else name
        self._crew.show(self._shown)
        return self.model

    def detach(self) -> nn.Module:
        """Take all adapters off; the base is back, and the fleet is done."""
        self._crew.show(state.BASE)
        return detach(self.model)

    @torch.no_grad()
    def apart(self, images: Any) -> dict[str, nn.Module]:
        """The modules with tensors of cameras that a forward reads, by name, if each can be computed by itself.

        Args:
            images: as in a call; only their shapes count.

        Raises:
            InputError: one is read where more than it must be run camera by camera.
        """
        try:
            how = self._plan_for(images)
        finally:
            self._crew.show(self._shown)
        if how.why:
            raise InputError(f"cameras can only be computed one after the other: {how.why}")
        for module, name in self._crew.names.items():
            if module not in how.unread and how.regions.get(module) != [module]:
                raise InputError(f"'{name}' can only be computed one camera after the other, with what lies around it")
        return {name: module for module, name in self._crew.names.items() if module not in how.unread}

    @torch.no_grad()
    def __call__(self, images: Any, cameras: Sequence[str]) -> Any:
        """Answer each image as its camera's own adapted model does.

        Args:
            images: (N, ...), or a list of N images as detectors take it.
            cameras: the N images' cameras.

        Returns:
            what the model answers: tensors with N first, in tuples or dicts where the model has them, or a detector's
            list.
            Where cameras' answers differ in shape, as with other classes, a list of what each image's alone would be,
            without the batch's dimension.

        Raises:
            InputError: an unknown camera, another number of cameras than of images, no image, or a model in training.
        """
        self._check(images, cameras)
        order = sorted(range(len(cameras)), key=lambda at: (self.cameras.index(cameras[at]), at))
        groups = _groups([cameras[at] for at in order])
        batch = _taken(images, order)
        if self._crew.is_folded():
            unfold_batchnorm(self.model)
        self.reason = ""
        with eagerly(self.model):
            try:
                parts = self._parts(batch, groups)
            finally:
                self._crew.show(self._shown)
        return in_order(parts, [order[start:stop] for _, start, stop in groups], isinstance(images, list))

    def _parts(self, images: Any, groups: list[Group]) -> list[Any]:
        """The answers to each group."""
        if len(groups) > 1:
            how = self._plan_for(images)
            if not how.why:
                try:
                    return self._mixed(images, groups, how)
                except Unforeseen as difference:
                    how = self._plans[_key(images)] = Plan(why=str(difference))
            self.reason = how.why
        answers = []
        for camera, start, stop in groups:
            self._crew.show(camera)
            answers.append(self.model(images[start:stop]))
        return answers

    def _mixed(self, images: Any, groups: list[Group], how: Plan) -> list[Any]:
        with mixed(how, self._crew, Batch(groups)):
            answer = self.model(images)
        classes = self._classes or {}
        total, listed = len(images), isinstance(images, list)
        return [span_of(answer, start, stop, total, classes.get(camera), listed) for camera, start, stop in groups]

    def _plan_for(self, images: Any) -> Plan:
        key = _key(images)
        if key not in self._plans:
            self._plans = dict(list(self._plans.items())[1 - _PLANS :]) | {key: self._plan(images)}
        return self._plans[key]

    def _plan(self, images: Any) -> Plan:
        self._crew.show(self.cameras[0])
        try:
            seen = watch(self.model, images, self._crew.tensors())
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            return Plan(why=f"the model can't be watched on an image of NaN: {error}")
        found = plan(seen, self._crew.names)
        if not found.why and self._classes is not None:
            return self._plan_of_classes(images, found)
        return found

    def _plan_of_classes(self, images: Any, found: Plan) -> Plan:
        """The plan, if classes that a camera lacks leave no trace in those that it has."""
        why = "cameras have other numbers of classes, and the model's answer depends on it in other ways"
        if not self._classes or isinstance(images, list):
            return Plan(why=why)
        few, many = (choose(self._classes, key=self._classes.__getitem__) for choose in (min, max))
        with mixed(found, self._crew, Batch([(few, 0, 1), (many, 1, 2)], torch.nan)):
            try:
                answer = self.model(probe_of(images)[::2])
            except (RuntimeError, ValueError, IndexError) as error:
                return Plan(why=f"{why}: {error}")
        for leaf in tensors_in(answer):
            if leaf.dim() < 2 or leaf.shape[:2] != (2, self._classes[many]):
                return Plan(why=why)
            lacking = leaf.isnan().flatten(2) if leaf.dim() > 2 else leaf.isnan()[..., None]
            here = self._classes[few]
            if not lacking[0, here:].all() or lacking[0, :here].any() or lacking[1].any():
                return Plan(why=why)
        return found

    def _check(self, images: Any, cameras: Sequence[str]) -> None:
        if isinstance(cameras, str) or len(cameras) != len(images):
            raise InputError(f"{len(images)} images and cameras={cameras!r}; give a list with each image's camera")
        for name in cameras:
            check_camera(name, self.headers)
        if not len(images):
            raise InputError("no images; give at least one")
        if self.model.training:
            raise InputError("the fleet's model is in training mode; call model.eval(), a fleet is for inference")


def _groups(cameras: list[str]) -> list[Group]:
    """Of cameras' names that lie side by side."""
    starts = [at for at, name in enumerate(cameras) if at == 0 or cameras[at - 1] != name]
    return [(cameras[start], start, stop) for start, stop in zip(starts, [*starts[1:], len(cameras)], strict=True)]


def _taken(images: Any, order: list[int]) -> Any:
    if isinstance(images, list):
        return [images[at] for at in order]
    return images if order == sorted(order) else images[torch.tensor(order, device=images.device)]


def _key(images: Any) -> Any:
    """What batches have in common that go the same way through the model, as far as can be told beforehand."""
    if isinstance(images, Tensor):
        return (images.shape[1:], images.dtype, images.device)
    return frozenset((image.shape, image.dtype, image.device) for image in images)
