package sandbox

import (
	"cmp"
	"net/netip"
	"slices"
)

// State is how a sandbox does at one moment. Its slices are sorted by name.
type State struct {
	Nodes  []NodeState `json:"nodes"`
	Pods   []PodState  `json:"pods"`
	Relays []Relay     `json:"relays"`
}

// NodeState is how one node does.
type NodeState struct {
	Name string `json:"name"`
	// Addresses are the node's own, on the LAN.
	Addresses []netip.Addr `json:"addresses"`
	// Netns is the number of its network namespace.
	Netns uint64 `json:"netns"`
}

// Phase is how far a pod got.
type Phase string

// The phases of a pod.
const (
	Starting    Phase = "Starting"
	Running     Phase = "Running" // and not ready
	Ready       Phase = "Ready"
	Waiting     Phase = "Waiting" // to be started again after a failure
	Succeeded   Phase = "Succeeded"
	Failed      Phase = "Failed"
	Terminating Phase = "Terminating"
)

// PodState is how one pod does.
type PodState struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Node      string       `json:"node"`
	Addresses []netip.Addr `json:"addresses"`
	Phase     Phase        `json:"phase"`
	// Command is what runs in the pod; empty for the built-in server.
	Command string `json:"command,omitempty"`
	// Restarts counts how often it was started again.
	Restarts int `json:"restarts,omitempty"`
	// Netns is the number of its network namespace; 0 if it has none yet.
	Netns uint64 `json:"netns,omitempty"`
	// Error is why it does not run.
	Error string `json:"error,omitempty"`
}

// Relay is a port of a Service or a Gateway that is offered at the machine's
// loopback addresses.
type Relay struct {
	// Gateway tells that Name is a Gateway's, not a Service's.
	Gateway   bool   `json:"gateway,omitempty"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	PortName  string `json:"portName,omitempty"`
	Protocol  string `json:"protocol"` // TCP or UDP
	// Port is that of the Service or listener, Target where its connections go.
	Port   uint16         `json:"port"`
	Target netip.AddrPort `json:"target"`
	// Listen are the addresses on this machine; empty if none could be opened.
	Listen []netip.AddrPort `json:"listen"`
	// Error is why there are none.
	Error string `json:"error,omitempty"`
}

// State returns how the sandbox does.
func (s *Sandbox) State() State {
	st := State{Relays: s.relays.state()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		st.Nodes = append(st.Nodes, NodeState{Name: n.name, Addresses: n.addrs, Netns: n.ns.Inode()})
	}
	for _, p := range s.pods {
		st.Pods = append(st.Pods, p.state())
	}
	slices.SortFunc(st.Nodes, func(a, b NodeState) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(st.Pods, func(a, b PodState) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return st
}

// Changed returns a channel that is closed once State may give another answer
// than at the time of the call.
func (s *Sandbox) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
