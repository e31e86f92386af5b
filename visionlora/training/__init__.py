"""One training loop for all tasks, with exact resume, and what surrounds it."""
