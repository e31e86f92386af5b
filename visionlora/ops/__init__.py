"""Fused operations for adapted layers. None yet: the dense path of ``adapters.methods`` is the reference."""
