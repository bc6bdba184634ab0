import pytest
from starlette.requests import Request

from deployments.routes import MethodNotAllowedError, Routes
from xpi_ray.errors import NotFoundError


def request(method, path, root_path=""):
    """A request as Serve hands it over."""
    return Request(
        {
            "type": "http", "method": method, "path": path, "root_path": root_path,
            "query_string": b"x=1", "headers": [], "scheme": "http", "server": ("edge", 8000),
        }
    )  # fmt: skip


@pytest.fixture
def routes():
    """A table of four routes, whose functions are names."""
    return Routes(
        [
            ("POST", "/v1/classify", "classify"),
            ("GET", "/v2/models/{model}", "metadata"),
            ("POST", "/v2/models/{model}/versions/{version}/infer", "infer"),
            ("DELETE", "/v2/models/{model}", "unload"),
        ]
    )


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/classify", ("classify", {})),
        ("GET", "/v2/models/pets", ("metadata", {"model": "pets"})),
        ("DELETE", "/v2/models/pets", ("unload", {"model": "pets"})),
        (
            "POST",
            "/v2/models/a.b-c/versions/7/infer",
            ("infer", {"model": "a.b-c", "version": "7"}),
        ),
    ],
)
def test_a_path_and_a_method_find_their_function(routes, method, path, expected):
    """What stands in the path's braces comes by name."""
    assert routes.find(request(method, path)) == expected


@pytest.mark.parametrize(
    "path",
    ["/", "", "/v1", "/v1/classify/", "/v1/classify/x", "/v2/models/", "/v2/models/a/b", "/V1"],
)
def test_an_unknown_path_is_not_found(routes, path):
    """The message says what there is."""
    with pytest.raises(NotFoundError, match="POST /v1/classify") as caught:
        routes.find(request("GET", path))
    assert caught.value.status == 404


def test_a_long_path_is_cut_in_the_message(routes):
    """A client's megabyte is not sent back."""
    with pytest.raises(NotFoundError) as caught:
        routes.find(request("GET", "/" + "x" * 100_000))
    assert len(str(caught.value)) < 400


def test_another_method_is_told_those_allowed(routes):
    """A known path with a wrong method is a 405 that lists the right ones."""
    with pytest.raises(MethodNotAllowedError, match="takes GET, DELETE, got POST") as caught:
        routes.find(request("POST", "/v2/models/pets"))
    assert caught.value.status == 405


def test_a_sites_prefix_is_no_part_of_the_path(routes):
    """Under the route prefix of a second site the same paths work."""
    found = routes.find(request("POST", "/site-2/v1/classify", root_path="/site-2"))
    assert found == ("classify", {})
