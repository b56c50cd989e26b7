package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/control"
)

// getOptions are the flags of "get".
type getOptions struct {
	output    string
	namespace string
	all       bool
	watch     bool
	events    bool
	selector  string
	noHeaders bool
}

// resource is a kind that "get" knows.
type resource struct {
	name       string   // "services"
	aliases    []string // "svc", "service"
	path       string   // of the control API
	namespaced bool
	get        func(context.Context, *env, *control.Client, *resource, []string, *getOptions) error
}

var resources = []*resource{
	{name: "services", aliases: []string{"service", "svc"}, path: "services", namespaced: true, get: getObjects(serviceView)},
	{name: "frontends", aliases: []string{"frontend", "fe"}, path: "frontends", namespaced: true, get: getObjects(frontendView)},
	{name: "endpoints", aliases: []string{"endpoint", "ep", "endpointslices", "endpointslice"}, path: "endpointslices", namespaced: true, get: getObjects(endpointView)},
	{name: "pods", aliases: []string{"pod", "po"}, path: "pods", namespaced: true, get: getObjects(podView)},
	{name: "nodes", aliases: []string{"node", "no"}, path: "nodes", get: getObjects(nodeView)},
	{name: "gateways", aliases: []string{"gateway", "gtw"}, path: "gateways", namespaced: true, get: getObjects(gatewayView)},
	{name: "routes", aliases: []string{"route", "httproutes", "httproute", "ingresses", "ingress", "ing"}, path: "routes", namespaced: true, get: getObjects(routeView)},
	{name: "backends", aliases: []string{"backend"}, path: "backends", namespaced: true, get: getObjects(backendView)},
}

func resourceNames() []string {
	var out []string
	for _, r := range resources {
		out = append(out, r.name)
	}
	return out
}

func findResource(name string) (*resource, error) {
	for _, r := range resources {
		if r.name == name || slices.Contains(r.aliases, name) {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%q is not known; there is: %s", name, strings.Join(resourceNames(), ", "))
}

func newGet(e *env) *cobra.Command {
	o := &getOptions{}
	cmd := &cobra.Command{
		Use:   "get services|frontends|endpoints|pods|nodes|gateways|routes|backends [NAME...]",
		Short: "List what runs",
		Long: `Lists Services, frontends (the addresses that Services answer at, what is
wanted there and what is applied), endpoints, pods or nodes of the running
sandbox or agent; or Gateways, routes with what each of their rules was asked,
and backends with how their endpoints are.`,
		Example: `  fairway get services -A
  fairway get routes -w
  fairway get frontends web -o wide
  fairway get pods -n shop -l app=web -w`,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return resourceNames(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, rest := args[0], args[1:]
			if k, name, ok := strings.Cut(kind, "/"); ok { // as "service/web"
				kind, rest = k, append([]string{name}, rest...)
			}
			r, err := findResource(kind)
			if err != nil {
				return err
			}
			if !slices.Contains([]string{"", "table", "wide", "json", "yaml", "name"}, o.output) {
				return fmt.Errorf("-o %s: must be table, wide, json, yaml or name", o.output)
			}
			if len(rest) > 0 && o.all && r.namespaced {
				return fmt.Errorf("a name and --all-namespaces do not go together; give the namespace with -n")
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			return r.get(cmd.Context(), e, c, r, rest, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "table", "output format: table, wide, json, yaml or name")
	f.StringVarP(&o.namespace, "namespace", "n", "default", "namespace to look in")
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "look in all namespaces")
	f.BoolVarP(&o.watch, "watch", "w", false, "go on and print what changes")
	f.BoolVar(&o.events, "output-watch-events", false, "with --watch, print what happened to each: ADDED, MODIFIED or DELETED")
	f.StringVarP(&o.selector, "selector", "l", "", "label selector, such as app=web,tier!=db (not for frontends)")
	f.BoolVar(&o.noHeaders, "no-headers", false, "leave the header of tables out")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "json", "yaml", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// view says how to show the objects of one resource.
type view[T any] struct {
	header []string
	wide   []string // more columns
	// rows gives the cells of one object, in the order of header and wide; most
	// kinds have one row.
	rows func(T) [][]string
	name func(T) string // without the kind
	// namespace is the one of the object.
	namespace func(T) string
	// typed fills in apiVersion and kind for output as JSON or YAML.
	typed func(T) any
}

// getObjects returns what "get" does for a view.
func getObjects[T any](v view[T]) func(context.Context, *env, *control.Client, *resource, []string, *getOptions) error {
	return func(ctx context.Context, e *env, c *control.Client, r *resource, names []string, o *getOptions) error {
		q := control.Query{Selector: o.selector}
		if r.namespaced && !o.all {
			q.Namespace = o.namespace
		}
		byService := r.path == "endpointslices"
		if len(names) == 1 && !byService {
			q.Name = names[0]
		}
		wanted := func(obj T) bool { return len(names) == 0 || slices.Contains(names, v.name(obj)) }
		p := newPrinter(e, v, r, names, o)
		if o.watch {
			return control.Watch(ctx, c, r.path, q, func(ev control.Event[T]) error {
				if ev.Type == control.Bookmark {
					return p.synced()
				}
				if !wanted(ev.Object) {
					return nil
				}
				return p.event(ev)
			})
		}
		all, err := control.Get[T](ctx, c, r.path, q)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(obj T) bool { return !wanted(obj) })
		for _, n := range names {
			if !slices.ContainsFunc(all, func(obj T) bool { return v.name(obj) == n }) {
				err = fmt.Errorf("%s %q not found", r.name, n)
				if r.namespaced {
					err = fmt.Errorf("%s %q not found in namespace %s", r.name, n, o.namespace)
				}
			}
		}
		if len(all) == 0 && err == nil && p.tabular() {
			where := ""
			if r.namespaced && !o.all {
				where = " in namespace " + o.namespace
			}
			fmt.Fprintf(e.err, "No %s found%s.\n", r.name, where)
			return nil
		}
		if len(all) > 0 || err == nil {
			if perr := p.list(all); perr != nil {
				return perr
			}
		}
		return err
	}
}

// typedObject returns a copy of obj that says what it is.
func typedObject[P interface {
	metav1.Object
	*T
}, T any](obj P, set func(P)) P {
	c := *obj
	set(&c)
	return &c
}

func typedService(s *corev1.Service) any {
	return typedObject(s, func(c *corev1.Service) { c.APIVersion, c.Kind = "v1", "Service" })
}

func typedPod(s *corev1.Pod) any {
	return typedObject(s, func(c *corev1.Pod) { c.APIVersion, c.Kind = "v1", "Pod" })
}

func typedNode(s *corev1.Node) any {
	return typedObject(s, func(c *corev1.Node) { c.APIVersion, c.Kind = "v1", "Node" })
}

func typedSlice(s *discoveryv1.EndpointSlice) any {
	return typedObject(s, func(c *discoveryv1.EndpointSlice) { c.APIVersion, c.Kind = "discovery.k8s.io/v1", "EndpointSlice" })
}
