// Package node makes one node of a test cluster out of namespaces: a real
// containerd, kubelet and, if asked for, kube-proxy, that believe they have a
// machine for themselves.
//
// Start runs the same program again as pid 1 of new mount, pid, uts, ipc, cgroup
// and network namespaces, in a cgroup of its own. There, Main gives the node
// private /etc, /opt, /var, /run and /sys, so that every daemon and every CNI
// plugin keeps its usual paths and nothing is written to the machine's own
// files. Kernel-wide sysctls that the kubelet wants to change are covered by
// files with the values it wants. What has to outlive a restart of the node is in
// its directory, which stands for its disk.
//
// Start and Main talk over a socket pair. If the process that called Start dies,
// the socket closes and the node ends with all that runs in it.
package node
