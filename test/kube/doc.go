// Package kube builds and runs the real Kubernetes control plane and the real
// kube-proxy for tests: etcd, kube-apiserver and kube-proxy, and nothing else of
// a cluster (no kubelet, no controllers, no containers).
//
// The binaries are built from the Go module proxy by two small modules of their
// own (modules/kube, modules/etcd), so that the product does not depend on
// k8s.io/kubernetes. What was built is kept in $FAIRWAY_CACHE, or else in the
// user's cache directory, under a key made of everything that goes into it.
//
// Everything that is started dies with the process that started it, and files
// are in a temporary directory that Stop removes.
package kube
