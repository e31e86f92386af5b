"""Changes of light, weather and sensor."""

import numpy as np
import pytest
from PIL import Image

from visionlora.data.augmentations import STRENGTHS, Augmentation, photometric_chain


@pytest.mark.parametrize("strength", [strength for strength in STRENGTHS if strength != "none"])
def test_the_photometric_chain_moves_nothing(strength: str) -> None:
    """The shift at which original and result resemble each other most is none."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    image = np.array(coarse.resize((256, 192), Image.Resampling.BICUBIC))
    augment = Augmentation(photometric_chain(strength))
    grey = image.mean(axis=2)
    spectrum = np.fft.fft2(grey - grey.mean())
    changed = 0
    for seed in range(150):
        result = augment(image, seed).mean(axis=2)
        alike = np.fft.ifft2(spectrum.conj() * np.fft.fft2(result - result.mean())).real
        assert np.unravel_index(alike.argmax(), alike.shape) == (0, 0), seed
        changed += not np.array_equal(result, grey)
    assert changed > 100


def test_fog_is_thicker_far_away_and_darkens_nothing_black() -> None:
    chain = photometric_chain("surveillance")
    fog = Augmentation([next(one for one in chain[0].transforms if type(one).__name__ == "_Fog")])
    foggy = [fog(np.zeros((60, 80, 3), np.uint8), seed) for seed in range(40)]
    dense = [image for image in foggy if image.any()]
    assert 10 < len(dense) < 40
    for image in dense:
        rows = image.mean(axis=(1, 2))
        assert (np.diff(rows) <= 0).all()
        assert rows[0] > rows[-1] + 10
