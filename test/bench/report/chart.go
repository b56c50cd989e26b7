// Package report writes what benchmarks measured: markdown tables and SVG charts.
package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// Both kinds of chart have a logarithmic axis of values: what is compared is
// often orders of magnitude apart.
const (
	chartW, chartH                   = 720, 400
	plotLeft, plotRight              = 70, 700
	plotTop, plotBottom              = 70, 340
	styleText                        = `font-family="sans-serif" font-size="12" fill="#333"`
	styleGrid                        = `stroke="#ddd"`
	legendTop, legendStep, legendLen = 50, 165, 18
)

// Point is one value of a chart.
type Point struct {
	// Series is whose value it is: a line, or the bar at one place of each group.
	Series string
	// X is the size in a line chart.
	X int
	// Group names the bars that stand together in a bar chart.
	Group string
	Y     float64
}

// Colours are those of the series, as SVG takes them.
type Colours map[string]string

// scale maps values onto pixels logarithmically.
type scale struct{ lo, hi, from, to float64 }

// newScale spans whole decades around all values.
func newScale(values []float64, from, to float64) scale {
	lo, hi := slices.Min(values), slices.Max(values)
	return scale{math.Floor(math.Log10(lo)), math.Max(math.Ceil(math.Log10(hi)), math.Floor(math.Log10(lo))+1), from, to}
}

func (s scale) at(v float64) float64 {
	return s.from + (math.Log10(v)-s.lo)/(s.hi-s.lo)*(s.to-s.from)
}

// decades are the values of the grid.
func (s scale) decades() (out []float64) {
	for e := s.lo; e <= s.hi; e++ {
		out = append(out, math.Pow(10, e))
	}
	return out
}

// chart collects the elements of an SVG.
type chart struct{ strings.Builder }

func (c *chart) add(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

func (c *chart) text(x, y float64, anchor, s string) {
	c.add(`<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>`, x, y, anchor, styleText, html.EscapeString(s))
}

// frame draws what all charts have: title, legend, and the axis of values.
func frame(title string, points []Point, y scale, colours Colours) *chart {
	c := &chart{}
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">`, chartW, chartH, chartW, chartH)
	c.add(`<rect width="100%%" height="100%%" fill="#fff"/>`)
	c.add(`<text x="%d" y="24" font-family="sans-serif" font-size="15" fill="#111">%s</text>`, plotLeft, html.EscapeString(title))
	for i, k := range Distinct(points, func(p Point) string { return p.Series }) {
		x := float64(plotLeft + i*legendStep)
		c.add(`<rect x="%.1f" y="%d" width="%d" height="8" fill="%s"/>`, x, legendTop-8, legendLen, colours[k])
		c.text(x+legendLen+5, legendTop, "start", k)
	}
	for _, v := range y.decades() {
		c.add(`<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" %s/>`, plotLeft, plotRight, y.at(v), y.at(v), styleGrid)
		c.text(plotLeft-6, y.at(v)+4, "end", fmt.Sprintf("%g", v))
	}
	return c
}

func (c *chart) end() string {
	c.add(`</svg>`)
	return c.String()
}

func values(points []Point) (out []float64) {
	for _, p := range points {
		out = append(out, p.Y)
	}
	return out
}

// LineChart draws Y over X, one line for each series. Both axes are logarithmic.
// It returns "" if there is nothing to draw.
func LineChart(title, xName string, points []Point, colours Colours) string {
	points = positive(points)
	if len(points) == 0 {
		return ""
	}
	var xs []float64
	for _, p := range points {
		xs = append(xs, float64(p.X))
	}
	x, y := newScale(xs, plotLeft, plotRight), newScale(values(points), plotBottom, plotTop)
	c := frame(title, points, y, colours)
	for _, v := range x.decades() {
		c.add(`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" %s/>`, x.at(v), x.at(v), plotTop, plotBottom, styleGrid)
		c.text(x.at(v), plotBottom+18, "middle", fmt.Sprintf("%g", v))
	}
	c.text((plotLeft+plotRight)/2, plotBottom+40, "middle", xName)
	for _, k := range Distinct(points, func(p Point) string { return p.Series }) {
		var line []string
		for _, p := range points {
			if p.Series == k {
				px, py := x.at(float64(p.X)), y.at(p.Y)
				line = append(line, fmt.Sprintf("%.1f,%.1f", px, py))
				c.add(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s, %d: %.4g</title></circle>`, px, py, colours[k], k, p.X, p.Y)
			}
		}
		c.add(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, strings.Join(line, " "), colours[k])
	}
	return c.end()
}

// BarChart draws groups of bars, one bar for each series in a group, with the
// value above it. The axis is logarithmic: a bar begins at its lowest decade. It
// returns "" if there is nothing to draw.
func BarChart(title string, points []Point, colours Colours) string {
	points = positive(points)
	if len(points) == 0 {
		return ""
	}
	y := newScale(values(points), plotBottom, plotTop+12)
	c := frame(title, points, y, colours)
	groups := Distinct(points, func(p Point) string { return p.Group })
	width := float64(plotRight-plotLeft) / float64(len(groups))
	for g, name := range groups {
		left := plotLeft + float64(g)*width
		c.text(left+width/2, plotBottom+18, "middle", name)
		var in []Point
		for _, p := range points {
			if p.Group == name {
				in = append(in, p)
			}
		}
		bar := math.Min(60, width*0.8/float64(len(in)))
		x := left + (width-bar*float64(len(in)))/2
		for _, p := range in {
			top := y.at(p.Y)
			c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, top, bar-2, plotBottom-top, colours[p.Series])
			c.text(x+bar/2-1, top-4, "middle", Number(p.Y))
			x += bar
		}
	}
	return c.end()
}

// positive leaves out what was not measured.
func positive(points []Point) []Point {
	return slices.DeleteFunc(slices.Clone(points), func(p Point) bool { return p.Y <= 0 })
}
