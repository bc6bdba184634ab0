from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from xpi_ray.explain.picture import BLUE, VERMILION, draw
from xpi_ray.explain.sight import Explanation, Sight

LABELS = ("cat", "automobile", "a label of far too many letters")


def made_up(exits, size=(32, 32), label=1, scale=1.0):
    """An explanation of noise."""
    rng = np.random.default_rng(0)
    sights = tuple(
        Sight(
            exit=number,
            label=label,
            probability=1.0,
            entropy=0.25,
            where=scale * rng.random(size, np.float32),
            branch_channels=1280 if number == exits else 110,
            channels=1280,
            branch_share=number / exits,
        )
        for number in range(1, exits + 1)
    )
    pixels = rng.integers(0, 256, (3, *size), np.uint8)
    return Explanation(pixels, scale * rng.random(size, np.float32), sights)


def words(figure):
    """All texts that can be seen."""
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("exits", [1, 12, 17])
@pytest.mark.parametrize("size", [(32, 32), (20, 64)])
def test_no_words_overlap_and_none_is_cut(exits, size):
    """Whatever the number of exits, the image's shape and the names, each word has its place."""
    figure = draw(made_up(exits, size, label=2), LABELS, exits, 40 * "a long name ")
    FigureCanvasAgg(figure).draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in words(figure)]
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    overlapping = [
        (text, other)
        for (text, box), (other, place) in combinations(boxes, 2)
        if min(box.x1, place.x1) - max(box.x0, place.x0) > 1
        and min(box.y1, place.y1) - max(box.y0, place.y0) > 1
    ]
    assert overlapping == []


def test_every_exit_has_its_panel():
    """Each is named once, with its answer, entropy and share; one of them is where it leaves."""
    texts = [text.get_text() for text in words(draw(made_up(12), LABELS, 3, "title"))]
    for number in range(1, 13):
        name = f"exit {number}, leaves here" if number == 3 else f"exit {number}"
        assert texts.count(name) == 1
    assert texts.count("automobile 100%") == 12
    assert sum("entropy 0.25" in text for text in texts) == 12
    for share in ("8.3%", "17%", "92%"):
        assert sum(f"110 of 1280 channels hold {share}\n" in text for text in texts) == 1
    assert sum("all 1280 channels" in text for text in texts) == 1
    assert "title" in texts


def test_names_are_no_formulas():
    """Signs that Matplotlib would typeset, or choke on, stand as they are."""
    odd = r"$\nothing$"
    figure = draw(made_up(2), (odd, odd), 1, odd)
    FigureCanvasAgg(figure).draw()
    assert [text.get_text() for text in words(figure)].count(odd) == 1
    assert sum(odd in text.get_text() for text in words(figure)) == 4


def test_another_answer_stands_out():
    """Orange is what differs from the last exit; blue is the exit where it leaves."""
    explanation = made_up(3)
    first = explanation.sights[0]._replace(label=0)
    explanation = explanation._replace(sights=(first, *explanation.sights[1:]))
    found = words(draw(explanation, LABELS, 2, "title"))
    inked = {text.get_text(): to_hex(text.get_color()).upper() for text in found}
    assert inked["cat 100%"] == VERMILION
    assert inked["automobile 100%"] != VERMILION
    assert inked["exit 2, leaves here"] == BLUE


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e12])
def test_maps_of_any_scale_are_drawn(scale):
    """A map's colours do not go by its scale, and one of nothing stays transparent."""
    explanation = made_up(2, scale=scale)
    heats = []
    figure = draw(explanation, LABELS, 1, "title")
    for axes in figure.get_axes():
        heats += [image for image in axes.get_images()[1:] if image.get_array().ndim == 2]
    assert len(heats) == 3
    for heat in heats:
        opacity = heat.to_rgba(heat.get_array())[..., 3]
        assert opacity.min() < 0.1
        assert (opacity.max() > 0.9) == (scale > 0)
