import pytest

from xpi_ray.errors import TrainingError
from xpi_ray.networks.own import own_callable


def test_a_callable_is_found_by_its_name():
    """In any module that can be imported."""
    assert own_callable("xpi_ray.networks.own:own_callable", "model", "()") is own_callable


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:net", "cannot import the model 'no_such_package:net'"),
        ("math:net", r"math holds no callable 'net'; a model of your own .* package\.module:name"),
        ("math:pi", "math holds no callable 'pi'"),
        ("math", "math holds no callable ''"),
        ("", "cannot import"),
    ],
)
def test_a_name_of_nothing_is_refused(name, message):
    """The message says what role it was to play, and how to write it."""
    with pytest.raises(TrainingError, match=message):
        own_callable(name, "model", "()")
