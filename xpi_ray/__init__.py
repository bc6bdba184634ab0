"""Progressive inference across an edge machine and a cloud machine."""

__version__ = "0.1.0"
