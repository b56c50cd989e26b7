// Package drivertest is the contract of [driver.Services] as tests. All drivers
// pass them.
package drivertest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// Plane is one data plane, empty at first.
type Plane struct {
	// Open gives a driver of the data plane, as a process that starts would. The
	// one opened before was closed.
	Open func(t testing.TB) driver.Services
	// Reach gives the backends that connections to an address may be sent to, in
	// any order, as the data plane has it; none if the address is no frontend.
	Reach func(t testing.TB, to netip.AddrPort, p model.Protocol) []netip.AddrPort
}

// Run tests a driver. Each test gets a new data plane.
func Run(t *testing.T, newPlane func(t *testing.T) Plane) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"Upsert", (*suite).upsert},
		{"Replace", (*suite).replace},
		{"Delete", (*suite).remove},
		{"Full", (*suite).full},
		{"Idempotent", (*suite).idempotent},
		{"FrontendsMove", (*suite).frontendsMove},
		{"Conflict", (*suite).conflict},
		{"OneBadService", (*suite).oneBadService},
		{"Affinity", (*suite).affinity},
		{"Restart", (*suite).restart},
		{"RestartWithChanges", (*suite).restartWithChanges},
		{"Cancelled", (*suite).cancelled},
		{"Cleanup", (*suite).cleanup},
		{"RunLeavesAll", (*suite).runLeavesAll},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &suite{T: t, plane: newPlane(t)}
			s.d = s.plane.Open(t)
			t.Cleanup(func() { s.check(s.d.Close()) })
			tt.run(s)
		})
	}
}

type suite struct {
	*testing.T
	plane Plane
	d     driver.Services
}

func (s *suite) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) apply(b driver.Batch) {
	s.Helper()
	s.check(s.d.Apply(context.Background(), b))
}

// service makes a Service at 10.96.0.N:80 (or fd96::N) with some backends.
func service(n int, backends ...int) model.Service {
	s := model.Service{ID: id(n), Frontends: []model.Frontend{at(n)}}
	for _, b := range backends {
		s.Cluster = append(s.Cluster, model.Backend{Addr: backend(b), Local: b%2 == 0})
	}
	return s
}

func id(n int) model.ServiceID {
	return model.ServiceID{Namespace: "ns", Name: fmt.Sprintf("svc-%d", n), Port: "web", Protocol: model.TCP, Family: model.IPv4}
}

func at(n int) model.Frontend {
	return model.Frontend{Addr: netip.AddrFrom4([4]byte{10, 96, byte(n >> 8), byte(n)}), Port: 80}
}

func backend(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(n >> 8), byte(n)}), 8080)
}

// reaches requires that an address leads to just these backends.
func (s *suite) reaches(n int, backends ...int) {
	s.Helper()
	want := []netip.AddrPort{}
	for _, b := range backends {
		want = append(want, backend(b))
	}
	got := s.plane.Reach(s, at(n).AddrPort(), model.TCP)
	slices.SortFunc(want, netip.AddrPort.Compare)
	slices.SortFunc(got, netip.AddrPort.Compare)
	if !slices.Equal(got, want) {
		s.Errorf("%s leads to %v, want %v", at(n).AddrPort(), got, want)
	}
}

// applied requires that a Service is applied as it is wanted.
func (s *suite) applied(want model.Service) {
	s.Helper()
	st := s.d.State(want.ID)
	if st.Err != nil || st.Applied == nil || fmt.Sprint(*st.Applied) != fmt.Sprint(want) {
		s.Errorf("state of %s: %+v, want %+v", want.ID, st, want)
	}
}

func (s *suite) notApplied(n int) {
	s.Helper()
	if st := s.d.State(id(n)); st.Applied != nil || st.Err != nil {
		s.Errorf("state of %s: %+v, want none", id(n), st)
	}
}

// eventually waits until a condition holds.
func (s *suite) eventually(what string, ok func() bool) {
	s.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("not in time: %s (failures: %v)", what, s.d.Failures())
		}
	}
}

// background runs the driver until the test ends.
func (s *suite) background() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	d := s.d
	go func() { done <- d.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			s.Errorf("Run: %v", err)
		}
	}
	s.Cleanup(stop)
	return stop
}

func (s *suite) upsert() {
	a, b := service(1, 1, 2, 3), service(2)
	b.Frontends[0].Action = model.Reject
	s.apply(driver.Batch{Full: true, Node: &model.NodeServices{}, Upsert: []model.Service{a, b}})
	s.applied(a)
	s.applied(b)
	s.reaches(1, 1, 2, 3)
	s.reaches(2)
	s.notApplied(3)
	if f := s.d.Failures(); len(f) != 0 {
		s.Errorf("failures: %v", f)
	}
}

func (s *suite) replace() {
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{service(1, 1, 2, 3), service(2, 9)}})
	for _, backends := range [][]int{{1, 2}, {4, 2}, {5, 6, 7, 8}, {8, 7, 6, 5}, {}, {1}} {
		a := service(1, backends...)
		s.apply(driver.Batch{Upsert: []model.Service{a}})
		s.applied(a)
		s.reaches(1, backends...)
		s.reaches(2, 9)
	}
	// Another address and no longer the one before.
	a := service(1, 1)
	a.Frontends = []model.Frontend{at(7)}
	s.apply(driver.Batch{Upsert: []model.Service{a}})
	s.reaches(1)
	s.reaches(7, 1)
}

func (s *suite) remove() {
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{service(1, 1), service(2, 2)}})
	s.apply(driver.Batch{Delete: []model.ServiceID{id(1), id(99)}})
	s.notApplied(1)
	s.notApplied(99)
	s.reaches(1)
	s.reaches(2, 2)
	s.apply(driver.Batch{Upsert: []model.Service{service(1, 3)}})
	s.reaches(1, 3)
}

func (s *suite) full() {
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{service(1, 1), service(2, 2)}})
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{service(2, 3), service(4, 4)}})
	s.notApplied(1)
	s.reaches(1)
	s.reaches(2, 3)
	s.reaches(4, 4)
	s.apply(driver.Batch{Full: true})
	for _, n := range []int{1, 2, 4} {
		s.notApplied(n)
		s.reaches(n)
	}
}

func (s *suite) idempotent() {
	b := driver.Batch{Full: true, Node: &model.NodeServices{}, Upsert: []model.Service{service(1, 1, 2)}}
	for range 3 {
		s.apply(b)
		s.reaches(1, 1, 2)
		s.apply(driver.Batch{Upsert: b.Upsert, Delete: []model.ServiceID{id(5)}})
		s.apply(driver.Batch{})
		s.applied(b.Upsert[0])
	}
}

func (s *suite) frontendsMove() {
	with := func(n int, backend int, fronts ...int) model.Service {
		m := service(n, backend)
		m.Frontends = nil
		for _, f := range fronts {
			m.Frontends = append(m.Frontends, at(f))
		}
		return m
	}
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{with(1, 1, 1), with(2, 2, 2), with(3, 3, 3)}})
	// Round in a ring: each takes what another has.
	s.apply(driver.Batch{Upsert: []model.Service{with(1, 1, 2), with(2, 2, 3), with(3, 3, 1)}})
	s.reaches(1, 3)
	s.reaches(2, 1)
	s.reaches(3, 2)
	// From one that goes to one that comes, and to one that has another already.
	s.apply(driver.Batch{Upsert: []model.Service{with(4, 4, 2), with(2, 2, 1, 3)}, Delete: []model.ServiceID{id(1), id(3)}})
	s.reaches(1, 2)
	s.reaches(2, 4)
	s.reaches(3, 2)
	if f := s.d.Failures(); len(f) != 0 {
		s.Errorf("failures: %v", f)
	}
}

func (s *suite) conflict() {
	a, b := service(1, 1), service(2, 2)
	b.Frontends = []model.Frontend{at(1), at(2)}
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{a}})
	s.apply(driver.Batch{Upsert: []model.Service{b, service(3, 3)}})
	err := s.d.Failures()[b.ID]
	if err == nil || !strings.Contains(err.Error(), b.ID.String()) {
		s.Errorf("error %v, want one that names %s", err, b.ID)
	}
	if st := s.d.State(b.ID); st.Err == nil || st.Applied != nil {
		s.Errorf("state %+v, want an error and nothing applied", st)
	}
	s.reaches(1, 1)
	s.reaches(3, 3)
	// The address becomes free: the other gets it by itself.
	s.background()
	s.apply(driver.Batch{Delete: []model.ServiceID{a.ID}})
	s.eventually("the conflict is over", func() bool { return len(s.d.Failures()) == 0 })
	s.applied(b)
	s.reaches(1, 2)
	s.reaches(2, 2)
}

func (s *suite) oneBadService() {
	bad := service(2, 2)
	bad.Frontends[0].Addr = netip.MustParseAddr("fd96::2")
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{service(1, 1), bad, service(3, 3)}})
	if err := s.d.State(bad.ID).Err; err == nil || !strings.Contains(err.Error(), bad.ID.String()) {
		s.Errorf("error %v, want one that names %s", err, bad.ID)
	}
	s.reaches(1, 1)
	s.reaches(3, 3)
	// What was applied before a bad change stays.
	good := service(2, 2)
	s.apply(driver.Batch{Upsert: []model.Service{good}})
	s.applied(good)
	s.apply(driver.Batch{Upsert: []model.Service{bad, service(1, 1, 5)}})
	s.reaches(2, 2)
	s.reaches(1, 1, 5)
	if st := s.d.State(bad.ID); st.Err == nil || st.Applied == nil || st.Applied.Frontends[0].Addr != good.Frontends[0].Addr {
		s.Errorf("state %+v, want an error and what was before", st)
	}
	s.apply(driver.Batch{Delete: []model.ServiceID{bad.ID}})
	s.notApplied(2)
	s.reaches(2)
}

func (s *suite) affinity() {
	a := service(1, 1, 2)
	for _, seconds := range []int{100, 0, 200, 200} {
		a.Affinity = time.Duration(seconds) * time.Second
		s.apply(driver.Batch{Full: true, Upsert: []model.Service{a}})
		s.applied(a)
		s.reaches(1, 1, 2)
	}
	b := service(1, 2, 3)
	b.Affinity = a.Affinity
	s.apply(driver.Batch{Upsert: []model.Service{b}})
	s.reaches(1, 2, 3)
}

// reopen closes the driver and opens another, as a restart does.
func (s *suite) reopen() {
	s.Helper()
	s.check(s.d.Close())
	s.d = s.plane.Open(s.T)
}

func (s *suite) restart() {
	b := driver.Batch{Full: true, Node: &model.NodeServices{}, Upsert: []model.Service{service(1, 1, 2), service(2, 3)}}
	s.apply(b)
	s.reopen()
	s.reaches(1, 1, 2) // it goes on while nobody is there
	s.apply(b)
	s.applied(b.Upsert[0])
	s.reaches(1, 1, 2)
	s.reaches(2, 3)
}

func (s *suite) restartWithChanges() {
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{service(1, 1, 2), service(2, 3), service(3, 4, 5, 6)}})
	s.reopen()
	moved := service(4, 7)
	moved.Frontends = append(moved.Frontends, at(1))
	gone := service(3, 4, 6, 8, 9)
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{moved, gone}})
	s.reaches(1, 7)
	s.reaches(2)
	s.reaches(3, 4, 6, 8, 9)
	s.reaches(4, 7)
}

func (s *suite) cancelled() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.d.Apply(ctx, driver.Batch{Full: true, Upsert: []model.Service{service(1, 1)}}); err == nil {
		s.Error("Apply succeeded after its context was cancelled")
	}
	// What was wanted is not forgotten.
	s.apply(driver.Batch{Upsert: []model.Service{service(2, 2)}})
	s.reaches(1, 1)
	s.reaches(2, 2)
}

func (s *suite) cleanup() {
	b := driver.Batch{Full: true, Upsert: []model.Service{service(1, 1)}}
	s.apply(b)
	for range 2 {
		s.check(s.d.Cleanup(context.Background()))
		s.reaches(1)
		s.notApplied(1)
	}
	s.apply(b)
	s.reaches(1, 1)
}

func (s *suite) runLeavesAll() {
	s.apply(driver.Batch{Full: true, Upsert: []model.Service{service(1, 1)}})
	stop := s.background()
	s.apply(driver.Batch{Upsert: []model.Service{service(2, 2)}})
	stop()
	s.reaches(1, 1)
	s.reaches(2, 2)
}
