"""Boxes, and instance masks."""
