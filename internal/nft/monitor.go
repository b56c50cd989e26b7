package nft

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// monitor hears of changes that others make to the tables.
type monitor struct {
	nl *netlink.Conn
	// foreign gets a value when one of the tables was changed, or when it is not
	// known whether it was.
	foreign chan struct{}
	done    chan struct{}
}

// monitorBuffer holds the notifications that come while the driver is busy. If it
// overflows, everything is compared, so no change is lost.
const monitorBuffer = 4 << 20

// newMonitor joins the kernel's nftables group.
func newMonitor(netns int, ours func(port uint32) bool) (*monitor, error) {
	nl, err := dialNetfilter(netns)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	_ = nl.SetReadBuffer(monitorBuffer)
	if err := nl.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		_ = nl.Close()
		return nil, fmt.Errorf("join the nftables group: %w", err)
	}
	m := &monitor{nl: nl, foreign: make(chan struct{}, 1), done: make(chan struct{})}
	go m.run(ours)
	return m, nil
}

func (m *monitor) close() {
	_ = m.nl.Close()
	<-m.done
}

func (m *monitor) tell() {
	select {
	case m.foreign <- struct{}{}:
	default:
	}
}

// run reads until the socket is closed. It looks at the table's name only: what
// else is in a message may be of a kind that this package does not know.
func (m *monitor) run(ours func(port uint32) bool) {
	defer close(m.done)
	for {
		msgs, err := m.nl.Receive()
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOBUFS):
			m.tell()
			continue
		default:
			// Closed, or broken for good: Run opens another after an audit.
			m.tell()
			return
		}
		for _, msg := range msgs {
			if !ours(msg.Header.PID) && isOurTable(msg) {
				m.tell()
				break
			}
		}
	}
}

// isOurTable reports whether a notification is about one of the driver's tables.
func isOurTable(msg netlink.Message) bool {
	if uint16(msg.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(msg.Data) < 4 {
		return false
	}
	if f := msg.Data[0]; f != unix.NFPROTO_IPV4 && f != unix.NFPROTO_IPV6 {
		return false
	}
	if uint16(msg.Header.Type)&0xff == unix.NFT_MSG_NEWGEN {
		return false
	}
	found := false
	_ = eachAttr(msg.Data[4:], func(typ uint16, data []byte) error {
		// The table's name is the first attribute of every object.
		if typ == unix.NFTA_TABLE_NAME && text(data) == TableName {
			found = true
		}
		return nil
	})
	return found
}

// settle is how long Run waits after a foreign change before it compares: who
// changes much makes many transactions.
const settle = 50 * time.Millisecond
