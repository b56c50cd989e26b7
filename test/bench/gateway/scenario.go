package main

import "fmt"

// protocol is what clients speak with the proxy. Backends speak HTTP/1.1, but
// those of gRPC.
type protocol string

const (
	http1     protocol = "HTTP/1.1"
	http1TLS  protocol = "HTTP/1.1 TLS"
	http2     protocol = "HTTP/2 TLS"
	grpcUnary protocol = "gRPC"
)

// scenario is one load.
type scenario struct {
	Protocol protocol `json:"protocol"`
	// Body is the size of a response in bytes.
	Body int `json:"body"`
	// Conns times Streams requests are under way at a time.
	Conns   int `json:"connections"`
	Streams int `json:"streams"`
	// Routes is how many the proxy has; the load goes to the last one.
	Routes int `json:"routes"`
}

func (s scenario) String() string {
	load := fmt.Sprintf("%d connections", s.Conns)
	if s.Streams > 1 {
		load = fmt.Sprintf("%d × %d streams", s.Conns, s.Streams)
	}
	return fmt.Sprintf("%s, %s, %s, %s", s.Protocol, size(s.Body), load, count(s.Routes, "route"))
}

func size(bytes int) string {
	if bytes >= 1<<10 {
		return fmt.Sprintf("%d KB", bytes>>10)
	}
	return fmt.Sprintf("%d B", bytes)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

const (
	small    = 1 << 10
	large    = 100 << 10
	grpcBody = 64
)

// smoke shows that the bench works; its figures mean nothing.
func smoke() []scenario {
	return []scenario{{http1, small, 8, 1, 100}, {http2, small, 2, 4, 1}, {grpcUnary, grpcBody, 2, 4, 1}}
}

// quick is what tells most.
func quick() []scenario {
	return []scenario{
		{http1, small, 1, 1, 1}, {http1, small, 64, 1, 1}, {http1, small, 64, 1, 5000}, {http1, large, 64, 1, 1},
		{http1TLS, small, 64, 1, 1}, {http2, small, 8, 8, 1}, {grpcUnary, grpcBody, 8, 8, 1},
	}
}

// full is all combinations of protocol, size and load with one route, and the
// numbers of routes for each protocol.
func full() (all []scenario) {
	for _, p := range []protocol{http1, http1TLS, http2} {
		for _, body := range []int{small, large} {
			for _, load := range [][2]int{{1, 1}, {64, 1}, {512, 1}} {
				if p == http2 {
					load = map[int][2]int{1: {1, 1}, 64: {8, 8}, 512: {8, 64}}[load[0]]
				}
				all = append(all, scenario{p, body, load[0], load[1], 1})
			}
		}
	}
	for _, load := range [][2]int{{1, 1}, {8, 8}, {8, 64}} {
		all = append(all, scenario{grpcUnary, grpcBody, load[0], load[1], 1})
	}
	for _, routes := range []int{100, 5000} {
		all = append(all, scenario{http1, small, 64, 1, routes}, scenario{http2, small, 8, 8, routes}, scenario{grpcUnary, grpcBody, 8, 8, routes})
	}
	return all
}
