package workload

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/endpointslice"
	"k8s.io/endpointslice/topologycache"
	endpointsliceutil "k8s.io/endpointslice/util"
	"k8s.io/klog/v2"

	"github.com/fairwaynet/fairway/internal/store"
)

const (
	// sliceController is the name of Kubernetes' own EndpointSlice controller,
	// in the label endpointslice.kubernetes.io/managed-by.
	sliceController = "endpointslice-controller.k8s.io"
	// maxEndpoints of one slice is kube-controller-manager's default.
	maxEndpoints = 100
)

// discard takes the log lines of Kubernetes' code: what a user should know is
// a Problem.
var discard = klog.Logger{}

// slicer keeps EndpointSlices with Kubernetes' own reconciler. The reconciler
// speaks to an API server; here it speaks to the cluster store.
type slicer struct {
	rec      *endpointslice.Reconciler
	topology *topologycache.TopologyCache
	api      *sliceAPI
	// current are the slices made from selectors, by Service and slice name.
	current map[string]map[string]*discoveryv1.EndpointSlice
}

func newSlicer(nodes corelisters.NodeLister) *slicer {
	s := &slicer{
		topology: topologycache.NewTopologyCache(),
		api:      &sliceAPI{},
		current:  map[string]map[string]*discoveryv1.EndpointSlice{},
	}
	s.rec = endpointslice.NewReconciler(s.api, nodes, maxEndpoints,
		endpointsliceutil.NewEndpointSliceTracker(), s.topology, discardEvents{}, sliceController,
		endpointslice.WithPreferSameTrafficDistributionEnabled(true))
	return s
}

// reconcile brings the slices of one Service up to date with the pods of its
// namespace.
func (s *slicer) reconcile(svc *corev1.Service, pods []*corev1.Pod) error {
	key := store.Key(svc)
	sel := labels.SelectorFromSet(svc.Spec.Selector)
	var selected []*corev1.Pod
	for _, p := range pods {
		if sel.Matches(labels.Set(p.Labels)) {
			selected = append(selected, p)
		}
	}
	if s.current[key] == nil {
		s.current[key] = map[string]*discoveryv1.EndpointSlice{}
	}
	s.api.slices = s.current[key]
	var existing []*discoveryv1.EndpointSlice
	for _, name := range sortedKeys(s.current[key]) {
		existing = append(existing, s.current[key][name])
	}
	// No trigger time: it is there to measure how long a controller takes.
	return s.rec.Reconcile(discard, svc, selected, existing, time.Time{})
}

// forget drops the slices of a Service that is gone or has no selector.
func (s *slicer) forget(ns, name string) {
	key := store.NameKey(ns, name)
	if _, ok := s.current[key]; !ok {
		return
	}
	delete(s.current, key)
	s.rec.DeleteService(ns, name)
	for _, t := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		s.topology.RemoveHints(key, t)
	}
}

// sliceAPI is as much of an API server's client as the reconciler uses. It
// holds the slices of one Service.
type sliceAPI struct {
	kubernetes.Interface
	discoveryclient.DiscoveryV1Interface
	discoveryclient.EndpointSliceInterface
	slices map[string]*discoveryv1.EndpointSlice
}

func (a *sliceAPI) DiscoveryV1() discoveryclient.DiscoveryV1Interface { return a }

func (a *sliceAPI) EndpointSlices(string) discoveryclient.EndpointSliceInterface { return a }

// Create gives the slice the first name that is free, so that names are the
// same in every run.
func (a *sliceAPI) Create(_ context.Context, s *discoveryv1.EndpointSlice, _ metav1.CreateOptions) (*discoveryv1.EndpointSlice, error) {
	for n := 0; ; n++ {
		s.Name = s.GenerateName + suffix(hashOf(s.Namespace, s.GenerateName, string(s.AddressType), strconv.Itoa(n)), 5)
		if a.slices[s.Name] == nil {
			break
		}
	}
	return a.put(s)
}

func (a *sliceAPI) Update(_ context.Context, s *discoveryv1.EndpointSlice, _ metav1.UpdateOptions) (*discoveryv1.EndpointSlice, error) {
	return a.put(s)
}

func (a *sliceAPI) put(s *discoveryv1.EndpointSlice) (*discoveryv1.EndpointSlice, error) {
	// The reconciler fills slices in the order of a Go map.
	slices.SortStableFunc(s.Endpoints, func(x, y discoveryv1.Endpoint) int {
		return cmp.Or(slices.Compare(x.Addresses, y.Addresses), cmp.Compare(targetName(x), targetName(y)))
	})
	s.UID = uidOf("EndpointSlice", s.Namespace, s.Name)
	a.slices[s.Name] = s
	return s, nil
}

func targetName(e discoveryv1.Endpoint) string {
	if e.TargetRef == nil {
		return ""
	}
	return e.TargetRef.Name
}

func (a *sliceAPI) Delete(_ context.Context, name string, _ metav1.DeleteOptions) error {
	if a.slices[name] == nil {
		return apierrors.NewNotFound(discoveryv1.Resource("endpointslices"), name)
	}
	delete(a.slices, name)
	return nil
}

// nodeLister gives the reconciler the nodes of the controller.
type nodeLister struct{ nodes map[string]*nodeState }

func (l nodeLister) List(sel labels.Selector) ([]*corev1.Node, error) {
	var out []*corev1.Node
	for _, name := range sortedKeys(l.nodes) {
		if n := l.nodes[name].obj; sel.Matches(labels.Set(n.Labels)) {
			out = append(out, n)
		}
	}
	return out, nil
}

func (l nodeLister) Get(name string) (*corev1.Node, error) {
	if n := l.nodes[name]; n != nil {
		return n.obj, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
}

// discardEvents is a record.EventRecorder nobody reads.
type discardEvents struct{ record.EventRecorder }

func (discardEvents) Event(runtime.Object, string, string, string) {}

// reconcileSlices returns the EndpointSlices of the cluster: those given by the
// manifests, and those made from selectors for the Services in dirty.
func (c *Controller) reconcileSlices(txn statedb.ReadTxn, m *store.Store, dirty map[string]bool, pods map[string][]*corev1.Pod) (map[string]*discoveryv1.EndpointSlice, error) {
	for key := range c.slicer.current {
		s := c.services[key]
		if s == nil || s.obj == nil || !selects(s.obj) {
			ns, name := splitKey(key)
			c.slicer.forget(ns, name)
		}
	}
	for _, key := range sortedKeys(dirty) {
		s := c.services[key]
		if s == nil || s.obj == nil || !selects(s.obj) {
			continue
		}
		if err := c.slicer.reconcile(s.obj, pods[s.obj.Namespace]); err != nil {
			return nil, fmt.Errorf("endpoints of Service %s: %w", key, err)
		}
	}
	out := map[string]*discoveryv1.EndpointSlice{}
	for given := range m.EndpointSlices.All(txn) {
		svc := c.services[store.NameKey(given.Namespace, given.Labels[discoveryv1.LabelServiceName])]
		if svc != nil && given.Labels[discoveryv1.LabelManagedBy] == sliceController && len(svc.src.Spec.Selector) > 0 {
			continue // from a dump: the slices are made anew
		}
		key := store.Key(given)
		if c.given[key].src != given {
			c.given[key] = givenSlice{given, sliceDefaults(given)}
		}
		out[key] = c.given[key].obj
	}
	for key := range c.given {
		if out[key] == nil {
			delete(c.given, key)
		}
	}
	for _, slices := range c.slicer.current {
		for _, s := range slices {
			key := store.Key(s)
			if out[key] != nil {
				c.problem("EndpointSlice", s.Namespace, s.Name, "metadata.name", "is the name of a slice made from a selector")
			}
			out[key] = s
		}
	}
	return out, nil
}

// selects reports whether the endpoints of a Service come from its selector.
func selects(s *corev1.Service) bool {
	return len(s.Spec.Selector) > 0 && s.Spec.Type != corev1.ServiceTypeExternalName
}

// givenSlice is an EndpointSlice of the manifests and what the cluster has for it.
type givenSlice struct{ src, obj *discoveryv1.EndpointSlice }

// sliceDefaults sets what the API server sets on an EndpointSlice.
func sliceDefaults(src *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s := src.DeepCopy()
	s.UID = uidOr(s.UID, "EndpointSlice", s.Namespace, s.Name)
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = new(string)
		}
		if p.Protocol == nil {
			tcp := corev1.ProtocolTCP
			p.Protocol = &tcp
		}
	}
	return s
}
