package sandbox

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairwaynet/fairway/internal/store"
)

// The Service of cluster DNS, as every cluster names it.
const (
	dnsNamespace = "kube-system"
	dnsName      = "kube-dns"
	dnsPort      = 53
)

// DNSServer is where cluster DNS is reached from anywhere on the LAN.
func DNSServer() netip.AddrPort { return netip.AddrPortFrom(dnsAddrs[0], dnsPort) }

// newDNS makes the namespace of the DNS server.
func (s *Sandbox) newDNS(lan *station) (*station, error) {
	dns, err := attach(lan, "dns", dnsAddrs, s.families)
	if err != nil {
		return nil, fmt.Errorf("make the DNS server's namespace: %w", err)
	}
	if err := dns.routes.set(dns.only(uplink())); err != nil {
		dns.close()
		return nil, fmt.Errorf("make the DNS server's namespace: %w", err)
	}
	return dns, nil
}

// serveDNS opens the DNS server's sockets and serves until ctx ends.
func (s *Sandbox) serveDNS(ctx context.Context, dns *station) error {
	addr := fmt.Sprintf(":%d", dnsPort)
	udp, err := dns.ns.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return err
	}
	defer udp.Close()
	tcp, err := dns.ns.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer tcp.Close()
	defer context.AfterFunc(ctx, func() {
		_ = udp.Close()
		_ = tcp.Close()
	})()
	return s.o.ServeDNS(ctx, udp, tcp)
}

// putDNS makes the DNS server the endpoint of the Service kube-system/kube-dns,
// so that pods reach it as in any cluster: through the data plane. A Service of
// that name in the manifests keeps its address and ports; its own pods, that the
// echo server would stand in for, are not its endpoints.
func (s *Sandbox) putDNS(st *store.Store) error {
	txn := st.DB.WriteTxn(st.Services, st.EndpointSlices)
	defer txn.Abort()
	svc, ok := store.Get(txn, st.Services, dnsNamespace, dnsName)
	if ok {
		svc = svc.DeepCopy()
		svc.Spec.Selector = nil
	} else {
		svc = s.dnsService()
	}
	if _, err := store.Put(txn, st.Services, svc); err != nil {
		return err
	}
	for _, slice := range s.dnsSlices() {
		if _, err := store.Put(txn, st.EndpointSlices, slice); err != nil {
			return err
		}
	}
	txn.Commit()
	return nil
}

func (s *Sandbox) dnsService() *corev1.Service {
	family := corev1.IPv4Protocol
	if s.o.DNSService.Is6() {
		family = corev1.IPv6Protocol
	}
	single := corev1.IPFamilyPolicySingleStack
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: dnsNamespace, Name: dnsName,
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
		},
		Spec: corev1.ServiceSpec{
			Type:           corev1.ServiceTypeClusterIP,
			ClusterIP:      s.o.DNSService.String(),
			ClusterIPs:     []string{s.o.DNSService.String()},
			IPFamilies:     []corev1.IPFamily{family},
			IPFamilyPolicy: &single,
			Ports: []corev1.ServicePort{
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: dnsPort, TargetPort: intstr.FromInt32(dnsPort)},
				{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: dnsPort, TargetPort: intstr.FromInt32(dnsPort)},
			},
		},
	}
}

// dnsSlices returns one EndpointSlice a family.
func (s *Sandbox) dnsSlices() []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, a := range dnsAddrs {
		if !s.families.has(a) {
			continue
		}
		kind, suffix := discoveryv1.AddressTypeIPv4, "ipv4"
		if a.Is6() {
			kind, suffix = discoveryv1.AddressTypeIPv6, "ipv6"
		}
		port := func(name string, p corev1.Protocol) discoveryv1.EndpointPort {
			return discoveryv1.EndpointPort{Name: &name, Protocol: &p, Port: new(int32(dnsPort))}
		}
		out = append(out, &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: dnsNamespace, Name: dnsName + "-" + suffix,
				Labels: map[string]string{discoveryv1.LabelServiceName: dnsName},
			},
			AddressType: kind,
			Endpoints: []discoveryv1.Endpoint{{
				Addresses:  []string{a.String()},
				Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
			}},
			Ports: []discoveryv1.EndpointPort{port("dns", corev1.ProtocolUDP), port("dns-tcp", corev1.ProtocolTCP)},
		})
	}
	return out
}

// nameservers returns the addresses of cluster DNS for pods.
func (s *Sandbox) nameservers() []netip.Addr {
	svc, ok := store.Get(s.o.Cluster.DB.ReadTxn(), s.o.Cluster.Services, dnsNamespace, dnsName)
	if !ok {
		return nil
	}
	var out []netip.Addr
	for _, ip := range clusterIPs(svc) {
		if s.families.has(ip) {
			out = append(out, ip)
		}
	}
	return out
}
