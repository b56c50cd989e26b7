package echo

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Reply is what the server answers: who it is and what it saw. It is the JSON
// of HTTP answers and UDP datagrams and the Struct of gRPC ones.
type Reply struct {
	Pod       string   `json:"pod"`
	Namespace string   `json:"namespace"`
	Node      string   `json:"node"`
	Zone      string   `json:"zone,omitempty"`
	IPs       []string `json:"ips,omitempty"`
	// Port and PortName are those the client reached, after translation.
	Port     uint16 `json:"port"`
	PortName string `json:"portName,omitempty"`
	// Protocol is "HTTP/1.1", "HTTP/2.0", "gRPC" or "UDP".
	Protocol string `json:"protocol"`
	// LocalAddr and RemoteAddr are the two ends as the server's socket sees them.
	LocalAddr  string `json:"localAddr"`
	RemoteAddr string `json:"remoteAddr"`

	Method  string      `json:"method,omitempty"`
	Host    string      `json:"host,omitempty"`
	Path    string      `json:"path,omitempty"`
	Query   url.Values  `json:"query,omitempty"`
	Headers http.Header `json:"headers,omitempty"`
	// Body is the request body or datagram if it is text, BodyBase64 if not.
	// Of an HTTP body only the first 64 KiB are shown.
	Body       string `json:"body,omitempty"`
	BodyBase64 string `json:"bodyBase64,omitempty"`
}

// reply returns a Reply that says who the server is.
func (s *Server) reply(p Port, protocol string, local, remote net.Addr) Reply {
	r := Reply{
		Pod: s.o.Pod, Namespace: s.o.Namespace, Node: s.o.Node, Zone: s.o.Zone,
		Port: p.Number, PortName: p.Name, Protocol: protocol,
	}
	for _, ip := range s.o.IPs {
		r.IPs = append(r.IPs, ip.String())
	}
	if local != nil {
		r.LocalAddr = local.String()
	}
	if remote != nil {
		r.RemoteAddr = remote.String()
	}
	return r
}

// setBody shows the request's body.
func (r *Reply) setBody(b []byte) {
	if utf8.Valid(b) {
		r.Body = string(b)
	} else {
		r.BodyBase64 = base64.StdEncoding.EncodeToString(b)
	}
}

// json returns the reply as indented JSON with a newline at the end.
func (r *Reply) json() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil { // no field can fail
		return []byte("{}\n")
	}
	return append(b, '\n')
}

// text returns the reply as "key: value" lines.
func (r *Reply) text() []byte {
	var b strings.Builder
	line := func(k, v string) {
		if v != "" {
			fmt.Fprintf(&b, "%s: %s\n", k, v)
		}
	}
	line("pod", r.Pod)
	line("namespace", r.Namespace)
	line("node", r.Node)
	line("zone", r.Zone)
	line("ips", strings.Join(r.IPs, " "))
	line("port", strings.TrimSpace(fmt.Sprintf("%d %s", r.Port, r.PortName)))
	line("protocol", r.Protocol)
	line("local", r.LocalAddr)
	line("remote", r.RemoteAddr)
	line("method", r.Method)
	line("host", r.Host)
	line("path", r.Path)
	line("query", r.Query.Encode())
	writeHeaders(&b, "header ", r.Headers)
	line("body", r.Body)
	line("bodyBase64", r.BodyBase64)
	return []byte(b.String())
}

// writeHeaders writes "prefix name: value" lines sorted by name.
func writeHeaders(b *strings.Builder, prefix string, h http.Header) {
	names := make([]string, 0, len(h))
	for n := range h {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		for _, v := range h[n] {
			fmt.Fprintf(b, "%s%s: %s\n", prefix, n, v)
		}
	}
}
