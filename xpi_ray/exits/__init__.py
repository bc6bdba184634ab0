"""Exits: how sure one is, whether to leave there, and how to choose the thresholds."""
