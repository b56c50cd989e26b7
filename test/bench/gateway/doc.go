// Command gateway measures Fairway's gateway beside HAProxy, nginx and Caddy, in
// one run: CPU time and memory for each request, throughput and latency.
//
// Each proxy runs alone, pinned to the first core, in a network namespace of the
// bench's own; the backends and what makes the load share the second one. All
// proxy to the same backends with keep-alive, and all route by the same number of
// path prefixes. See docs/performance.md.
package main
