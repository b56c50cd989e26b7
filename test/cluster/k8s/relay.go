package k8s

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// relay takes connections of a listener on the machine to an address inside the
// cluster, until ctx ends. Connections are opened in the network namespace of
// this process, wherever the listener is.
func relay(ctx context.Context, l net.Listener, to string) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: the client may try again.
			if sleep(ctx, 50*time.Millisecond) != nil {
				return
			}
			continue
		}
		go relayConn(ctx, c.(*net.TCPConn), to)
	}
}

// relayConn copies both ways until both sides have ended their streams, or one
// breaks. A client is reset if the other side does not answer.
func relayConn(ctx context.Context, client *net.TCPConn, to string) {
	defer client.Close()
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() { copyHalf(server, client) })
	both.Go(func() { copyHalf(client, server) })
	both.Wait()
}

// copyHalf copies one direction and hands on how it ended.
func copyHalf(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil {
		// Broken, not ended: both sides learn it.
		_, _ = dst.SetLinger(0), src.SetLinger(0)
		_, _ = dst.Close(), src.Close()
		return
	}
	_ = dst.CloseWrite()
}
