# Few targets; each is one command that also works by hand.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build test lint parity cluster-test e2e-services bench-services bench-gateway \
	gateway-test fuzz soak-gateway

build: ## the one binary, static
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/fairway ./cmd/fairway

test: ## everything that needs no download but Go modules; root or not
	go test ./...

lint:
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet -tags parity,cluster,e2e,gateway,h2spec ./...
	go run $(STATICCHECK) ./...

parity: ## as root: the packet table against real kube-proxy and a real kube-apiserver
	go test -tags parity -timeout 40m ./test/parity ./test/kube

cluster-test: ## as root: the test cluster itself, and the documents' commands on it
	go test -tags cluster -timeout 40m ./test/cluster/... ./docs

gateway-test: ## the gateway from outside: h2spec, gRPC interop, smuggling, abuse, changes under load; root or not
	go test -tags gateway -timeout 20m -v ./test/gateway

soak-gateway: ## clients that misbehave in every way beside good ones; SOAK=5m
	go test -tags gateway -timeout 0 -v -run 'TestSoak$$' ./test/gateway -soak $(or $(SOAK),5m)

fuzz: ## each fuzzer of the gateway for FUZZTIME
	go run ./test/gateway/fuzz -time $(or $(FUZZTIME),10s)

e2e-services: ## as root: Kubernetes' own tests of Services, with Fairway and with kube-proxy
	go run ./test/e2e services --kill-agent 5s

bench-services: ## as root: Fairway beside kube-proxy; PROFILE=quick|full
	go run ./test/bench -profile $(or $(PROFILE),quick) -o test/results

bench-gateway: ## as root: the gateway beside HAProxy, nginx and Caddy; PROFILE=quick|full
	go run ./test/bench/gateway -profile $(or $(PROFILE),quick)
