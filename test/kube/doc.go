// Package kube builds and runs the real Kubernetes control plane and the real
// kube-proxy for tests: etcd, kube-apiserver and kube-proxy, and nothing else of
// a cluster (no kubelet, no controllers, no containers).
//
// The package test/cluster/build makes the binaries and keeps them.
//
// Everything that is started dies with the process that started it, and files
// are in a temporary directory that Stop removes.
package kube
