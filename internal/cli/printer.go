package cli

import (
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/internal/control"
)

// printer writes objects of one kind in the format that was asked for.
type printer[T any] struct {
	e      *env
	v      view[T]
	r      *resource
	o      *getOptions
	single bool // one name was given: the object itself, not a list

	table *table
	// first collects what was there when a watch began, so that columns fit.
	first  [][]string
	isLive bool
	// lastName is what was last printed with -o name.
	lastName string
}

func newPrinter[T any](e *env, v view[T], r *resource, names []string, o *getOptions) *printer[T] {
	p := &printer[T]{e: e, v: v, r: r, o: o, single: len(names) == 1}
	header := append([]string{}, v.header...)
	if o.output == "wide" {
		header = append(header, v.wide...)
	}
	if p.withNamespace() {
		header = append([]string{"NAMESPACE"}, header...)
	}
	if p.withEvents() {
		header = append([]string{"EVENT"}, header...)
	}
	p.table = newTable(header...)
	if p.withEvents() {
		p.table.widths[0] = len(control.Modified)
	}
	p.table.printed = o.noHeaders
	if colors(e.out) {
		p.table.color = stateColor
	}
	return p
}

func (p *printer[T]) withNamespace() bool { return p.r.namespaced && p.o.all }
func (p *printer[T]) withEvents() bool    { return p.o.watch && p.o.events }

func (p *printer[T]) tabular() bool {
	return p.o.output == "" || p.o.output == "table" || p.o.output == "wide"
}

// rows gives the cells of an object, for the columns that are shown.
func (p *printer[T]) rows(event string, obj T) [][]string {
	var out [][]string
	for _, cells := range p.v.rows(obj) {
		if p.o.output != "wide" {
			cells = cells[:len(p.v.header)]
		}
		var row []string
		if p.withEvents() {
			row = append(row, event)
		}
		if p.withNamespace() {
			row = append(row, p.v.namespace(obj))
		}
		out = append(out, append(row, cells...))
	}
	return out
}

// list prints all at once.
func (p *printer[T]) list(all []T) error {
	if p.tabular() {
		var rows [][]string
		for _, obj := range all {
			rows = append(rows, p.rows("", obj)...)
		}
		return p.table.print(p.e.out, rows)
	}
	if p.o.output == "name" {
		for _, obj := range all {
			if err := p.printName(obj); err != nil {
				return err
			}
		}
		return nil
	}
	if p.single && len(all) == 1 {
		return p.object(p.v.typed(all[0]))
	}
	items := make([]any, 0, len(all))
	for _, obj := range all {
		items = append(items, p.v.typed(obj))
	}
	return p.object(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
}

// event prints one event of a watch.
func (p *printer[T]) event(ev control.Event[T]) error {
	switch {
	case p.tabular():
		rows := p.rows(ev.Type, ev.Object)
		if !p.isLive {
			p.first = append(p.first, rows...)
			return nil
		}
		return p.table.print(p.e.out, rows)
	case p.o.output == "name":
		return p.printName(ev.Object)
	}
	if p.o.output == "yaml" {
		if _, err := fmt.Fprintln(p.e.out, "---"); err != nil {
			return err
		}
	}
	if p.withEvents() {
		return p.object(map[string]any{"type": ev.Type, "object": p.v.typed(ev.Object)})
	}
	return p.object(p.v.typed(ev.Object))
}

// synced prints what was there when the watch began.
func (p *printer[T]) synced() error {
	p.isLive = true
	if !p.tabular() {
		return nil
	}
	return p.table.print(p.e.out, p.first)
}

func (p *printer[T]) printName(obj T) error {
	name := p.r.aliases[0] + "/" + p.v.name(obj)
	if name == p.lastName && !p.isLive {
		return nil // a Service has several frontends and slices
	}
	p.lastName = name
	_, err := fmt.Fprintln(p.e.out, name)
	return err
}

func (p *printer[T]) object(v any) error { return printObject(p.e, p.o.output, v) }

// printObject writes v as JSON or YAML.
func printObject(e *env, format string, v any) error {
	var data []byte
	var err error
	if format == "yaml" {
		data, err = yaml.Marshal(v)
	} else {
		data, err = json.MarshalIndent(v, "", "    ")
		data = append(data, '\n')
	}
	if err != nil {
		return err
	}
	_, err = e.out.Write(data)
	return err
}
