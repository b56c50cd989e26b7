package main

import (
	"fmt"

	"github.com/fairwaynet/fairway/test/bench/report"
)

var colours = report.Colours{string(direct): "#888", string(fairway): "#0a7", string(nftKP): "#36c", string(iptables): "#d62"}

// charts returns the SVG files by name.
func (r *Results) charts() map[string]string {
	var p50, p99, coldTime, coldMem, change, big []report.Point
	for _, l := range r.Latency {
		p50 = append(p50, report.Point{Series: string(l.Plane), X: l.Services, Y: l.P50})
		p99 = append(p99, report.Point{Series: string(l.Plane), X: l.Services, Y: l.P99})
	}
	for _, k := range []kind{fairway, nftKP, iptables} {
		c, _ := r.medianCold(k)
		coldTime = append(coldTime, report.Point{Series: string(k), Group: "time, s", Y: c.Seconds}, report.Point{Series: string(k), Group: "CPU, s", Y: c.CPU})
		coldMem = append(coldMem, report.Point{Series: string(k), Group: "process", Y: c.PeakMiB}, report.Point{Series: string(k), Group: "biggest child", Y: c.ChildMiB})
	}
	for _, c := range r.Change {
		change = append(change, report.Point{Series: string(c.Plane), Group: fmt.Sprintf("%s, %d", c.What, c.Services), Y: c.P50})
	}
	for _, b := range r.Big {
		if b.Failed == "" {
			big = append(big, report.Point{Series: string(b.Plane), Group: b.How, Y: b.Seconds})
		}
	}
	out := map[string]string{
		"latency-p50": report.LineChart("First packet: connect() p50, µs", "Services", p50, colours),
		"latency-p99": report.LineChart("First packet: connect() p99, µs", "Services", p99, colours),
		"cold":        report.BarChart("Cold start", coldTime, colours),
		"cold-memory": report.BarChart("Cold start: peak memory, MiB", coldMem, colours),
		"change":      report.BarChart("API write to first answer, p50, ms", change, colours),
		"big":         report.BarChart("Services with many endpoints: load, s", big, colours),
	}
	for name, svg := range out {
		if svg == "" {
			delete(out, name)
		}
	}
	return out
}
