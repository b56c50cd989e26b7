package sandbox

import (
	"maps"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// via asks the kernel where a station sends a packet.
func via(t *testing.T, s *station, to string) string {
	t.Helper()
	got, err := s.h.RouteGet(netip.MustParseAddr(to).AsSlice())
	if err != nil || len(got) == 0 {
		return "nowhere"
	}
	if got[0].Gw == nil {
		return "on link"
	}
	return got[0].Gw.String()
}

func (c *cluster) putSlice(slice *discoveryv1.EndpointSlice) {
	c.t.Helper()
	txn := c.store.DB.WriteTxn(c.store.EndpointSlices)
	defer txn.Commit()
	if _, err := store.Put(txn, c.store.EndpointSlices, slice); err != nil {
		c.t.Fatal(err)
	}
}

// Load balancer addresses lead to a node that serves them.
func TestExternalAddresses(t *testing.T) {
	svc := aService("lb", "10.96.0.1", 80, corev1.ProtocolTCP)
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	svc.Spec.ExternalIPs = []string{"192.0.2.9"}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "172.30.1.7"}, {IP: "fd00:172:30:1::7"}, {Hostname: "example.org"}}
	c := start(t, Options{NoRelays: true}, aNode(1), aNode(2), svc)
	leads := func(v4, v6 string) {
		t.Helper()
		// The relays' targets and the routes are set by one pass: a later
		// change that is seen means that the earlier ones are done.
		marker := aNode(9)
		c.put(marker)
		c.until("the marker is seen", func(st State) bool { return len(st.Nodes) == 3 })
		c.remove(marker)
		c.until("the marker has gone", func(st State) bool { return len(st.Nodes) == 2 })
		for addr, want := range map[string]string{"172.30.1.7": v4, "192.0.2.9": v4, "fd00:172:30:1::7": v6} {
			if got := via(t, c.lan, addr); got != want {
				t.Errorf("%s is reached via %s, want %s", addr, got, want)
			}
		}
	}
	leads("172.30.0.11", "fd00:172:30::11")

	svc = svc.DeepCopy()
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "lb-1", Labels: map[string]string{discoveryv1.LabelServiceName: "lb"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.244.1.5"}, NodeName: new("node-1"), Conditions: discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}},
			{Addresses: []string{"10.244.2.5"}, NodeName: new("node-2"), Conditions: discoveryv1.EndpointConditions{Ready: new(true)}},
			{Addresses: []string{"10.244.3.5"}, NodeName: new("node-3")},
		},
	}
	c.putSlice(slice)
	c.put(svc)
	leads("172.30.0.12", "fd00:172:30::12")
	slice = slice.DeepCopy()
	slice.Endpoints[1].Conditions.Ready = new(false)
	c.putSlice(slice)
	leads("172.30.0.11", "fd00:172:30::11") // serving and terminating
	c.remove(svc)
	leads("nowhere", "nowhere")
}

func TestPlan(t *testing.T) {
	p := plan{
		nodes: map[string]planNode{
			"a": {addrs: addrs("172.30.0.10", "fd00:172:30::a"), pods: prefixes("10.244.0.0/24", "fd00:10:244::/64")},
			"b": {addrs: addrs("10.0.0.5"), pods: prefixes("10.244.1.0/24", "fd00:10:244:1::/64")},
		},
		pods:     map[netip.Addr]string{netip.MustParseAddr("192.0.2.7"): "b"},
		external: map[netip.Addr]string{netip.MustParseAddr("172.30.1.7"): "a", netip.MustParseAddr("10.0.0.5"): "a", netip.MustParseAddr("fd00::1"): "b"},
	}
	want := func(dst ...string) map[netip.Prefix]netip.Addr {
		out := map[netip.Prefix]netip.Addr{}
		for i := 0; i < len(dst); i += 2 {
			var hop netip.Addr
			if dst[i+1] != "" {
				hop = netip.MustParseAddr(dst[i+1])
			}
			out[netip.MustParsePrefix(dst[i])] = hop
		}
		return out
	}
	// b has no IPv6 address, so nothing of IPv6 leads there. An external address
	// that is a node's own stays the node's.
	if got, want := p.lan(), want(
		"172.30.0.2/32", "", "fd00:172:30::2/128", "",
		"172.30.0.10/32", "", "fd00:172:30::a/128", "", "10.0.0.5/32", "",
		"10.244.0.0/24", "172.30.0.10", "fd00:10:244::/64", "fd00:172:30::a", "10.244.1.0/24", "10.0.0.5",
		"192.0.2.7/32", "10.0.0.5", "172.30.1.7/32", "172.30.0.10",
	); !maps.Equal(got, want) {
		t.Errorf("LAN:\n%v\nwant\n%v", got, want)
	}
	if got, want := p.node("b"), want(
		"0.0.0.0/0", "172.30.0.1", "::/0", "fd00:172:30::1",
		"172.30.0.1/32", "", "fd00:172:30::1/128", "", "172.30.0.2/32", "", "fd00:172:30::2/128", "",
		"172.30.0.10/32", "", "fd00:172:30::a/128", "",
		"10.244.0.0/24", "172.30.0.10", "fd00:10:244::/64", "fd00:172:30::a",
	); !maps.Equal(got, want) {
		t.Errorf("node b:\n%v\nwant\n%v", got, want)
	}
}
