package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
)

// Addresses in the bench's namespace.
const (
	address     = "192.0.2.1"
	httpPort    = 8080 // of the proxies
	tlsPort     = 8443
	grpcPort    = 8081 // HTTP/2 without TLS
	webBackend  = 9000 // HTTP/1.1
	grpcBackend = 9001
)

// grpcMethod is served by the backend of gRPC.
const grpcMethod = "/bench.Echo/Unary"

// webConf is the backend: nginx, which answers every path that ends in /NAME
// with the file NAME.
const webConf = `daemon off;
worker_processes 1;
pid %[1]s/backend.pid;
error_log %[1]s/backend.log;
events { worker_connections 4096; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    keepalive_timeout 600;
    open_file_cache max=16;
    client_body_temp_path %[1]s/backend-tmp;
    server {
        listen %[2]s:%[3]d backlog=4096 reuseport;
        root %[1]s/www;
        location ~ ^/.+/([^/]+)$ { rewrite ^/.+/([^/]+)$ /$1 break; }
    }
}
`

// writeWeb writes what the HTTP backend needs into dir and returns its command.
func writeWeb(dir string) ([]string, error) {
	if err := os.MkdirAll(filepath.Join(dir, "www"), 0o755); err != nil {
		return nil, err
	}
	for _, n := range []int{small, large} {
		if err := os.WriteFile(filepath.Join(dir, "www", fileName(n)), bytes.Repeat([]byte("x"), n), 0o644); err != nil {
			return nil, err
		}
	}
	conf := filepath.Join(dir, "backend.conf")
	err := os.WriteFile(conf, fmt.Appendf(nil, webConf, dir, address, webBackend), 0o644)
	return []string{"nginx", "-p", dir, "-c", conf}, err
}

func fileName(body int) string { return fmt.Sprintf("%d.bin", body) }

// rawCodec takes messages as bytes.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = bytes.Clone(b); return nil }
func (rawCodec) Name() string                    { return "proto" }

var _ encoding.Codec = rawCodec{}

// serveGRPC is the backend of gRPC: it answers with what it got.
func serveGRPC(ctx context.Context) error {
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, grpcBackend))
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var m []byte
		if err := stream.RecvMsg(&m); err != nil {
			return err
		}
		return stream.SendMsg(&m)
	}))
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	return s.Serve(l)
}

// grpcRequest is a message of body bytes behind the prefix of gRPC: not
// compressed, and how long it is.
func grpcRequest(body int) []byte {
	m := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(body))...)
	return append(m, bytes.Repeat([]byte("x"), body)...)
}
