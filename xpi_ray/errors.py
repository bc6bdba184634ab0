"""Every error that the project raises on purpose, as one tree.

    XpiError                     500
      RequestError               400  the client's fault: the message says what was expected
        NotFoundError            404
        TooLargeError            413
        UnsupportedMediaError    415
        DeadlineError            504  no exit that may answer could run in the time given
        OverloadError            429  too many requests wait already
        UnavailableError         503  no edge and no cloud can take the request now
      BundleError                     a bundle is missing, damaged, newer or foreign
      FrameError                      bytes from the link are not a frame
      CodecError                      a frame's payload does not decode to what it declares
      DataError                       a data set is missing or damaged
      TrainingError                   a training cannot be done as asked
      PlanError                       a plan does not fit the network, or is not finite
      PlacementError                  a node label that a deployment needs is missing
      TierLostError                   an edge or cloud replica died or cannot be reached

Each takes one message, so that it survives pickling between processes; ``status`` is the HTTP
status that a client sees.
"""

from typing import ClassVar


class XpiError(Exception):
    """Base of all; an error of ours that is not the client's fault."""

    status: ClassVar[int] = 500


class RequestError(XpiError):
    """The request cannot be answered as it was sent."""

    status = 400


class NotFoundError(RequestError):
    """The request names a model or a version that is not served here."""

    status = 404


class TooLargeError(RequestError):
    """The request is larger than the server's limit."""

    status = 413


class UnsupportedMediaError(RequestError):
    """The body is of a kind that this endpoint does not take."""

    status = 415


class DeadlineError(RequestError):
    """The deadline passed before exit 1 could run, or any that may answer."""

    status = 504


class OverloadError(RequestError):
    """More requests wait than may; the client should come back later."""

    status = 429
    retry_after_s: ClassVar[int] = 1


class UnavailableError(RequestError):
    """Neither edge nor cloud can take a request now; the client should come back later."""

    status = 503
    retry_after_s: ClassVar[int] = 1


class BundleError(XpiError):
    """A bundle is missing, damaged, newer than this software, or not one at all."""


class FrameError(XpiError):
    """Bytes from the link are not a well-formed frame."""


class CodecError(XpiError):
    """A payload does not decode to the tensor that its frame declares."""


class DataError(XpiError):
    """A data set is missing, or not what its checksum says."""


class TrainingError(XpiError):
    """A training cannot be done as asked, or lacks a package that it needs."""


class PlanError(XpiError):
    """A plan does not fit the network that it is for."""


class PlacementError(XpiError):
    """A deployment asks for a node label that no living node carries."""


class TierLostError(XpiError):
    """The edge or the cloud replica that had the request died, or none can be reached."""
