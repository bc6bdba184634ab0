"""One OpenTelemetry trace for each request, over all processes that work on it.

    client's traceparent ─► router span ─ traceparent ─► edge span
                                  └─ link span ─ traceparent ─► cloud span       ─► OTLP or console

Off by default, and then it costs next to nothing. The standard variables alone configure it:
``OTEL_TRACES_EXPORTER`` (``otlp``, ``console`` or ``none``; an OTLP endpoint without it means
``otlp``), ``OTEL_EXPORTER_OTLP_*`` (by http/protobuf only), ``OTEL_TRACES_SAMPLER``,
``OTEL_SERVICE_NAME``, ``OTEL_SDK_DISABLED``. A parent that is not sampled is respected.
"""

import os
import sys
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from xpi_ray import __version__

__all__ = ["Span", "SpanKind", "Tracing"]

PREFIX = "xpi."
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_W3C = TraceContextTextMapPropagator()


class Span:
    """One process's part of a trace; it ends with the ``with`` block, and marks its error."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: trace.Span | None) -> None:
        self._span = span
        self.traceparent = ""
        """What makes the next process's span a child of this one (W3C); empty when off."""
        if span is not None:
            own = span.get_span_context()
            self.traceparent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"

    def set(self, **attributes: str | int | float | bool | None) -> None:
        """Set attributes of this project, such as ``exit=3`` for ``xpi.exit``; None sets none."""
        if self._span is None:
            return
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(PREFIX + name, value)

    def set_http(
        self, method: str, path: str, scheme: str, status: int, route: str | None = None
    ) -> None:
        """Set what OpenTelemetry's stable conventions ask of an HTTP server's span."""
        if self._span is None:
            return
        self._span.set_attribute("http.request.method", method)
        self._span.set_attribute("url.path", path)
        self._span.set_attribute("url.scheme", scheme)
        self._span.set_attribute("http.response.status_code", status)
        if route is not None:
            self._span.set_attribute("http.route", route)
        if status >= 500:  # a 4xx is the client's error, not this span's
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(StatusCode.ERROR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._span is None:
            return
        if error is not None:
            self._span.record_exception(error)
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(StatusCode.ERROR, str(error))
        self._span.end()


_OFF = Span(None)


class Tracing:
    """Makes one process's spans.

    The tracer provider is its own: the global one belongs to Ray Serve.

    Args:
        role: ``router``, ``edge`` or ``cloud``; names the service unless OTEL_SERVICE_NAME does.
        exporter: Where spans go; by default, where the environment says.
    """

    def __init__(self, role: str, exporter: SpanExporter | None = None) -> None:
        self._provider: TracerProvider | None = None
        exporter = exporter or _exporter_of_environment()
        if exporter is None or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return
        service = os.environ.get("OTEL_SERVICE_NAME") or f"xpi-{role}"
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("xpi_ray", __version__)

    def span(
        self, name: str, parent: str | None = None, kind: SpanKind = SpanKind.INTERNAL
    ) -> Span:
        """Begin a span.

        Args:
            name: Of the span.
            parent: The caller's ``traceparent``; without a well-formed one a new trace begins.
            kind: Its side of the call.
        """
        if self._provider is None:
            return _OFF
        # The current context is left alone: it may hold a span of Ray Serve's own traces.
        context = Context()
        if parent:
            context = _W3C.extract({"traceparent": parent}, context)
        return Span(self._tracer.start_span(name, context, kind))

    def flush(self) -> None:
        """Send what was kept back to be sent in one batch."""
        if self._provider is not None:
            self._provider.force_flush()

    def close(self) -> None:
        """Flush, and end the thread that sends."""
        if self._provider is not None:
            self._provider.shutdown()


def _exporter_of_environment() -> SpanExporter | None:
    chosen = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if chosen == "console":
        return ConsoleSpanExporter(out=sys.stdout)  # as it is now: Ray replaces it
    if chosen == "otlp" or (not chosen and any(os.environ.get(name) for name in ENDPOINTS)):
        return OTLPSpanExporter()
    return None
