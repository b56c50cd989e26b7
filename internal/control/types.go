// Package control is the API of a running sandbox or agent: JSON over HTTP on a
// unix socket that only its user (and root) can reach. The commands of the
// fairway binary are its clients.
//
//	GET  /v1/status
//	GET  /v1/{services|endpointslices|pods|nodes}?namespace=&name=&selector=&watch=1
//	GET  /v1/frontends?namespace=&name=&node=&watch=1
//	GET  /v1/{gateways|routes|backends}?namespace=&name=&watch=1
//	POST /v1/explain
//	POST /v1/scale
//	POST /v1/exec      upgrades the connection; see Client.Exec
package control

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/fairwaynet/fairway/internal/store"
)

// Backend is what stands behind a control socket: a sandbox or an agent. All of
// its methods are safe for concurrent use.
type Backend interface {
	// Info says who answers.
	Info() Info
	// Store returns the objects of the cluster as the backend sees them. An
	// agent's holds Services, EndpointSlices and its Node only. It is never nil.
	Store() *store.Store
	// Frontends returns every address that Services answer at, on every node of
	// the backend, sorted by node, namespace, Service, port and address.
	Frontends() []Frontend
	// Status returns how the backend does.
	Status() Status
	// Changed returns a channel that is closed once Frontends or Status may
	// give another answer than at the time of the call.
	Changed() <-chan struct{}
	// Scale sets how many replicas a workload has. Where there are no workloads
	// it returns ErrUnsupported.
	Scale(ctx context.Context, r ScaleRequest) error
	// Exec runs a command in a pod's namespaces, waits for it, and returns its
	// exit code (128+n where signal n ended it). The files are the caller's to
	// close. An error means that the command could not be run. Where there are
	// no pods it returns ErrUnsupported.
	Exec(ctx context.Context, r ExecRequest) (exitCode int, err error)
}

// ErrUnsupported is returned for what a backend does not have: an agent has no
// pods to run commands in.
var ErrUnsupported = errors.New("not supported here")

// The kinds of backend.
const (
	KindSandbox = "sandbox"
	KindAgent   = "agent"
	KindGateway = "gateway"
)

// Info says who answers at a control socket.
type Info struct {
	Kind    string    `json:"kind"` // KindSandbox, KindAgent or KindGateway
	Name    string    `json:"name"` // of the sandbox, or of the agent's node
	PID     int       `json:"pid"`
	Version string    `json:"version,omitempty"`
	Started time.Time `json:"started"`
}

// Status is how a backend does.
type Status struct {
	Info  Info         `json:"info"`
	Nodes []NodeStatus `json:"nodes"`
	// Problems are all that is not as it should be. A status without problems
	// means that everything wanted is applied.
	Problems []Problem `json:"problems,omitempty"`
	// Unknown counts objects of kinds that are not acted on: "apps/v1 Foo" -> 2.
	Unknown map[string]int `json:"unknown,omitempty"`
}

// NodeStatus is how one node's agent does.
type NodeStatus struct {
	Name      string       `json:"name"`
	Zone      string       `json:"zone,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Synced is true once all that was there at the start was applied.
	Synced bool `json:"synced"`
	// Healthy is what the agent's /livez says: changes are applied in time.
	Healthy bool `json:"healthy"`
	// Frontends are how many addresses are wanted, Applied how many of them are
	// as wanted.
	Frontends int `json:"frontends"`
	Applied   int `json:"applied"`
	Backends  int `json:"backends"`
	// LastApplied is when the data plane was last made equal to what is wanted.
	LastApplied time.Time `json:"lastApplied,omitzero"`
}

// Problem is something that is not as it should be.
type Problem struct {
	// Source says who found it: "manifest" (a file cannot be read or is wrong),
	// "workload" (the cluster would not accept an object), "pod" (it does not
	// run), "compile" (an object cannot be served as it is), "apply" (the kernel
	// did not take it), "listen" (a port is taken), "gateway" (a Gateway, route or
	// policy is not served as it stands).
	Source string `json:"source"`
	Node   string `json:"node,omitempty"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Object string `json:"object,omitempty"` // "Service default/web"
	Field  string `json:"field,omitempty"`  // "spec.ports[0].port"
	// Message is what is wrong, without a final full stop.
	Message string `json:"message"`
}

// State tells how far a frontend got.
type State string

// The states.
const (
	StateApplied State = "Applied"
	StatePending State = "Pending"
	StateFailed  State = "Failed"
)

// Frontend is one address that a Service answers at, on one node: what is wanted
// there, and what is applied.
type Frontend struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	PortName  string `json:"portName,omitempty"`
	Protocol  string `json:"protocol"` // TCP, UDP, SCTP
	Kind      string `json:"kind"`     // ClusterIP, NodePort, LoadBalancer, ExternalIP
	Node      string `json:"node"`
	// Address is where it answers; with Port, its other half.
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	// Desired is what the objects ask for.
	Desired Behaviour `json:"desired"`
	// Applied is what the data plane does; nil if it does nothing there yet.
	Applied *Behaviour `json:"applied,omitempty"`
	State   State      `json:"state"`
	// Error is why the state is Failed.
	Error string `json:"error,omitempty"`
}

// Behaviour is what happens to a new connection to a frontend.
type Behaviour struct {
	Action       string         `json:"action"`     // as model.Action
	Masquerade   string         `json:"masquerade"` // as model.Masquerade
	ShortCircuit bool           `json:"shortCircuit,omitempty"`
	SourceRanges []netip.Prefix `json:"sourceRanges,omitempty"`
	// AffinitySeconds is how long a client keeps its backend; 0 for no affinity.
	AffinitySeconds int        `json:"affinitySeconds,omitempty"`
	Backends        []Endpoint `json:"backends,omitempty"`
}

// Endpoint is one backend that Action may choose.
type Endpoint struct {
	Address     netip.AddrPort `json:"address"`
	Node        string         `json:"node,omitempty"`
	Zone        string         `json:"zone,omitempty"`
	Terminating bool           `json:"terminating,omitempty"`
}

// ScaleRequest asks for another number of replicas.
type ScaleRequest struct {
	Kind      string `json:"kind"` // Deployment, ReplicaSet or StatefulSet
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Replicas  int32  `json:"replicas"`
}

// ExecRequest asks for a command to be run in a pod's namespaces.
type ExecRequest struct {
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Command   []string `json:"command"`
	// Env, if not nil, is the whole environment, "KEY=value" each.
	Env []string `json:"env,omitempty"`
	// Dir is the working directory.
	Dir string `json:"dir,omitempty"`

	// The three files travel beside the JSON, as descriptors.
	Stdin, Stdout, Stderr *os.File `json:"-"`
	// Signals are sent on to the command until it ends. Nil for none.
	Signals <-chan os.Signal `json:"-"`
}
