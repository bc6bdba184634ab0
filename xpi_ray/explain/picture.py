"""One picture of what a network saw: the image, what counted in it, and a panel for every exit.

    Explanation ─► draw ─► Figure

Heat maps are transparent where nothing counts and darken steadily from there; what a colour says
of an exit stands there in words too. So eyes of any kind can read the picture.
"""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from xpi_ray.explain.sight import Explanation, Map, Sight

DPI = 110
COLUMNS = 4  # of exits
PANEL_INCHES = (1.75, 2.45)  # width and height of an exit's, with its words
INCHES_A_LETTER = 0.064  # of the legend
LETTERS_OF_LABEL = 18
LETTERS_OF_TITLE = 75
TOP_PERCENTILE = 99  # of a map, where its colours end: one odd pixel must not pale all others
BLUE, VERMILION, GREY, PALE, DARK = "#0072B2", "#D55E00", "#767676", "#E4E4E4", "#404040"
PALEST = -300  # a grey that black would have to be for black to look pale
LUMA = (0.299, 0.587, 0.114)  # what red, green and blue add to brightness; ITU-R BT.601

LEGEND = (
    "The darker, the more it counts for the answer (magnitude of integrated gradients). An exit's "
    "map shows where its branch looked, which reads only some of its block's channels; the bar "
    "shows how much of all that counts for the last answer these channels hold. Blue: the image "
    "leaves here by the strictest calibrated thresholds, so the exits in grey need not run. "
    "Orange: another answer than the last exit's."
)


@matplotlib.rc_context({"text.parse_math": False})  # a $ in a file's name or a label is a $
def draw(explanation: Explanation, labels: Sequence[str], leaves_at: int, title: str) -> Figure:
    """Draw an explanation.

    Args:
        explanation: Of one image.
        labels: Names of the classes.
        leaves_at: The exit at which the image leaves, 1..N.
        title: A line above it all.
    """
    sights = explanation.sights
    rows = max(-(-len(sights) // COLUMNS), 2)
    width, height = PANEL_INCHES[0] * COLUMNS, PANEL_INCHES[1] * rows
    side = 0.5 * height
    figure = Figure((side + width, height + 1.2), dpi=DPI, layout="constrained")
    figure.suptitle(
        _shorten(title, LETTERS_OF_TITLE), fontsize=13, fontweight="bold", x=0.012, ha="left"
    )
    legend = textwrap.fill(LEGEND, int((side + width) / INCHES_A_LETTER))
    figure.supxlabel(legend, fontsize=8.5, x=0.012, ha="left", color=DARK)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(side, width))[0]
    _draw_whole(left, explanation, labels)
    panels = right.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, sight in zip(panels, sights, strict=False):
        _draw_exit(axes, explanation, sight, labels, leaves_at)
    for axes in panels[len(sights) :]:
        axes.set_visible(False)
    return figure


def _heat_colours() -> Colormap:
    """From transparent to dark violet."""
    colours = matplotlib.colormaps["magma_r"](np.linspace(0.1, 0.85, 256))
    colours[:, 3] = np.linspace(0, 1, 256)
    return ListedColormap(colours, "heat")


def _draw_whole(figure: SubFigure, explanation: Explanation, labels: Sequence[str]) -> None:
    """The image above, what counts in it below, and the scale of all heat maps."""
    image, attributed = figure.subplots(2, 1)
    for axes in (image, attributed):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(PALE)
    image.imshow(explanation.pixels.transpose(1, 2, 0), interpolation="nearest")
    height, width = explanation.importance.shape
    image.set_title(f"the image, {width} x {height} pixels", size=9.5)
    heat = _draw_heat(attributed, explanation, explanation.importance)
    last = _shorten(labels[explanation.sights[-1].label])
    attributed.set_title(f"what counts for {last}", size=9.5)
    bar = figure.colorbar(heat, ax=attributed, location="bottom", fraction=0.05, pad=0.03)
    bar.set_ticks([0, 0.5, 1], labels=["nothing", "importance", "most"])
    bar.ax.tick_params(labelsize=8.5, length=0)
    bar.outline.set_color(PALE)
    nothing, _, most = bar.ax.get_xticklabels()
    nothing.set_horizontalalignment("left")
    most.set_horizontalalignment("right")


def _draw_exit(
    axes: Axes, explanation: Explanation, sight: Sight, labels: Sequence[str], leaves_at: int
) -> None:
    """What one exit answered, how sure it was, where it looked, and what its channels hold."""
    leaves, agrees = sight.exit == leaves_at, sight.label == explanation.sights[-1].label
    ink = GREY if sight.exit > leaves_at else "black"
    _draw_heat(axes, explanation, sight.where)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=BLUE if leaves else PALE, linewidth=3 if leaves else 1)
    name = f"exit {sight.exit}, leaves here" if leaves else f"exit {sight.exit}"
    weight = "bold" if leaves else "normal"
    axes.set_title(name, size=9, color=BLUE if leaves else ink, weight=weight, pad=19)
    answer = f"{_shorten(labels[sight.label])} {sight.probability:.0%}"
    axes.annotate(
        answer, (0.5, 1), (0, 5), "axes fraction", "offset points",
        ha="center", size=9.5, color=ink if agrees else VERMILION,
    )  # fmt: skip
    _draw_share(axes, sight)
    axes.set_xlabel(
        f"{_describe_share(sight)}\nentropy {sight.entropy:.2f}", size=7.5, color=ink, labelpad=9
    )


def _draw_share(axes: Axes, sight: Sight) -> None:
    """The bar below an exit's map."""
    for length, colour in ((1.0, PALE), (sight.branch_share, DARK)):
        bar = Rectangle((0, -0.075), length, 0.035, color=colour, linewidth=0, clip_on=False)
        axes.add_patch(bar).set_transform(axes.transAxes)


def _draw_heat(axes: Axes, explanation: Explanation, heat: Map) -> AxesImage:
    """A map over the image in pale grey."""
    grey = np.einsum("chw,c->hw", explanation.pixels, LUMA)
    axes.imshow(grey, "gray", vmin=PALEST, vmax=255, interpolation="nearest")
    top = max(float(np.percentile(heat, TOP_PERCENTILE)), 1e-30)  # of nothing nothing is shown
    return axes.imshow(heat / top, _heat_colours(), vmin=0, vmax=1, interpolation="nearest")


def _shorten(text: str, letters: int = LETTERS_OF_LABEL) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _describe_share(sight: Sight) -> str:
    if sight.branch_channels == sight.channels:
        return f"all {sight.channels} channels"
    digits = 1 if sight.branch_share < 0.0995 else 0  # two that count, where there is room
    share = f"{sight.branch_share:.{digits}%}"
    return f"{sight.branch_channels} of {sight.channels} channels hold {share}"
