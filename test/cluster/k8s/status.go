package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
)

// Status is how a cluster does at one moment.
type Status struct {
	Name       string    `json:"name"`
	Dir        string    `json:"dir"`
	Kubernetes string    `json:"kubernetes"`
	Proxy      string    `json:"proxy"`
	CNI        string    `json:"cni"`
	IPFamily   string    `json:"ipFamily"`
	Created    time.Time `json:"created"`
	// Ready is false until the cluster was up for the first time.
	Ready bool `json:"ready"`
	// Version is what the API server says it is; empty if it does not answer.
	Version string `json:"version,omitempty"`
	// Error is why the API server does not answer.
	Error        string          `json:"error,omitempty"`
	ControlPlane []ProcessStatus `json:"controlPlane"`
	Nodes        []NodeStatus    `json:"nodes"`
	// Faults are those in force, for people to read.
	Faults []string `json:"faults"`
}

// NodeStatus is how a node does.
type NodeStatus struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	Zone      string       `json:"zone"`
	// State is "Running", "Paused", "Off" or, if it ended by itself, "Ended".
	State    string `json:"state"`
	Restarts int    `json:"restarts"`
	// Ready is the condition of its Node object: "True", "False" or "Unknown".
	Ready string `json:"ready"`
	// Message is why it is not ready.
	Message string `json:"message,omitempty"`
	// Proxy is "Serving", "none" where the cluster has no proxy, or why it does
	// not serve.
	Proxy   string `json:"proxy"`
	Kubelet string `json:"kubelet,omitempty"` // its version
	Runtime string `json:"runtime,omitempty"` // and the container runtime's
}

// How long the API server and a proxy may take to answer for the status.
const (
	statusTimeout = 3 * time.Second
	proxyTimeout  = time.Second
)

// status asks everything at the same time.
func (s *supervisor) status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	st := Status{
		Name: s.Name, Dir: s.Dir, Kubernetes: s.Kubernetes, Proxy: s.Proxy, CNI: s.CNI, IPFamily: s.IPFamily,
		Created: s.Created, Nodes: make([]NodeStatus, len(s.nodes)), Faults: []string{},
	}
	objects := map[string]*corev1.Node{}
	var wait sync.WaitGroup
	wait.Go(func() {
		var v version.Info
		b, err := s.client.Discovery().RESTClient().Get().AbsPath("/version").DoRaw(ctx)
		if err == nil && json.Unmarshal(b, &v) == nil {
			st.Version = v.GitVersion
		}
	})
	wait.Go(func() {
		list, err := s.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			st.Error = err.Error()
			return
		}
		for i := range list.Items {
			objects[list.Items[i].Name] = &list.Items[i]
		}
	})
	for i, n := range s.nodes {
		wait.Go(func() {
			at := &st.Nodes[i]
			at.State, at.Restarts = n.state()
			at.Proxy = s.proxyState(ctx, n, at.State)
		})
	}
	wait.Wait()
	for _, p := range s.processes {
		st.ControlPlane = append(st.ControlPlane, p.status())
	}
	for i, n := range s.nodes {
		st.Nodes[i].describe(n, objects[n.name])
	}
	s.mu.Lock()
	st.Ready = s.ready
	pairs := s.pairs
	s.mu.Unlock()
	st.Faults = append(st.Faults, st.faults(pairs)...)
	return st
}

func (s *supervisor) proxyState(ctx context.Context, n *clusterNode, state string) string {
	if s.Proxy == "none" {
		return "none"
	}
	if state != nodeRunning {
		return "node is " + state
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	if err := healthy(ctx, n.proxyHealth()); err != nil {
		return err.Error()
	}
	return "Serving"
}

// describe adds what is known of the node itself, and what its Node object says.
// That is nil if there is none, or if it is not known.
func (at *NodeStatus) describe(n *clusterNode, object *corev1.Node) {
	at.Name, at.Addresses, at.Ready = n.name, n.cfg.Addrs, "Unknown"
	at.Zone = n.cfg.Labels[corev1.LabelTopologyZone]
	if object == nil {
		return
	}
	at.Kubelet, at.Runtime = object.Status.NodeInfo.KubeletVersion, object.Status.NodeInfo.ContainerRuntimeVersion
	if c := nodeReady(object); c != nil {
		at.Ready = string(c.Status)
		if c.Status != corev1.ConditionTrue {
			at.Message = c.Reason + ": " + c.Message
		}
	}
}

// faults tells what is not as it was when the cluster came up.
func (st *Status) faults(pairs []pair) []string {
	var out []string
	for _, p := range pairs {
		out = append(out, fmt.Sprintf("partition between %s and %s", p.A, p.B))
	}
	for _, p := range st.ControlPlane {
		switch p.State {
		case "Paused":
			out = append(out, p.Name+" is paused")
		case "Ended":
			out = append(out, p.Name+" has ended: "+p.Error)
		}
	}
	for _, n := range st.Nodes {
		switch n.State {
		case nodePaused:
			out = append(out, "node "+n.Name+" is paused")
		case nodeOff:
			out = append(out, "node "+n.Name+" is off")
		case nodeEnded:
			out = append(out, "node "+n.Name+" has ended")
		}
	}
	return out
}
