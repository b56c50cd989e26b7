// Package filter holds what a gateway does with the heads of requests and
// responses, apart from sending them: each filter is a small type, compiled once
// from its model, that works on a head without I/O and, where the result allows,
// without an allocation. Filters are safe for concurrent use unless they say otherwise.
//
// A New function returns an error that names the field it cannot take.
//
// Byte slices that a filter puts into a head are the filter's, constant, and must
// not be written to.
package filter
