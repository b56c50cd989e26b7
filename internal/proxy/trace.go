package proxy

import (
	"context"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Tracing says which requests are traced, and where spans go.
type Tracing struct {
	// Endpoint is the URL that takes spans by OTLP over HTTP, such as
	// "http://localhost:4318/v1/traces".
	Endpoint string
	// Ratio is the share, from 0 to 1, of requests that are traced of those that
	// bring no decision of their own (W3C Trace Context).
	Ratio float64
	// Service is what spans are named after; empty: "fairway".
	Service string
}

// tracer makes spans of requests.
type tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	context  propagation.TraceContext
}

func newTracer(ctx context.Context, t Tracing) (*tracer, error) {
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(t.Endpoint))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	if t.Service == "" {
		t.Service = "fairway"
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(t.Ratio))),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", t.Service))),
	)
	return &tracer{provider: provider, tracer: provider.Tracer("github.com/fairwaynet/fairway/internal/proxy")}, nil
}

// close sends the spans that wait.
func (t *tracer) close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// span is that of one request.
type span struct {
	on   bool
	span trace.Span
}

// carrier reads and writes the fields of a request.
type carrier struct{ r *message.Request }

// Get returns a field's value; "" if it is not there.
func (c carrier) Get(name string) string {
	v, _ := message.GetName(c.r.Fields, strings.ToLower(name))
	return string(v)
}

// Set replaces a field.
func (c carrier) Set(name, value string) {
	name = strings.ToLower(name)
	c.r.Fields = append(message.Remove(c.r.Fields, name), message.Field{Name: []byte(name), Value: []byte(value)})
}

// Keys returns the names of the fields.
func (c carrier) Keys() []string {
	var out []string
	for _, f := range c.r.Fields {
		out = append(out, string(f.Name))
	}
	return out
}

// startSpan begins a span, and has the backend's be below it.
func (x *exchange) startSpan() {
	t := x.engine.tracer
	ctx := t.context.Extract(context.Background(), carrier{x.req})
	ctx, s := t.tracer.Start(ctx, string(x.req.Method)+" "+x.rule.route.name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", string(x.req.Method)),
		attribute.String("url.scheme", string(x.req.Scheme)),
		attribute.String("url.path", strings.ToValidUTF8(string(x.req.PathOnly()), "?")),
		attribute.String("server.address", string(x.target.Host)),
		attribute.String("client.address", x.client.String()),
		attribute.String("network.protocol.name", x.conn.Protocol),
		attribute.String("fairway.listener", x.listener.name),
		attribute.String("fairway.route", x.rule.route.name),
		attribute.Int("fairway.rule", x.entry.Rule),
	))
	t.context.Inject(ctx, carrier{x.req})
	x.span = span{on: true, span: s}
}

// endSpan ends the span.
func (x *exchange) endSpan() {
	s := x.span.span
	s.SetAttributes(attribute.Int("http.response.status_code", x.status), attribute.Int64("http.response.body.size", x.sent))
	if x.ep != nil {
		s.SetAttributes(attribute.String("fairway.upstream", x.backend.name), attribute.String("server.endpoint", x.ep.String()),
			attribute.Int("http.request.resend_count", max(0, x.attempts-1)))
	}
	if x.status >= 500 {
		s.SetStatus(codes.Error, x.reason)
	}
	s.End()
}
