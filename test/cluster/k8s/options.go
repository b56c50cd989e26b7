package k8s

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

// Options say what cluster is to be. The zero value is one of three nodes, with
// Fairway's agent, IPv4, and the newest Kubernetes known.
type Options struct {
	// Name tells clusters apart. Empty means DefaultName.
	Name string `json:"name"`
	// Nodes is how many there are; they are called n1, n2 and so on. 0 means 3.
	Nodes int `json:"nodes"`
	// Proxy is what serves Services: "fairway", kube-proxy in mode "nftables" or
	// "iptables", or "none". Empty means "fairway".
	Proxy string `json:"proxy"`
	// CNI is what connects pods: "bridge". Empty means that.
	CNI string `json:"cni"`
	// IPFamily is "ipv4", "ipv6" or "dual", which has IPv4 first. Empty means "ipv4".
	IPFamily string `json:"ipFamily"`
	// Kubernetes is a minor release, such as "1.37". Empty means the newest.
	Kubernetes string `json:"kubernetes"`
	// Images are tar files that every node imports when it starts.
	Images []string `json:"images,omitempty"`
	// Verbose makes the control plane log much more.
	Verbose bool `json:"verbose,omitempty"`
	// Program is the path of the test/cluster program, which becomes the
	// supervisor. Empty means that it is built.
	Program string `json:"-"`
}

// DefaultName is the name of a cluster that was given none.
const DefaultName = "test"

// maxNodes is bounded by sense: each node is some hundred megabytes of memory.
const maxNodes = 50

// The values of Options, the default first.
var (
	proxies    = []string{"fairway", "nftables", "iptables", "none"}
	cnis       = []string{"bridge"}
	ipFamilies = []string{"ipv4", "ipv6", "dual"}
)

// nameRule is for what becomes the name of a directory and of a cgroup.
var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

func checkName(name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("name %q: must be 1 to 32 lower-case letters, digits or '-', and begin and end with a letter or digit", name)
	}
	return nil
}

// complete returns o with every default set, or what is wrong with it.
func (o Options) complete() (Options, error) {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&o.Name, DefaultName)
	set(&o.Proxy, proxies[0])
	set(&o.CNI, cnis[0])
	set(&o.IPFamily, ipFamilies[0])
	set(&o.Kubernetes, build.Kubernetes()[0])
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	var errs []error
	one := func(what, value string, of []string) {
		if !slices.Contains(of, value) {
			errs = append(errs, fmt.Errorf("%s %q: must be one of %s", what, value, strings.Join(of, ", ")))
		}
	}
	errs = append(errs, checkName(o.Name))
	one("proxy", o.Proxy, proxies)
	if o.CNI == "fairway" {
		errs = append(errs, errors.New(`cni "fairway": Fairway has no CNI plugin yet; use "bridge"`))
	} else {
		one("cni", o.CNI, cnis)
	}
	one("ip-family", o.IPFamily, ipFamilies)
	one("kubernetes", o.Kubernetes, build.Kubernetes())
	if o.Nodes < 1 || o.Nodes > maxNodes {
		errs = append(errs, fmt.Errorf("nodes %d: must be 1 to %d", o.Nodes, maxNodes))
	}
	return o, errors.Join(errs...)
}
