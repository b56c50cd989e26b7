// Package services holds the table of what a Kubernetes Service must do to
// packets, and runs it against any Service proxy: Fairway's agent, and the real
// kube-proxy (package parity), which is the reference.
//
// A case is Kubernetes objects, the configuration of the node's proxy, and
// probes: real packets of TCP, UDP or SCTP from a pod, another node's pod, an
// outside client, the node itself or the backend itself, and what must become
// of them: which backends answer, what source address they see, or that the
// connection is refused or dropped.
//
//	                    lan (a bridge, the API server)
//	        ┌──────────────────────┼─────────────────────┐
//	     client                    n1                    n2
//	(and the outside      (the node under test)     (no proxy)
//	 server "out")        ┌────────┼────────┐      ┌─────┼─────┐
//	                     a1       a2       c1      b1    b2    c2
//
// Pods are joined to their node by veth pairs and host routes. a1, a2, b1 and
// b2 are backends, c1 and c2 clients.
package services
