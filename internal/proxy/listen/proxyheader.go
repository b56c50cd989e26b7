package listen

import (
	"io"
	"net/netip"

	"github.com/fairwaynet/fairway/internal/proxy/proxyproto"
)

// readProxyHeader takes the PROXY header off the connection. A trusted source
// that sends none is refused: the specification forbids to guess (section 2).
func (c *Conn) readProxyHeader() error {
	var h proxyproto.Header
	var n int
	var err error
	if peeked := peek(c.tcp, proxyproto.MaxLen, func(b []byte) bool {
		h, n, err = proxyproto.Parse(b)
		return err != proxyproto.ErrShort
	}); peeked != nil {
		return peeked
	}
	if err != nil {
		return err
	}
	// All of it is there already.
	if _, err := io.ReadFull(c.tcp, make([]byte, n)); err != nil {
		return err
	}
	if h.Source.IsValid() {
		c.Info.Client = h.Source
	}
	return nil
}

// addrPort returns an address of net in the form that has no IPv4 in IPv6.
func addrPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
