"""One classifier of a base's classes and of new ones, which learns the base's from the base's own answers."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Teacher:
    """A base that says what the first logits should be; no image of its own classes is needed.

    Squared differences of logits (Ba and Caruana 2014, arXiv:1312.6184), as learning without forgetting has it with
    softened probabilities (Li and Hoiem 2016, arXiv:1606.09282): so the old logits stay where new ones can be compared
    with them.

    Attributes:
        model: in eval mode; it is not trained.
    """

    model: nn.Module

    def loss(self, images: Tensor, logits: Tensor) -> Tensor:
        """Mean squared difference of the base's logits for images (N, 3, H, W) and the first of these (N, classes)."""
        with torch.no_grad():
            said = self.model.to(images.device)(images)
        return F.mse_loss(logits[:, : said.shape[1]].float(), said.float())


@torch.no_grad()
def copy_rows(model: nn.Module, base: nn.Module, head: list[str]) -> None:
    """Begin the head of a model with the rows of its base's; both have these modules."""
    for name in head:
        own = dict(model.get_submodule(name).named_parameters())
        for key, old in base.get_submodule(name).named_parameters():
            if own[key].shape[1:] == old.shape[1:]:
                own[key][: len(old)] = old
