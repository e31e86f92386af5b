"""Runs of runs: methods compared, what is forgotten, what more labels would bring."""
