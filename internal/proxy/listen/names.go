package listen

import "strings"

// names finds the listener of a TLS server name or a host: the exact one, then
// the longest wildcard, then the one for all names.
type names struct {
	exact map[string]*entry
	wild  map[string]*entry // by what follows "*."
	any   *entry
}

func (t *names) add(e *entry) {
	suffix, wild := strings.CutPrefix(e.m.Hostname, "*.")
	switch {
	case e.m.Hostname == "":
		if t.any == nil {
			t.any = e
		}
	case wild:
		put(&t.wild, suffix, e)
	default:
		put(&t.exact, e.m.Hostname, e)
	}
}

// put leaves what is there: compilers see to it that no two have one name.
func put(m *map[string]*entry, name string, e *entry) {
	if *m == nil {
		*m = map[string]*entry{}
	}
	if _, ok := (*m)[name]; !ok {
		(*m)[name] = e
	}
}

// find returns nil if no listener fits. The name is in lower case.
func (t *names) find(name string) *entry {
	if e := t.exact[name]; e != nil {
		return e
	}
	if len(t.wild) > 0 {
		for rest := name; ; {
			i := strings.IndexByte(rest, '.')
			if i < 0 {
				break
			}
			rest = rest[i+1:]
			if e := t.wild[rest]; e != nil && len(rest)+1 < len(name) {
				return e
			}
		}
	}
	return t.any
}

// Verdict is whether a request belongs to the connection it came through.
type Verdict uint8

const (
	// Served means that the connection's listener is that of the host.
	Served Verdict = iota
	// Misdirected means that another listener is: 421.
	Misdirected
	// Unknown means that none is: 404.
	Unknown
)

// judge tells whether a request for a host may come through a connection whose
// server name chose a listener (Gateway API, Listener.hostname: "detect
// misdirected requests"). The host is in lower case and without a port.
func (t *names) judge(of *entry, host string) Verdict {
	e := t.find(host)
	switch {
	case e == nil:
		return Unknown
	case e.m.ID != of.m.ID:
		return Misdirected
	}
	return Served
}
