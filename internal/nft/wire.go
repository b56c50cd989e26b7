package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The messages are written here and not by nftables.Conn, because one
// transaction holds tables, rules and thousands of elements, and an element
// written by that package costs several allocations. The expressions of rules
// are that package's.

// attrs builds netlink attributes in one buffer.
type attrs struct{ b []byte }

const nested = unix.NLA_F_NESTED

func (a *attrs) raw(typ uint16, data []byte) {
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(4+len(data)))
	a.b = binary.NativeEndian.AppendUint16(a.b, typ)
	a.b = append(a.b, data...)
	for len(a.b)%4 != 0 {
		a.b = append(a.b, 0)
	}
}

func (a *attrs) str(typ uint16, s string) { a.raw(typ, append([]byte(s), 0)) }

func (a *attrs) u32(typ uint16, v uint32) {
	a.b = binary.NativeEndian.AppendUint16(a.b, 8)
	a.b = binary.NativeEndian.AppendUint16(a.b, typ)
	a.b = binary.BigEndian.AppendUint32(a.b, v)
}

// open begins a nested attribute; close ends it.
func (a *attrs) open(typ uint16) int {
	at := len(a.b)
	a.b = binary.NativeEndian.AppendUint16(a.b, 0)
	a.b = binary.NativeEndian.AppendUint16(a.b, typ|nested)
	return at
}

func (a *attrs) close(at int) {
	binary.NativeEndian.PutUint16(a.b[at:], uint16(len(a.b)-at))
}

// header begins the attributes of a message with its nfgenmsg.
func header(nfproto byte) *attrs { return &attrs{b: []byte{nfproto, unix.NFNETLINK_V0, 0, 0}} }

// message makes a netlink message of attributes that began with header.
func message(typ uint16, flags netlink.HeaderFlags, a *attrs) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ),
			Flags: netlink.Request | flags,
		},
		Data: a.b,
	}
}

func newTable(nfproto byte) netlink.Message {
	a := header(nfproto)
	a.str(unix.NFTA_TABLE_NAME, TableName)
	a.u32(unix.NFTA_TABLE_FLAGS, 0) // awake
	return message(unix.NFT_MSG_NEWTABLE, netlink.Create, a)
}

func delTable(nfproto byte) netlink.Message {
	a := header(nfproto)
	a.str(unix.NFTA_TABLE_NAME, TableName)
	return message(unix.NFT_MSG_DELTABLE, 0, a)
}

func newSet(l *familyLayout, n names, k setKind, size uint32) netlink.Message {
	s := l.sets[k]
	a := header(l.nfproto)
	a.str(unix.NFTA_SET_TABLE, TableName)
	a.str(unix.NFTA_SET_NAME, n.set[k])
	a.u32(unix.NFTA_SET_FLAGS, s.flags)
	a.u32(unix.NFTA_SET_KEY_TYPE, s.keyType)
	a.u32(unix.NFTA_SET_KEY_LEN, uint32(s.keyLen))
	if s.data != nil {
		a.u32(unix.NFTA_SET_DATA_TYPE, s.dataTyp)
		a.u32(unix.NFTA_SET_DATA_LEN, uint32(s.dataLen))
	}
	if len(s.key) == 1 && s.key[0].Name == nftables.TypeMark.Name {
		// For "nft list" only: the key is a number of the host's.
		const hostEndian = 1
		a.raw(unix.NFTA_SET_USERDATA, userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, hostEndian))
	}
	// The kernel wants an id on every set; rules here go by name.
	a.u32(unix.NFTA_SET_ID, uint32(k)+1)
	if size == 0 {
		size = s.size
	}
	if size != 0 {
		at := a.open(unix.NFTA_SET_DESC)
		a.u32(unix.NFTA_SET_DESC_SIZE, size)
		a.close(at)
	}
	return message(unix.NFT_MSG_NEWSET, netlink.Create, a)
}

func delSet(nfproto byte, name string) netlink.Message {
	a := header(nfproto)
	a.str(unix.NFTA_SET_TABLE, TableName)
	a.str(unix.NFTA_SET_NAME, name)
	return message(unix.NFT_MSG_DELSET, 0, a)
}

// flushSet deletes all elements of a set.
func flushSet(nfproto byte, name string) netlink.Message {
	a := header(nfproto)
	a.str(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	a.str(unix.NFTA_SET_ELEM_LIST_SET, name)
	return message(unix.NFT_MSG_DELSETELEM, 0, a)
}

func newChain(nfproto byte, c chain) netlink.Message {
	a := header(nfproto)
	a.str(unix.NFTA_CHAIN_TABLE, TableName)
	a.str(unix.NFTA_CHAIN_NAME, c.name)
	if c.base != nil {
		at := a.open(unix.NFTA_CHAIN_HOOK)
		a.u32(unix.NFTA_HOOK_HOOKNUM, c.base.hook)
		a.u32(unix.NFTA_HOOK_PRIORITY, uint32(c.base.priority))
		a.close(at)
		a.str(unix.NFTA_CHAIN_TYPE, "nat")
	}
	return message(unix.NFT_MSG_NEWCHAIN, netlink.Create, a)
}

func delChain(nfproto byte, name string) netlink.Message {
	a := header(nfproto)
	a.str(unix.NFTA_CHAIN_TABLE, TableName)
	a.str(unix.NFTA_CHAIN_NAME, name)
	return message(unix.NFT_MSG_DELCHAIN, 0, a)
}

// flushRules deletes the rules of one chain; of all chains if it has no name.
func flushRules(nfproto byte, chain string) netlink.Message {
	a := header(nfproto)
	a.str(unix.NFTA_RULE_TABLE, TableName)
	if chain != "" {
		a.str(unix.NFTA_RULE_CHAIN, chain)
	}
	return message(unix.NFT_MSG_DELRULE, 0, a)
}

// encodeRule gives a rule's expressions as the kernel takes them, and a hash of them.
func encodeRule(nfproto byte, r rule) ([]byte, string, error) {
	var a attrs
	for _, e := range r {
		b, err := expr.Marshal(nfproto, e)
		if err != nil {
			return nil, "", fmt.Errorf("encode %T: %w", e, err)
		}
		a.raw(unix.NFTA_LIST_ELEM|nested, b)
	}
	h := fnv.New64a()
	_, _ = h.Write(a.b)
	return a.b, fmt.Sprintf("%016x", h.Sum64()), nil
}

// newRule appends a rule to a chain, with its hash as its comment.
func newRule(nfproto byte, chain string, r rule) (netlink.Message, error) {
	exprs, hash, err := encodeRule(nfproto, r)
	if err != nil {
		return netlink.Message{}, fmt.Errorf("chain %s: %w", chain, err)
	}
	a := header(nfproto)
	a.str(unix.NFTA_RULE_TABLE, TableName)
	a.str(unix.NFTA_RULE_CHAIN, chain)
	a.raw(unix.NFTA_RULE_EXPRESSIONS|nested, exprs)
	a.raw(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, hash))
	return message(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, a), nil
}

// dispatchTo makes a number of a verdict map go to a chain.
func (f *family) dispatchTo(d dispatch) netlink.Message {
	a := header(f.nfproto)
	a.str(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	a.str(unix.NFTA_SET_ELEM_LIST_SET, f.rules.set[d.set])
	list := a.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	elem := a.open(unix.NFTA_LIST_ELEM)
	key := a.open(unix.NFTA_SET_ELEM_KEY)
	a.raw(unix.NFTA_DATA_VALUE, word(d.number))
	a.close(key)
	data := a.open(unix.NFTA_SET_ELEM_DATA)
	v := a.open(unix.NFTA_DATA_VERDICT)
	code := int32(unix.NFT_GOTO)
	if d.jump {
		code = unix.NFT_JUMP
	}
	a.u32(unix.NFTA_VERDICT_CODE, uint32(code))
	a.str(unix.NFTA_VERDICT_CHAIN, d.chain)
	a.close(v)
	a.close(data)
	a.close(elem)
	a.close(list)
	return message(unix.NFT_MSG_NEWSETELEM, netlink.Create, a)
}

// elements is a growing list of elements of one set. A nested attribute is at
// most 64 KiB long, so there may be several lists.
type elements struct {
	full [][]byte
	cur  attrs
	n    int
}

// maxList is where a list of elements ends, well below 64 KiB.
const maxList = 60 << 10

// listRoom is left before each list for what comes before it in the message.
const listRoom = 128

// reset empties e and keeps its memory.
func (e *elements) reset() {
	e.full, e.n = nil, 0
	e.cur.b = e.cur.b[:0]
}

// add appends an element; data is nil for sets and for deletions.
func (e *elements) add(key, data []byte) {
	if len(e.cur.b) > maxList {
		e.full = append(e.full, e.cur.b)
		e.cur.b = nil
	}
	e.n++
	a := &e.cur
	if len(a.b) == 0 {
		a.b = append(a.b, make([]byte, listRoom)...)
	}
	elem := a.open(unix.NFTA_LIST_ELEM)
	k := a.open(unix.NFTA_SET_ELEM_KEY)
	a.raw(unix.NFTA_DATA_VALUE, key)
	a.close(k)
	if data != nil {
		d := a.open(unix.NFTA_SET_ELEM_DATA)
		a.raw(unix.NFTA_DATA_VALUE, data)
		a.close(d)
	}
	a.close(elem)
}

// bytes is about how long the messages will be.
func (e *elements) bytes() int {
	n := len(e.cur.b)
	for _, f := range e.full {
		n += len(f)
	}
	return n
}

// messages appends one message for each list. They share memory with e.
func (e *elements) messages(to []netlink.Message, typ uint16, nfproto byte, set string) []netlink.Message {
	lists := e.full
	if len(e.cur.b) > 0 {
		lists = append(lists[:len(lists):len(lists)], e.cur.b)
	}
	if len(lists) == 0 {
		return to
	}
	head := header(nfproto)
	head.str(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	head.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	at := head.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, list := range lists {
		begin := listRoom - len(head.b)
		copy(list[begin:], head.b)
		a := &attrs{b: list[begin:]}
		a.close(at)
		flags := netlink.HeaderFlags(0)
		if typ == unix.NFT_MSG_NEWSETELEM {
			flags = netlink.Create
		}
		to = append(to, message(typ, flags, a))
	}
	return to
}

// errShort says that a message from the kernel ends too early.
var errShort = errors.New("netlink message too short")

// eachAttr calls f for each attribute in b, without its flags.
func eachAttr(b []byte, f func(typ uint16, data []byte) error) error {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if n < 4 || n > len(b) {
			return errShort
		}
		if err := f(typ, b[4:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// text cuts a string attribute at its end.
func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
