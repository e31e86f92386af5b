"""A folder of cameras' adapters, with their versions."""
