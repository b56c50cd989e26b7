package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairwaynet/fairway/test/kube"
)

const (
	namespace   = "bench"
	servicePort = 80
	// probesASize is how many Services of each size are probed.
	probesASize = 32
	// mostAStep is how many Services are written before kube-proxy is waited for.
	mostAStep = 500
)

var (
	serviceCIDR = netip.MustParsePrefix("10.96.0.0/12")
	// firstVIP leaves room for what the API server allocates itself, and for
	// the Services of the change benchmark.
	firstVIP      = netip.MustParseAddr("10.97.0.0")
	moverVIP      = netip.MustParseAddr("10.96.200.1")
	addedVIP      = netip.MustParseAddr("10.96.200.2")
	firstEndpoint = netip.MustParseAddr("10.128.0.0")
)

func offset(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// vip is where Service i answers.
func vip(i int) netip.AddrPort { return netip.AddrPortFrom(offset(firstVIP, i), servicePort) }

// dataset is a number of Services, all of the same form.
type dataset struct {
	kube   *kube.Cluster
	client kubernetes.Interface
	// endpoints is how many each Service has.
	endpoints int
	// real are the Services whose endpoints exist.
	real map[int]bool
	// written is how many Services there are.
	written int
}

func newDataset(c *kube.Cluster, endpoints int, sizes []int) (*dataset, error) {
	cfg := rest.CopyConfig(c.Config)
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = cfg.ContentType + ",application/json"
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	d := &dataset{kube: c, client: client, endpoints: endpoints, real: map[int]bool{}}
	for _, size := range sizes {
		for _, i := range spread(size) {
			d.real[i] = true
		}
		for i := mostAStep - 1; i < size; i += mostAStep {
			d.real[i] = true
		}
	}
	return d, nil
}

// spread returns up to probesASize of the first size Services, the first and
// the last among them.
func spread(size int) []int {
	n := min(size, probesASize)
	var out []int
	for i := range n {
		at := 0
		if n > 1 {
			at = i * (size - 1) / (n - 1)
		}
		out = append(out, at)
	}
	return out
}

// probes returns the addresses of the probed Services among the first size.
func (d *dataset) probes(size int) []netip.AddrPort {
	var out []netip.AddrPort
	for _, i := range spread(size) {
		out = append(out, vip(i))
	}
	return out
}

// between returns the addresses of all Services in [from, to) that have
// endpoints that exist, the last one first.
func (d *dataset) between(from, to int) []netip.AddrPort {
	var out []netip.AddrPort
	for i := to - 1; i >= from; i-- {
		if d.real[i] {
			out = append(out, vip(i))
		}
	}
	return out
}

func (d *dataset) prepare(ctx context.Context) error {
	_, err := d.client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// addNode tells the API server of a rig's node.
func (d *dataset) addNode(ctx context.Context, name string, addr netip.Addr) error {
	nodes := d.client.CoreV1().Nodes()
	n, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr.String()}}
	_, err = nodes.UpdateStatus(ctx, n, metav1.UpdateOptions{})
	return err
}

// grow writes Services until there are size of them, straight into etcd.
func (d *dataset) grow(ctx context.Context, size int) error {
	const workers = 8
	next := make(chan int)
	errs := make(chan error, workers)
	for range workers {
		go func() {
			var failed error
			for i := range next {
				failed = errors.Join(failed, d.kube.Put(ctx, d.stored(i)...))
			}
			errs <- failed
		}()
	}
	for ; d.written < size; d.written++ {
		next <- d.written
	}
	close(next)
	var failed error
	for range workers {
		failed = errors.Join(failed, <-errs)
	}
	return failed
}

// stored returns Service i, its EndpointSlice and the claim of its address, as
// the API server would have stored them.
func (d *dataset) stored(i int) []kube.Stored {
	name, addr := fmt.Sprintf("s%06d", i), vip(i).Addr().String()
	n := d.endpoints
	if d.real[i] {
		n = min(n, len(serverAddrs))
	}
	eps := make([]netip.Addr, n)
	for j := range eps {
		if d.real[i] {
			eps[j] = serverAddrs[j]
		} else {
			eps[j] = offset(firstEndpoint, i*d.endpoints+j)
		}
	}
	svc, single, internal := service(name, addr), corev1.IPFamilyPolicySingleStack, corev1.ServiceInternalTrafficPolicyCluster
	svc.Spec.Type, svc.Spec.SessionAffinity = corev1.ServiceTypeClusterIP, corev1.ServiceAffinityNone
	svc.Spec.ClusterIPs, svc.Spec.IPFamilies = []string{addr}, []corev1.IPFamily{corev1.IPv4Protocol}
	svc.Spec.IPFamilyPolicy, svc.Spec.InternalTrafficPolicy = &single, &internal
	claim := &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: addr, Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(corev1.IPv4Protocol),
			networkingv1.LabelManagedBy:       "ipallocator.k8s.io",
		}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: namespace, Name: name}},
	}
	eslice := slice(name, eps)
	svc.Namespace, eslice.Namespace = namespace, namespace
	for _, m := range []*metav1.ObjectMeta{&svc.ObjectMeta, &claim.ObjectMeta, &eslice.ObjectMeta} {
		m.UID, m.CreationTimestamp = uuid.NewUUID(), metav1.Now()
	}
	return []kube.Stored{
		{Key: "ipaddresses/" + addr, Version: networkingv1.SchemeGroupVersion, Object: claim},
		{Key: "endpointslices/" + namespace + "/" + name, Version: discoveryv1.SchemeGroupVersion, Object: eslice},
		{Key: "services/specs/" + namespace + "/" + name, Version: corev1.SchemeGroupVersion, Object: svc},
	}
}

func service(name, addr string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			ClusterIP: addr,
			Ports: []corev1.ServicePort{{
				Name: "http", Port: servicePort, TargetPort: intstr.FromInt32(serverPort), Protocol: corev1.ProtocolTCP,
			}},
		},
	}
}

func (d *dataset) writeService(ctx context.Context, name string, addr netip.Addr) error {
	_, err := d.client.CoreV1().Services(namespace).Create(ctx, service(name, addr.String()), metav1.CreateOptions{})
	return err
}

func slice(name string, eps []netip.Addr) *discoveryv1.EndpointSlice {
	yes, port, proto, portName := true, int32(serverPort), corev1.ProtocolTCP, "http"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: "fairway-bench"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &proto}},
	}
	for _, e := range eps {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{e.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
		})
	}
	return s
}

func (d *dataset) writeSlice(ctx context.Context, name string, eps []netip.Addr) error {
	_, err := d.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, slice(name, eps), metav1.CreateOptions{})
	return err
}
