"""Adapters: functions from a layer's frozen weight to its adapted weight."""
