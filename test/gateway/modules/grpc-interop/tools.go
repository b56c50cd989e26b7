//go:build tools

// Package tools names what is built from this module, so that "go mod tidy"
// keeps all that it needs.
package tools

import (
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/server"
)
