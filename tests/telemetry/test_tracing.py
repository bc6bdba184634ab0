import os
import re
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from xpi_ray.telemetry.tracing import SpanKind, Tracing
from xpi_ray.testing import TraceReceiver

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def exporter():
    """Keep spans in memory."""
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter):
    """Trace into memory."""
    tracing = Tracing("router", exporter)
    yield tracing
    tracing.close()


def finished(tracing, exporter):
    """Return the finished spans by name."""
    tracing.flush()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_span_continues_the_clients_trace(tracing, exporter):
    """A span has the trace of its parent's traceparent, and hands on its own."""
    with tracing.span("xpi.request", SAMPLED, SpanKind.SERVER) as outer:
        assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", outer.traceparent)
        with tracing.span("xpi.link", outer.traceparent, SpanKind.CLIENT):
            pass
    spans = finished(tracing, exporter)
    request, link = spans["xpi.request"], spans["xpi.link"]
    assert format(request.context.trace_id, "032x") == TRACE
    assert format(request.parent.span_id, "016x") == CALLER
    assert link.parent.span_id == request.context.span_id
    assert (request.kind, link.kind) == (SpanKind.SERVER, SpanKind.CLIENT)


@pytest.mark.parametrize(
    "parent", [None, "", "nonsense", "00-0-0-01", SAMPLED + "-x\r\n", "ü" * 55]
)
def test_a_malformed_traceparent_begins_a_new_trace(tracing, exporter, parent):
    """Without a well-formed parent a span is the root of a trace of its own."""
    with tracing.span("xpi.request", parent):
        pass
    assert finished(tracing, exporter)["xpi.request"].parent is None


def test_an_unsampled_parent_is_respected(tracing, exporter):
    """A client that does not sample gets no spans, and the next process is told the same."""
    with tracing.span("xpi.request", UNSAMPLED) as span:
        span.set(exit=1)
        assert span.traceparent.startswith(f"00-{TRACE}-")
        assert span.traceparent.endswith("-00")
    assert not finished(tracing, exporter)


def test_the_sampler_is_the_environments(monkeypatch, exporter):
    """OTEL_TRACES_SAMPLER decides where the client does not."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    tracing = Tracing("router", exporter)
    with tracing.span("fresh"), tracing.span("asked for", SAMPLED):
        pass
    assert set(finished(tracing, exporter)) == {"asked for"}
    tracing.close()


def test_attributes_are_named_after_the_project(tracing, exporter):
    """Attributes get the prefix ``xpi.``; None sets none."""
    with tracing.span("xpi.request") as span:
        span.set(exit=3, tier="edge", entropy=0.25, plan_version=None)
    attributes = finished(tracing, exporter)["xpi.request"].attributes
    assert attributes == {"xpi.exit": 3, "xpi.tier": "edge", "xpi.entropy": 0.25}


@pytest.mark.parametrize(("status", "is_error"), [(200, False), (404, False), (504, True)])
def test_http_attributes_follow_the_conventions(tracing, exporter, status, is_error):
    """An HTTP span has the stable attributes; only a 5xx is an error of the server's."""
    with tracing.span("xpi.request", kind=SpanKind.SERVER) as span:
        span.set_http("POST", "/v1/classify", "http", status, "/v1/classify")
    span = finished(tracing, exporter)["xpi.request"]
    expected = {
        "http.request.method": "POST",
        "url.path": "/v1/classify",
        "url.scheme": "http",
        "http.route": "/v1/classify",
        "http.response.status_code": status,
    }
    assert dict(span.attributes) == expected | ({"error.type": str(status)} if is_error else {})
    assert (span.status.status_code is StatusCode.ERROR) is is_error


def test_an_exception_marks_its_span_and_goes_on(tracing, exporter):
    """A span that an exception leaves is ended, marked and holds the exception."""
    with pytest.raises(ValueError, match="broken"), tracing.span("xpi.edge"):
        raise ValueError("broken")
    span = finished(tracing, exporter)["xpi.edge"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "ValueError"
    assert [event.name for event in span.events] == ["exception"]


def test_the_global_provider_is_left_alone(tracing):
    """Ray Serve's own tracing sees neither our provider nor our spans."""
    with tracing.span("xpi.request"):
        assert not trace.get_current_span().get_span_context().is_valid
    assert trace.get_tracer_provider() is not tracing._provider


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"},
    ],
)
def test_it_is_off_unless_asked_for(monkeypatch, variables):
    """When off, a span hands on nothing, takes anything, and is always the same object."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracing = Tracing("router")
    with tracing.span("a", SAMPLED) as span:
        span.set(exit=1)
        span.set_http("GET", "/", "http", 500)
        assert span.traceparent == ""
    assert tracing.span("b") is span
    tracing.flush()
    tracing.close()


@pytest.mark.parametrize("service", [None, "my-edge"])
def test_spans_reach_a_collector_over_otlp(monkeypatch, service):
    """An endpoint alone turns tracing on; spans arrive by themselves, under the service's name."""
    with TraceReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        if service:
            monkeypatch.setenv("OTEL_SERVICE_NAME", service)
        tracing = Tracing("edge")
        with tracing.span("xpi.edge", SAMPLED) as span:
            span.set(exit=2, entropy=0.5)
        (got,) = receiver.wait(1)
        tracing.close()
    assert got["name"] == "xpi.edge"
    assert (got["trace_id"], got["parent_id"]) == (TRACE, CALLER)
    assert span.traceparent == f"00-{got['trace_id']}-{got['span_id']}-01"
    assert got["attributes"] == {"xpi.exit": 2, "xpi.entropy": 0.5}
    assert got["end_ns"] >= got["start_ns"] > 0
    assert got["service"] == (service or "xpi-edge")


def test_one_trace_spans_processes():
    """A child process that is handed a traceparent adds its span to the caller's trace."""
    child = (
        "import sys; from xpi_ray.telemetry.tracing import Tracing\n"
        "tracing = Tracing('cloud')\n"
        "with tracing.span('xpi.cloud', sys.argv[1]): pass\n"  # leaving the process must flush
    )
    with TraceReceiver() as receiver:
        variables = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        subprocess.run([sys.executable, "-c", child, SAMPLED], env=variables, check=True)
        (got,) = receiver.wait(1)
    assert (got["trace_id"], got["parent_id"], got["service"]) == (TRACE, CALLER, "xpi-cloud")


def test_the_console_is_an_exporter(monkeypatch, capsys):
    """OTEL_TRACES_EXPORTER=console prints spans."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    tracing = Tracing("cloud")
    with tracing.span("xpi.cloud"):
        pass
    tracing.close()
    assert '"xpi.cloud"' in capsys.readouterr().out
