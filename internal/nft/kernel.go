package nft

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// kernelTable is what a table holds, elements excepted.
type kernelTable struct {
	exists bool
	flags  uint32
	sets   map[string]kernelSet
	chains map[string]*kernelChain
}

type kernelSet struct{ flags, keyType, keyLen, dataType, dataLen uint32 }

type kernelChain struct {
	base  *baseChain
	nat   bool
	rules []string // their hashes; empty for rules that carry none
}

// readTable lists the table's sets, chains and rules.
func (c *conn) readTable(nfproto byte) (*kernelTable, error) {
	t := &kernelTable{sets: map[string]kernelSet{}, chains: map[string]*kernelChain{}}
	a := header(nfproto)
	a.str(unix.NFTA_TABLE_NAME, TableName)
	msgs, err := c.request(message(unix.NFT_MSG_GETTABLE, 0, a))
	switch {
	case errors.Is(err, unix.ENOENT):
		return t, nil
	case err != nil:
		return nil, fmt.Errorf("get table: %w", err)
	}
	t.exists = true
	for _, m := range msgs {
		err := eachAttr(m.Data[min(4, len(m.Data)):], func(typ uint16, data []byte) error {
			if typ == unix.NFTA_TABLE_FLAGS && len(data) == 4 {
				t.flags = beUint32(data)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("get table: %w", err)
		}
	}
	if err := c.readSets(nfproto, t); err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	if err := c.readChains(nfproto, t); err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	if err := c.readRules(nfproto, t); err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return t, nil
}

func (c *conn) readSets(nfproto byte, t *kernelTable) error {
	a := header(nfproto)
	a.str(unix.NFTA_SET_TABLE, TableName)
	msgs, err := c.dump(unix.NFT_MSG_GETSET, a)
	if err != nil {
		return err
	}
	for _, m := range msgs {
		if len(m.Data) < 4 {
			return errShort
		}
		var name, table string
		var s kernelSet
		err := eachAttr(m.Data[4:], func(typ uint16, data []byte) error {
			switch typ {
			case unix.NFTA_SET_TABLE:
				table = text(data)
			case unix.NFTA_SET_NAME:
				name = text(data)
			}
			if len(data) != 4 {
				return nil
			}
			switch typ {
			case unix.NFTA_SET_FLAGS:
				s.flags = beUint32(data)
			case unix.NFTA_SET_KEY_TYPE:
				s.keyType = beUint32(data)
			case unix.NFTA_SET_KEY_LEN:
				s.keyLen = beUint32(data)
			case unix.NFTA_SET_DATA_TYPE:
				s.dataType = beUint32(data)
			case unix.NFTA_SET_DATA_LEN:
				s.dataLen = beUint32(data)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if table == TableName {
			t.sets[name] = s
		}
	}
	return nil
}

func (c *conn) readChains(nfproto byte, t *kernelTable) error {
	a := header(nfproto)
	a.str(unix.NFTA_CHAIN_TABLE, TableName)
	msgs, err := c.dump(unix.NFT_MSG_GETCHAIN, a)
	if err != nil {
		return err
	}
	for _, m := range msgs {
		if len(m.Data) < 4 {
			return errShort
		}
		var name, table string
		ch := &kernelChain{}
		err := eachAttr(m.Data[4:], func(typ uint16, data []byte) error {
			switch typ {
			case unix.NFTA_CHAIN_TABLE:
				table = text(data)
			case unix.NFTA_CHAIN_NAME:
				name = text(data)
			case unix.NFTA_CHAIN_TYPE:
				ch.nat = text(data) == "nat"
			case unix.NFTA_CHAIN_HOOK:
				ch.base = &baseChain{}
				return eachAttr(data, func(typ uint16, data []byte) error {
					switch {
					case len(data) != 4:
					case typ == unix.NFTA_HOOK_HOOKNUM:
						ch.base.hook = beUint32(data)
					case typ == unix.NFTA_HOOK_PRIORITY:
						ch.base.priority = int32(beUint32(data))
					}
					return nil
				})
			}
			return nil
		})
		if err != nil {
			return err
		}
		if table == TableName {
			t.chains[name] = ch
		}
	}
	return nil
}

func (c *conn) readRules(nfproto byte, t *kernelTable) error {
	a := header(nfproto)
	a.str(unix.NFTA_RULE_TABLE, TableName)
	msgs, err := c.dump(unix.NFT_MSG_GETRULE, a)
	if err != nil {
		return err
	}
	for _, m := range msgs {
		if len(m.Data) < 4 {
			return errShort
		}
		var table, chain, hash string
		err := eachAttr(m.Data[4:], func(typ uint16, data []byte) error {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				table = text(data)
			case unix.NFTA_RULE_CHAIN:
				chain = text(data)
			case unix.NFTA_RULE_USERDATA:
				hash, _ = userdata.GetString(data, userdata.TypeComment)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if ch := t.chains[chain]; ch != nil && table == TableName {
			ch.rules = append(ch.rules, hash)
		}
	}
	return nil
}

// readElements calls f for each element of a set; of d, what is known of a
// verdict is set. The slices must not be kept.
func (c *conn) readElements(nfproto byte, set string, f func(key, data []byte, d dispatch)) error {
	a := header(nfproto)
	a.str(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	a.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	msgs, err := c.dump(unix.NFT_MSG_GETSETELEM, a)
	if err != nil {
		return fmt.Errorf("list elements of %s: %w", set, err)
	}
	for _, m := range msgs {
		if len(m.Data) < 4 {
			return errShort
		}
		err := eachAttr(m.Data[4:], func(typ uint16, list []byte) error {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return nil
			}
			return eachAttr(list, func(_ uint16, elem []byte) error {
				key, data, d, err := parseElement(elem)
				if err == nil {
					f(key, data, d)
				}
				return err
			})
		})
		if err != nil {
			return fmt.Errorf("list elements of %s: %w", set, err)
		}
	}
	return nil
}

func parseElement(elem []byte) (key, data []byte, d dispatch, err error) {
	err = eachAttr(elem, func(typ uint16, b []byte) error {
		if typ != unix.NFTA_SET_ELEM_KEY && typ != unix.NFTA_SET_ELEM_DATA {
			return nil
		}
		return eachAttr(b, func(inner uint16, v []byte) error {
			switch {
			case inner == unix.NFTA_DATA_VALUE && typ == unix.NFTA_SET_ELEM_KEY:
				key = v
			case inner == unix.NFTA_DATA_VALUE:
				data = v
			case inner == unix.NFTA_DATA_VERDICT:
				return eachAttr(v, func(t uint16, name []byte) error {
					switch {
					case t == unix.NFTA_VERDICT_CHAIN:
						d.chain = text(name)
					case t == unix.NFTA_VERDICT_CODE && len(name) == 4:
						d.jump = int32(beUint32(name)) == unix.NFT_JUMP
					}
					return nil
				})
			}
			return nil
		})
	})
	return key, data, d, err
}

// kernelElements is the content of the sets that Services are in, as it is.
type kernelElements struct {
	fronts    map[frontKey]frontValue
	endpoints map[uint32]map[uint32]endpoint // by group and index or id
	ranges    map[frontKey][]sourceRange
	counted   [numSets]map[addr]bool
	verdicts  map[dispatch]struct{}
	// odd are the keys of elements that this driver never writes.
	odd [numSets][][]byte
}

func newKernelElements() *kernelElements {
	e := &kernelElements{
		fronts:    map[frontKey]frontValue{},
		endpoints: map[uint32]map[uint32]endpoint{},
		ranges:    map[frontKey][]sourceRange{},
		verdicts:  map[dispatch]struct{}{},
	}
	e.counted[setClusterIPs], e.counted[setHairpin] = map[addr]bool{}, map[addr]bool{}
	return e
}

// readAll lists the elements of the sets of one generation.
func (c *conn) readAll(l *familyLayout, n names) (*kernelElements, error) {
	e := newKernelElements()
	for k := range numSets {
		if k == setAffinity {
			continue // packets write it
		}
		err := c.readElements(l.nfproto, n.set[k], func(key, data []byte, d dispatch) {
			if len(key) != l.sets[k].keyLen || len(data) != l.sets[k].dataLen || !e.take(l, k, key, data, d) {
				e.odd[k] = append(e.odd[k], bytes.Clone(key))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return e, nil
}

// take notes one element; it reports whether it is of the kind the driver writes.
func (e *kernelElements) take(l *familyLayout, k setKind, key, data []byte, d dispatch) bool {
	r := reader{key}
	v := reader{data}
	switch k {
	case setFrontends:
		e.fronts[r.frontKey(l.addrLen)] = frontValue{v.word(), v.word(), v.word(), v.word(), v.word()}
	case setEndpoints:
		group, index := r.word(), r.word()
		if e.endpoints[group] == nil {
			e.endpoints[group] = map[uint32]endpoint{}
		}
		e.endpoints[group][index] = endpoint{addr: v.addr(l.addrLen), port: v.port(), id: v.word()}
	case setRanges:
		fk := r.frontKey(l.addrLen)
		bits := r.word()
		a, _ := netip.AddrFromSlice(r.next(l.addrLen))
		p := netip.PrefixFrom(a, int(bits))
		if !p.IsValid() {
			return false
		}
		e.ranges[fk] = append(e.ranges[fk], sourceRange{fk, p})
	case setClusterIPs:
		e.counted[k][r.addr(l.addrLen)] = true
	case setHairpin:
		from, to := r.addr(l.addrLen), r.addr(l.addrLen)
		if from != to {
			return false
		}
		e.counted[k][from] = true
	default:
		d.set, d.number = k, r.word()
		e.verdicts[d] = struct{}{}
	}
	return true
}

// reader takes the fields of a key or a value one after the other.
type reader struct{ b []byte }

func (r *reader) next(n int) []byte {
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}
