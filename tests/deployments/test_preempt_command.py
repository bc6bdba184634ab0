import pytest
import typer
from typer.testing import CliRunner

from deployments.preempt_command import EXAMPLES, preempt
from xpi_ray.errors import TierLostError


@pytest.fixture
def xpi_preempt():
    """Run `xpi preempt`."""
    app = typer.Typer()
    app.command()(preempt)
    return lambda *args: CliRunner().invoke(app, args)


def test_where_no_cluster_is_it_says_so(xpi_preempt):
    """An address that nobody listens at is named."""
    result = xpi_preempt("--address", "127.0.0.1:1")
    assert isinstance(result.exception, TierLostError)
    assert "no Ray cluster to join at 127.0.0.1:1" in str(result.exception)


def test_examples_name_real_options(xpi_preempt):
    """Every option in the examples is one of the command's."""
    known = xpi_preempt("--help").stdout
    for word in EXAMPLES.split():
        assert not word.startswith("--") or word in known
