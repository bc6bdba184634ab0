"""Colours and markers that all plots share.

palette ─► plots, policy_plots
"""

from typing import Any

# Okabe and Ito, "Color Universal Design" (2008); black is what others are compared with.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#999999")
MARKERS = "osD^v<>P*"  # more than colours, so that no pair comes twice

Style = dict[str, Any]
"""Matplotlib's, of one line."""
