package main

import (
	"fmt"
	"slices"
	"strings"
)

// table is a markdown table.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// String returns the table with padded columns, so that it also reads well as
// it is.
func (t *table) String() string {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	line := func(cells []string, fill string) {
		for i, w := range width {
			c := ""
			if i < len(cells) {
				c = cells[i]
			}
			b.WriteString("| " + c + strings.Repeat(fill, w-len([]rune(c))) + " ")
		}
		b.WriteString("|\n")
	}
	line(t.head, " ")
	line(nil, "-")
	for _, row := range t.rows {
		line(row, " ")
	}
	return b.String()
}

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
		t     *table
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

// ratio says how many times a is of b.
func ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "–"
	}
	x := a / b
	if x >= 10 {
		return fmt.Sprintf("%.0f×", x)
	}
	return fmt.Sprintf("%.2f×", x)
}

func number(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func (r *Results) latencyTable() *table {
	if len(r.Latency) == 0 {
		return nil
	}
	planes := []kind{direct, fairway, nftKP, iptables}
	t := &table{head: []string{"Services", "direct", "Fairway", "kube-proxy nftables", "kube-proxy iptables",
		"nftables ÷ Fairway", "iptables ÷ Fairway"}}
	for _, size := range distinct(r.Latency, func(l Latency) int { return l.Services }) {
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
			row = append(row, ratio(of[k].P50, of[fairway].P50)+" / "+ratio(of[k].P99, of[fairway].P99))
		}
		t.add(row...)
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

func (r *Results) coldTable() *table {
	if len(r.Cold) == 0 {
		return nil
	}
	t := &table{head: []string{"data plane", "Services × endpoints", "tries", "until all is programmed, s", "CPU, s",
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
			t.add(string(k), what, fmt.Sprint(n), c.Failed)
			continue
		}
		t.add(string(k), what, fmt.Sprint(n), number(c.Seconds), number(c.CPU), number(c.PeakMiB), number(c.ChildMiB),
			ratio(c.Seconds, base.Seconds), ratio(c.CPU, base.CPU))
	}
	return t
}

func (r *Results) changeTable() *table {
	if len(r.Change) == 0 {
		return nil
	}
	t := &table{head: []string{"change", "Services", "API server's part", "Fairway", "kube-proxy nftables", "kube-proxy iptables",
		"nftables ÷ Fairway", "iptables ÷ Fairway"}}
	for _, what := range distinct(r.Change, func(c Change) string { return c.What }) {
		for _, size := range distinct(r.Change, func(c Change) int { return c.Services }) {
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
				row = append(row, number(of[k]))
				if k == fairway || row[2] == "–" {
					row[2] = number(r.Change[i].APIP50)
				}
			}
			t.add(append(row, ratio(of[nftKP], of[fairway]), ratio(of[iptables], of[fairway]))...)
		}
	}
	return t
}

func (r *Results) bigTable() *table {
	if len(r.Big) == 0 {
		return nil
	}
	t := &table{head: []string{"data plane", "how", "Services × endpoints", "whole load, s", "of it waiting for the data plane, s",
		"longest sync at most, s", "CPU, s", "peak RSS, MiB", "and of its biggest child, MiB"}}
	for _, x := range r.Big {
		seconds := number(x.Seconds)
		if x.Failed != "" {
			seconds = fmt.Sprintf("%s (%d of %d)", x.Failed, x.Loaded, x.Services)
		}
		t.add(string(x.Plane), x.How, fmt.Sprintf("%d × %d", x.Services, x.Endpoints), seconds, number(x.Waited),
			number(x.LongestSync), number(x.CPU), number(x.PeakMiB), number(x.ChildMiB))
	}
	return t
}

func (r *Results) upTable() *table {
	if r.Up == nil {
		return nil
	}
	t := &table{head: []string{"what", "time, ms"}}
	t.add("from the start to the first answer on localhost", number(r.Up.FirstAnswer))
	t.add(fmt.Sprintf("from saving an edit to the first answer by it, p50 of %d", r.Up.Edits), number(r.Up.EditP50))
	t.add("the worst of them", number(r.Up.EditWorst))
	return t
}

// distinct returns what f gives of each, once, in order of appearance.
func distinct[T any, K comparable](all []T, f func(T) K) (out []K) {
	for _, x := range all {
		if k := f(x); !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}
