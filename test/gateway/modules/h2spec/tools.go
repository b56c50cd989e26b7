//go:build tools

// Package tools names what is built from this module, so that "go mod tidy"
// keeps all that it needs.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
