package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/netns"
)

// How often a command's ports are tried until they accept, and what is left of
// a command's grace period when the whole sandbox ends.
const (
	probeInterval = 25 * time.Millisecond
	probeTimeout  = time.Second
	hurriedGrace  = 2 * time.Second
)

// runCommand runs a pod's command until it ends by itself or, after ctx ended,
// is ended within the pod's grace period. It tells whether the command is to be
// started again, by the pod's restartPolicy.
func (s *Sandbox) runCommand(ctx context.Context, p *pod, ns *netns.NS) (again bool, err error) {
	obj := p.object()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return true, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return true, err
	}
	defer r.Close()
	c := s.initFor(obj, []string{"/bin/sh", "-c", obj.Annotations[CommandAnnotation]}, os.Environ(), "")
	proc, err := s.spawner.start(ns, c, null, w, w)
	_ = w.Close()
	if err != nil {
		return true, err
	}
	s.setPhase(p, Running, nil)
	var printed sync.WaitGroup
	printed.Go(func() { s.output.copy(p.key, r) })

	type result struct {
		code int
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		code, err := proc.wait()
		printed.Wait()
		ended <- result{code, err}
	}()
	probing, stopProbing := context.WithCancel(ctx)
	defer stopProbing()
	accepts := make(chan struct{})
	go func() {
		if probe(probing, ns, p.addrs, containerPorts(obj)) == nil {
			close(accepts)
		}
	}()
	for {
		select {
		case <-accepts:
			accepts = nil
			s.setPhase(p, Ready, nil)
		case res := <-ended:
			err := res.err
			if err == nil && res.code != 0 {
				err = fmt.Errorf("the command ended with exit code %d", res.code)
			}
			switch obj.Spec.RestartPolicy {
			case corev1.RestartPolicyNever:
				return false, err
			case corev1.RestartPolicyOnFailure:
				return err != nil, err
			}
			return true, err
		case <-ctx.Done():
			// The grace period of the object as it is now: deletion may set it.
			proc.signal(syscall.SIGTERM)
			patience := time.After(grace(p.object()))
			hurry := p.hurry
			for {
				select {
				case <-ended:
					return false, nil
				case <-hurry:
					hurry, patience = nil, time.After(min(hurriedGrace, grace(p.object())))
				case <-patience:
					proc.kill()
					<-ended
					return false, nil
				}
			}
		}
	}
}

// probe returns nil once every TCP port of the pod accepts connections.
func probe(ctx context.Context, ns *netns.NS, addrs []netip.Addr, ports []corev1.ContainerPort) error {
	if len(addrs) == 0 {
		return nil
	}
	for _, port := range ports {
		if port.Protocol != corev1.ProtocolTCP && port.Protocol != "" {
			continue
		}
		addr := net.JoinHostPort(addrs[0].String(), strconv.Itoa(int(port.ContainerPort)))
		for {
			dial, cancel := context.WithTimeout(ctx, probeTimeout)
			c, err := ns.DialContext(dial, "tcp", addr)
			cancel()
			if err == nil {
				_ = c.Close()
				break
			}
			select {
			case <-time.After(probeInterval):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// prefixer writes lines of many pods to one writer, each with its pod's name.
type prefixer struct {
	mu sync.Mutex
	w  io.Writer
}

// maxLine is how much of a line is kept together.
const maxLine = 64 << 10

// copy writes what r gives until it ends.
func (o *prefixer) copy(name string, r io.Reader) {
	var line []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		line = append(line, buf[:n]...)
		for {
			i := bytes.IndexByte(line, '\n')
			if i < 0 && len(line) >= maxLine {
				i = len(line) - 1
			}
			if i < 0 {
				break
			}
			o.line(name, bytes.TrimSuffix(line[:i+1], []byte("\n")))
			line = line[i+1:]
		}
		if err != nil {
			if len(line) > 0 {
				o.line(name, line)
			}
			return
		}
	}
}

func (o *prefixer) line(name string, line []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = fmt.Fprintf(o.w, "%s | %s\n", name, line)
}
