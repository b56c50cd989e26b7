package testns_test

import (
	"net"
	"os"
	"testing"

	"github.com/fairwaynet/fairway/internal/testns"
)

func TestMain(m *testing.M) { testns.Main(m) }

func TestTheMachineIsOutOfReach(t *testing.T) {
	if os.Getuid() != 0 {
		t.Errorf("uid is %d, want 0", os.Getuid())
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 && l.Flags&net.FlagUp != 0 {
			t.Errorf("interface %s is up in a namespace that should be empty", l.Name)
		}
	}
	left, err := os.ReadDir("/run")
	if err != nil || len(left) != 0 {
		t.Errorf("/run holds %v (%v), want nothing", left, err)
	}
}

func TestLinkedNamespacesTalk(t *testing.T) {
	a, b := testns.New(t, "a"), testns.New(t, "b")
	testns.Link(t,
		testns.End{NS: a, Name: "eth0", Addrs: []string{"10.0.0.1/24", "fd00::1/64"}},
		testns.End{NS: b, Name: "eth0", Addrs: []string{"10.0.0.2/24", "fd00::2/64"}})
	for _, addr := range []string{"10.0.0.2:80", "[fd00::2]:80"} {
		var l net.Listener
		b.Must(t, func() (err error) { l, err = net.Listen("tcp", addr); return })
		defer l.Close()
		a.Must(t, func() error {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
}
