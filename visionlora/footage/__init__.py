"""Footage: from a camera's recordings to images that can be labelled, trained on and compared."""
