package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
)

// fairwayBase is the Gateway, its certificate, and both backends.
const fairwayBase = `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: fairway}
spec: {controllerName: fairway.dev/gateway}
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: default}
type: kubernetes.io/tls
data:
  tls.crt: %[1]s
  tls.key: %[2]s
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bench, namespace: default}
spec:
  gatewayClassName: fairway
  listeners:
    - {name: http, protocol: HTTP, port: %[3]d}
    - {name: https, protocol: HTTPS, port: %[4]d, tls: {certificateRefs: [{name: cert}]}}
    - {name: grpc, protocol: HTTP, port: %[5]d}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: %[6]d}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: %[6]d}]
endpoints: [{addresses: [%[8]s]}]
---
apiVersion: v1
kind: Service
metadata: {name: grpc, namespace: default}
spec: {ports: [{port: %[7]d, appProtocol: kubernetes.io/h2c}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: grpc, namespace: default, labels: {kubernetes.io/service-name: grpc}}
addressType: IPv4
ports: [{port: %[7]d, appProtocol: kubernetes.io/h2c}]
endpoints: [{addresses: [%[8]s]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: grpc, namespace: default}
spec:
  parentRefs: [{name: bench, sectionName: grpc}]
  rules: [{backendRefs: [{name: grpc, port: %[7]d}]}]
`

// fairwayRoute is one route of a path prefix.
const fairwayRoute = `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r%[1]d, namespace: default}
spec:
  parentRefs: [{name: bench, sectionName: http}, {name: bench, sectionName: https}]
  rules: [{matches: [{path: {value: /r%[1]d}}], backendRefs: [{name: web, port: %[2]d}]}]
`

// writeFairway has an HTTPRoute for each route.
func writeFairway(dir, fairway string, routes int) ([]string, error) {
	var pem [2]string
	for i, name := range []string{certFile, keyFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		pem[i] = base64.StdEncoding.EncodeToString(b)
	}
	manifests := filepath.Join(dir, "manifests")
	if err := os.MkdirAll(manifests, 0o755); err != nil {
		return nil, err
	}
	text := fmt.Sprintf(fairwayBase, pem[0], pem[1], httpPort, tlsPort, grpcPort, webBackend, grpcBackend, address)
	text += each(routes, func(n int) string { return fmt.Sprintf(fairwayRoute, n, webBackend) })
	err := os.WriteFile(filepath.Join(manifests, "gateway.yaml"), []byte(text), 0o644)
	return []string{"env", "GOMAXPROCS=1", fairway, "gateway", "--from-dir", manifests, "--listen-address", address}, err
}
