package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/internal/explain"
	"github.com/fairwaynet/fairway/internal/gateway"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
	"github.com/fairwaynet/fairway/internal/source/dir"
	"github.com/fairwaynet/fairway/internal/store"
	"github.com/fairwaynet/fairway/internal/workload"
)

// noMatch is the exit code of "explain route" where no rule takes the request.
const noMatch = 2

func newExplain(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain route URL",
		Short: "Tell what would answer a request, and why",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.New("what should be explained? There is: fairway explain route URL")
		},
	}
	cmd.AddCommand(newExplainRoute(e))
	return cmd
}

// explainOptions are the flags of "explain route".
type explainOptions struct {
	paths   []string
	headers []string
	method  string
	gateway string
	output  string
}

func newExplainRoute(e *env) *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:     "route URL",
		Aliases: []string{"request"},
		Short:   "Tell which listener, route, rule and backend would answer a request",
		Long: `Tells which listener, route, rule and backends would answer a request, and what
keeps each of the others from it. Nothing is sent.

It asks the running sandbox or gateway; with -f it reads manifests, and nothing
needs to run. The tables are those that requests are matched with. In the URL
http, https, tls (a TLS server name), tcp and udp may stand; a port on localhost
means the listener that is offered there.

Exit code: 0 if a rule takes the request, 2 if none does, 1 after an error.`,
		Example: `  fairway explain route http://localhost:8080/cart -H 'x-env: test'
  fairway explain route -f examples/ab-canary http://shop.example.com/ -X POST`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("want one URL: fairway explain route http://shop.example.com/cart")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"table", "json", "yaml"}, o.output) {
				return fmt.Errorf("-o %s: must be table, json or yaml", o.output)
			}
			r, err := o.request(args[0])
			if err != nil {
				return err
			}
			answers, err := o.ask(cmd.Context(), e, r)
			if err != nil {
				return err
			}
			if len(answers) == 0 {
				if !r.Gateway.IsZero() {
					return &ExitError{noMatch, fmt.Errorf("the gateway %s has no %s listener at port %d; see \"fairway get gateways -A\"", o.gateway, r.Protocol, r.Port)}
				}
				return &ExitError{noMatch, fmt.Errorf("no gateway has a %s listener at port %d; see \"fairway get gateways -A\"", r.Protocol, r.Port)}
			}
			if o.output == "table" {
				for i := range answers {
					if i > 0 {
						fmt.Fprintln(e.out)
					}
					printAnswer(e, &answers[i])
				}
			} else if err := printObject(e, o.output, map[string]any{"items": answers}); err != nil {
				return err
			}
			if !slices.ContainsFunc(answers, func(a explain.Answer) bool { return a.Matched() }) {
				return &ExitError{Code: noMatch}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.paths, "filename", "f", nil, "manifests to read instead of asking what runs; may be given several times")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "a header, as \"name: value\"; may be given several times; Host replaces that of the URL")
	f.StringVarP(&o.method, "request", "X", "GET", "the method")
	f.StringVar(&o.gateway, "gateway", "", "ask only this Gateway, as namespace/name, or this IngressClass")
	f.StringVarP(&o.output, "output", "o", "table", "output format: table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("request", cobra.FixedCompletions([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// schemes are what a URL may begin with: what a listener speaks, and its usual port.
var schemes = map[string]struct {
	protocol model.ListenerProtocol
	port     uint16
}{
	"http":  {model.ListenHTTP, 80},
	"https": {model.ListenHTTPS, 443},
	"tls":   {model.ListenTLS, 443},
	"tcp":   {model.ListenTCP, 0},
	"udp":   {model.ListenUDP, 0},
}

// request reads the URL and the flags.
func (o *explainOptions) request(text string) (explain.Request, error) {
	var r explain.Request
	if !strings.Contains(text, "://") {
		text = "http://" + text // as curl does
	}
	u, err := url.Parse(text)
	if err != nil {
		return r, err
	}
	s, ok := schemes[u.Scheme]
	if !ok {
		return r, fmt.Errorf("%s: the scheme must be http, https, tls, tcp or udp", text)
	}
	r = explain.Request{Protocol: s.protocol, Port: s.port, Connect: u.Hostname(), Host: strings.ToLower(u.Host), Method: o.method, Path: u.RequestURI()}
	if u.User != nil {
		return r, fmt.Errorf("give credentials as a header: -H 'authorization: ...'")
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return r, fmt.Errorf("%s: %s is not a port", text, p)
		}
		r.Port = uint16(n)
	}
	if r.Port == 0 {
		return r, fmt.Errorf("%s: give a port, as in %s://%s:5432", text, u.Scheme, u.Hostname())
	}
	if s.protocol == model.ListenTLS || s.protocol == model.ListenTCP || s.protocol == model.ListenUDP {
		r.Path, r.Method, r.Host = "/", "", strings.ToLower(u.Hostname())
	}
	if net.ParseIP(r.Host) != nil && !isHTTP(s.protocol) {
		r.Host = "" // no server name
	}
	for _, h := range o.headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.ToLower(strings.TrimSpace(name)); !ok || name == "" {
			return r, fmt.Errorf("-H %q: must be \"name: value\"", h)
		}
		if value = strings.TrimSpace(value); name == "host" {
			r.Host = strings.ToLower(value)
			continue
		}
		r.Headers = append(r.Headers, model.Header{Name: name, Value: value})
	}
	if o.gateway != "" {
		ns, name, ok := strings.Cut(o.gateway, "/")
		if !ok {
			ns, name = "", o.gateway
		}
		r.Gateway = model.ObjectName{Namespace: ns, Name: name}
	}
	return r, nil
}

func isHTTP(p model.ListenerProtocol) bool { return p == model.ListenHTTP || p == model.ListenHTTPS }

// ask asks what runs, or the manifests.
func (o *explainOptions) ask(ctx context.Context, e *env, r explain.Request) ([]explain.Answer, error) {
	if len(o.paths) == 0 {
		c, err := e.dial()
		if err != nil {
			return nil, fmt.Errorf("%w; or read manifests with -f PATH", err)
		}
		defer c.Close()
		return c.Explain(ctx, r)
	}
	m, stop, err := compileManifests(ctx, e, o.paths)
	if err != nil {
		return nil, err
	}
	defer stop()
	return m.Explain(r)
}

// compileManifests reads manifests and compiles what Gateways would serve, once.
// What is wrong with the files is said on stderr.
func compileManifests(ctx context.Context, e *env, paths []string) (*gateway.Manager, func(), error) {
	manifests, err := store.New()
	if err != nil {
		return nil, nil, err
	}
	cluster, err := store.New()
	if err != nil {
		return nil, nil, err
	}
	source, err := dir.New(dir.Options{Paths: paths, Stdin: e.in, Store: manifests})
	if err != nil {
		return nil, nil, err
	}
	report, err := source.Load()
	if err != nil {
		return nil, nil, err
	}
	for _, p := range report.Problems {
		fmt.Fprintln(e.err, p)
	}
	problems, err := workload.NewController(workload.Config{}).Reconcile(manifests, cluster)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range problems {
		fmt.Fprintln(e.err, p)
	}
	m, err := gateway.New(gateway.Options{
		Config: manifests, Cluster: cluster, ImplicitClasses: true,
		Route: route.Options{SelfSigned: true, ClusterDomain: clusterDomain},
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop := func() {
		cancel()
		<-done
		_ = manifests.Close()
		_ = cluster.Close()
	}
	select {
	case <-m.Ready():
		return m, stop, nil
	case err := <-done:
		cancel()
		return nil, nil, errors.Join(err, ctx.Err(), os.ErrClosed)
	}
}

// printAnswer shows one answer for people.
func printAnswer(e *env, a *explain.Answer) {
	paint := func(code, text string) string {
		if !colors(e.out) {
			return text
		}
		return code + text + colorOff
	}
	fact := func(name, value string) {
		if value != "" {
			fmt.Fprintf(e.out, "%-9s %s\n", name, value)
		}
	}
	fact("gateway", a.Gateway)
	fact("listener", orNone(a.Listener))
	if a.Matched() {
		rule := fmt.Sprintf("rules[%d]", a.Rule)
		if a.RuleName != "" {
			rule += " " + a.RuleName
		}
		fact("route", a.Route)
		fact("rule", rule)
		fact("match", a.Match)
	} else {
		fact("route", none)
	}
	for i, f := range a.Filters {
		name := ""
		if i == 0 {
			name = "filters"
		}
		fmt.Fprintf(e.out, "%-9s %s\n", name, f)
	}
	for i, b := range a.Backends {
		name := ""
		if i == 0 {
			name = "backends"
		}
		text := fmt.Sprintf("%s %s%%", b.Backend, strconv.FormatFloat(b.Percent, 'f', -1, 64))
		if b.Invalid != "" {
			text += ", answered with 500: " + b.Invalid
		}
		fmt.Fprintf(e.out, "%-9s %s\n", name, text)
	}
	answer := a.Why
	if a.Status != 0 {
		answer = fmt.Sprintf("%d: %s", a.Status, a.Why)
	}
	code := colorGreen
	if !a.Matched() || a.Status >= 400 {
		code = colorRed
	}
	fact("answer", paint(code, answer))
	if len(a.Others) == 0 {
		return
	}
	fmt.Fprintln(e.out, "\nnot these:")
	t := newTable("", "")
	t.printed = true
	var rows [][]string
	for _, o := range a.Others {
		rows = append(rows, []string{"  " + o.What, o.Why})
	}
	_ = t.print(e.out, rows)
}
