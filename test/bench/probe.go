package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// sample connects n times from the client, to each target in turn, and returns
// how long each connect took, sorted. Both ends are served by one thread: the
// handshake runs through all three namespaces inside connect, and no other
// thread has to be woken.
func (r *rig) sample(targets []netip.AddrPort, n int) (times []time.Duration, err error) {
	const warm = 200
	times = make([]time.Duration, 0, n)
	// A collection of garbage would be seen in the 99th percentile.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	err = r.client.Do(func() error {
		for i := range n + warm {
			d, err := r.connectOnce(targets[i%len(targets)])
			if err != nil {
				return err
			}
			if i >= warm {
				times = append(times, d)
			}
		}
		return nil
	})
	slices.Sort(times)
	return times, err
}

func (r *rig) connectOnce(to netip.AddrPort) (time.Duration, error) {
	fd, err := clientSocket(0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	addr := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	start := time.Now()
	err = unix.Connect(fd, addr)
	d := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("connect to %s: %w", to, err)
	}
	for {
		_, ok, err := r.accept()
		if err != nil || ok {
			return d, err
		}
	}
}

// clientSocket makes a socket that ends its connection by a reset, so that no
// port is kept by TIME_WAIT.
func clientSocket(flags int) (int, error) {
	fd, err := tcpSocket(flags)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// tcpSocket makes a socket with cubic congestion control, whatever the machine's
// default is. (Namespaces other than the first may not choose a default.)
func tcpSocket(flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic"); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("use cubic: %w", err)
	}
	return fd, nil
}

// accept takes one connection from the server's queue, if there is one, closes
// it, and returns the address of the server that it was for.
func (r *rig) accept() (local netip.Addr, ok bool, err error) {
	fd, _, err := unix.Accept4(r.listener, unix.SOCK_CLOEXEC)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ECONNABORTED) {
		return local, false, nil
	}
	if err != nil {
		return local, false, fmt.Errorf("accept: %w", err)
	}
	defer unix.Close(fd)
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return local, false, err
	}
	in4, isIn4 := sa.(*unix.SockaddrInet4)
	if !isIn4 {
		return local, false, fmt.Errorf("accepted from %T", sa)
	}
	return netip.AddrFrom4(in4.Addr), true, nil
}

// answers tells which server address answers at a Service now; the zero address
// if none does at once. It must run in the client's namespace.
func (r *rig) answers(to netip.AddrPort) (netip.Addr, error) {
	for { // what came late from an earlier try
		if _, ok, err := r.accept(); err != nil {
			return netip.Addr{}, err
		} else if !ok {
			break
		}
	}
	fd, err := clientSocket(unix.SOCK_NONBLOCK)
	if err != nil {
		return netip.Addr{}, err
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return netip.Addr{}, nil
	}
	// The handshake is over when connect returns, as a rule: a packet that is
	// dropped, which happens before a Service is there, is not waited for long.
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds, 2); n == 0 || err != nil || fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
		return netip.Addr{}, nil
	}
	local, _, err := r.accept()
	return local, err
}

// await connects to a Service until one of want answers (any, if want is empty)
// and returns the time of that.
func (r *rig) await(ctx context.Context, to netip.AddrPort, want ...netip.Addr) (at time.Time, err error) {
	err = r.client.Do(func() error {
		start := time.Now()
		for {
			got, err := r.answers(to)
			if err != nil {
				return err
			}
			at = time.Now()
			if got.IsValid() && (len(want) == 0 || slices.Contains(want, got)) {
				return nil
			}
			if err := context.Cause(ctx); err != nil {
				return fmt.Errorf("%s does not answer: %w", to, err)
			}
			// Closely at first; a slow data plane is not to be slowed further.
			if at.Sub(start) < 50*time.Millisecond {
				time.Sleep(200 * time.Microsecond)
			} else {
				time.Sleep(time.Millisecond)
			}
		}
	})
	return at, err
}

// awaitSilence connects to a Service until nothing answers.
func (r *rig) awaitSilence(ctx context.Context, to netip.AddrPort) error {
	return r.client.Do(func() error {
		for {
			got, err := r.answers(to)
			if err != nil || !got.IsValid() {
				return err
			}
			if err := context.Cause(ctx); err != nil {
				return fmt.Errorf("%s still answers: %w", to, err)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// awaitAll is await for several Services, in order.
func (r *rig) awaitAll(ctx context.Context, targets []netip.AddrPort) error {
	for _, t := range targets {
		if _, err := r.await(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// percentile of sorted times.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}
