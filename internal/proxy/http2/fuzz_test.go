package http2

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// seeds returns conversations of a client, or of an endpoint, that are good and bad
// in ways a fuzzer takes long to find.
func seeds(server bool) [][]byte {
	block := func(fields ...string) []byte {
		var buf bytes.Buffer
		e := hpack.NewEncoder(&buf)
		for i := 0; i < len(fields); i += 2 {
			_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return buf.Bytes()
	}
	head := block(":status", "200", "content-length", "4")
	if server {
		head = block(append([]string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"}, "content-length", "4")...)
	}
	conversation := func(write func(f *http2.Framer)) []byte {
		var buf bytes.Buffer
		f := http2.NewFramer(&buf, nil)
		f.AllowIllegalWrites = true
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 100})
		write(f)
		return buf.Bytes()
	}
	headers := func(f *http2.Framer, id uint32, end bool, block []byte) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: end, EndHeaders: true})
	}
	return [][]byte{
		conversation(func(f *http2.Framer) { headers(f, 1, false, head); _ = f.WriteData(1, true, []byte("four")) }),
		conversation(func(f *http2.Framer) {
			headers(f, 1, false, head)
			_ = f.WriteDataPadded(1, false, []byte("four"), make([]byte, 9))
			headers(f, 1, true, block("x-trailer", "y"))
			_ = f.WriteWindowUpdate(1, 100)
		}),
		conversation(func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head[:3]})
			_ = f.WriteContinuation(1, true, head[3:])
			_ = f.WriteRSTStream(1, http2.ErrCodeRefusedStream)
			_ = f.WritePing(false, [8]byte{1})
		}),
		conversation(func(f *http2.Framer) {
			headers(f, 1, true, block(":status", "103"))
			headers(f, 3, true, block(":status", "200"))
			_ = f.WriteGoAway(1, http2.ErrCodeNo, nil)
			_ = f.WritePriority(1, http2.PriorityParam{StreamDep: 3})
			_ = f.WriteRawFrame(0xfe, 0xff, 7, []byte("unknown"))
		}),
	}
}

// FuzzServer gives a server the frames of a client. Whatever they are, the server
// ends, and what a handler gets is well-formed.
func FuzzServer(f *testing.F) {
	for _, s := range seeds(true) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		client, server := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		go func() {
			_ = client.SetWriteDeadline(time.Now().Add(patience))
			_, _ = client.Write(append([]byte(preface), data...))
			client.Close()
		}()
		_ = Serve(server, &message.ConnInfo{}, Limits{MaxConcurrentStreams: 4, MaxHeaderBytes: 2000, MaxHeaders: 10}, func(s message.Stream) {
			r := s.Request()
			if r.Length >= 0 {
				n, err := io.Copy(io.Discard, bodyReader{s})
				if err == nil && n != int64(r.Length) {
					t.Errorf("%d bytes of a body, content-length is %d", n, r.Length)
				}
			}
			if !message.ValidToken(r.Method) || !message.ValidAuthority(r.Authority) || len(r.Fields) > 10 {
				t.Errorf("got %+v", r)
			}
			checkFields(t, r.Fields)
			checkFields(t, s.RequestTrailers())
			_ = s.WriteHead(&message.Response{Status: 200, Fields: r.Fields, Length: message.UnknownLength}, false)
			_ = s.WriteTrailers(s.RequestTrailers())
		})
	})
}

// checkFields holds fields to what HTTP/1.1 could carry without being split.
func checkFields(t *testing.T, fields []message.Field) {
	for _, f := range fields {
		if !message.ValidToken(f.Name) || bytes.ToLower(f.Name)[0] != f.Name[0] || bytes.ContainsAny(f.Value, "\r\n\x00") || f.ID != message.Lookup(f.Name) {
			t.Errorf("field %q: %q (%v)", f.Name, f.Value, f.ID)
		}
		switch f.ID {
		case message.Connection, message.TransferEncoding, message.ContentLength, message.Host, message.Upgrade, message.KeepAlive:
			t.Errorf("field %q got through", f.Name)
		}
	}
}

// FuzzClient gives a client with two calls the frames of an endpoint.
func FuzzClient(f *testing.F) {
	for _, s := range seeds(false) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		conn := NewClientConn(near, ClientConfig{MaxHeaderBytes: 2000, MaxHeaders: 10, MaxCalls: 2})
		defer conn.Close()
		done := make(chan struct{}, 2)
		for _, method := range []string{"GET", "POST"} {
			call := open(t, conn)
			if err := call.Send(newRequest(method, "/"), method == "GET"); err != nil {
				t.Fatal(err)
			}
			if method == "POST" {
				go func() { _ = call.WriteBody(make([]byte, 100), true) }()
			}
			go func() {
				defer func() { call.Close(); done <- struct{}{} }()
				var r message.Response
				for r.Status < 200 {
					if call.Receive(&r) != nil {
						return
					}
					if r.Status < 100 || r.Status > 999 || r.Status == 101 {
						t.Errorf("status %d", r.Status)
					}
					for _, f := range r.Fields {
						if f.ID != message.Host && f.ID != message.TE {
							checkFields(t, []message.Field{f})
						}
					}
				}
				n, err := io.Copy(io.Discard, callReader{call})
				if err == nil && r.Length > 0 && r.Status != 304 && n != int64(r.Length) {
					t.Errorf("%d bytes of a body, content-length is %d", n, r.Length)
				}
			}()
		}
		go func() { _, _ = io.Copy(io.Discard, far) }()
		_ = far.SetWriteDeadline(time.Now().Add(patience))
		_, _ = far.Write(data)
		far.Close()
		<-done
		<-done
	})
}

// FuzzParseFrame holds the parser against x/net's Framer.
func FuzzParseFrame(f *testing.F) {
	for _, s := range append(seeds(true), seeds(false)...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		framer := http2.NewFramer(io.Discard, bytes.NewReader(data))
		framer.SetMaxReadFrameSize(maxFrame)
		framer.AllowIllegalReads = true
		for {
			var own frame
			n, need, err := parseFrame(data, &own)
			if err != nil || n == 0 {
				if err == nil && need <= len(data) {
					t.Fatalf("%d bytes are not enough, but %d are needed", len(data), need)
				}
				return
			}
			want, err := framer.ReadFrame()
			if err != nil {
				return // x/net also judges what is inside
			}
			h := want.Header()
			if byte(h.Type) != own.kind || byte(h.Flags) != own.flags || h.StreamID != own.id || int(h.Length) != len(own.payload) {
				t.Fatalf("got %+v, x/net says %v", own, h)
			}
			if d, ok := want.(*http2.DataFrame); ok {
				if p, _, err := own.unpad(); err != nil || !bytes.Equal(p, d.Data()) {
					t.Fatalf("got %q, %v, x/net says %q", p, err, d.Data())
				}
			}
			data = data[n:]
		}
	})
}
