package sandbox

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairwaynet/fairway/internal/netns"
)

// dialUntil dials until the other side accepts.
func dialUntil(t *testing.T, from *netns.NS, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		conn, err := from.DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("dial %s: %v", addr, err)
		}
	}
}

// A pod that declares no port listens where Services expect it to, and one that
// declares some listens there alone.
func TestUndeclaredPorts(t *testing.T) {
	silent, declared := aPod("silent", 1, 5), aPod("declared", 1, 6)
	silent.Spec.Containers[0].Ports = nil
	silent.Labels = map[string]string{"app": "shop"}
	declared.Labels = map[string]string{"app": "shop"}
	service := func(name string, port int32) *corev1.Service {
		svc := aService(name, "10.96.0.1", 80, corev1.ProtocolTCP)
		svc.Spec.Selector = map[string]string{"app": "shop"}
		svc.Spec.Ports[0].TargetPort = intstr.FromInt32(port)
		return svc
	}
	c := start(t, Options{NoRelays: true}, aNode(1), silent, declared, service("one", 3000))
	c.until("pods are ready", allReady(2))
	node := c.onNode("node-1")
	expect(t, node, "10.244.1.5:3000", "silent", "172.30.0.11")
	c.put(service("two", 4000))
	dialUntil(t, node, "10.244.1.5:4000")
	expect(t, node, "10.244.1.5:3000", "silent", "172.30.0.11")
	if conn, err := node.DialContext(t.Context(), "tcp", "10.244.1.6:3000"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that the pod does not declare: %v, %v", conn, err)
	}
}

func TestClusterDNS(t *testing.T) {
	// A server that answers with what it was asked.
	serve := func(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
		go func() {
			for {
				conn, err := tcp.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte("tcp"))
				_ = conn.Close()
			}
		}()
		buf := make([]byte, 512)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return err
			}
			_, _ = udp.WriteTo(buf[:n], from)
		}
	}
	c := start(t, Options{ServeDNS: serve}, aNode(1), aNode(2), aPod("a", 2, 5))
	c.until("the pod is ready", allReady(1))
	for _, dns := range []string{"172.30.0.2:53", "[fd00:172:30::2]:53"} {
		// From a pod and from a node: the Service's backend is one of no node.
		for _, from := range []*netns.NS{c.inPod("a"), c.onNode("node-1")} {
			udp, err := from.DialContext(t.Context(), "udp", dns)
			if err != nil {
				t.Fatal(err)
			}
			defer udp.Close()
			_ = udp.SetDeadline(time.Now().Add(patience))
			buf := make([]byte, 16)
			_, _ = udp.Write([]byte("udp"))
			if n, err := udp.Read(buf); err != nil || string(buf[:n]) != "udp" {
				t.Errorf("%s: %q, %v", dns, buf[:n], err)
			}
			tcp, err := from.DialContext(t.Context(), "tcp", dns)
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			if n, err := tcp.Read(buf); err != nil || string(buf[:n]) != "tcp" {
				t.Errorf("%s: %q, %v", dns, buf[:n], err)
			}
		}
	}
	st := c.store
	txn := st.DB.ReadTxn()
	var endpoints []string
	for slice := range st.EndpointSlices.All(txn) {
		if slice.Labels["kubernetes.io/service-name"] == "kube-dns" && slice.Namespace == "kube-system" {
			endpoints = append(endpoints, slice.Endpoints[0].Addresses...)
		}
	}
	slices.Sort(endpoints)
	if !slices.Equal(endpoints, []string{"172.30.0.2", "fd00:172:30::2"}) {
		t.Errorf("endpoints of kube-dns: %v", endpoints)
	}
}

// A node's agent runs in the node's namespace, and runs again if it ends.
func TestAgents(t *testing.T) {
	type call struct {
		node  string
		netns uint64
	}
	calls := make(chan call, 8)
	failed := make(chan struct{}, 1)
	c := start(t, Options{StartNode: func(ctx context.Context, node string, ns *netns.NS) error {
		calls <- call{node, ns.Inode()}
		select {
		case failed <- struct{}{}:
			return os.ErrInvalid // the first one only
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}}, aNode(1))
	first, again := <-calls, <-calls
	inode := c.State().Nodes[0].Netns
	if want := (call{"node-1", inode}); first != want || again != want {
		t.Errorf("called with %v and %v, want %v", first, again, want)
	}
}
