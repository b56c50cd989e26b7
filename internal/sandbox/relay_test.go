package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// aService returns a Service whose only port is this one. There is no data
// plane in these tests: its address is that of the pod behind it.
func aService(name, ip string, port int32, protocol corev1.Protocol) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Port: port, Protocol: protocol, TargetPort: intstr.FromInt32(port)}},
		},
	}
}

// offered returns where a Service is on localhost.
func offered(st State, name string) []netip.AddrPort {
	for _, r := range st.Relays {
		if r.Name == name {
			return r.Listen
		}
	}
	return nil
}

// both are the two loopback addresses with a port.
func both(port uint16) string {
	return fmt.Sprintf("[127.0.0.1:%d [::1]:%d]", port, port)
}

func TestRelays(t *testing.T) {
	udp := aPod("a", 1, 5)
	udp.Spec.Containers[0].Ports = append(udp.Spec.Containers[0].Ports,
		corev1.ContainerPort{ContainerPort: 53, Protocol: corev1.ProtocolUDP},
		corev1.ContainerPort{ContainerPort: 5432, Protocol: corev1.ProtocolTCP})
	c := start(t, Options{}, aNode(1), aNode(2), udp, aPod("b", 2, 5),
		aService("web", "10.244.1.5", 80, corev1.ProtocolTCP),
		aService("db", "10.244.1.5", 5432, corev1.ProtocolTCP),
		aService("dns", "10.244.1.5", 53, corev1.ProtocolUDP),
		aService("web2", "fd00:10:244:2::5", 80, corev1.ProtocolTCP),
		&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "headless"},
			Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}},
		})
	c.until("all is there", func(st State) bool { return allReady(2)(st) && len(st.Relays) == 4 })
	for name, port := range map[string]uint16{"web": 8080, "db": 5432, "dns": 8053, "web2": 8081} {
		if got := fmt.Sprint(offered(c.State(), name)); got != both(port) {
			t.Errorf("%s is at %s, want %s", name, got, both(port))
		}
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for addr, pod := range map[string]string{"127.0.0.1:8080": "a", "[::1]:8080": "a", "127.0.0.1:8081": "b", "[::1]:5432": "a"} {
		if reply, err := getBy(client, addr); err != nil || reply.Pod != pod {
			t.Errorf("%s: %q, %v; want %s", addr, reply.Pod, err, pod)
		}
	}
	// UDP: two clients, who are apart.
	var seen []string
	for range 2 {
		conn, err := net.Dial("udp", "127.0.0.1:8053")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 2 {
			if _, err := conn.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			buf := make([]byte, 4096)
			n, err := conn.Read(buf)
			if err != nil || !strings.Contains(string(buf[:n]), `"body": "hello"`) && !strings.Contains(string(buf[:n]), `"body":"hello"`) {
				t.Fatalf("%s, %v", buf[:n], err)
			}
			_, after, _ := strings.Cut(string(buf[:n]), `"remoteAddr"`)
			seen = append(seen, strings.SplitN(after, ",", 2)[0])
		}
	}
	if seen[0] != seen[1] || seen[2] != seen[3] || seen[0] == seen[2] {
		t.Errorf("the Service saw clients %q", seen)
	}

	// A Service keeps its port while it is there, whatever its address is; when
	// it goes, so does the port.
	c.remove(aService("web", "", 80, ""))
	c.put(aService("web2", "10.244.1.5", 80, corev1.ProtocolTCP))
	c.until("web has gone", func(st State) bool { return len(st.Relays) == 3 })
	if got := fmt.Sprint(offered(c.State(), "web2")); got != both(8081) {
		t.Errorf("web2 moved to %s", got)
	}
	if reply, err := getBy(client, "127.0.0.1:8081"); err != nil || reply.Pod != "a" {
		t.Errorf("web2 at its new address: %q, %v", reply.Pod, err)
	}
	if conn, err := net.Dial("tcp", "127.0.0.1:8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial a port that was given back: %v, %v", conn, err)
	}
	c.stop()
	if conn, err := net.Dial("tcp", "127.0.0.1:8081"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after the end: %v, %v", conn, err)
	}
}

func TestTakenPortsAreLeftAlone(t *testing.T) {
	// Other programs have 8080 for all, and 8081 for IPv6 only.
	for _, addr := range []string{"0.0.0.0:8080", "[::1]:8081"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	c := start(t, Options{}, aNode(1), aService("web", "10.244.1.5", 80, corev1.ProtocolTCP))
	c.until("the Service is offered", func(st State) bool { return len(st.Relays) == 1 })
	if got := fmt.Sprint(offered(c.State(), "web")); got != both(8082) {
		t.Errorf("web is at %s, want %s", got, both(8082))
	}
}

// A relay hands on the end of a stream, and a refusal, as they come.
func TestRelayIsTransparent(t *testing.T) {
	c := start(t, Options{}, aNode(1), aPod("a", 1, 5),
		aService("raw", "10.244.1.5", 9000, corev1.ProtocolTCP),
		aService("nobody", "10.244.1.5", 9001, corev1.ProtocolTCP))
	c.until("all is there", func(st State) bool { return allReady(1)(st) && len(st.Relays) == 2 })
	l, err := c.inPod("a").Listen(t.Context(), "tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b, _ := io.ReadAll(conn) // until the client's end
		_, _ = conn.Write([]byte(strings.ToUpper(string(b))))
	}()
	conn, err := net.Dial("tcp", "127.0.0.1:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("hello"))
	_ = conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(conn); err != nil || string(b) != "HELLO" {
		t.Errorf("read %q, %v", b, err)
	}
	refused, err := net.Dial("tcp", "127.0.0.1:9001")
	if err == nil {
		defer refused.Close()
		_, err = refused.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a Service that refuses: %v, want a reset", err)
	}
}

// More Services with one port than are tried, and more than there may be.
func TestManyRelays(t *testing.T) {
	c := start(t, Options{}, aNode(1))
	c.relays.mu.Lock()
	c.relays.most = triedPorts + 50
	c.relays.mu.Unlock()
	var objects []any
	for i := range triedPorts + 51 {
		objects = append(objects, aService(fmt.Sprintf("web-%03d", i), "10.96.0.1", 80, corev1.ProtocolTCP))
	}
	c.put(objects...)
	c.until("Services are offered", func(st State) bool { return len(st.Relays) == len(objects) })
	for i, r := range c.State().Relays[:triedPorts+50] {
		if got, want := fmt.Sprint(r.Listen), both(uint16(8080+i)); got != want {
			t.Errorf("%s is at %s, want %s", r.Name, got, want)
		}
	}
	last := c.State().Relays[len(objects)-1]
	if len(last.Listen) > 0 || last.Error != errTooMany.Error() {
		t.Errorf("one too many: %+v", last)
	}
	// Another's end makes room.
	c.remove(objects[7])
	c.until("the last is offered", func(st State) bool {
		return fmt.Sprint(offered(st, last.Name)) == both(8087)
	})
}

// Where clients from outside of the cluster enter it.
func TestTargets(t *testing.T) {
	c := start(t, Options{}, aNode(1), aNode(2))
	c.until("nodes are there", func(st State) bool { return len(st.Nodes) == 2 })
	balancer := aService("lb", "10.96.0.1", 80, corev1.ProtocolTCP)
	balancer.Spec.Type = corev1.ServiceTypeLoadBalancer
	balancer.Spec.Ports[0].NodePort = 30080
	balancer.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "172.30.1.7"}}
	pending := balancer.DeepCopy()
	pending.Status.LoadBalancer.Ingress = nil
	plain := aService("plain", "10.96.0.1", 80, corev1.ProtocolTCP)
	node, lan := c.onNode("node-1"), c.outside()
	for _, tt := range []struct {
		svc  *corev1.Service
		want target
	}{
		{balancer, target{"", lan, netip.MustParseAddrPort("172.30.1.7:80"), forBalancer}},
		{pending, target{"", lan, netip.MustParseAddrPort("172.30.0.11:30080"), forNodePort}},
		{plain, target{"", node, netip.MustParseAddrPort("10.96.0.1:80"), forClusterIP}},
	} {
		c.mu.Lock()
		first := c.nodes["node-1"]
		got, ok := c.target(tt.svc, tt.svc.Spec.Ports[0], first)
		c.mu.Unlock()
		if !ok || got != tt.want {
			t.Errorf("%s: %v, want %v", tt.svc.Name, got, tt.want)
		}
	}
}
