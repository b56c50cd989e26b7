package cli

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/sandbox"
	"github.com/fairwaynet/fairway/internal/store"
)

// snapshot is what "up" shows at one moment.
type snapshot struct {
	name      string
	started   time.Time
	nodes     []snapshotNode
	services  []snapshotService
	gateways  []control.Gateway
	settled   bool // every gateway's data plane has been given what it serves
	podsReady int
	pods      int
	problems  []control.Problem
	unknown   map[string]int
}

type snapshotNode struct {
	name, zone string
	addresses  []string
	pods       int
	synced     bool
}

type snapshotService struct {
	key, kind  string // "namespace/name"
	address    string // where it is reached in the cluster
	ports      string
	ready, all int
	localhost  string // where it is reached on this machine
}

// colorTerm tells whether the terminal understands cursor movement.
func colorTerm() bool { return os.Getenv("TERM") != "dumb" }

func (c *upCluster) snapshot() *snapshot {
	s := &snapshot{name: c.info.Name, started: c.info.Started}
	txn := c.cluster.DB.ReadTxn()
	podsOf := map[string]int{}
	for p := range c.cluster.Pods.All(txn) {
		if p.Status.Phase == corev1.PodSucceeded {
			continue
		}
		s.pods++
		podsOf[p.Spec.NodeName]++
		if podReady(p) {
			s.podsReady++
		}
	}
	synced := map[string]bool{}
	for _, a := range c.running() {
		n := a.NodeStatus()
		synced[n.Name] = n.Synced
	}
	for n := range c.cluster.Nodes.All(txn) {
		node := snapshotNode{name: n.Name, zone: n.Labels[corev1.LabelTopologyZone], pods: podsOf[n.Name], synced: synced[n.Name]}
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				node.addresses = append(node.addresses, a.Address)
			}
		}
		s.nodes = append(s.nodes, node)
	}
	relays := map[string][]sandbox.Relay{}
	for _, r := range c.sandbox.State().Relays {
		if !r.Gateway {
			key := store.NameKey(r.Namespace, r.Name)
			relays[key] = append(relays[key], r)
		}
	}
	for svc := range c.cluster.Services.All(txn) {
		key := store.Key(svc)
		v := snapshotService{key: key, kind: string(svc.Spec.Type), address: address(svc), ports: ports(svc), localhost: localhost(relays[key])}
		if svc.Spec.ClusterIP == corev1.ClusterIPNone {
			v.kind = "Headless"
		}
		v.ready, v.all = countEndpoints(c.cluster, svc)
		s.services = append(s.services, v)
	}
	s.gateways, s.settled = c.Gateways(), c.gateways.Settled()
	s.problems = c.allProblems()
	c.mu.Lock()
	s.unknown = c.report.Unknown
	c.mu.Unlock()
	return s
}

// address is where a Service is reached in the cluster, the outermost first.
func address(svc *corev1.Service) string {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return svc.Spec.ExternalName
	}
	var out []string
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			out = append(out, in.IP)
		}
	}
	if ip := svc.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
		out = append(out, ip)
	}
	return strings.Join(out, ",")
}

// countEndpoints counts a Service's endpoints in its first family, and which of
// them are ready.
func countEndpoints(s *store.Store, svc *corev1.Service) (ready, all int) {
	first := discoveryv1.AddressType("")
	if len(svc.Spec.IPFamilies) > 0 {
		first = discoveryv1.AddressType(svc.Spec.IPFamilies[0])
	}
	seen := map[string]bool{}
	for slice := range s.EndpointSlices.List(s.DB.ReadTxn(), store.SlicesOfService(svc.Namespace, svc.Name)) {
		if first != "" && slice.AddressType != first {
			continue
		}
		for _, e := range slice.Endpoints {
			if len(e.Addresses) == 0 || seen[e.Addresses[0]] {
				continue
			}
			seen[e.Addresses[0]] = true
			all++
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready++
			}
		}
	}
	return ready, all
}

// localhost says where on this machine a Service is offered.
func localhost(relays []sandbox.Relay) string {
	var out []string
	for _, r := range relays {
		if len(r.Listen) == 0 {
			continue
		}
		at := "localhost:" + strconv.Itoa(int(r.Listen[0].Port()))
		if !isLocalhost(r.Listen[0].Addr()) {
			at = r.Listen[0].String()
		}
		if r.Protocol != "TCP" {
			at += "/" + strings.ToLower(r.Protocol)
		}
		out = append(out, at)
	}
	return strings.Join(out, " ")
}

// isLocalhost tells whether "localhost" is a name of the address.
func isLocalhost(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || a == netip.IPv6Loopback()
}

// ready tells whether all nodes serve and all pods answer.
func (s *snapshot) ready() bool {
	for _, n := range s.nodes {
		if !n.synced {
			return false
		}
	}
	return len(s.nodes) > 0 && s.podsReady == s.pods && s.settled
}

// picture renders the snapshot for a terminal.
func (s *snapshot) picture(color bool) []string {
	paint := func(code, text string) string {
		if !color {
			return text
		}
		return code + text + colorOff
	}
	out := []string{fmt.Sprintf("%s  %d nodes  pods ready %d/%d  %s", paint(colorBold, "sandbox "+s.name),
		len(s.nodes), s.podsReady, s.pods, paint(colorDim, "(Ctrl-C removes everything)")), ""}

	nodes := newTable("NODE", "ADDRESSES", "ZONE", "PODS", "SYNCED")
	services := newTable("SERVICE", "TYPE", "ADDRESS", "PORT(S)", "READY", "ON THIS MACHINE")
	if color {
		nodes.color = stateColor
		services.color = func(column, cell string) string {
			switch {
			case column == "READY" && strings.HasPrefix(cell, "0/"):
				return colorRed
			case column == "ON THIS MACHINE":
				return colorGreen
			}
			return ""
		}
	}
	var rows [][]string
	for _, n := range s.nodes {
		rows = append(rows, []string{n.name, strings.Join(n.addresses, ","), orNone(n.zone), strconv.Itoa(n.pods), yes(n.synced)})
	}
	out = append(append(out, nodes.lines(rows)...), "")
	rows = nil
	for _, v := range s.services {
		ready := fmt.Sprintf("%d/%d", v.ready, v.all)
		if v.kind == string(corev1.ServiceTypeExternalName) {
			ready = "-"
		}
		rows = append(rows, []string{v.key, v.kind, orNone(v.address), v.ports, ready, v.localhost})
	}
	out = append(out, services.lines(rows)...)
	if len(s.gateways) > 0 {
		gateways := newTable("GATEWAY", "CLASS", "ADDRESS", "LISTENERS", "ROUTES", "PROGRAMMED", "ON THIS MACHINE")
		if color {
			gateways.color = func(column, cell string) string {
				if column == "ON THIS MACHINE" {
					return colorGreen
				}
				return stateColor(column, cell)
			}
		}
		rows = nil
		for i := range s.gateways {
			g := &s.gateways[i]
			rows = append(rows, []string{store.NameKey(g.Namespace, g.Name), g.Class, orNone(addresses(g.Addresses)), listeners(g), strconv.Itoa(routes(g)),
				yes(g.Programmed()), gatewayLocalhost(g)})
		}
		out = append(append(out, ""), gateways.lines(rows)...)
	}
	if len(s.unknown) > 0 {
		out = append(out, "", paint(colorDim, "Not acted on: "+unknownKinds(s.unknown)))
	}
	if len(s.problems) > 0 {
		out = append(out, "")
		for _, p := range s.problems {
			out = append(out, paint(colorRed, problemText(p)))
		}
	}
	return out
}

// line is one fact, and what it is about.
type line struct{ key, text string }

// lines renders the snapshot as facts, for output that is not a terminal.
func (s *snapshot) lines() []line {
	var out []line
	for _, n := range s.nodes {
		if !n.synced {
			continue // it is not news before it serves
		}
		text := fmt.Sprintf("node %s: %s", n.name, strings.Join(n.addresses, ", "))
		if n.zone != "" {
			text += ", zone " + n.zone
		}
		out = append(out, line{"node " + n.name, text})
	}
	for _, v := range s.services {
		text := fmt.Sprintf("service %s: %s", v.key, v.kind)
		if v.address != "" {
			text += " " + v.address
		}
		if v.ports != none {
			text += " " + v.ports
		}
		if v.kind != string(corev1.ServiceTypeExternalName) {
			text += fmt.Sprintf(", %d/%d ready", v.ready, v.all)
		}
		if v.localhost != "" {
			text += ", on this machine at " + v.localhost
		}
		out = append(out, line{"service " + v.key, text})
	}
	for i := range s.gateways {
		g := &s.gateways[i]
		if !g.Programmed() {
			continue
		}
		name := "gateway " + store.NameKey(g.Namespace, g.Name)
		text := fmt.Sprintf("%s: %s %s, %d routes", name, addresses(g.Addresses), listeners(g), routes(g))
		if at := gatewayLocalhost(g); at != "" {
			text += ", on this machine at " + at
		}
		out = append(out, line{name, text})
	}
	if len(s.unknown) > 0 {
		out = append(out, line{"unknown", "not acted on: " + unknownKinds(s.unknown)})
	}
	for _, p := range s.problems {
		text := problemText(p)
		out = append(out, line{"problem " + text, "problem: " + text})
	}
	return out
}
