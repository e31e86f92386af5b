"""Weights of a known hash."""

from pathlib import Path

from visionlora.checksums import file_digest
from visionlora.errors import InputError
from visionlora.models.timm_models import HUBS
from visionlora.models.weights import check_checkpoint, not_fetched

_FILES = ("model.safetensors", "pytorch_model.bin")
"""What the hub's timm models keep their weights in."""


def pinned(name: str, pretrained: bool, checkpoint: Path | None, sha256: str | None) -> Path | None:
    """The file to take weights from: ``checkpoint``, or the hub's where a hash is asked for.

    Args:
        name: of the model or backbone; ``hf-hub:ORG/NAME@REVISION`` of a hub, where a commit is a revision that stays.
        pretrained: it is to have weights of its hub, unless there is a ``checkpoint``.
        checkpoint: a local file of weights.
        sha256: of the file; None for any.

    Raises:
        InputError: the file has another hash, can't be fetched, or is none of which it is known where it comes from.
    """
    if sha256 is None or (checkpoint is None and not pretrained):
        return checkpoint
    check_checkpoint(checkpoint)
    if checkpoint is None and not name.startswith(HUBS):
        raise InputError(
            f"model.sha256 is of model.checkpoint or of a hub's file, and {name} names neither: timm's are also "
            f"hf-hub:timm/{name}@COMMIT, torchvision's carry a hash of their own"
        )
    path = checkpoint or _fetched(name)
    found = file_digest(path)
    if found != sha256.lower():
        where = path if checkpoint else f"{name}, {path.name}"
        raise InputError(f"{where}: is another file, its SHA-256 is {found}, and model.sha256={sha256.lower()}")
    return path


def _fetched(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import EntryNotFoundError

    repository, _, revision = name.split(":", 1)[1].partition("@")
    for file in _FILES:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except EntryNotFoundError:
            continue
        except (OSError, ValueError, RuntimeError) as error:
            raise not_fetched(name, error) from error
    raise InputError(f"{name}: has neither {' nor '.join(_FILES)}; fetch its weights and give them as model.checkpoint")
