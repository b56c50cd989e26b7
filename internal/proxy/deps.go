//go:build deps

package proxy

import (
	_ "github.com/andybalholm/brotli"
	_ "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	_ "github.com/go-jose/go-jose/v4/jwt"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/quic-go/quic-go/http3"
	_ "go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	_ "go.opentelemetry.io/otel/sdk/trace"
	_ "golang.org/x/crypto/bcrypt"
	_ "golang.org/x/net/http2"
	_ "golang.org/x/net/http2/hpack"
)
