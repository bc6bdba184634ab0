"""The policy store: a named actor that holds each site's newest plans for those who come late.

Scheduler ─ put ─► PolicyStore ◄─ get ─ Router (when its replica starts)
"""

import time

import ray
from ray.actor import ActorHandle

from deployments.placement import CLOUD
from xpi_ray.policies.plan import PlanBook

NAME, NAMESPACE = "xpi-policy-store", "xpi"


class PolicyStore:
    """Keeps one book for each site; it lives as long as the cluster."""

    def __init__(self) -> None:
        self._books: dict[str, tuple[PlanBook, float]] = {}

    def put(self, site: str, book: PlanBook) -> None:
        """Keep the book as the site's newest."""
        self._books[site] = (book, time.monotonic())

    def get(self, site: str) -> tuple[PlanBook, float] | None:
        """The site's newest book and its age in seconds; None when there is none yet."""
        if site not in self._books:
            return None
        book, put_s = self._books[site]
        return book, time.monotonic() - put_s

    def version(self) -> int:
        """The highest version of all books, 0 when there is none."""
        return max((book.version for book, _ in self._books.values()), default=0)


def open_store() -> ActorHandle:
    """The cluster's store, made by whoever asks first."""
    actor = ray.remote(PolicyStore).options(
        name=NAME,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        max_restarts=-1,
        num_cpus=0,
        label_selector=CLOUD,
    )
    handle: ActorHandle = actor.remote()
    return handle


def find_store() -> ActorHandle | None:
    """The cluster's store, if anybody made it."""
    try:
        handle: ActorHandle = ray.get_actor(NAME, NAMESPACE)
    except ValueError:
        return None
    return handle
