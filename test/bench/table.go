package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/test/bench/report"
)

// markdown returns all results as text.
func (r *Results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %d cores, %s, kube-proxy and kube-apiserver %s, nft %s, %s. Took %s.\n\n",
		r.Date, r.Kernel, r.CPUs, r.Go, r.Kubernetes, strings.TrimPrefix(r.Nft, "nftables "), r.Iptables, r.Took)
	fmt.Fprintf(&b, "Command: `%s`\n", r.Command)
	if most := r.shared(); most > 0.2 {
		fmt.Fprintf(&b, "\nNote: the machine was shared. Other work used %.1f cores when the run began (load %s), and up to %.1f just before a measurement.\n",
			r.BusyCores, r.LoadAvg, most)
	}
	for _, part := range []struct {
		title string
		t     *report.Table
	}{
		{"First packet: connect(), best round, p50 / p99 in µs", r.latencyTable()},
		{"Cold start beside a full API server, median", r.coldTable()},
		{"A change, from the write to the API server to the first answer, p50 in ms", r.changeTable()},
		{"Services with many endpoints", r.bigTable()},
		{"`fairway up -f examples/shop`, in ms", r.upTable()},
	} {
		if part.t != nil {
			fmt.Fprintf(&b, "\n### %s\n\n%s", part.title, part.t)
		}
	}
	return b.String()
}

func (r *Results) latencyTable() *report.Table {
	if len(r.Latency) == 0 {
		return nil
	}
	planes := []kind{direct, fairway, nftKP, iptables}
	t := &report.Table{Head: []string{"Services", "direct", "Fairway", "kube-proxy nftables", "kube-proxy iptables",
		"nftables ÷ Fairway", "iptables ÷ Fairway"}}
	for _, size := range report.Distinct(r.Latency, func(l Latency) int { return l.Services }) {
		row := []string{fmt.Sprint(size)}
		of := map[kind]Latency{}
		for _, k := range planes {
			i := slices.IndexFunc(r.Latency, func(l Latency) bool { return l.Services == size && l.Plane == k })
			switch {
			case i < 0:
				row = append(row, "–")
				continue
			case r.Latency[i].Failed != "":
				row = append(row, "not loaded")
				continue
			}
			of[k] = r.Latency[i]
			row = append(row, fmt.Sprintf("%.1f / %.1f", of[k].P50, of[k].P99))
		}
		for _, k := range planes[2:] {
			row = append(row, report.Ratio(of[k].P50, of[fairway].P50)+" / "+report.Ratio(of[k].P99, of[fairway].P99))
		}
		t.Add(row...)
	}
	return t
}

// medianCold returns the median of each figure of the tries of a data plane.
func (r *Results) medianCold(k kind) (m Cold, ok bool) {
	var tries []Cold
	for _, c := range r.Cold {
		if c.Plane == k {
			tries, m = append(tries, c), c
		}
	}
	for _, c := range tries {
		if c.Failed != "" {
			return c, true
		}
	}
	mid := func(f func(Cold) float64) float64 {
		v := make([]float64, len(tries))
		for i, c := range tries {
			v[i] = f(c)
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	if len(tries) == 0 {
		return m, false
	}
	m.Seconds = mid(func(c Cold) float64 { return c.Seconds })
	m.CPU = mid(func(c Cold) float64 { return c.CPU })
	m.PeakMiB = mid(func(c Cold) float64 { return c.PeakMiB })
	m.ChildMiB = mid(func(c Cold) float64 { return c.ChildMiB })
	return m, true
}

func (r *Results) coldTable() *report.Table {
	if len(r.Cold) == 0 {
		return nil
	}
	t := &report.Table{Head: []string{"data plane", "Services × endpoints", "tries", "until all is programmed, s", "CPU, s",
		"peak RSS, MiB", "and of its biggest child, MiB", "time ÷ Fairway", "CPU ÷ Fairway"}}
	base, _ := r.medianCold(fairway)
	for _, k := range []kind{fairway, nftKP, iptables} {
		c, ok := r.medianCold(k)
		if !ok {
			continue
		}
		n := 0
		for _, x := range r.Cold {
			if x.Plane == k {
				n++
			}
		}
		what := fmt.Sprintf("%d × %d", c.Services, c.Endpoints)
		if c.Failed != "" {
			t.Add(string(k), what, fmt.Sprint(n), c.Failed)
			continue
		}
		t.Add(string(k), what, fmt.Sprint(n), report.Number(c.Seconds), report.Number(c.CPU), report.Number(c.PeakMiB), report.Number(c.ChildMiB),
			report.Ratio(c.Seconds, base.Seconds), report.Ratio(c.CPU, base.CPU))
	}
	return t
}

func (r *Results) changeTable() *report.Table {
	if len(r.Change) == 0 {
		return nil
	}
	t := &report.Table{Head: []string{"change", "Services", "API server's part", "Fairway", "kube-proxy nftables", "kube-proxy iptables",
		"nftables ÷ Fairway", "iptables ÷ Fairway"}}
	for _, what := range report.Distinct(r.Change, func(c Change) string { return c.What }) {
		for _, size := range report.Distinct(r.Change, func(c Change) int { return c.Services }) {
			row := []string{what, fmt.Sprint(size), "–"}
			of := map[kind]float64{}
			for _, k := range []kind{fairway, nftKP, iptables} {
				i := slices.IndexFunc(r.Change, func(c Change) bool { return c.What == what && c.Services == size && c.Plane == k })
				switch {
				case i < 0:
					row = append(row, "–")
					continue
				case r.Change[i].Failed != "":
					row = append(row, "not loaded")
					continue
				}
				of[k] = r.Change[i].P50
				row = append(row, report.Number(of[k]))
				if k == fairway || row[2] == "–" {
					row[2] = report.Number(r.Change[i].APIP50)
				}
			}
			t.Add(append(row, report.Ratio(of[nftKP], of[fairway]), report.Ratio(of[iptables], of[fairway]))...)
		}
	}
	return t
}

func (r *Results) bigTable() *report.Table {
	if len(r.Big) == 0 {
		return nil
	}
	t := &report.Table{Head: []string{"data plane", "how", "Services × endpoints", "whole load, s", "of it waiting for the data plane, s",
		"longest sync at most, s", "CPU, s", "peak RSS, MiB", "and of its biggest child, MiB"}}
	for _, x := range r.Big {
		seconds := report.Number(x.Seconds)
		if x.Failed != "" {
			seconds = fmt.Sprintf("%s (%d of %d)", x.Failed, x.Loaded, x.Services)
		}
		t.Add(string(x.Plane), x.How, fmt.Sprintf("%d × %d", x.Services, x.Endpoints), seconds, report.Number(x.Waited),
			report.Number(x.LongestSync), report.Number(x.CPU), report.Number(x.PeakMiB), report.Number(x.ChildMiB))
	}
	return t
}

func (r *Results) upTable() *report.Table {
	if r.Up == nil {
		return nil
	}
	t := &report.Table{Head: []string{"what", "time, ms"}}
	t.Add("from the start to the first answer on localhost", report.Number(r.Up.FirstAnswer))
	t.Add(fmt.Sprintf("from saving an edit to the first answer by it, p50 of %d", r.Up.Edits), report.Number(r.Up.EditP50))
	t.Add("the worst of them", report.Number(r.Up.EditWorst))
	return t
}
