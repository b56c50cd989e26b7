// Package model says, in plain Go, what a data plane must do. Compilers make it
// from Kubernetes objects and drivers make the kernel equal to it; neither
// knows of the other. It imports the standard library only.
package model

import (
	"fmt"
	"net/netip"
	"time"
)

// Protocol is an IANA protocol number.
type Protocol uint8

// The protocols a Service port can have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the name Kubernetes uses: "TCP", "UDP" or "SCTP".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("IP-%d", uint8(p))
}

// Family is an IP address family.
type Family uint8

// The two families. Their values are the IP version numbers.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns "IPv4" or "IPv6", as in Service.spec.ipFamilies.
func (f Family) String() string { return fmt.Sprintf("IPv%d", uint8(f)) }

// FamilyOf returns the family of an address. An IPv4-mapped IPv6 address is IPv4.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// ServiceID names one port of one Kubernetes Service in one address family. It
// is the unit that is compiled, applied and reported.
type ServiceID struct {
	Namespace string
	Name      string
	// Port is the name of the Service port; empty where a Service has one unnamed port.
	Port     string
	Protocol Protocol
	Family   Family
}

// String returns "namespace/name:port/TCP/IPv4".
func (id ServiceID) String() string {
	return fmt.Sprintf("%s/%s:%s/%s/%s", id.Namespace, id.Name, id.Port, id.Protocol, id.Family)
}

// Service is one Service port in one family, as one node must serve it: where
// it is reached, and what answers.
//
// A Service that is reached nowhere (headless, ExternalName) has no model.
// Frontends and backends are sorted, so that equal Services compare equal.
type Service struct {
	ID ServiceID
	// Frontends are the addresses the Service answers at. No two frontends of
	// one node's Services share (address, protocol, port): the compiler
	// resolves such conflicts.
	Frontends []Frontend
	// Cluster are the backends of the traffic policy "Cluster": ready ones that
	// the topology hints choose, or else serving and terminating ones.
	Cluster []Backend
	// Local are the backends of the traffic policy "Local": those on this node,
	// ready or else serving and terminating. Empty where no policy is Local.
	Local []Backend
	// Lingering are the other endpoints that still serve, though no policy picks
	// them now: one that terminates, say. New flows do not come to them; flows
	// that are there stay until the endpoint leaves. Sorted; of UDP Services
	// only, since other connections end by themselves.
	Lingering []netip.AddrPort
	// Affinity is how long a client address keeps its backend after its last
	// new connection; zero means no affinity. It is kept per Service and client
	// address, whichever frontend was used.
	Affinity time.Duration
}

// FrontendKind tells why an address is a frontend.
type FrontendKind uint8

// The kinds. A ClusterIP wins over any other claim to one (address, protocol,
// port); among others the older Service wins, then the kind in this order.
const (
	ClusterIP FrontendKind = iota
	ExternalIP
	LoadBalancer
	NodePort
)

// String returns the kind as users know it.
func (k FrontendKind) String() string {
	return [...]string{"ClusterIP", "ExternalIP", "LoadBalancer", "NodePort"}[k]
}

// Action is what happens to a new connection that reaches a frontend.
type Action uint8

const (
	// ForwardCluster sends it to one of the Cluster backends.
	ForwardCluster Action = iota
	// ForwardLocal sends it to one of the Local backends.
	ForwardLocal
	// Reject answers with ICMP port unreachable: the Service has no endpoint at all.
	Reject
	// Drop is silent: the policy is Local, and endpoints are on other nodes only.
	Drop
)

// String returns the action in lower case.
func (a Action) String() string {
	return [...]string{"forward-cluster", "forward-local", "reject", "drop"}[a]
}

// Masquerade tells which connections through a frontend get the node's address
// as their source.
type Masquerade uint8

const (
	// MasqueradeNever keeps the client's address.
	MasqueradeNever Masquerade = iota
	// MasqueradeOffCluster applies to clients that are not pods (see NodeServices.PodSource).
	MasqueradeOffCluster
	// MasqueradeAlways applies to every client.
	MasqueradeAlways
)

// String returns "never", "off-cluster" or "always".
func (m Masquerade) String() string {
	return [...]string{"never", "off-cluster", "always"}[m]
}

// Frontend is one address a Service answers at. Its protocol is the Service's.
//
// A new connection to it is handled in this order: SourceRanges (drop), then
// ShortCircuit, then Masquerade and Action. Hairpin connections (a backend that
// reaches itself) are masqueraded whatever the frontend says.
type Frontend struct {
	Addr netip.Addr
	Port uint16
	Kind FrontendKind
	// Action applies to every client that is not short-circuited.
	Action Action
	// ShortCircuit, on frontends with externalTrafficPolicy Local, sends pods of
	// the cluster and the node itself to the Cluster backends, as if they went
	// out to the load balancer and came back; pods keep their address, the node
	// is masqueraded. A pod is told by NodeServices.PodSource.
	ShortCircuit bool
	Masquerade   Masquerade
	// SourceRanges, if not empty, are the only client addresses let in. They
	// apply before ShortCircuit, to every client.
	SourceRanges []netip.Prefix
}

// AddrPort returns address and port in one.
func (f Frontend) AddrPort() netip.AddrPort { return netip.AddrPortFrom(f.Addr, f.Port) }

// Backend is one endpoint address and port that can answer.
type Backend struct {
	Addr netip.AddrPort
	// Local is true where the endpoint runs on this node.
	Local bool
	// Node and Zone are where it runs, if known. They are for display only.
	Node string
	Zone string
	// Terminating is true where it was chosen although it is terminating. Display only.
	Terminating bool
}

// PodSource tells connections that come from pods of the cluster from others
// (kube-proxy's detectLocalMode). The zero value means it is not known: then
// nothing counts as a pod, MasqueradeOffCluster masquerades nothing, and
// ShortCircuit applies to the node itself only.
type PodSource struct {
	// Prefixes are source addresses of pods.
	Prefixes []netip.Prefix
	// Interface is the name of the bridge that pods are behind.
	Interface string
	// InterfacePrefix begins the name of every interface of a pod.
	InterfacePrefix string
}

// NodeServices is what holds for all Services of one node.
type NodeServices struct {
	// ServiceCIDRs are the ranges ClusterIPs come from. A new connection to an
	// address in them that no ClusterIP frontend has is dropped; one to a
	// ClusterIP at a port it does not have is rejected. Only forwarded and
	// locally made connections are meant, not those to the node itself.
	ServiceCIDRs []netip.Prefix
	PodSource    PodSource
	// MasqueradeMark is the one bit of the packet mark that a driver may use
	// between its hooks. Zero means the default, 1<<14, as kube-proxy's.
	MasqueradeMark uint32
}
