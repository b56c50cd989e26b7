// Package k8s runs whole Kubernetes clusters on one machine, without touching
// its network: etcd, the API server, the controllers, and nodes with a real
// kubelet, containerd and Service proxy, each in namespaces of its own.
//
// A cluster lives by one process, its supervisor, which is process 1 of a PID
// namespace. Whatever way it ends, the kernel ends everything else with it:
// processes, network namespaces, mounts. What may stay are files and cgroups,
// which the next Up or Down removes.
//
//	Up      makes the cluster's directory, starts the supervisor (Supervise,
//	        which runs Run as its child) and waits until all is ready
//	Open    finds a running cluster by its name
//	Cluster asks the supervisor over DIR/ctl.sock: status, faults, images
//
// The supervisor's network namespace is called "cp": the LAN's bridge and the
// control plane are there. One port of the machine, on 127.0.0.1, leads in from
// outside: to the API server.
package k8s
