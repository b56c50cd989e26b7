//go:build gateway

package gateway

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// rounds is how often each thing changes under load.
const rounds = 10

// TestNothingFailsWhileEverythingChanges has good clients of every kind at the
// real binary, while its files are edited, its backends are replaced, its
// certificate is rotated, and it is itself replaced.
func TestNothingFailsWhileEverythingChanges(t *testing.T) {
	s := newSite(t, "")
	handover := filepath.Join(filepath.Dir(s.dir), "takeover")
	p := startGateway(t, s.dir, "--takeover", handover)
	probe := transport(s, false)
	probe.DisableKeepAlives = true
	client := &http.Client{Transport: probe, Timeout: patience}
	waitServed(t, client)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := startGood(ctx, s)
	pause := func() {
		t.Helper()
		if err := g.passed(2); err != nil {
			t.Error(err)
		}
	}
	pause()
	var slowest time.Duration
	for i := range rounds {
		began := time.Now()
		s.route(t, i+1)
		eventually(t, "the edited route is served", func() bool { return header(client, "http://", "x-edit") == fmt.Sprint(i+1) })
		slowest = max(slowest, time.Since(began))
		pause()
	}
	t.Logf("%d edits of a route, each served; the slowest after %v", rounds, slowest)

	var old *http.Server
	for range rounds {
		port, server := startHTTPBackend(t)
		s.backends(t, port)
		eventually(t, "the new backend answers", func() bool { return header(client, "http://", "x-backend") == backendIP+":"+port })
		pause()
		if old != nil {
			// It has got no request since the last round but those that it still has.
			if err := old.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
		old = server
	}
	t.Logf("%d backends replaced", rounds)

	for range rounds {
		was := serial(t, client)
		s.rotate(t)
		eventually(t, "the new certificate is shown", func() bool { return serial(t, client) != was })
		pause()
	}
	t.Logf("%d certificates rotated", rounds)

	const binaries = 3
	for range binaries {
		next := startGateway(t, s.dir, "--takeover", handover)
		p.wait(t)
		p = next
		pause()
	}
	t.Logf("%d binaries replaced", binaries)
	cancel()
	summary, problems := g.result()
	t.Log(summary)
	for _, problem := range problems {
		t.Error(problem)
	}
	p.stop(t)
}

// waitServed waits until both listeners serve the route.
func waitServed(t *testing.T, client *http.Client) {
	t.Helper()
	for _, scheme := range []string{"http://", "https://"} {
		eventually(t, scheme+" is served", func() bool { return header(client, scheme, "x-backend") != "" })
	}
}

// header returns a header of the answer to a GET; empty if there is none.
func header(client *http.Client, scheme, name string) string {
	resp, err := client.Get(scheme + host + "/")
	if err != nil {
		return ""
	}
	resp.Body.Close()
	return resp.Header.Get(name)
}

// serial is that of the certificate.
func serial(t *testing.T, client *http.Client) string {
	t.Helper()
	resp, err := client.Get("https://" + host + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.TLS.PeerCertificates[0].SerialNumber.String()
}
