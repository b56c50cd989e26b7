package listen

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// records cuts a handshake message into records of n bytes.
func records(message []byte, n int) []byte {
	var out []byte
	for len(message) > 0 {
		m := min(n, len(message))
		out = append(out, recordHandshake, 3, 1, byte(m>>8), byte(m))
		out = append(out, message[:m]...)
		message = message[m:]
	}
	return out
}

// hello makes a ClientHello message with these extensions.
func hello(extensions ...string) []byte {
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00"
	if all := strings.Join(extensions, ""); extensions != nil {
		body += string([]byte{byte(len(all) >> 8), byte(len(all))}) + all
	}
	return append([]byte{typeClientHello, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

func extension(kind byte, data string) string {
	return string([]byte{0, kind, byte(len(data) >> 8), byte(len(data))}) + data
}

func nameEntry(kind byte, name string) string {
	return string([]byte{kind, byte(len(name) >> 8), byte(len(name))}) + name
}

// sni makes the extension of a list of entries.
func sni(entries ...string) string {
	all := strings.Join(entries, "")
	return extension(extServerName, string([]byte{byte(len(all) >> 8), byte(len(all))})+all)
}

func TestParseHello(t *testing.T) {
	plain := hello(extension(23, ""), sni(nameEntry(0, "A.example.com")), extension(43, "\x02\x03\x04"))
	for _, tt := range []struct {
		name string
		in   []byte
		want string
		err  error
	}{
		{name: "one record", in: records(plain, 1<<14), want: "a.example.com"},
		{name: "two records", in: records(plain, 50), want: "a.example.com"},
		{name: "a byte a record", in: records(plain, 1), want: "a.example.com"},
		{name: "no extensions", in: records(hello(), 1<<14)},
		{name: "empty extensions", in: records(hello(""), 1<<14)},
		{name: "no server name", in: records(hello(extension(23, "")), 1<<14)},
		{name: "underscore and digits", in: records(hello(sni(nameEntry(0, "_x-1.example.com"))), 1<<14), want: "_x-1.example.com"},
		{name: "name with a dot at the end", in: records(hello(sni(nameEntry(0, "a.example.com."))), 1<<14), err: errServerName},
		{name: "name with an empty label", in: records(hello(sni(nameEntry(0, "a..example.com"))), 1<<14), err: errServerName},
		{name: "name with a zero byte", in: records(hello(sni(nameEntry(0, "a.example.com\x00.evil"))), 1<<14), err: errServerName},
		{name: "name with a wildcard", in: records(hello(sni(nameEntry(0, "*.example.com"))), 1<<14), err: errServerName},
		{name: "name with a space", in: records(hello(sni(nameEntry(0, "a b"))), 1<<14), err: errServerName},
		{name: "empty name", in: records(hello(sni(nameEntry(0, ""))), 1<<14), err: errServerName},
		{name: "name too long", in: records(hello(sni(nameEntry(0, strings.Repeat("a", 256)))), 1<<14), err: errServerName},
		{name: "two names", in: records(hello(sni(nameEntry(0, "a"), nameEntry(0, "b"))), 1<<14), err: errServerName},
		{name: "name of another type", in: records(hello(sni(nameEntry(1, "a"))), 1<<14), err: errServerName},
		{name: "empty list", in: records(hello(sni()), 1<<14), err: errServerName},
		{name: "bytes after the list", in: records(hello(extension(extServerName, "\x00\x04\x00\x00\x01ax")), 1<<14), err: errServerName},
		{name: "the extension twice", in: records(hello(sni(nameEntry(0, "a")), sni(nameEntry(0, "b"))), 1<<14), err: errHello},
		{name: "another extension twice", in: records(hello(extension(23, ""), extension(23, "")), 1<<14), err: errHello},
		{name: "extension beyond the end", in: records(hello("\x00\x17\x00\x09a"), 1<<14), err: errHello},
		{name: "bytes after the extensions", in: records(append([]byte{typeClientHello, 0, 0, 46}, append(hello("")[4:], "xyz"...)...), 1<<14), err: errHello},
		{name: "bytes after the message in its record", in: records(append(hello(""), 'x'), 1<<14), err: errHello},
		{name: "session too long", in: records(append([]byte{typeClientHello, 0, 0, 67}, "\x03\x03"+strings.Repeat("r", 32)+"\x21"+strings.Repeat("s", 32)...), 1<<14), err: errHello},
		{name: "odd cipher suites", in: records(append([]byte{typeClientHello, 0, 0, 42}, "\x03\x03"+strings.Repeat("r", 32)+"\x00\x00\x03abc\x01\x00"...), 1<<14), err: errHello},
		{name: "message too long", in: records([]byte{typeClientHello, 1, 0, 0}, 1<<14), err: errHelloLong},
		{name: "another message", in: records([]byte{2, 0, 0, 1, 0}, 1<<14), err: errHello},
		{name: "empty record", in: []byte{recordHandshake, 3, 1, 0, 0}, err: errHello},
		{name: "record too long", in: []byte{recordHandshake, 3, 1, 0x40, 1}, err: errHello},
		{name: "another record in between", in: append(records(plain, 50)[:55], 20, 3, 1, 0, 1, 1), err: errHello},
		{name: "version of SSL 2", in: []byte{0x80, 0x2e, 1, 3, 1}, err: errNotTLS},
		{name: "another major version", in: []byte{recordHandshake, 2}, err: errNotTLS},
		{name: "HTTP", in: []byte("GET / HTTP/1.1\r\n"), err: errNotTLS},
		{name: "SSH", in: []byte("SSH-2.0-x"), err: errNotTLS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseHello(tt.in)
			if got != tt.want || err != tt.err {
				t.Fatalf("%q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
			if err != nil {
				return
			}
			for i := range tt.in {
				if got, err := parseHello(tt.in[:i]); err != errHelloShort {
					t.Fatalf("the first %d bytes: %q, %v", i, got, err)
				}
			}
			if got, err := parseHello(append(tt.in, "more"...)); got != tt.want || err != nil {
				t.Errorf("with what follows: %q, %v", got, err)
			}
		})
	}
}

func TestParseHelloOfClients(t *testing.T) {
	for name, cfg := range map[string]*tls.Config{
		"today":      {},
		"TLS 1.2":    {MaxVersion: tls.VersionTLS12},
		"TLS 1.0":    {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"with ALPN":  {NextProtos: []string{"h2", "http/1.1"}},
		"much ALPN":  {NextProtos: []string{strings.Repeat("a", 200), strings.Repeat("b", 200), strings.Repeat("c", 200)}},
		"old curves": {CurvePreferences: []tls.CurveID{tls.CurveP256}},
	} {
		cfg.ServerName = "x.example.com"
		if got, err := parseHello(clientHello(t, cfg)); got != "x.example.com" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// FuzzParseHello holds the parser against crypto/tls: whatever both accept has the
// same name in both.
func FuzzParseHello(f *testing.F) {
	f.Add(clientHello(f, &tls.Config{ServerName: "a.example.com"}))
	f.Add(clientHello(f, &tls.Config{ServerName: "a.example.com", MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}))
	f.Add(records(hello(sni(nameEntry(0, "a.example.com"))), 7))
	f.Add(records(hello(sni(nameEntry(0, "a"), nameEntry(0, "b"))), 1<<14))
	f.Add(records(hello(), 1<<14))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, err := parseHello(b)
		if err != nil {
			if name != "" {
				t.Fatalf("an error with a name: %q, %v", name, err)
			}
			if err == errHelloShort && len(b) >= 6*(maxHello+4) {
				t.Fatalf("%d bytes are not enough", len(b))
			}
			return
		}
		if again, err := parseHello(append(bytes.Clone(b), "rest"...)); again != name || err != nil {
			t.Fatalf("with more bytes: %q, %v", again, err)
		}
		if theirs, ok := oracle(b); ok && strings.ToLower(theirs) != name {
			t.Fatalf("name %q, crypto/tls has %q", name, theirs)
		}
	})
}

// oracle returns the server name that crypto/tls finds.
func oracle(b []byte) (name string, ok bool) {
	stop := errors.New("seen")
	c := tls.Server(&replay{Reader: bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = h.ServerName, true
		return nil, stop
	}})
	_ = c.Handshake()
	return name, ok
}

// replay is a connection that has all its input.
type replay struct {
	io.Reader
	net.Conn
}

func (r *replay) Read(b []byte) (int, error)       { return r.Reader.Read(b) }
func (r *replay) Write(b []byte) (int, error)      { return len(b), nil }
func (r *replay) Close() error                     { return nil }
func (r *replay) SetDeadline(time.Time) error      { return nil }
func (r *replay) SetWriteDeadline(time.Time) error { return nil }
