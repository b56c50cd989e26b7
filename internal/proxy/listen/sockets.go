package listen

import (
	"context"
	"net"
)

// Sockets opens the sockets that clients come to. *netns.NS is one, for those of
// another network namespace; *Inherited one that takes over a predecessor's. Networks
// are "tcp", "tcp4", "tcp6" and "udp", "udp4", "udp6", and addresses have an IP
// address or none for all. TCP listeners give *net.TCPConn, and packet
// connections are *net.UDPConn.
//
// The standard library sets what else a listening socket needs: SO_REUSEADDR, the
// backlog of net.core.somaxconn, and for what is accepted TCP_NODELAY and
// keep-alive probes after 15 s. SO_REUSEPORT is not set: a port that is taken
// must be an error, not be shared with whoever has it.
type Sockets interface {
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
}

// Host are the sockets of the process's own network namespace.
type Host struct{}

// Listen opens a plain TCP listener, not an MPTCP one: that could not be spliced.
func (Host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, network, address)
}

// ListenPacket opens a UDP socket.
func (Host) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var lc net.ListenConfig
	return lc.ListenPacket(ctx, network, address)
}
