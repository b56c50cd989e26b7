package dns

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/statedb"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/internal/store"
)

func load(t testing.TB, docs string) *store.Store {
	t.Helper()
	st, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	for doc := range strings.SplitSeq(docs, "\n---") {
		var tm metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &tm); err != nil {
			t.Fatal(err)
		}
		switch tm.Kind {
		case "Namespace":
			insert(t, st, st.Namespaces, doc, &corev1.Namespace{})
		case "ServiceCIDR":
			insert(t, st, st.ServiceCIDRs, doc, &networkingv1.ServiceCIDR{})
		case "Node":
			insert(t, st, st.Nodes, doc, &corev1.Node{})
		case "Service":
			insert(t, st, st.Services, doc, &corev1.Service{})
		case "EndpointSlice":
			insert(t, st, st.EndpointSlices, doc, &discoveryv1.EndpointSlice{})
		default:
			t.Fatalf("kind %q", tm.Kind)
		}
	}
	return st
}

func insert[T any](t testing.TB, st *store.Store, table statedb.RWTable[T], doc string, obj T) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(doc), obj); err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	txn := st.DB.WriteTxn(table)
	defer txn.Abort()
	if _, _, err := table.Insert(txn, obj); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
}

func question(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	return m
}

// show writes a message as "RCODE; answers; extra", each record as
// "name type data", or with "soa" if that is in the authority section.
func show(m *dns.Msg) string {
	part := func(rrs []dns.RR) string {
		var out []string
		for _, rr := range rrs {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			if rr.Header().Ttl != TTL {
				out = append(out, fmt.Sprint("TTL!", rr.Header().Ttl))
			}
			if _, ok := rr.(*dns.SOA); ok {
				out = append(out, "SOA "+rr.Header().Name)
				continue
			}
			f := strings.Fields(rr.String())
			out = append(out, strings.Join(append([]string{f[0]}, f[3:]...), " "))
		}
		return strings.Join(out, ", ")
	}
	var out []string
	for _, s := range []string{dns.RcodeToString[m.Rcode], part(m.Answer), part(m.Ns), part(m.Extra)} {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, " | ")
}

const (
	noData  = "NOERROR | SOA cluster.local."
	noName  = "NXDOMAIN | SOA cluster.local."
	refused = "REFUSED"
)

// TestSpecification goes through the sections of the DNS specification.
func TestSpecification(t *testing.T) {
	s := New(load(t, objects), "cluster.local")
	for _, tt := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		// 2.2 Record for schema version
		{"dns-version.cluster.local", dns.TypeTXT, `NOERROR | dns-version.cluster.local. TXT "1.1.0"`},
		{"dns-version.cluster.local", dns.TypeA, noData},

		// 2.3.1 A/AAAA of a Service with ClusterIP
		{"web.default.svc.cluster.local", dns.TypeA, "NOERROR | web.default.svc.cluster.local. A 10.96.0.7"},
		{"web.default.svc.cluster.local", dns.TypeAAAA, "NOERROR | web.default.svc.cluster.local. AAAA fd00:96::7"},
		{"WEB.default.SVC.cluster.local", dns.TypeA, "NOERROR | WEB.default.SVC.cluster.local. A 10.96.0.7"},
		{"plain.default.svc.cluster.local", dns.TypeAAAA, noData},
		{"web.default.svc.cluster.local", dns.TypeMX, noData},
		{"pending.default.svc.cluster.local", dns.TypeA, noData},
		{"web.default.svc.cluster.local", dns.TypeANY, "NOERROR | web.default.svc.cluster.local. A 10.96.0.7, web.default.svc.cluster.local. AAAA fd00:96::7"},

		// 2.3.2 SRV of a Service with ClusterIP
		{"_https._tcp.web.default.svc.cluster.local", dns.TypeSRV, "NOERROR | _https._tcp.web.default.svc.cluster.local. SRV 0 100 443 web.default.svc.cluster.local. | web.default.svc.cluster.local. A 10.96.0.7, web.default.svc.cluster.local. AAAA fd00:96::7"},
		{"_dns._udp.web.default.svc.cluster.local", dns.TypeSRV, "NOERROR | _dns._udp.web.default.svc.cluster.local. SRV 0 100 53 web.default.svc.cluster.local. | web.default.svc.cluster.local. A 10.96.0.7, web.default.svc.cluster.local. AAAA fd00:96::7"},
		{"_dns._tcp.web.default.svc.cluster.local", dns.TypeSRV, noName},
		{"_https._udp.web.default.svc.cluster.local", dns.TypeSRV, noName},
		{"_https._tcp.web.default.svc.cluster.local", dns.TypeA, noData},
		{"_tcp.web.default.svc.cluster.local", dns.TypeSRV, noData},
		{"_sctp.web.default.svc.cluster.local", dns.TypeSRV, noName},
		{"_._tcp.plain.default.svc.cluster.local", dns.TypeSRV, noName},
		{"_tcp.plain.default.svc.cluster.local", dns.TypeSRV, noName},

		// 2.3.3 PTR of a Service with ClusterIP
		{"7.0.96.10.in-addr.arpa", dns.TypePTR, "NOERROR | 7.0.96.10.in-addr.arpa. PTR web.default.svc.cluster.local."},
		{"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa", dns.TypePTR, "NOERROR | 7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa. PTR web.default.svc.cluster.local."},
		{"7.0.96.10.in-addr.arpa", dns.TypeA, "NOERROR | SOA in-addr.arpa."},
		{"9.0.96.10.in-addr.arpa", dns.TypePTR, "NXDOMAIN | SOA in-addr.arpa."},
		{"8.8.8.8.in-addr.arpa", dns.TypePTR, refused},
		{"96.10.in-addr.arpa", dns.TypePTR, refused},
		{"x.0.96.10.in-addr.arpa", dns.TypePTR, refused},

		// 2.4.1 A/AAAA of a headless Service: ready endpoints
		{"db.default.svc.cluster.local", dns.TypeA, "NOERROR | db.default.svc.cluster.local. A 10.244.0.3, db.default.svc.cluster.local. A 10.244.0.4, db.default.svc.cluster.local. A 10.244.0.6"},
		{"db.default.svc.cluster.local", dns.TypeAAAA, "NOERROR | db.default.svc.cluster.local. AAAA fd00:244::3, db.default.svc.cluster.local. AAAA fd00:244::6"},
		{"db-0.db.default.svc.cluster.local", dns.TypeA, "NOERROR | db-0.db.default.svc.cluster.local. A 10.244.0.3"},
		{"db-0.db.default.svc.cluster.local", dns.TypeAAAA, "NOERROR | db-0.db.default.svc.cluster.local. AAAA fd00:244::3"},
		{"db-1.db.default.svc.cluster.local", dns.TypeA, "NOERROR | db-1.db.default.svc.cluster.local. A 10.244.0.4"},
		{"db-1.db.default.svc.cluster.local", dns.TypeAAAA, noData},
		{"db-2.db.default.svc.cluster.local", dns.TypeA, noName},
		{"10-244-0-6.db.default.svc.cluster.local", dns.TypeA, "NOERROR | 10-244-0-6.db.default.svc.cluster.local. A 10.244.0.6"},
		{"fd00-244--6.db.default.svc.cluster.local", dns.TypeAAAA, "NOERROR | fd00-244--6.db.default.svc.cluster.local. AAAA fd00:244::6"},
		{"x.db-0.db.default.svc.cluster.local", dns.TypeA, noName},
		{"db-0.web.default.svc.cluster.local", dns.TypeA, noName},
		{"none.default.svc.cluster.local", dns.TypeA, noData},
		{"_a._tcp.none.default.svc.cluster.local", dns.TypeSRV, noData},

		// 2.4.2 SRV of a headless Service
		{"_sql._tcp.db.default.svc.cluster.local", dns.TypeSRV, "NOERROR | _sql._tcp.db.default.svc.cluster.local. SRV 0 25 6432 10-244-0-6.db.default.svc.cluster.local., " +
			"_sql._tcp.db.default.svc.cluster.local. SRV 0 25 6432 db-0.db.default.svc.cluster.local., _sql._tcp.db.default.svc.cluster.local. SRV 0 25 6432 db-1.db.default.svc.cluster.local., " +
			"_sql._tcp.db.default.svc.cluster.local. SRV 0 25 6432 fd00-244--6.db.default.svc.cluster.local. | " +
			"10-244-0-6.db.default.svc.cluster.local. A 10.244.0.6, db-0.db.default.svc.cluster.local. A 10.244.0.3, db-0.db.default.svc.cluster.local. AAAA fd00:244::3, " +
			"db-1.db.default.svc.cluster.local. A 10.244.0.4, fd00-244--6.db.default.svc.cluster.local. AAAA fd00:244::6"},

		// 2.4.3 PTR of a headless Service's endpoints
		{"3.0.244.10.in-addr.arpa", dns.TypePTR, "NOERROR | 3.0.244.10.in-addr.arpa. PTR db-0.db.default.svc.cluster.local."},
		{"5.0.244.10.in-addr.arpa", dns.TypePTR, "NXDOMAIN | SOA in-addr.arpa."},

		// 2.5 ExternalName
		{"ext.default.svc.cluster.local", dns.TypeA, "NOERROR | ext.default.svc.cluster.local. CNAME www.example.com."},
		{"ext.default.svc.cluster.local", dns.TypeCNAME, "NOERROR | ext.default.svc.cluster.local. CNAME www.example.com."},
		{"x.ext.default.svc.cluster.local", dns.TypeA, noName},
		{"alias.default.svc.cluster.local", dns.TypeA, "NOERROR | alias.default.svc.cluster.local. CNAME web.default.svc.cluster.local., web.default.svc.cluster.local. A 10.96.0.7"},
		{"chain.default.svc.cluster.local", dns.TypeAAAA, "NOERROR | chain.default.svc.cluster.local. CNAME alias.default.svc.cluster.local., alias.default.svc.cluster.local. CNAME web.default.svc.cluster.local., web.default.svc.cluster.local. AAAA fd00:96::7"},
		{"dangling.default.svc.cluster.local", dns.TypeA, "NXDOMAIN | dangling.default.svc.cluster.local. CNAME gone.default.svc.cluster.local. | SOA cluster.local."},
		{"loop1.default.svc.cluster.local", dns.TypeA, "SERVFAIL"},

		// Pods
		{"10-244-0-9.default.pod.cluster.local", dns.TypeA, "NOERROR | 10-244-0-9.default.pod.cluster.local. A 10.244.0.9"},
		{"10-244-0-9.default.pod.cluster.local", dns.TypeAAAA, noData},
		{"fd00--9.default.pod.cluster.local", dns.TypeAAAA, "NOERROR | fd00--9.default.pod.cluster.local. AAAA fd00::9"},
		{"10-244-0.default.pod.cluster.local", dns.TypeA, noName},
		{"10-244-0-9.nowhere.pod.cluster.local", dns.TypeA, noName},
		{"x.10-244-0-9.default.pod.cluster.local", dns.TypeA, noName},

		// What has names below it exists; the rest does not.
		{"cluster.local", dns.TypeSOA, "NOERROR | SOA cluster.local."},
		{"cluster.local", dns.TypeNS, "NOERROR | cluster.local. NS ns.dns.cluster.local."},
		{"cluster.local", dns.TypeA, noData},
		{"svc.cluster.local", dns.TypeA, noData},
		{"pod.cluster.local", dns.TypeA, noData},
		{"default.svc.cluster.local", dns.TypeA, noData},
		{"empty.svc.cluster.local", dns.TypeA, noData},
		{"empty.pod.cluster.local", dns.TypeA, noData},
		{"nowhere.svc.cluster.local", dns.TypeA, noName},
		{"web.nowhere.svc.cluster.local", dns.TypeA, noName},
		{"gone.default.svc.cluster.local", dns.TypeA, noName},
		{"x.cluster.local", dns.TypeA, noName},
		{"example.com.default.svc.cluster.local", dns.TypeA, noName},

		// Not the cluster's
		{"example.com", dns.TypeA, refused},
		{"notcluster.local", dns.TypeA, refused},
		{".", dns.TypeNS, refused},
		{"cluster.local", dns.TypeAXFR, refused},
	} {
		m := question(tt.name, tt.qtype)
		res := s.Handle(m)
		if got := show(res); got != tt.want {
			t.Errorf("%s %s:\n got %s\nwant %s", tt.name, dns.TypeToString[tt.qtype], got, tt.want)
		}
		if res.Id != m.Id || !res.Response || len(res.Question) != 1 || res.Question[0] != m.Question[0] || res.Authoritative != (res.Rcode != dns.RcodeRefused) {
			t.Errorf("%s: header %+v", tt.name, res.MsgHdr)
		}
		if _, err := res.Pack(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestMessages(t *testing.T) {
	s := New(load(t, objects), "Cluster.Local.")
	web := "web.default.svc.cluster.local"

	m := question(web, dns.TypeA)
	m.Opcode = dns.OpcodeNotify
	if res := s.Handle(m); res.Rcode != dns.RcodeNotImplemented {
		t.Error(res)
	}
	m = question(web, dns.TypeA)
	m.Question = append(m.Question, m.Question[0])
	if res := s.Handle(m); res.Rcode != dns.RcodeFormatError {
		t.Error(res)
	}
	m = question(web, dns.TypeA)
	m.Question[0].Qclass = dns.ClassCHAOS
	if res := s.Handle(m); res.Rcode != dns.RcodeRefused {
		t.Error(res)
	}
	m = question(web, dns.TypeA)
	m.SetEdns0(4096, true)
	if res := s.Handle(m); res.IsEdns0() == nil || res.IsEdns0().Version() != 0 || len(res.Answer) != 1 {
		t.Error(res)
	}
	m.IsEdns0().SetVersion(1)
	if res := s.Handle(m); res.Rcode != dns.RcodeBadVers || len(res.Answer) != 0 {
		t.Error(res)
	}
	if res := s.Handle(question(web, dns.TypeA)); res.IsEdns0() != nil {
		t.Error("EDNS0 although the client has none")
	}
}

// TestFollowsStore: answers, reverse ones too, are those of the store as it is.
func TestFollowsStore(t *testing.T) {
	st := load(t, objects)
	s := New(st, DefaultDomain)
	ptr := question("20.0.96.10.in-addr.arpa", dns.TypePTR)
	if res := s.Handle(ptr); res.Rcode != dns.RcodeNameError {
		t.Error(res)
	}
	insert(t, st, st.Services, "metadata: {name: new, namespace: default}\nspec: {clusterIP: 10.96.0.20}", &corev1.Service{})
	if got := show(s.Handle(ptr)); got != "NOERROR | 20.0.96.10.in-addr.arpa. PTR new.default.svc.cluster.local." {
		t.Error(got)
	}
	txn := st.DB.WriteTxn(st.Services)
	if _, err := store.Delete(txn, st.Services, "default", "new"); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	if res := s.Handle(ptr); res.Rcode != dns.RcodeNameError {
		t.Error(res)
	}
}

// serve runs a server on loopback and returns its address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, udp, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return tcp.Addr().String()
}

func ask(t *testing.T, network, addr string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network}
	res, _, err := c.Exchange(m, addr)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestServe(t *testing.T) {
	var b strings.Builder
	b.WriteString("kind: EndpointSlice\nmetadata: {name: big-1, namespace: default, labels: {kubernetes.io/service-name: big}}\naddressType: IPv4\nendpoints:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "- {addresses: [10.244.1.%d]}\n", i+1)
	}
	b.WriteString("---\nkind: Service\nmetadata: {name: big, namespace: default}\nspec: {clusterIP: None}")
	addr := serve(t, New(load(t, objects+"---\n"+b.String()), DefaultDomain))

	big := question("big.default.svc.cluster.local", dns.TypeA)
	res := ask(t, "udp", addr, big)
	res.Compress = true // as it was sent
	if n := res.Len(); !res.Truncated || n > 512 || len(res.Answer) == 0 {
		t.Errorf("UDP: %d bytes, truncated=%v", n, res.Truncated)
	}
	seen := map[string]bool{}
	var orders []string
	for range 3 {
		res = ask(t, "tcp", addr, big)
		if res.Truncated || len(res.Answer) != 100 {
			t.Errorf("TCP: %d answers", len(res.Answer))
		}
		order := show(res)
		orders = append(orders, order)
		for _, rr := range res.Answer {
			seen[rr.(*dns.A).A.String()] = true
		}
	}
	if len(seen) != 100 || orders[0] == orders[1] && orders[1] == orders[2] {
		t.Errorf("%d addresses; order never changes", len(seen))
	}
	big.SetEdns0(4096, false)
	res = ask(t, "udp", addr, big)
	res.Compress = true
	if n := res.Len(); !res.Truncated || n > udpSize || n < 512 || res.IsEdns0() == nil {
		t.Errorf("EDNS0: %d bytes, truncated=%v", n, res.Truncated)
	}
	if got := show(ask(t, "udp", addr, question("web.default.svc.cluster.local", dns.TypeA))); !strings.Contains(got, "10.96.0.7") {
		t.Error(got)
	}
}

func TestForward(t *testing.T) {
	mux := dns.NewServeMux()
	mux.HandleFunc("example.com.", func(w dns.ResponseWriter, m *dns.Msg) {
		res := new(dns.Msg)
		res.SetReply(m)
		rr, err := dns.NewRR(m.Question[0].Name + " 60 IN A 192.0.2.1")
		if err != nil {
			t.Error(err)
		}
		res.Answer = []dns.RR{rr}
		if w.RemoteAddr().Network() == "udp" {
			res.Answer, res.Truncated = nil, true // so that TCP is used
		}
		_ = w.WriteMsg(res)
	})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, srv := range []*dns.Server{{Listener: tcp, Handler: mux}, {PacketConn: udp, Handler: mux}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { _ = srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = srv.Shutdown() })
	}

	s := New(load(t, objects), DefaultDomain)
	s.Forward = Upstream(&net.Dialer{}, tcp.Addr().String())
	addr := serve(t, s)
	res := ask(t, "tcp", addr, question("a.example.com", dns.TypeA))
	if res.Rcode != dns.RcodeSuccess || len(res.Answer) != 1 || res.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
		t.Error(res)
	}
	res = ask(t, "tcp", addr, question("ext.default.svc.cluster.local", dns.TypeA))
	if len(res.Answer) != 2 || res.Answer[0].Header().Rrtype != dns.TypeCNAME || res.Answer[1].(*dns.A).A.String() != "192.0.2.1" {
		t.Error(res)
	}
	// What is the cluster's never leaves it.
	if res = ask(t, "udp", addr, question("gone.default.svc.cluster.local", dns.TypeA)); res.Rcode != dns.RcodeNameError {
		t.Error(res)
	}
	// Nobody is there to ask.
	s = New(load(t, objects), DefaultDomain)
	s.Forward = Upstream(&net.Dialer{})
	if res = s.answer(t.Context(), question("a.example.com", dns.TypeA)); res.Rcode != dns.RcodeServerFailure {
		t.Error(res)
	}
}

// FuzzHandle: whatever a client sends, there is an answer that can be sent.
func FuzzHandle(f *testing.F) {
	st := load(f, objects)
	s := New(st, DefaultDomain)
	for _, name := range []string{"web.default.svc.cluster.local", "_sql._tcp.db.default.svc.cluster.local", "7.0.96.10.in-addr.arpa", "a..b", "chain.default.svc.cluster.local"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypePTR, dns.TypeANY} {
			if b, err := question(name, qtype).Pack(); err == nil {
				f.Add(b)
			}
		}
	}
	m := question("db.default.svc.cluster.local", dns.TypeA)
	m.SetEdns0(100, true)
	if b, err := m.Pack(); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil {
			return
		}
		before := m.String()
		res := s.Handle(m)
		if res == nil || res.Id != m.Id || !res.Response {
			t.Fatalf("answer to %v: %v", m, res)
		}
		if m.String() != before {
			t.Fatal("the question was changed")
		}
		out, err := res.Pack()
		if err != nil {
			t.Fatalf("%v: answer %v", err, res)
		}
		if err := new(dns.Msg).Unpack(out); err != nil {
			t.Fatalf("%v: answer %v", err, res)
		}
		if slices.Contains([]int{dns.RcodeSuccess, dns.RcodeNameError}, res.Rcode) && len(m.Question) != 1 {
			t.Fatalf("answered %d questions", len(m.Question))
		}
	})
}
