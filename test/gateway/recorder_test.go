package gateway

import (
	"bufio"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// recorder is a backend that reads HTTP/1.1 as naively as can be: a head ends at an
// empty line, and nothing is looked at but the two fields of framing. Every byte
// of every connection is kept, so that whatever the proxy lets through shows.
type recorder struct {
	addr string
	mu   sync.Mutex
	all  strings.Builder
	// heads are those of the requests, as this backend understood them, and whole
	// counts those whose bodies came to their end.
	heads []string
	whole int
}

func startRecorder(t *testing.T) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &recorder{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { b.serve(c) })
		}
	})
	// The engine is closed first, and its connections with it.
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return b
}

// Write keeps what is read.
func (b *recorder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *recorder) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(io.TeeReader(c, b))
	for {
		var head strings.Builder
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" || line == "\n" {
				break
			}
			head.WriteString(line)
		}
		text := head.String()
		b.mu.Lock()
		b.heads = append(b.heads, text)
		b.mu.Unlock()
		if err := readFramed(r, strings.ToLower(text)); err != nil {
			return
		}
		b.mu.Lock()
		b.whole++
		b.mu.Unlock()
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}

// readFramed reads the body that a head in lower case announces: chunked before
// a length. Chunk extensions are an error, a proxy must have dropped them.
func readFramed(r *bufio.Reader, head string) error {
	if strings.Contains(head, "\ntransfer-encoding:") {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			size, err := strconv.ParseInt(strings.TrimSpace(line), 16, 64)
			if err != nil {
				return err
			}
			if size == 0 {
				break
			}
			if _, err := io.CopyN(io.Discard, r, size+2); err != nil {
				return err
			}
		}
		for {
			if line, err := r.ReadString('\n'); err != nil || strings.TrimSpace(line) == "" {
				return err
			}
		}
	}
	_, after, ok := strings.Cut(head, "\ncontent-length:")
	if !ok {
		return nil
	}
	value, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, r, n)
	return err
}

// seen returns all bytes, all heads, and the number of whole requests so far.
func (b *recorder) seen() (all string, heads []string, whole int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String(), slices.Clone(b.heads), b.whole
}
