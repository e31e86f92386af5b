"""Windows give what the whole image gives where the model looks at single pixels, and blend where it doesn't."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionlora.errors import InputError
from visionlora.tasks.segmentation.windows import classes_at, predict_windows


@pytest.mark.parametrize(("height", "width"), [(32, 32), (50, 71), (20, 64), (64, 20), (9, 11), (33, 32)])
@pytest.mark.parametrize("overlap", [0, 8, 31])
def test_a_pointwise_model_gives_the_same_as_on_the_whole_image(height: int, width: int, overlap: int) -> None:
    model = nn.Conv2d(3, 5, 1)
    image = torch.randn(2, 3, height, width)
    seen = []

    def watched(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape))
        return model(part)

    logits = predict_windows(watched, image, 32, overlap, batch_size=3)
    torch.testing.assert_close(logits, model(image))
    assert not logits.requires_grad
    assert all(shape[1:] == (3, 32, 32) and 1 <= shape[0] <= 3 for shape in seen)


def test_every_batch_size_gives_the_same() -> None:
    model = nn.Conv2d(3, 4, 5, padding=2)
    image = torch.randn(2, 3, 40, 70)
    whole = [predict_windows(model, image, 32, 16, batch_size) for batch_size in (1, 2, 100)]
    torch.testing.assert_close(whole[0], whole[1])
    torch.testing.assert_close(whole[0], whole[2])


def test_windows_weigh_most_at_their_centre_and_blend_without_a_seam() -> None:
    """Each window answers with its own number; where two overlap, the answer passes from one to the other."""
    numbers = iter(range(10))

    def numbered(part: Tensor) -> Tensor:
        return torch.stack([torch.full((1, 32, 32), float(next(numbers))) for _ in part])

    row = predict_windows(numbered, torch.zeros(1, 3, 32, 48), 32, 16)[0, 0, 16]
    assert row[:16].tolist() == [0] * 16
    torch.testing.assert_close(row[32:], torch.ones(16))
    blend = row[15:33]
    assert (blend.diff() >= 0).all()
    assert blend.diff().max() < 0.2
    assert blend[1:-1].mean().item() == pytest.approx(0.5, abs=1e-5)


def test_logits_in_half_precision_are_averaged_in_float32() -> None:
    model = nn.Conv2d(3, 2, 1).bfloat16()
    logits = predict_windows(lambda part: model(part.bfloat16()), torch.randn(1, 3, 40, 40), 32, 8)
    assert logits.dtype == torch.float32


def test_an_overlap_that_can_not_be() -> None:
    with pytest.raises(InputError, match="tiles of 32 px can't overlap by 32 px"):
        predict_windows(nn.Identity(), torch.zeros(1, 3, 64, 64), 32, 32)


@pytest.mark.parametrize("size", [(6, 8), (12, 16), (5, 31), (3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_classes_of_a_files_pixels_are_those_of_the_resized_logits(
    size: tuple[int, int], dtype: torch.dtype
) -> None:
    logits = torch.randn(4, 6, 8).to(dtype)
    resized = F.interpolate(logits[None].float(), size, mode="bilinear")
    assert torch.equal(classes_at(logits, size), resized.argmax(dim=1)[0])


def test_of_equal_logits_the_first_class_is_taken() -> None:
    assert classes_at(torch.zeros(3, 2, 2), (4, 4)).unique().tolist() == [0]
