// Package gateway proves the gateway from outside: what comes in is bytes of a
// client, what is looked at are the bytes that clients and backends get. It has
// no code but tests. The smuggling table is part of every "go test". The rest has
// the build tag gateway (make gateway-test): h2spec, gRPC's interop client, the
// soak, and the real binary under load while everything that it uses changes.
package gateway
