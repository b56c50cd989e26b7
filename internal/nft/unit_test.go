package nft

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
)

func TestCheckRelease(t *testing.T) {
	for release, ok := range map[string]bool{
		"5.13.0": true, "5.13.0-rc1": true, "5.15.167.4-microsoft-standard-WSL2": true, "6.1.0-13-amd64": true, "10.0": true,
		"5.12.19": false, "5.4.0-1045-gke": false, "4.18.0-553.el8_10.x86_64": false, "3.10": false,
		"weird": true, "": true,
	} {
		err := checkRelease(release)
		if (err == nil) != ok {
			t.Errorf("%q: %v, want ok %v", release, err, ok)
		}
		if err != nil && !errors.Is(err, ErrKernel) {
			t.Errorf("%q: %v is not ErrKernel", release, err)
		}
	}
}

func TestClassNames(t *testing.T) {
	for _, c := range []class{{n: 1}, {n: 65535, cluster: true}, {n: 3, affinity: 10800}, {n: 12, affinity: 1, cluster: true}} {
		got, ok := parseClass(c.chain())
		if !ok || got != c {
			t.Errorf("%s is read as %+v, %v", c.chain(), got, ok)
		}
	}
	for _, name := range []string{"", "lb-", "lb-0", "lb-x", "lb-1-", "lb-01", "lb-1-cluster-x", "lb-1-affinity-", "lb-1-affinity-5-", "services", "lb--1"} {
		if c, ok := parseClass(name); ok {
			t.Errorf("%q is read as %+v", name, c)
		}
	}
}

func TestKindChainsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]uint32{}
	for _, k := range kinds() {
		if k >= firstClass {
			t.Errorf("kind %d is as large as a class", k)
		}
		if o, ok := seen[kindChain(k)]; ok {
			t.Errorf("kinds %d and %d have one chain", k, o)
		}
		seen[kindChain(k)] = k
	}
}

// TestArrange: all are there once, and no more places change than must.
func TestArrange(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	list := func() []endpoint {
		var l []endpoint
		for i := range 12 {
			if r.IntN(2) == 0 {
				l = append(l, endpoint{port: uint16(i + 1)})
			}
		}
		r.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
		return l
	}
	for range 2000 {
		old, want := list(), list()
		got := arrange(old, want)
		if len(got) != len(want) {
			t.Fatalf("%d endpoints, want %d", len(got), len(want))
		}
		count := map[endpoint]int{}
		for _, e := range want {
			count[e]++
		}
		for _, e := range got {
			count[e]--
		}
		for e, n := range count {
			if n != 0 {
				t.Fatalf("%v -> %v gives %v: %v is wrong", old, want, got, e)
			}
		}
		for i := range min(len(old), len(want)) {
			stays := false
			for _, e := range want {
				stays = stays || e == old[i]
			}
			if stays && got[i] != old[i] {
				t.Fatalf("%v -> %v gives %v: place %d changed", old, want, got, i)
			}
		}
	}
}

// TestNothingIsPlannedForNothing: a Service that does not change gives an empty
// transaction, and one that fails leaves the shadow as it was.
func TestRollback(t *testing.T) {
	for fam, l := range layouts {
		r := rand.New(rand.NewPCG(1, uint64(fam)))
		f := newFamily(l)
		service := func(n int) *model.Service {
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
			if fam == model.IPv6 {
				a = netip.AddrFrom16([16]byte{0xfd, 15: byte(n)})
			}
			m := &model.Service{ID: model.ServiceID{Name: fmt.Sprint(n), Family: fam, Protocol: model.TCP}}
			m.Frontends = []model.Frontend{{Addr: a, Port: uint16(80 + r.IntN(2)), SourceRanges: []netip.Prefix{netip.PrefixFrom(a, 8+r.IntN(20))}}}
			for i := range r.IntN(5) {
				m.Cluster = append(m.Cluster, model.Backend{Addr: netip.AddrPortFrom(a, uint16(i)), Local: true})
			}
			m.Affinity = model.Service{}.Affinity
			return m
		}
		rows := map[model.ServiceID]*row{}
		rowOf := func(m *model.Service) *row {
			if rows[m.ID] == nil {
				rows[m.ID] = &row{id: m.ID}
			}
			return rows[m.ID]
		}
		state := func() string {
			return fmt.Sprint(f.services, f.owner, f.groups, f.classes, f.numbers, f.counted, f.rules.plens)
		}
		for range 300 {
			m := service(r.IntN(8))
			keep := &tx{f: f}
			if err := keep.plan([]change{{rowOf(m), m}}); err != nil {
				t.Fatal(err)
			}
			same := &tx{f: f}
			if err := same.plan([]change{{rowOf(m), m}}); err != nil || !same.empty() {
				t.Fatalf("the same again: %v, %d elements, %d objects", err, same.elements(), len(same.objects))
			}
			before := state()
			drop := &tx{f: f}
			for range 3 {
				m := service(r.IntN(8))
				want := m
				if r.IntN(3) == 0 {
					want = nil
				}
				if err := drop.plan([]change{{rowOf(m), want}}); err != nil {
					t.Fatal(err)
				}
			}
			drop.rollback()
			if after := state(); after != before {
				t.Fatalf("rolled back to\n%s\nwant\n%s", after, before)
			}
		}
	}
}

func TestEachAttrStopsAtRubbish(t *testing.T) {
	for _, b := range [][]byte{{1, 0, 0, 0}, {200, 0, 1, 0}, {0, 0, 0, 0}, {5, 0, 1, 0, 9}} {
		n := 0
		err := eachAttr(b, func(uint16, []byte) error { n++; return nil })
		if n > 1 || n == 0 && err == nil {
			t.Errorf("%v: %d attributes, %v", b, n, err)
		}
	}
}
