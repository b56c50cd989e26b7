//go:build gateway

package gateway

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

var soakTime = flag.Duration("soak", 20*time.Second, "how long the soak lasts")

// The bounds of the soak: what the proxy's process may have resident, and what of
// its heap may be alive, at any time.
const (
	maxRSS  = 384 << 20
	maxHeap = 160 << 20
	// perClient is the policy's bound of connections of one client.
	perClient = 200
)

// strict is the listener policy of the soak. Connections and streams of a client
// are bounded: each stream that a client stalls holds a connection of the upstream,
// of which there are 1,024. The other limits are the default ones. The timeouts are
// short, so that a short soak sees them end.
var strict = fmt.Sprintf(`
  limits: {maxConnectionsPerClient: %d, maxConcurrentStreams: 20}
  timeouts: {handshake: 3s, header: 3s, bodyIdle: 3s, writeIdle: 3s, keepAlive: 6s}
`, perClient)

// loose has the widest limits that can be set.
const loose = `
  limits: {maxHeaderSize: 16Mi, maxHeaders: 10000}
  timeouts: {header: 10m, bodyIdle: 10m, writeIdle: 10m, keepAlive: 10m}
`

// TestSoak has clients that misbehave in every way beside good ones: the good ones
// lose nothing, and memory stays bounded.
func TestSoak(t *testing.T) {
	problems := soak(t, strict, *soakTime)
	for _, p := range problems {
		t.Error(p)
	}
}

// TestSoakSeesBrokenBounds shows that the soak can fail: with the widest limits,
// memory or connections do not stay within the bounds, or good clients lose.
func TestSoakSeesBrokenBounds(t *testing.T) {
	problems := soak(t, loose, *soakTime)
	if len(problems) == 0 {
		t.Error("the soak does not see that limits are too wide")
	}
	t.Logf("seen: %s", strings.Join(problems, "; "))
}

// soak runs one, until a bound of memory is broken at the longest, prints what
// happened, and returns what should not have.
func soak(t *testing.T, limits string, last time.Duration) (problems []string) {
	t.Helper()
	s := newSite(t, limits)
	p := startGateway(t, s.dir)
	probe := transport(s, false)
	probe.DisableKeepAlives = true
	waitServed(t, &http.Client{Transport: probe, Timeout: patience})
	idleRSS, _, err := p.memory()
	if err != nil {
		t.Fatal(err)
	}
	goodCtx, endGood := context.WithCancel(t.Context())
	defer endGood()
	badCtx, endBad := context.WithCancel(t.Context())
	defer endBad()
	g := startGood(goodCtx, s)
	if err := g.passed(2); err != nil {
		t.Fatal(err)
	}
	b := startBad(badCtx, s.plain)
	var rss, heap int64
	for end := time.Now().Add(last); time.Now().Before(end) && problems == nil; time.Sleep(50 * time.Millisecond) {
		if rss, heap, err = p.memory(); err != nil {
			t.Fatal(err)
		}
		if rss > maxRSS {
			problems = append(problems, fmt.Sprintf("memory: %d MiB are resident, the bound is %d", rss>>20, maxRSS>>20))
		}
		if heap > maxHeap {
			problems = append(problems, fmt.Sprintf("memory: %d MiB of heap are alive, the bound is %d", heap>>20, maxHeap>>20))
		}
	}
	endBad()
	summary, more := b.result()
	problems = append(problems, more...)
	t.Log(summary)
	// After the attacks all kinds of good clients still get their answers.
	if err := g.passed(2); err != nil {
		problems = append(problems, err.Error())
	}
	endGood()
	summary, more = g.result()
	problems = append(problems, more...)
	t.Log(summary)
	t.Logf("memory of the proxy: %d MiB resident at most (bound %d, before the soak %d), %d MiB of heap alive at most (bound %d)",
		rss>>20, maxRSS>>20, idleRSS>>20, heap>>20, maxHeap>>20)
	if b.most.Load() > perClient || b.refused.Load() == 0 {
		problems = append(problems, fmt.Sprintf("the flood had %d connections open at the same time, %d were refused; the limit is %d", b.most.Load(), b.refused.Load(), perClient))
	}
	return problems
}
