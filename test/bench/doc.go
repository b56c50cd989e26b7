// Command bench runs Fairway beside the real kube-proxy in one run and prints
// ratios: the latency of a first packet, a cold start, the time a change takes,
// and Services with many endpoints.
//
//	go run ./test/bench -profile quick -o test/results
//
// It needs root. Everything runs in network namespaces of its own; the machine's
// own network is not touched. Each data plane has a rig:
//
//	client 10.1.0.2 --- 10.1.0.1 node 10.2.0.1 --- 10.2.0.2, 10.2.0.3 server
//	                             |
//	                     172.31.N.2/30 --- API server 10.200.0.1
//
// Every rig has the same addresses, so that one set of objects in one API server
// (a real one, with etcd) serves them all. Only a few Services, evenly spread,
// have endpoints that exist (one or two); these are probed. The objects are
// written into etcd, as the API server takes its time to allocate ClusterIPs;
// what is measured as a change goes through the API server.
//
// kube-proxy runs as it is configured by default. At most 500 Services are
// written before it is waited for, because loading many at once can lock the
// kernel up; only the cold start at 10,000 Services is without steps.
package main
