// Package dns is cluster DNS: it answers for Services, endpoints and pods of a
// store, by the Kubernetes DNS specification 1.1.0
// (github.com/kubernetes/dns, docs/specification.md).
package dns

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/fairwaynet/fairway/internal/store"
)

const (
	// SpecVersion is what dns-version.<domain> TXT says.
	SpecVersion = "1.1.0"
	// TTL of every record, negative answers included, in seconds.
	TTL = 5
	// DefaultDomain is the cluster domain that most clusters have.
	DefaultDomain = "cluster.local"
	// udpSize is the largest answer sent over UDP: what fits any link without
	// fragments (dnsflagday.net/2020).
	udpSize = 1232
	// maxChain is how many CNAMEs are followed within the cluster.
	maxChain = 8
	// forwardTimeout is how long an upstream may take.
	forwardTimeout = 3 * time.Second
)

// Server answers questions from a store. It is safe for concurrent use once its
// fields are set.
type Server struct {
	// Forward asks somebody else about names outside of the cluster domain.
	// Such questions are refused if it is nil. See Upstream.
	Forward func(ctx context.Context, m *dns.Msg) (*dns.Msg, error)

	st      *store.Store
	domain  string
	reverse atomic.Pointer[reverseIndex]
}

// New returns a Server for a cluster domain such as "cluster.local".
func New(cluster *store.Store, domain string) *Server {
	return &Server{st: cluster, domain: strings.ToLower(dns.Fqdn(domain))}
}

// Upstream returns a function for Server.Forward that asks the given servers
// ("address:port") in turn, over UDP and, if the answer is cut short, TCP.
func Upstream(dialer *net.Dialer, servers ...string) func(context.Context, *dns.Msg) (*dns.Msg, error) {
	return func(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
		err := errors.New("no upstream server")
		for _, server := range servers {
			var res *dns.Msg
			for _, network := range []string{"udp", "tcp"} {
				c := dns.Client{Net: network, Dialer: dialer, Timeout: forwardTimeout, UDPSize: udpSize}
				if res, _, err = c.ExchangeContext(ctx, m, server); err != nil || !res.Truncated {
					break
				}
			}
			if err == nil {
				return res, nil
			}
		}
		return nil, err
	}
}

// Serve answers on the sockets, either of which may be nil, until ctx ends;
// then it closes them and returns nil. It returns an error if a socket fails.
func (s *Server) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var servers []*dns.Server
	if udp != nil {
		servers = append(servers, &dns.Server{PacketConn: udp, UDPSize: dns.MaxMsgSize, Handler: s.handler(ctx, true)})
	}
	if tcp != nil {
		servers = append(servers, &dns.Server{Listener: tcp, Handler: s.handler(ctx, false)})
	}
	var wg sync.WaitGroup
	failed := make(chan error, len(servers))
	for _, srv := range servers {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		ended := make(chan struct{})
		wg.Go(func() {
			defer close(ended)
			if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
		// A server that has not started yet cannot be shut down.
		select {
		case <-started:
		case <-ended:
		}
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	for _, srv := range servers {
		// The only error is that it runs no more.
		_ = srv.Shutdown()
	}
	wg.Wait()
	return err
}

// handler adapts answer to one transport.
func (s *Server) handler(ctx context.Context, udp bool) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		res := s.answer(ctx, m)
		shuffle(res.Answer)
		size := dns.MaxMsgSize
		if udp {
			size = dns.MinMsgSize
			if opt := m.IsEdns0(); opt != nil {
				size = min(max(size, int(opt.UDPSize())), udpSize)
			}
		}
		res.Truncate(size)
		_ = w.WriteMsg(res) // the client asks again
	})
}

// shuffle mixes addresses and SRV records, so that clients that take the first
// one spread over all. CNAMEs stay in front.
func shuffle(rrs []dns.RR) {
	first := 0
	for first < len(rrs) && rrs[first].Header().Rrtype == dns.TypeCNAME {
		first++
	}
	rest := rrs[first:]
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
}

// answer is Handle, and asks upstream about what is not the cluster's.
func (s *Server) answer(ctx context.Context, m *dns.Msg) *dns.Msg {
	res := s.Handle(m)
	if s.Forward == nil || len(m.Question) != 1 {
		return res
	}
	ask := func(q *dns.Msg) *dns.Msg {
		ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
		defer cancel()
		got, err := s.Forward(ctx, q)
		if err != nil || got == nil {
			fail := new(dns.Msg)
			fail.SetRcode(q, dns.RcodeServerFailure)
			return fail
		}
		return got
	}
	if res.Rcode == dns.RcodeRefused && m.Opcode == dns.OpcodeQuery {
		got := ask(m.Copy())
		got.Id = m.Id
		return got
	}
	// An ExternalName outside of the cluster.
	if n := len(res.Answer); n > 0 && m.Question[0].Qtype != dns.TypeCNAME {
		if c, ok := res.Answer[n-1].(*dns.CNAME); ok && !dns.IsSubDomain(s.domain, c.Target) {
			q := new(dns.Msg)
			q.SetQuestion(c.Target, m.Question[0].Qtype)
			got := ask(q)
			res.Rcode = got.Rcode
			res.Answer = append(res.Answer, got.Answer...)
			res.Authoritative = false
		}
	}
	return res
}

// Handle answers one message from the store as it is now. It asks nobody else,
// and does not change m.
func (s *Server) Handle(m *dns.Msg) *dns.Msg {
	res := new(dns.Msg)
	res.SetReply(m) // repeats the first question
	res.RecursionAvailable = s.Forward != nil
	if opt := m.IsEdns0(); opt != nil {
		res.SetEdns0(udpSize, false)
		if opt.Version() != 0 {
			res.Rcode = dns.RcodeBadVers
			return res
		}
	}
	switch {
	case m.Opcode != dns.OpcodeQuery:
		res.Rcode = dns.RcodeNotImplemented
		return res
	case len(m.Question) != 1:
		res.Rcode = dns.RcodeFormatError
		return res
	}
	q := m.Question[0]
	if q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY ||
		q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		res.Rcode = dns.RcodeRefused
		return res
	}
	z := &zone{s: s, txn: s.st.DB.ReadTxn(), domain: s.domain}
	name := strings.ToLower(q.Name)
	if !dns.IsSubDomain(s.domain, name) {
		a, ok := z.ptr(q)
		if !ok {
			res.Rcode = dns.RcodeRefused
			return res
		}
		res.Authoritative = true
		if res.Answer = a.rrs; len(a.rrs) == 0 {
			res.Ns = []dns.RR{z.soa(arpa(name))}
		}
		if !a.exists {
			res.Rcode = dns.RcodeNameError
		}
		return res
	}
	res.Authoritative = true
	owner := q.Name
	for range maxChain {
		a := z.lookup(name, owner, q.Qtype)
		res.Answer = append(res.Answer, a.rrs...)
		res.Extra = append(a.extra, res.Extra...)
		if !a.exists {
			res.Rcode = dns.RcodeNameError
		}
		c, ok := last(a.rrs).(*dns.CNAME)
		if !ok {
			if len(a.rrs) == 0 {
				res.Ns = []dns.RR{z.soa(s.domain)}
			}
			return res
		}
		if is(q.Qtype, dns.TypeCNAME) || !dns.IsSubDomain(s.domain, c.Target) {
			return res
		}
		name, owner = c.Target, c.Target
	}
	// ExternalNames that name each other.
	res.Rcode, res.Answer, res.Extra = dns.RcodeServerFailure, nil, nil
	return res
}

func last(rrs []dns.RR) dns.RR {
	if len(rrs) == 0 {
		return nil
	}
	return rrs[len(rrs)-1]
}
