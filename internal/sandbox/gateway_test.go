package sandbox

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/netns"
)

// A Gateway has its addresses on the LAN, reaches pods from there, and its ports
// are on localhost. It goes on while only its ports change.
func TestGateway(t *testing.T) {
	var starts atomic.Int32
	addr := netip.MustParseAddr("172.30.2.7")
	relay := func(ctx context.Context, _, _ string, ns *netns.NS) error {
		starts.Add(1)
		l, err := ns.Listen(ctx, "tcp", ":80")
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = l.Close() })
		defer stop()
		for {
			client, err := l.Accept()
			if err != nil {
				return nil
			}
			go func() {
				defer client.Close()
				pod, err := ns.DialContext(ctx, "tcp", "10.244.2.5:80")
				if err != nil {
					return
				}
				defer pod.Close()
				go func() { _, _ = io.Copy(pod, client); _ = pod.Close() }()
				_, _ = io.Copy(client, pod)
			}()
		}
	}
	c := start(t, Options{StartGateway: relay}, aNode(1), aNode(2), aPod("a", 1, 5), aPod("b", 2, 5))
	gw := Gateway{Namespace: "default", Name: "gw", Addresses: []netip.Addr{addr, netip.MustParseAddr("fd00:172:30:2::7")}}
	gw.Ports = []GatewayPort{{"http", "TCP", 80}}
	c.SetGateways([]Gateway{gw})
	c.until("pods and the gateway", func(st State) bool { return allReady(2)(st) && len(st.Relays) == 1 })
	if r := c.State().Relays[0]; !r.Gateway || r.Name != "gw" || fmt.Sprint(r.Listen) != both(8080) {
		t.Errorf("offered as %+v", r)
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	eventuallyPod := func(client *http.Client, at, pod string) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			reply, err := getBy(client, at)
			if err == nil && reply.Pod == pod {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %q, %v; want %s", at, reply.Pod, err, pod)
			}
		}
	}
	eventuallyPod(client, "127.0.0.1:8080", "b")
	ns := c.inPod("a")
	inPod := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return ns.DialContext(ctx, network, addr)
		},
	}}
	for _, at := range []string{"172.30.2.7:80", "[fd00:172:30:2::7]:80"} {
		eventuallyPod(inPod, at, "b")
	}

	gw.Ports = []GatewayPort{{"http", "TCP", 80}, {"other", "TCP", 9000}}
	c.SetGateways([]Gateway{gw})
	c.until("the new port", func(st State) bool { return len(st.Relays) == 2 })
	if n := starts.Load(); n != 1 {
		t.Errorf("started %d times", n)
	}
	c.SetGateways(nil)
	c.until("nothing is offered", func(st State) bool { return len(st.Relays) == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if conn, err := ns.DialContext(ctx, "tcp", "172.30.2.7:80"); err == nil {
		conn.Close()
		t.Error("the address still answers")
	}
}
