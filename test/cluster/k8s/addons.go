package k8s

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/fairwaynet/fairway/deploy"
	"github.com/fairwaynet/fairway/test/cluster/build"
)

//go:embed manifests/coredns.yaml
var coreDNS []byte

// fieldManager owns the fields of what the cluster itself applies.
const fieldManager = "fairway-test-cluster"

// nodeInfo is a node and its addresses, the primary family's first.
type nodeInfo struct {
	Name  string
	Addrs []netip.Addr
}

// addonsEnv is what the parts of a cluster that run on it need to know of it.
type addonsEnv struct {
	Client kubernetes.Interface
	Config *rest.Config
	// Proxy and Kubernetes are those of Options.
	Proxy, Kubernetes string
	// Families are "IPv4" and "IPv6", the primary one first.
	Families []string
	// ClusterCIDRs are what pods have addresses of.
	ClusterCIDRs []netip.Prefix
	// APIServer is its own address, which needs no Service proxy.
	APIServer netip.AddrPort
	// DNS are the addresses of the Service kube-dns, one a family.
	DNS   []netip.Addr
	Nodes []nodeInfo
	// Serving returns when the Service proxies of all nodes serve.
	Serving func(context.Context) error
	Log     *slog.Logger
}

// addons applies what a cluster is given when its API server is ready: cluster
// DNS, and Fairway's agent where it is the proxy. Applying again changes nothing.
func addons(ctx context.Context, env addonsEnv) error {
	if env.Proxy == "fairway" {
		agent, err := env.agent()
		if err != nil {
			return err
		}
		if err := apply(ctx, env.Config, agent); err != nil {
			return err
		}
		// DNS reaches the API server through the agent. If it started before, it
		// would wait longer and longer from one try to the next.
		if err := env.Serving(ctx); err != nil {
			return err
		}
	}
	dns, err := env.dns()
	if err != nil {
		return err
	}
	return apply(ctx, env.Config, dns)
}

// dns is CoreDNS, at the cluster's own DNS addresses.
func (env addonsEnv) dns() ([]*unstructured.Unstructured, error) {
	objects, err := decode(coreDNS)
	if err != nil {
		return nil, fmt.Errorf("manifests/coredns.yaml: %w", err)
	}
	service, err := find(objects, "Service", "kube-dns")
	if err != nil {
		return nil, err
	}
	var ips, families []any
	for i, a := range env.DNS {
		ips, families = append(ips, a.String()), append(families, env.Families[i])
	}
	policy := "SingleStack"
	if len(families) > 1 {
		policy = "RequireDualStack"
	}
	spec := service.Object["spec"].(map[string]any)
	spec["clusterIP"], spec["clusterIPs"], spec["ipFamilies"], spec["ipFamilyPolicy"] = ips[0], ips, families, policy
	return objects, nil
}

// agent is deploy/agent.yaml with its two marked values set, and with what the
// nodes' kube-proxy is told, too: what pods' addresses are, and that NodePorts are
// at localhost as well, which some of Kubernetes' own tests ask for.
func (env addonsEnv) agent() ([]*unstructured.Unstructured, error) {
	objects, err := decode(deploy.Agent)
	if err != nil {
		return nil, fmt.Errorf("deploy/agent.yaml: %w", err)
	}
	config, err := find(objects, "ConfigMap", "fairway-agent")
	if err != nil {
		return nil, err
	}
	file, _, err := unstructured.NestedString(config.Object, "data", "config.conf")
	if err != nil || file == "" {
		return nil, errors.Join(errors.New("deploy/agent.yaml: the ConfigMap should have config.conf"), err)
	}
	var cidrs []string
	for _, p := range env.ClusterCIDRs {
		cidrs = append(cidrs, p.String())
	}
	file += "clusterCIDR: " + strings.Join(cidrs, ",") + "\nnodePortAddresses: [primary, localhost]\n"
	if err := unstructured.SetNestedField(config.Object, file, "data", "config.conf"); err != nil {
		return nil, err
	}
	set, err := find(objects, "DaemonSet", "fairway-agent")
	if err != nil {
		return nil, err
	}
	containers, _, err := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers")
	if err != nil || len(containers) != 1 {
		return nil, errors.Join(errors.New("deploy/agent.yaml: the DaemonSet should have one container"), err)
	}
	container := containers[0].(map[string]any)
	container["image"] = build.FairwayImageRef
	values := map[string]string{
		"KUBERNETES_SERVICE_HOST": env.APIServer.Addr().String(),
		"KUBERNETES_SERVICE_PORT": strconv.Itoa(int(env.APIServer.Port())),
	}
	variables, _, err := unstructured.NestedSlice(container, "env")
	if err != nil {
		return nil, fmt.Errorf("deploy/agent.yaml: env: %w", err)
	}
	for _, v := range variables {
		variable := v.(map[string]any)
		if value, ok := values[fmt.Sprint(variable["name"])]; ok {
			variable["value"] = value
			delete(values, fmt.Sprint(variable["name"]))
		}
	}
	if len(values) > 0 {
		return nil, fmt.Errorf("deploy/agent.yaml: the container has no env to set of %v", values)
	}
	container["env"] = variables
	// Kubernetes' own test of a Service proxy that is restarted looks for this.
	if err := unstructured.SetNestedField(set.Object, "kube-proxy", "spec", "template", "metadata", "labels", "k8s-app"); err != nil {
		return nil, err
	}
	return objects, unstructured.SetNestedSlice(set.Object, containers, "spec", "template", "spec", "containers")
}

func decode(manifest []byte) (objects []*unstructured.Unstructured, err error) {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := d.Decode(&u.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if len(u.Object) > 0 {
			objects = append(objects, u)
		}
	}
}

func find(objects []*unstructured.Unstructured, kind, name string) (*unstructured.Unstructured, error) {
	for _, o := range objects {
		if o.GetKind() == kind && o.GetName() == name {
			return o, nil
		}
	}
	return nil, fmt.Errorf("no %s %s in the manifest", kind, name)
}

// apply makes the API server hold the objects, by server-side apply.
func apply(ctx context.Context, config *rest.Config, objects []*unstructured.Unstructured) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	disco, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	groups, err := restmapper.GetAPIGroupResources(disco.Discovery())
	if err != nil {
		return fmt.Errorf("ask the API server for its resources: %w", err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	for _, o := range objects {
		gvk := o.GroupVersionKind()
		mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		var resource dynamic.ResourceInterface = client.Resource(mapping.Resource)
		if ns := o.GetNamespace(); ns != "" {
			resource = client.Resource(mapping.Resource).Namespace(ns)
		}
		_, err = resource.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}
