"""A base and models that were adapted from it, as one trained model that knows the classes of all."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from visionlora.adapters.fingerprint import fingerprints
from visionlora.errors import InputError, some
from visionlora.models.extended import Extended
from visionlora.models.stated import stated
from visionlora.models.weights import explain_mismatch
from visionlora.sections import ModelSection, RunConfig, read_model_section
from visionlora.tasks.about import KEEPS, Keeps, Part, Rule, Together
from visionlora.tasks.base import Task
from visionlora.tasks.extending import other_head
from visionlora.tasks.models import Built, Member, Preprocessing, Trained, head_is_new
from visionlora.tasks.registry import task_of

ENTRY, DISTILLED = "together", "distilled"
"""In what a model says of itself: that it is several; that it learnt the base's classes from the base's answers."""
_BASE, _OTHERS = "base.", "others."


@dataclass(frozen=True)
class Base:
    """A plain base with its own head.

    Attributes:
        built: in eval mode.
        classes: its own.
        about: what its file says of it, if that is one of ours.
    """

    built: Built
    classes: list[str]
    about: dict[str, Any]


def build_base(task: Task, section: ModelSection, seed: int) -> Base:
    """The base that a config's section names, with the head that it came with.

    Raises:
        InputError: it has none, or can't be built.
    """
    classes = task.own_classes(section)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = task.build(section, classes)
    model: nn.Module = built.model
    if built.head and head_is_new(built):
        raise InputError(f"{section.source}: has no head of its own, so there are no classes of it to keep")
    model.eval()
    said = stated(section.checkpoint)
    return Base(built, classes, said.about if said else {})


def joint_classes(base: Sequence[str], parts: Sequence[tuple[str, Sequence[str], Rule]]) -> list[str]:
    """All classes in the order of the outputs: the base's, then each part's (name, classes, rule) but its background.

    Raises:
        InputError: two of them bear one name.
    """
    found = list(base)
    for name, classes, rule in parts:
        new = new_classes(classes, rule)
        twice = [word for word in new if word in found]
        if twice and not rule.merge:
            there = "are classes" if len(twice) > 1 else "is a class"
            raise InputError(
                f"{name}: {some(twice, 3)} {there} already without it; give the new one another name in the data, or "
                "make them one with train.merge_classes=true"
            )
        found += [word for word in new if word not in twice]
    return found


def new_classes(classes: Sequence[str], rule: Rule) -> list[str]:
    """An adapter's classes without what stands for whatever the base sees."""
    return [name for index, name in enumerate(classes) if index != rule.background]


def whole_models(own: list[str], section: ModelSection, noun: str) -> list[str]:
    """The classes that a base's weights know. InputError if they know none: a backbone's alone don't."""
    if not own:
        raise InputError(
            f"{section.source}: holds no whole {noun}, so there are no classes of it to keep (train.keep_classes); "
            "give what visionlora merge makes of a run"
        )
    return own


def trains_above(config: RunConfig, backbone: str | None) -> bool:
    """Whether new classes get what lies above a timm ``backbone`` whole, not its last layer alone.

    It is small and has learnt the base's few classes; ``lora.unfreeze`` has the last word.
    """
    return bool(config.train.keep_classes) and backbone is not None and config.lora.unfreeze is None


def head_fingerprints(model: nn.Module, known: Collection[str]) -> dict[str, str]:
    """Of those of a base's tensors that an adapter's file does not know: its own head's, by name."""
    return {key: digest for key, digest in fingerprints(model).items() if key not in known}


def with_base(task: Task, alone: Trained, base: Base, keeps: Keeps) -> Trained:
    """A merged model beside the base that it was trained on.

    Args:
        task: of both.
        alone: the model with its own classes; what it has like the base is replaced by the base's.
        base: with its head.
        keeps: of the adapter's file.

    Raises:
        InputError: the base has other classes, or another head.
    """
    if base.classes != keeps.classes:
        what = "its classes in another order" if sorted(base.classes) == sorted(keeps.classes) else "other classes"
        raise InputError(f"{alone.path}: its base has {what}: {some(base.classes, 4)}, not {some(keeps.classes, 4)}")
    if other := other_head(base.built.model, keeps):
        raise InputError(f"{alone.path}: its base has another head than when it was trained ({some(other, 2)} differ)")
    name = part_name(alone.path)
    member = Member(name, alone.built, alone.classes, keeps.rule, alone.about)
    return put_together(task, alone, base, [member])


def put_together(task: Task, like: Trained, base: Base, members: Sequence[Member]) -> Trained:
    """One model of a base and others, whose classes follow the base's.

    Raises:
        InputError: two classes, or two of the models, bear one name.
    """
    names = [member.name for member in members]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two of the models are called '{twice[0]}'; give one's file or folder another name")
    for one in members:
        last = len(one.classes) if task.has_background else 0
        if one.rule.background is not None and one.rule.background >= last:
            raise InputError(f"{like.path}: the rule of '{one.name}' names a background that is none; save it again")
        if one.rule.means is not None and len(one.rule.means) != len(base.classes):
            raise InputError(f"{like.path}: the rule of '{one.name}' is of another number of classes; save it again")
    classes = joint_classes(base.classes, [(one.name, one.classes, one.rule) for one in members])
    built = task.together(base.built, classes, members)
    parts = [Part(name=one.name, classes=list(one.classes), rule=one.rule) for one in members]
    about = {key: value for key, value in like.about.items() if key not in (KEEPS, "scores")}
    pairs = [(base.about, base.classes), *((one.about, one.classes) for one in members)]
    told = [(said, _told_of(said, own)) for said, own in pairs]
    about |= task.about_together(told, classes)
    about[ENTRY] = Together(classes=base.classes, parts=parts).model_dump(exclude_defaults=True)
    return replace(like, built=built, classes=classes, about=about)


def together_of(trained: Trained) -> Together | None:
    """What a trained model is made of; None if it is one."""
    found = trained.about.get(ENTRY)
    return None if found is None else Together.model_validate(found)


def old_and_new(trained: Trained) -> tuple[list[str], list[str]] | None:
    """The classes that a trained model has from its base, and those that came later; None if nobody kept count."""
    entry = trained.about.get(ENTRY) or trained.about.get(DISTILLED)
    if not isinstance(entry, dict):
        return None
    old = set(entry["classes"])
    return [name for name in trained.classes if name in old], [name for name in trained.classes if name not in old]


def add_to(task: Task, trained: Trained, other: Trained) -> Trained:
    """A base with what stands beside it, and then with what stands beside another's.

    Raises:
        InputError: one of the two is a model alone, the bases differ, or two classes or two models bear one name.
    """
    if other.task != trained.task:
        raise InputError(f"{other.path}: is for {other.task}, and {trained.path} for {trained.task}")
    (base, members), (others_base, more) = taken_apart(task, trained), taken_apart(task, other)
    same = base.classes == others_base.classes and trained.preprocessing == other.preprocessing
    own, theirs = base.built.model.state_dict(), others_base.built.model.state_dict()
    if not same or own.keys() != theirs.keys() or not all(torch.equal(own[key], theirs[key]) for key in own):
        raise InputError(f"{other.path}: stands beside another base than {trained.path}; train both on one")
    return put_together(task, trained, base, [*members, *more])


def base_of(task: Task, trained: Trained, checkpoint: Path | None = None) -> Trained:
    """The base of a model with new classes, with the classes of its own.

    Raises:
        InputError: it is not in the file, and can't be built.
    """
    if together_of(trained) is not None:
        base, _ = taken_apart(task, trained)
    else:
        section: Any = read_model_section(task.SCHEMA, trained.about["model"])
        section = section.model_copy(update={"checkpoint": checkpoint} if checkpoint else {})
        base = build_base(task, section, trained.about.get("seed", 0))
    return replace(trained, built=base.built, classes=base.classes, about=base.about)


def take_off(task: Task, trained: Trained, name: str) -> Trained:
    """The same without one of the models that answer beside the base.

    Raises:
        InputError: there is none of this name, or it is the only one.
    """
    base, members = taken_apart(task, trained)
    left = [one for one in members if one.name != name]
    if len(left) == len(members):
        raise InputError(
            f"{trained.path}: there is no '{name}' to take off; there are {some([m.name for m in members])}"
        )
    if not left:
        raise InputError(f"{trained.path}: '{name}' is all that stands beside the base; use the base itself")
    return put_together(task, trained, base, left)


def taken_apart(task: Task, trained: Trained) -> tuple[Base, list[Member]]:
    """The base and the models beside it. InputError if a trained model is one alone."""
    made = together_of(trained)
    model = trained.model
    if made is None or not isinstance(model, Extended):
        raise InputError(f"{trained.path}: has no base beside it; train it with train.keep_classes=true")
    base = Base(task.apart(trained.built, "", made.classes), made.classes, trained.about)
    members = [
        Member(part.name, task.apart(trained.built, part.name, part.classes), part.classes, part.rule, trained.about)
        for part in made.parts
    ]
    return base, members


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict to write; of several models together, what they share is in it once."""
    state: dict[str, Tensor] = model.state_dict()
    if not isinstance(model, Extended):
        return state
    shared = {id(tensor) for tensor in (*model.base.parameters(), *model.base.buffers())}
    live = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    return {key: value for key, value in state.items() if key.startswith(_BASE) or id(live[key]) not in shared}


def build_together(
    name: str,
    section: Any,
    made: Together,
    classes: list[str],
    shown: Preprocessing,
    about: dict[str, Any],
    path: Path,
) -> Trained:
    """What ``state_of`` wrote, built again.

    Args:
        name: of the task.
        section: the settings of the base.
        made: what it is made of.
        classes: of all.
        shown: how images reach it.
        about: what the file says of itself.
        path: the file.

    Raises:
        InputError: its tensors are not those of these models.
    """
    task = task_of(name)
    if joint_classes(made.classes, [(part.name, part.classes, part.rule) for part in made.parts]) != classes:
        raise InputError(f"{path}: its classes are not those of its models together; save it again")
    tensors = load_file(path)
    plain = task.without_base(section, path)
    if plain.checkpoint is not None:
        raise InputError(f"{path}: {section.name} with weights of its own can't be built without them; export to ONNX")
    base = task.build(plain, made.classes)
    own = {key.removeprefix(_BASE): value for key, value in tensors.items() if key.startswith(_BASE)}
    _load(base.model, own, section.name, path)
    members = []
    for part in made.parts:
        start = f"{_OTHERS}{part.name}."
        built = task.build(plain, part.classes)
        values = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        _load(built.model, {**own, **values}, section.name, path)
        members.append(Member(part.name, built, part.classes, part.rule, about))
    for one in (base, *(member.built for member in members)):
        one.model.eval()
    like = Trained(name, base, made.classes, shown, path, about)
    return put_together(task, like, Base(base, made.classes, about), members)


def part_name(path: Path) -> str:
    """What a model is called beside its base: its folder's name for a run's file, else its own."""
    name = path.resolve().parent.name if path.stem in ("adapter", "model") else path.stem
    return name.replace(".", "_") or "new"


def _told_of(about: dict[str, Any], own: list[str]) -> list[str]:
    """The classes that what a model says of itself is about: those of all, where it is one of several together."""
    if about.get(ENTRY) is None:
        return own
    made = Together.model_validate(about[ENTRY])
    return joint_classes(made.classes, [(part.name, part.classes, part.rule) for part in made.parts])


def _load(model: nn.Module, tensors: dict[str, Tensor], name: str, path: Path) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(explain_mismatch(path, name, model, tensors, error)) from error
