"""``make demo``: a small base model from generated day-time street scenes, adapted to a night camera."""
