package nft_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/conntrack"
	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
)

// TestUDPFlowsFollowTheService keeps one UDP socket, and so one flow, while its
// Service changes.
func TestUDPFlowsFollowTheService(t *testing.T) {
	for _, p := range plans {
		t.Run(p.String(), func(t *testing.T) {
			w := newWorld(t)
			newProber(t, w)
			results := make(chan conntrack.Result, 100)
			d := w.driver(t, func(o *nft.Options) {
				o.Observer.Conntrack = func(r conntrack.Result) { results <- r }
			})
			front := netip.AddrPortFrom(p.clusterIPs[0], frontPorts[0])
			service := func(backends ...netip.AddrPort) model.Service {
				s := model.Service{
					ID:        model.ServiceID{Name: "dns", Protocol: model.UDP, Family: p.family},
					Frontends: []model.Frontend{{Addr: front.Addr(), Port: front.Port()}},
				}
				for _, b := range backends {
					s.Cluster = append(s.Cluster, model.Backend{Addr: b})
				}
				if len(backends) == 0 {
					s.Frontends[0].Action = model.Reject
				}
				return s
			}
			change := func(b driver.Batch) {
				t.Helper()
				apply(t, d, b)
				nft.WaitFlows(d)
			}
			a := netip.AddrPortFrom(p.pods[0], backendPorts[0])
			b := netip.AddrPortFrom(p.pods[1], backendPorts[0])
			c := netip.AddrPortFrom(p.remotePods[0], backendPorts[1])

			var u net.Conn
			w.client.Must(t, func() (err error) {
				d := net.Dialer{LocalAddr: &net.UDPAddr{IP: p.clients[0].AsSlice()}}
				u, err = d.Dial("udp", front.String())
				return err
			})
			defer u.Close()
			ask := func() (string, error) {
				buf := make([]byte, 100)
				_ = u.SetDeadline(time.Now().Add(answerWait))
				if _, err := u.Write([]byte("?")); err != nil {
					return "", err
				}
				n, err := u.Read(buf)
				at, _, _ := strings.Cut(string(buf[:n]), " ")
				return at, err
			}
			answers := func(want netip.AddrPort) {
				t.Helper()
				for range 3 {
					if got, err := ask(); got != want.String() {
						t.Fatalf("%s answers (%v), want %s", got, err, want)
					}
				}
			}
			change(driver.Batch{Full: true, Node: &model.NodeServices{}})
			answers(front) // no Service: it goes where the address is
			change(driver.Batch{Upsert: []model.Service{service(a)}})
			answers(a) // a Service came
			change(driver.Batch{Upsert: []model.Service{service(a, b, c)}})
			answers(a) // more backends change nothing
			change(driver.Batch{Upsert: []model.Service{service(b)}})
			answers(b) // its backend left
			change(driver.Batch{Upsert: []model.Service{service()}})
			if got, err := ask(); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("%s answers (%v), want it refused", got, err)
			}
			change(driver.Batch{Upsert: []model.Service{service(c)}})
			answers(c)
			// While nobody was there, the backend left.
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = w.driver(t)
			change(driver.Batch{Full: true, Upsert: []model.Service{service(a)}})
			answers(a)
			// The table went, and the flow goes past the Service meanwhile.
			conn := w.someone(t)
			conn.DelTable(ourTables[0])
			conn.DelTable(ourTables[1])
			if err := conn.Flush(); err != nil {
				t.Fatal(err)
			}
			// A flow that begins now.
			var u2 net.Conn
			w.client.Must(t, func() (err error) { u2, err = net.Dial("udp", front.String()); return err })
			u.Close()
			u = u2
			answers(front)
			if err := nft.Audit(d); err != nil {
				t.Fatal(err)
			}
			nft.WaitFlows(d)
			answers(a)
			change(driver.Batch{Delete: []model.ServiceID{service().ID}})
			answers(front)

			deleted := 0
			for len(results) > 0 {
				r := <-results
				if r.Err != nil || r.Family != p.family || r.Duration <= 0 {
					t.Errorf("result %+v", r)
				}
				deleted += r.Deleted
			}
			// In the first driver: the Service came, its backend left, none was left.
			if deleted != 3 {
				t.Errorf("%d flows deleted, want 3", deleted)
			}
		})
	}
}

// TestTCPConnectionsStay keeps connections to backends that leave, and to those
// whose place in the map changes.
func TestTCPConnectionsStay(t *testing.T) {
	w, p := newWorld(t), plans[4]
	at := netip.AddrPortFrom(p.pods[0], 9000)
	var l net.Listener
	w.pods[0].Must(t, func() (err error) { l, err = net.Listen("tcp", at.String()); return err })
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						c.Close()
						return
					}
					_, _ = c.Write(buf[:n])
				}
			}()
		}
	}()
	s := model.Service{
		ID:        model.ServiceID{Name: "web", Protocol: model.TCP, Family: model.IPv4},
		Frontends: []model.Frontend{{Addr: p.clusterIPs[0], Port: 80, Masquerade: model.MasqueradeAlways}},
		Cluster:   []model.Backend{{Addr: at}},
	}
	d := w.driver(t)
	apply(t, d, driver.Batch{Full: true, Upsert: []model.Service{s}})
	var c net.Conn
	w.client.Must(t, func() (err error) { c, err = net.Dial("tcp", s.Frontends[0].AddrPort().String()); return err })
	defer c.Close()
	echo := func(when string) {
		t.Helper()
		buf := make([]byte, 10)
		_ = c.SetDeadline(time.Now().Add(answerWait))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if _, err := c.Read(buf); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	echo("at first")
	s.Cluster = []model.Backend{{Addr: netip.AddrPortFrom(p.pods[1], 9000)}}
	apply(t, d, driver.Batch{Upsert: []model.Service{s}})
	echo("after its backend left")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = w.driver(t)
	apply(t, d, driver.Batch{Full: true, Node: &model.NodeServices{ServiceCIDRs: []netip.Prefix{p.serviceCIDR}}})
	echo("after its Service went in a restart")
	if err := d.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tables, err := w.someone(t).ListTables(); err != nil || len(tables) != 0 {
		t.Errorf("tables after Cleanup: %v (%v)", tables, err)
	}
}
