package echo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
)

// loopback opens sockets at 127.0.0.1 and ::1 instead of all addresses.
func loopback(o *Options) {
	var lc net.ListenConfig
	at := func(network, addr string) string {
		if strings.HasSuffix(network, "6") {
			return "[::1]" + addr
		}
		return "127.0.0.1" + addr
	}
	o.Listen = func(ctx context.Context, network, addr string) (net.Listener, error) {
		return lc.Listen(ctx, network, at(network, addr))
	}
	o.ListenPacket = func(ctx context.Context, network, addr string) (net.PacketConn, error) {
		return lc.ListenPacket(ctx, network, at(network, addr))
	}
}

// start runs a server until the test ends and returns the address of its first port.
func start(t *testing.T, o Options) (*Server, string) {
	t.Helper()
	loopback(&o)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := Listen(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { s.Serve(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return s, s.Addrs()[0].String()
}

func tcpOptions() Options {
	return Options{
		Pod: "web-0", Namespace: "shop", Node: "node-1", Zone: "zone-a",
		IPs:   []netip.Addr{netip.MustParseAddr("10.244.0.5"), netip.MustParseAddr("fd00::5")},
		Ports: []Port{{Name: "http"}},
	}
}

func get(t *testing.T, c *http.Client, url, accept string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

func client(t *testing.T, h2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetUnencryptedHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestHTTP(t *testing.T) {
	_, addr := start(t, tcpOptions())
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", h2), func(t *testing.T) {
			c := client(t, h2)
			req, _ := http.NewRequest("POST", "http://"+addr+"/a/b?x=1&x=2", strings.NewReader("hello"))
			req.Host = "shop.example"
			req.Header.Set("X-Test", "yes")
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var r Reply
			if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
				t.Fatal(err)
			}
			wantProto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
			if r.Pod != "web-0" || r.Namespace != "shop" || r.Node != "node-1" || r.Zone != "zone-a" ||
				r.PortName != "http" || fmt.Sprintf("127.0.0.1:%d", r.Port) != addr || r.LocalAddr != addr ||
				r.Protocol != wantProto || r.Method != "POST" || r.Host != "shop.example" || r.Path != "/a/b" ||
				len(r.Query["x"]) != 2 || r.Headers.Get("X-Test") != "yes" || r.Body != "hello" ||
				!strings.HasPrefix(r.RemoteAddr, "127.0.0.1:") || len(r.IPs) != 2 {
				t.Errorf("reply: %+v", r)
			}
			if res.Header.Get("Fairway-Pod") != "shop/web-0" {
				t.Errorf("header: %v", res.Header)
			}
		})
	}
}

func TestControls(t *testing.T) {
	_, addr := start(t, tcpOptions())
	for _, tt := range []struct {
		path, accept string
		status       int
		check        func(string) bool
	}{
		{"/status/503", "", 503, nil},
		{"/x?status=404", "", 404, nil},
		{"/status/600", "", 400, nil},
		{"/status/101", "", 400, nil},
		{"/status/x", "", 400, nil},
		{"/delay/1ms", "", 200, nil},
		{"/delay/2h", "", 400, nil},
		{"/?size=100000", "", 200, func(b string) bool { return len(b) == 100000 }},
		{"/?size=0", "", 200, func(b string) bool { return b == "" }},
		{"/?size=-1", "", 400, nil},
		{"/headers", "", 200, func(b string) bool { return strings.Contains(b, `"Accept-Encoding"`) && !strings.Contains(b, "pod") }},
		{"/headers", "text/plain", 200, func(b string) bool { return strings.Contains(b, "Accept: text/plain\n") }},
		{"/", "text/plain", 200, func(b string) bool { return strings.HasPrefix(b, "pod: web-0\nnamespace: shop\n") }},
		{"/status", "", 200, nil},
	} {
		res, b := get(t, client(t, false), "http://"+addr+tt.path, tt.accept)
		if res.StatusCode != tt.status || (tt.check != nil && !tt.check(string(b))) {
			t.Errorf("%s: %d %s", tt.path, res.StatusCode, b)
		}
	}
}

// TestEchoStreams: the body comes back while the request is still being sent.
func TestEchoStreams(t *testing.T) {
	_, addr := start(t, tcpOptions())
	for _, h2 := range []bool{false, true} {
		pr, pw := io.Pipe()
		req, _ := http.NewRequest("POST", "http://"+addr+"/echo", pr)
		got := make(chan string)
		go func() {
			res, err := client(t, h2).Do(req)
			if err != nil {
				got <- err.Error()
				return
			}
			defer res.Body.Close()
			r := bufio.NewReader(res.Body)
			for range 2 {
				l, _ := r.ReadString('\n')
				got <- l
			}
			rest, _ := io.ReadAll(r)
			got <- string(rest)
		}()
		for _, l := range []string{"one\n", "two\n"} {
			if _, err := io.WriteString(pw, l); err != nil {
				t.Fatal(err)
			}
			if g := <-got; g != l {
				t.Fatalf("h2=%v: got %q, want %q", h2, g, l)
			}
		}
		pw.Close()
		if g := <-got; g != "" {
			t.Errorf("h2=%v: rest %q", h2, g)
		}
	}
}

func TestUpgradeH2C(t *testing.T) {
	_, addr := start(t, tcpOptions())
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v %v", res, err)
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	fr := http2.NewFramer(c, br)
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok {
			var r Reply
			if err := json.Unmarshal(d.Data(), &r); err != nil || d.StreamID != 1 || r.Path != "/up" || r.PortName != "http" {
				t.Fatalf("%v %+v", err, r)
			}
			return
		}
	}
}

func TestWebSocket(t *testing.T) {
	_, addr := start(t, tcpOptions())
	ctx := t.Context()
	c, res, err := websocket.Dial(ctx, "ws://"+addr+"/chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if res.Header.Get("Fairway-Pod") != "shop/web-0" {
		t.Error(res.Header)
	}
	for _, typ := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		if err := c.Write(ctx, typ, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		if gt, b, err := c.Read(ctx); err != nil || gt != typ || string(b) != "hi" {
			t.Fatal(gt, b, err)
		}
	}
}

func TestRawTCP(t *testing.T) {
	_, addr := start(t, tcpOptions())
	for _, send := range []string{"hello\n", "G\n", "GET", "PRI * HTTP/2.0\r\nX", "\x00\x01\xff", "POS", strings.Repeat("z", 1<<20)} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.WriteString(c, send)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		b, err := io.ReadAll(c)
		if err != nil || string(b) != send {
			t.Errorf("sent %.20q, got %.20q (%d bytes), %v", send, b, len(b), err)
		}
		c.Close()
	}
}

// TestSniffBytewise: how bytes are split into packets changes nothing.
func TestSniffBytewise(t *testing.T) {
	for in, want := range map[string]kind{
		"GET / HTTP/1.1\r\n":      http1,
		"DELETE /x":               http1,
		http2.ClientPreface + "x": http2PriorKnowledge,
		"PRX":                     rawTCP,
		"get /":                   rawTCP,
		"GETX":                    rawTCP,
	} {
		for i := range len(in) {
			if k := sniff([]byte(in[:i])); k != unknown && k != want {
				t.Errorf("sniff(%q) = %d", in[:i], k)
			}
		}
		if k := sniff([]byte(in)); k != want {
			t.Errorf("sniff(%q) = %d, want %d", in, k, want)
		}
	}
}

func TestUDP(t *testing.T) {
	o := tcpOptions()
	o.Ports = []Port{{Name: "dns", Protocol: "UDP"}}
	s, _ := start(t, o)
	if len(s.udp) == 0 {
		t.Fatal("no UDP socket")
	}
	for _, p := range s.udp {
		c, err := net.Dial("udp", p.conn.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, body := range []string{"ping", "", "\xff\xfe"} {
			if _, err := io.WriteString(c, body); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 4096)
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			var r Reply
			if err := json.Unmarshal(buf[:n], &r); err != nil {
				t.Fatal(err)
			}
			if r.Pod != "web-0" || r.Protocol != "UDP" || r.PortName != "dns" || r.RemoteAddr != c.LocalAddr().String() ||
				r.LocalAddr != c.RemoteAddr().String() {
				t.Errorf("%+v", r)
			}
			if body == "ping" && r.Body != "ping" || body == "\xff\xfe" && r.BodyBase64 != "//4=" {
				t.Errorf("body %q: %+v", body, r)
			}
		}
	}
}

// TestGracefulStop: a request in flight is answered after the stop, idle
// connections of every protocol are closed, and the port is free.
func TestGracefulStop(t *testing.T) {
	o := tcpOptions()
	o.Grace = 20 * time.Second
	loopback(&o)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := Listen(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { s.Serve(ctx); close(done) }()
	addr := s.Addrs()[0].String()

	ws, _, err := websocket.Dial(t.Context(), "ws://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, err := raw.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}

	// A request whose first half was answered before the stop.
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("POST", "http://"+addr+"/echo", pr)
	answered := make(chan io.ReadCloser, 1)
	go func() {
		res, err := client(t, false).Do(req)
		if err != nil {
			t.Error(err)
			close(answered)
			return
		}
		answered <- res.Body
	}()
	if _, err := io.WriteString(pw, "one"); err != nil {
		t.Fatal(err)
	}
	body := <-answered
	if body == nil {
		t.FailNow()
	}
	defer body.Close()
	cancel()
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("websocket: %v", err)
	}
	if _, err := io.WriteString(pw, "two"); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if b, err := io.ReadAll(body); err != nil || string(b) != "onetwo" {
		t.Errorf("in flight: %q %v", b, err)
	}
	<-done
	if _, err := raw.Read(make([]byte, 1)); err == nil {
		t.Error("raw connection still open")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestPorts(t *testing.T) {
	var log bytes.Buffer
	o := Options{Pod: "a", Namespace: "b", Log: slog.New(slog.NewTextHandler(&log, nil)), Ports: []Port{{Number: 9, Protocol: "SCTP"}}}
	loopback(&o)
	s, err := Listen(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if !strings.Contains(log.String(), "SCTP") {
		t.Errorf("log: %s", &log)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o.Ports = []Port{{Number: portOf(l.Addr())}}
	if _, err := Listen(t.Context(), o); err == nil || !strings.Contains(err.Error(), "/TCP: ") {
		t.Errorf("port in use: %v", err)
	}
	o.Ports = []Port{{Number: 1, Protocol: "ICMP"}}
	if _, err := Listen(t.Context(), o); err == nil {
		t.Error("ICMP: no error")
	}
}

// TestMany runs as many pods as a large sandbox has.
func TestMany(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range 100 {
		o := Options{Pod: fmt.Sprint("p", i), Ports: []Port{{}, {Protocol: "UDP"}}}
		loopback(&o)
		s, err := Listen(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { s.Serve(ctx) })
		_, b := get(t, client(t, false), "http://"+s.Addrs()[0].String(), "")
		if !bytes.Contains(b, []byte(`"p`+fmt.Sprint(i)+`"`)) {
			t.Fatalf("%d: %s", i, b)
		}
	}
}
