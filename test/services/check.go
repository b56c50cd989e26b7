package services

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Check runs one probe outside of a case and returns what differs.
func (t *Topology) Check(p Probe) error {
	icmp, stop, err := watchICMP(t.Hosts[p.From].NS)
	if err != nil {
		return err
	}
	defer stop()
	return t.run(icmp, p)
}

// Sync waits until the proxy has acted on all that was applied before.
func (s *Sentinels) Sync(ctx context.Context, t *Topology, in Instance) error {
	return s.s.sync(ctx, t, in)
}

// Connection is a TCP connection that a test keeps open.
type Connection struct {
	conn net.Conn
	read *bufio.Reader
}

// Connect opens a TCP connection from a host.
func (t *Topology) Connect(ctx context.Context, from string, dst netip.AddrPort) (*Connection, error) {
	c, err := dial(ctx, t.Hosts[from].NS, "tcp", netip.Addr{}, dst)
	if err != nil {
		return nil, err
	}
	return &Connection{c, bufio.NewReader(c)}, nil
}

// Ask sends a request over the connection and returns the name of the backend
// that answers.
func (c *Connection) Ask() (string, error) {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(c.conn, "who"); err != nil {
		return "", err
	}
	s, err := c.read.ReadString('\n')
	if err != nil {
		return "", err
	}
	a, err := parseAnswer(s)
	return a.Name, err
}

// Close ends the connection.
func (c *Connection) Close() { _ = c.conn.Close() }
