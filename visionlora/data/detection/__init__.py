"""Samples for detection and instance segmentation."""
