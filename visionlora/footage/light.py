"""Day, night or infrared: what light a frame was taken in, from its brightness and colour alone."""

import numpy as np
from PIL import Image

DARK = 60
"""Of 255: the mean luma below which it is night."""
GREY = 12
"""Levels out of 255 between the largest and the least of red, green and blue: up to here a place has no colour."""
BLACK = 12
"""The mean luma below which there is no telling whether it has colour."""

_SHARE = 97
"""Per cent of the places that must be grey: a coloured time stamp may be in the picture."""
_SIZE = (64, 48)
"""Width and height of the small picture that is looked at: noise of single pixels is gone from it."""


def light_of(image: Image.Image) -> str:
    """``infrared``: without colour, as cameras turn to at night. ``night``: dark. ``day``: neither.

    Of the picture scaled to 64 x 48, by the mean of the pixels: infrared if in 97 of 100 places red, green and blue
    are within ``GREY`` levels; else, and where it is black, night if the mean luma (Rec. 601) is below ``DARK``; else
    day. A camera without colours is therefore always infrared, and a room with lamps on has day.
    """
    small = np.asarray(image.convert("RGB").resize(_SIZE, Image.Resampling.BOX)).astype(np.int16)  # (48, 64, 3)
    luma = float(np.mean(small @ np.array([0.299, 0.587, 0.114])))
    colour = np.percentile(small.max(axis=2) - small.min(axis=2), _SHARE)
    if colour <= GREY and luma >= BLACK:
        return "infrared"
    return "night" if luma < DARK else "day"
