package upstream

import "time"

// longestEjection bounds how long an endpoint is left out at once.
const longestEjection = 5 * time.Minute

// report counts how a request at an endpoint ended, and ejects the endpoint
// when too many failed in a row.
func (v *View) report(e *Endpoint, failed bool) {
	if !failed {
		if e.streak.Load() != 0 {
			e.streak.Store(0)
		}
		return
	}
	e.failed.Add(1)
	n := e.streak.Add(1)
	if o := v.policy.Outlier; o != nil && int(n) >= o.Consecutive && !e.ejected.Load() {
		v.up.eject(e)
	}
}

// eject leaves an endpoint out for a while, which grows each time, unless too
// many are out already.
func (u *Upstream) eject(e *Endpoint) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone || u.view == nil || u.view.policy.Outlier == nil || u.endpoints[e.addr] != e || e.ejected.Load() {
		return
	}
	o := u.view.policy.Outlier
	out := 1
	for _, other := range u.ordered {
		if other.ejected.Load() {
			out++
		}
	}
	if out*100 > o.MaxPercent*len(u.ordered) {
		return
	}
	now := Now()
	if e.returned != 0 && since(now, e.returned) > time.Duration(e.ejections)*o.Ejection+longestEjection {
		e.ejections = 0 // it was well for long
	}
	e.ejections++
	e.ejected.Store(true)
	e.uneject = time.AfterFunc(min(time.Duration(e.ejections)*o.Ejection, longestEjection), func() { u.takeBack(e) })
	u.refresh()
}

// takeBack ends an ejection.
func (u *Upstream) takeBack(e *Endpoint) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone || u.endpoints[e.addr] != e || !e.ejected.Load() {
		return
	}
	now := Now()
	e.returned = now
	e.streak.Store(0)
	e.warm.Store(now)
	e.ejected.Store(false)
	u.refresh()
}
