"""A label or several for each image."""
