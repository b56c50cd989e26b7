package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// proxy is one of those that are compared.
type proxy struct {
	name string
	// write writes its configuration for a number of routes into dir, with the
	// certificate that is there, and returns its command. Route n is the path
	// prefix /rN.
	write func(dir string, routes int) ([]string, error)
}

// Files of the certificate in the directory of a run: the chain, the key, and
// both in one.
const (
	certFile = "cert.pem"
	keyFile  = "key.pem"
	bothFile = "both.pem"
)

// proxies are those that can be measured. Programs of Debian are in the path.
func proxies(fairway, caddy string) []proxy {
	return []proxy{
		{"fairway", func(dir string, routes int) ([]string, error) { return writeFairway(dir, fairway, routes) }},
		{"haproxy", writeHAProxy},
		{"nginx", writeNginx},
		{"caddy", func(dir string, routes int) ([]string, error) { return writeCaddy(dir, caddy, routes) }},
	}
}

// each writes f(n) for each route, from the last to the first: what looks at
// routes in their order finds the one under load at once, which is its best case.
func each(routes int, f func(n int) string) string {
	var b strings.Builder
	for n := routes; n > 0; n-- {
		b.WriteString(f(n))
	}
	return b.String()
}

// writeHAProxy looks the route up in a map, which is a tree of prefixes.
func writeHAProxy(dir string, routes int) ([]string, error) {
	m := filepath.Join(dir, "routes.map")
	if err := os.WriteFile(m, []byte(each(routes, func(n int) string { return fmt.Sprintf("/r%d/ web\n", n) })), 0o644); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "haproxy.cfg")
	err := os.WriteFile(conf, fmt.Appendf(nil, `global
    nbthread 1
    maxconn 20000
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    option http-keep-alive
    http-reuse always
frontend http
    bind %[1]s:%[2]d
    bind %[1]s:%[3]d ssl crt %[4]s/%[5]s alpn h2,http/1.1
    option forwardfor
    use_backend %%[path,map_beg(%[6]s)]
frontend grpc
    bind %[1]s:%[7]d proto h2
    default_backend grpc
backend web
    server web %[1]s:%[8]d
backend grpc
    server grpc %[1]s:%[9]d proto h2
`, address, httpPort, tlsPort, dir, bothFile, m, grpcPort, webBackend, grpcBackend), 0o644)
	return []string{"haproxy", "-db", "-f", conf}, err
}

// writeNginx has a location for each route, which nginx keeps in a tree.
func writeNginx(dir string, routes int) ([]string, error) {
	conf := filepath.Join(dir, "nginx.conf")
	err := os.WriteFile(conf, fmt.Appendf(nil, `daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log;
events { worker_connections 8192; }
http {
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path %[1]s/nginx-body;
    proxy_temp_path %[1]s/nginx-proxy;
    upstream web { server %[2]s:%[3]d; keepalive 1024; keepalive_requests 100000000; }
    upstream grpc { server %[2]s:%[4]d; keepalive 1024; keepalive_requests 100000000; }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    server {
        listen %[2]s:%[5]d backlog=4096;
        listen %[2]s:%[6]d ssl http2 backlog=4096;
        http2_max_requests 100000000;
        ssl_certificate %[1]s/%[7]s;
        ssl_certificate_key %[1]s/%[8]s;
%[9]s    }
    server {
        listen %[2]s:%[10]d http2 backlog=4096;
        http2_max_requests 100000000;
        location / { grpc_pass grpc://grpc; }
    }
}
`, dir, address, webBackend, grpcBackend, httpPort, tlsPort, certFile, keyFile,
		each(routes, func(n int) string { return fmt.Sprintf("        location /r%d/ { proxy_pass http://web; }\n", n) }), grpcPort), 0o644)
	return []string{"nginx", "-p", dir, "-c", conf}, err
}

// writeCaddy has a route for each prefix; Caddy tries them one after the other.
func writeCaddy(dir, caddy string, routes int) ([]string, error) {
	conf := filepath.Join(dir, "Caddyfile")
	body := each(routes, func(n int) string {
		return fmt.Sprintf("    handle /r%d/* {\n        reverse_proxy %s:%d\n    }\n", n, address, webBackend)
	})
	err := os.WriteFile(conf, fmt.Appendf(nil, `{
    admin off
    auto_https off
    persist_config off
    servers %[1]s:%[2]d {
        protocols h1 h2c
    }
}
http://%[1]s:%[3]d {
%[4]s}
https://%[1]s:%[5]d {
    tls %[6]s/%[7]s %[6]s/%[8]s
%[4]s}
http://%[1]s:%[2]d {
    reverse_proxy h2c://%[1]s:%[9]d
}
`, address, grpcPort, httpPort, body, tlsPort, dir, certFile, keyFile, grpcBackend), 0o644)
	return []string{"env", "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "GOMAXPROCS=1", caddy, "run", "--adapter", "caddyfile", "--config", conf}, err
}
