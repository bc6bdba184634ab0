import pickle
import re

import pytest

from xpi_ray import errors
from xpi_ray.errors import XpiError

LINE = re.compile(r"^( {4,})(\w+Error)(?: +(\d{3}))?\b")


def classes(base=XpiError):
    """Return a class and all that descend from it."""
    return [base, *(found for child in base.__subclasses__() for found in classes(child))]


def documented():
    """Read the tree in the module's docstring: name to (parent's name, status)."""
    tree, path = {}, []
    for line in errors.__doc__.splitlines():
        if match := LINE.match(line):
            depth = (len(match[1]) - 4) // 2
            path[depth:] = [match[2]]
            parent = path[depth - 1] if depth else None
            tree[match[2]] = (parent, int(match[3]) if match[3] else tree[parent][1])
    return tree


OURS = [found for found in classes() if found.__module__ == errors.__name__]


def test_the_docstrings_tree_is_the_classes():
    """Every class stands in the module's docstring, under its parent and with its status."""
    actual = {
        error.__name__: (None if error is XpiError else error.__base__.__name__, error.status)
        for error in OURS
    }
    assert documented() == actual


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_an_error_survives_pickling(error):
    """An error that crosses processes keeps its class, its message and its status."""
    raised = error("expected 3 channels, got 4; send RGB")
    received = pickle.loads(pickle.dumps(raised))
    assert type(received) is error
    assert str(received) == "expected 3 channels, got 4; send RGB"
    assert received.status == error.status


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_a_status_is_one_of_http(error):
    """A status is an error's of HTTP, and one that says to come back says when."""
    assert 400 <= error.status < 600
    assert (getattr(error, "retry_after_s", 0) > 0) == (error.status in (429, 503))
