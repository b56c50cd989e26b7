package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/test/cluster/k8s"
)

func newStatus(e *env) *cobra.Command {
	output := "table"
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how a cluster does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.open()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), output, s)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", output, "table, json or yaml")
	return cmd
}

func printStatus(w io.Writer, format string, s k8s.Status) error {
	switch format {
	case "table":
		return printTable(w, s)
	case "json":
		b, err := json.MarshalIndent(s, "", "    ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	case "yaml":
		b, err := yaml.Marshal(s)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	return fmt.Errorf("-o %s: must be table, json or yaml", format)
}

// printTable prints what people want to know, in kubectl's manner.
func printTable(w io.Writer, s k8s.Status) error {
	version := s.Version
	if version == "" {
		version = s.Kubernetes
	}
	age := time.Since(s.Created).Round(time.Second)
	fmt.Fprintf(w, "Cluster %s: Kubernetes %s, proxy %s, CNI %s, %s, up for %v\n", s.Name, version, s.Proxy, s.CNI, s.IPFamily, age)
	if !s.Ready {
		fmt.Fprintln(w, "It is being started.")
	}
	if s.Error != "" {
		fmt.Fprintf(w, "The API server does not answer: %s\n", s.Error)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tREADY\tPROXY\tRESTARTS\tZONE\tADDRESSES\tKUBELET\tRUNTIME")
	for _, n := range s.Nodes {
		var addrs []string
		for _, a := range n.Addresses {
			addrs = append(addrs, a.String())
		}
		row := []string{
			n.Name, n.State, n.Ready, shortProxy(n.Proxy), strconv.Itoa(n.Restarts), n.Zone, strings.Join(addrs, ","),
			orNone(n.Kubelet), orNone(n.Runtime),
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "CONTROL PLANE\tSTATE\tPID\tRESTARTS\tAGE")
	for _, p := range s.ControlPlane {
		age := time.Since(p.Started).Round(time.Second).String()
		if p.Started.IsZero() {
			age = none
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\n", p.Name, p.State, p.PID, p.Restarts, age)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var notes []string
	for _, n := range s.Nodes {
		if n.Message != "" {
			notes = append(notes, n.Name+" is not ready: "+n.Message)
		}
		if n.State == "Running" && shortProxy(n.Proxy) == "no" {
			notes = append(notes, n.Name+" has no proxy that serves: "+n.Proxy)
		}
	}
	for _, part := range []struct {
		title string
		lines []string
	}{{"Faults in force", s.Faults}, {"Problems", notes}} {
		if len(part.lines) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s:\n  %s\n", part.title, strings.Join(part.lines, "\n  ")); err != nil {
			return err
		}
	}
	return nil
}

// none is how kubectl shows that there is nothing.
const none = "<none>"

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

// shortProxy is the state of a node's proxy as the table shows it.
func shortProxy(state string) string {
	switch state {
	case "Serving":
		return "yes"
	case "none":
		return none
	}
	return "no"
}
