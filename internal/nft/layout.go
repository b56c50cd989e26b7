// Package nft makes nftables carry out Services: it is the kernel driver behind
// [driver.Services].
//
// # Layout
//
// Each family has one table, "ip fairway-services" and "ip6 fairway-services".
// Its rules are constant: they depend on the node's configuration, never on how
// many Services there are. Services and endpoints are elements of data maps, so
// a change is a few elements in one small transaction.
//
// The sets (their names end with the number of their generation, see below):
//
//	frontends      (addr . proto . port)       -> (what . kind . lb . lb-cluster . group)
//	endpoints      (group . index)             -> (addr . port . id)
//	               (group . id)                -> the same, for Services with affinity
//	affinity       (group&^1 . client)         -> id, dynamic, with a timeout
//	source-ranges  (addr . proto . port . length . prefix)
//	cluster-ips    addr
//	hairpin        (addr . addr)
//	kinds          kind                        -> jump or goto kind chain
//	               lb                          -> goto lb-N
//	classes        lb                          -> goto lb-N
//	short-circuit  lb-cluster                  -> goto lb-N-cluster
//
// A packet that begins a connection walks
//
//	prerouting | output -> services -> (kind chain -> services) -> lb-N -> dnat
//
// "services" looks the destination up in frontends and dispatches on the kind,
// which says in bits what is to be done before a backend is picked: check the
// source range, short-circuit, mark for masquerading; or instead of it: reject,
// drop. A frontend that needs none of this has its lb as its kind, and skips the
// kind chain. Then "services" dispatches on lb to the chain for as many backends as
// the Service has: "lb-3" draws a number below 3, looks (group . number) up
// and translates. So there is a chain for each endpoint count in use, not for
// each Service. The usual counts are made with the table, others when they are first
// needed: the kernel walks all elements of the maps that a new chain looks into,
// which are none at first, and take some 15 ms at 44,000 Services of 2 endpoints.
//
// "what" is for readers of "nft list": 0 ClusterIP, 1 external IP, 2 load
// balancer, 3 NodePort. It is the first field because "nft list" 1.0.6 aborts if a
// rule looks up what is in the first register that an earlier lookup wrote. Such
// rules are beyond what nft's language can say: it lists them with an error
// message, and the rest as it is.
//
// The group is an even number for the Cluster backends of a Service; the odd one
// after it has the Local backends. The chains "lb-N-cluster" clear that bit: they
// serve what a frontend of policy Local short-circuits.
//
// # Why so
//
// Measured on Linux 6.18 with 30,000 Services of 3 endpoints:
//   - a chain and an anonymous map for each Service cost a scan of the table at
//     each commit, and lock the kernel up when thousands come in one transaction;
//   - a verdict map with an element for each Service costs about 2 ms for each
//     commit that touches it, because the kernel walks all its elements to
//     validate jumps; a data map costs nothing, so verdicts are confined to
//     three maps of some dozens of elements. At each change of rules the kernel walks
//     all paths from the hooks, and each chain as often as it can be reached: with
//     a dispatch at the end of each kind chain, a new endpoint count took 25 ms
//     where 200 counts were in use;
//   - the value of one lookup cannot be used in the next rule: the kernel refuses
//     to load a register that the same rule did not write. Hence each chain looks
//     its frontend up again. That costs less than the verdict map did.
//
// Dropping and rejecting are done in the nat chains as well. These see only the
// first packet of each connection, so established traffic pays nothing; a
// rejected or dropped packet is never confirmed by conntrack, so the next one is
// again a first packet. Rejecting in prerouting needs Linux 5.9; that it works
// for all protocols in all places is held by the tests.
//
// # Consistency
//
// The kernel makes all changes of a transaction visible at once, but a packet
// that is under way may look one map up before and the next one after. Then its
// endpoint may be gone: lb-N tries index 0, which is there as long as the Service
// has a backend, and drops otherwise, so that the client sends again.
//
// # Affinity
//
// An affinity entry holds an endpoint's id, not its address: when the endpoint
// left, the entry points nowhere and is replaced. The pick is first written to
// the map and then read back, so that of two packets that come at once, both go
// where the first one went. When the map is full, a client is served without
// affinity.
//
// # Generations
//
// What is found in a table at start is adopted if its sets have the right types,
// and its rules are compared by a hash each of them carries. Otherwise, sets of a
// new generation are made and filled beside the old, and one transaction replaces
// all rules: a change of this layout between releases drops no connection.
package nft

import (
	"fmt"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// TableName is the name of the table of each family. Nothing else may touch it.
const TableName = "fairway-services"

// setKind tells the sets of the layout apart.
type setKind int

const (
	setFrontends setKind = iota
	setEndpoints
	setClusterIPs
	setHairpin
	setRanges
	setAffinity
	setKinds
	setClasses
	setShort
	numSets
)

// verdicts reports whether a set's values are verdicts.
func (k setKind) verdicts() bool { return k >= setKinds }

// affinityLimit is how many client addresses can have affinity in one family.
// The kernel wants a limit on sets that packets fill, 65,535 if none is given; an
// element takes about 100 bytes. Clients beyond it are served without affinity.
const affinityLimit = 1 << 20

// setSpec is the type of a set.
type setSpec struct {
	name             string
	key, data        []nftables.SetDatatype
	flags            uint32
	keyLen, dataLen  int
	keyType, dataTyp uint32
	size             uint32
}

// familyLayout is what differs between the families.
type familyLayout struct {
	family  model.Family
	nfproto byte
	addrLen int
	sets    [numSets]setSpec
}

var layouts = map[model.Family]*familyLayout{
	model.IPv4: newFamilyLayout(model.IPv4, unix.NFPROTO_IPV4, nftables.TypeIPAddr),
	model.IPv6: newFamilyLayout(model.IPv6, unix.NFPROTO_IPV6, nftables.TypeIP6Addr),
}

func newFamilyLayout(f model.Family, nfproto byte, addr nftables.SetDatatype) *familyLayout {
	// "mark" is the one 32-bit type that "nft list" can print anywhere.
	mark := nftables.TypeMark
	types := func(t ...nftables.SetDatatype) []nftables.SetDatatype { return t }
	l := &familyLayout{family: f, nfproto: nfproto, addrLen: int(addr.Bytes)}
	l.sets = [numSets]setSpec{
		setFrontends: {
			name: "frontends",
			key:  types(addr, nftables.TypeInetProto, nftables.TypeInetService),
			data: types(mark, mark, mark, mark, mark),
		},
		setEndpoints: {
			name: "endpoints",
			key:  types(mark, mark),
			data: types(addr, nftables.TypeInetService, mark),
		},
		setClusterIPs: {name: "cluster-ips", key: types(addr)},
		setHairpin:    {name: "hairpin", key: types(addr, addr)},
		setRanges: {
			name: "source-ranges",
			key:  types(addr, nftables.TypeInetProto, nftables.TypeInetService, mark, addr),
		},
		setAffinity: {
			name:  "affinity",
			key:   types(mark, addr),
			data:  types(mark),
			flags: unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
			size:  affinityLimit,
		},
		setKinds:   {name: "kinds", key: types(mark), data: types(nftables.TypeVerdict)},
		setClasses: {name: "classes", key: types(mark), data: types(nftables.TypeVerdict)},
		setShort:   {name: "short-circuit", key: types(mark), data: types(nftables.TypeVerdict)},
	}
	for i := range l.sets {
		s := &l.sets[i]
		s.keyType, s.keyLen = concat(s.key)
		if s.data == nil {
			continue
		}
		s.flags |= unix.NFT_SET_MAP
		if setKind(i).verdicts() {
			s.dataTyp = unix.NFT_DATA_VERDICT
			continue
		}
		s.dataTyp, s.dataLen = concat(s.data)
	}
	return l
}

// concat gives the kernel's type number and length of a concatenation.
func concat(types []nftables.SetDatatype) (magic uint32, length int) {
	t := nftables.MustConcatSetType(types...)
	return t.GetNFTMagic(), int(t.Bytes)
}

// names are the names of the sets of one generation.
type names struct {
	generation int
	set        [numSets]string
}

func (l *familyLayout) names(generation int) names {
	n := names{generation: generation}
	for i := range l.sets {
		n.set[i] = fmt.Sprintf("%s-%d", l.sets[i].name, generation)
	}
	return n
}

// The kind of a frontend: what is done with a connection before a backend is
// picked. Numbers below firstClass are kinds, others are classes.
const (
	kindMasqOffCluster = 1
	kindMasqAlways     = 2
	kindRanges         = 4
	kindShortCircuit   = 8
	kindReject         = 16
	kindDrop           = 32

	firstClass = 256
)

// kinds lists all kinds that exist, in order. A frontend of no kind has its class
// in the place of it.
func kinds() []uint32 {
	var all []uint32
	for _, action := range []uint32{0, kindReject, kindDrop} {
		masqs := []uint32{0, kindMasqOffCluster, kindMasqAlways}
		if action != 0 {
			masqs = masqs[:1]
		}
		for _, sc := range []uint32{0, kindShortCircuit} {
			for _, r := range []uint32{0, kindRanges} {
				for _, m := range masqs {
					if k := action | sc | r | m; k != 0 {
						all = append(all, k)
					}
				}
			}
		}
	}
	return all
}

// class is how a backend is picked: one chain each.
type class struct {
	n        uint32 // how many backends
	affinity uint32 // seconds; 0: none
	cluster  bool   // clear the group's low bit first
}

// The classes that are made with the table, for 1 to as many endpoints.
const (
	usualEndpoints = 64
	usualAffinity  = 16 // with the affinity that Kubernetes gives if none is said
	usualCluster   = 16
	usualSeconds   = 10800
)

// usual reports whether a class is made with the table.
func (c class) usual() bool {
	switch {
	case c.affinity == 0 && !c.cluster:
		return c.n <= usualEndpoints
	case c.affinity == 0:
		return c.n <= usualCluster
	case c.affinity == usualSeconds && !c.cluster:
		return c.n <= usualAffinity
	}
	return false
}

// usualClasses lists the classes that are made with the table.
func usualClasses() []class {
	var all []class
	for n := uint32(1); n <= max(usualEndpoints, usualAffinity, usualCluster); n++ {
		for _, c := range []class{{n: n}, {n: n, affinity: usualSeconds}, {n: n, cluster: true}} {
			if c.usual() {
				all = append(all, c)
			}
		}
	}
	return all
}

// chain returns the name of the chain that picks like this.
func (c class) chain() string {
	name := fmt.Sprintf("lb-%d", c.n)
	if c.affinity != 0 {
		name += fmt.Sprintf("-affinity-%d", c.affinity)
	}
	if c.cluster {
		name += "-cluster"
	}
	return name
}

// parseClass is the inverse of chain.
func parseClass(name string) (class, bool) {
	var c class
	for _, format := range []string{"lb-%d", "lb-%d-cluster"} {
		c = class{cluster: format != "lb-%d"}
		if _, err := fmt.Sscanf(name, format, &c.n); err == nil && c.chain() == name {
			return c, c.n > 0
		}
	}
	for _, format := range []string{"lb-%d-affinity-%d", "lb-%d-affinity-%d-cluster"} {
		c = class{cluster: format != "lb-%d-affinity-%d"}
		if _, err := fmt.Sscanf(name, format, &c.n, &c.affinity); err == nil && c.chain() == name {
			return c, c.n > 0
		}
	}
	return class{}, false
}
