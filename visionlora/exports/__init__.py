"""Merged models that leave the house: timm folders, plain weights and ONNX, checked before they are kept."""
