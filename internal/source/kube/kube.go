// Package kube is the source that lists and watches a cluster's API server and
// keeps the store equal to it.
//
// It is made for little memory and work at a large cluster: objects are decoded
// one by one from the stream straight into the store's tables, without a second
// cache; what nobody reads is dropped before it is decoded; strings that come
// again and again are shared.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/fairwaynet/fairway/internal/store"
)

// Options say what to follow.
type Options struct {
	// NodeName is the one Node that is followed. It must be set unless AllNodes is.
	NodeName string
	// AllNodes follows every Node.
	AllNodes bool
	// Log may be nil.
	Log *slog.Logger
}

// servedByOthers leaves out, as kube-proxy does, Services that ask for another
// proxy, headless Services, and the EndpointSlices of both: the endpoint slice
// controller copies these labels.
const servedByOthers = "!service.kubernetes.io/service-proxy-name,!" + corev1.IsHeadlessService

// Source follows one API server. Run may be called once.
type Source struct {
	followers []func(context.Context)
}

// New prepares to follow. The tables that the Source fills count as not
// initialized from now on, until Run has read each of them once.
//
// cfg's rate limits and time limit are not used: a handful of long requests
// needs none.
func New(cfg *rest.Config, st *store.Store, o Options) (*Source, error) {
	if o.NodeName == "" && !o.AllNodes {
		return nil, errors.New("no node name")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	clients, err := newClients(cfg, corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion, networkingv1.SchemeGroupVersion)
	if err != nil {
		return nil, fmt.Errorf("API server client: %w", err)
	}
	nodes := metav1.ListOptions{}
	if !o.AllNodes {
		nodes.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, o.NodeName).String()
	}
	txn := st.DB.WriteTxn(st.Services, st.EndpointSlices, st.Nodes, st.ServiceCIDRs)
	defer txn.Commit()
	s := &Source{}
	add(s, txn, &follower[corev1.Service, *corev1.Service]{
		log: o.Log, st: st, table: st.Services, trim: trimService,
		client: clients[corev1.SchemeGroupVersion], resource: "services",
		selector: metav1.ListOptions{LabelSelector: servedByOthers},
	})
	add(s, txn, &follower[discoveryv1.EndpointSlice, *discoveryv1.EndpointSlice]{
		log: o.Log, st: st, table: st.EndpointSlices, trim: make(pointers).trimSlice,
		client: clients[discoveryv1.SchemeGroupVersion], resource: "endpointslices",
		selector: metav1.ListOptions{LabelSelector: servedByOthers},
	})
	add(s, txn, &follower[corev1.Node, *corev1.Node]{
		log: o.Log, st: st, table: st.Nodes, trim: trimNode,
		client: clients[corev1.SchemeGroupVersion], resource: "nodes", selector: nodes,
	})
	add(s, txn, &follower[networkingv1.ServiceCIDR, *networkingv1.ServiceCIDR]{
		log: o.Log, st: st, table: st.ServiceCIDRs, trim: trimServiceCIDR, optional: true, // since Kubernetes 1.33
		client: clients[networkingv1.SchemeGroupVersion], resource: "servicecidrs",
	})
	return s, nil
}

func add[T any, P apiObject[T]](s *Source, txn statedb.WriteTxn, f *follower[T, P]) {
	f.done = f.table.RegisterInitializer(txn, fmt.Sprintf("source/kube %p", s))
	s.followers = append(s.followers, f.run)
}

// Run follows the API server until ctx ends, which is no error. It outlives
// restarts of the API server: it goes on where it was, or reads everything again
// and removes what is gone.
func (s *Source) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, f := range s.followers {
		wg.Go(func() { f(ctx) })
	}
	wg.Wait()
	return nil
}

// scheme knows only what every API server's answers have in common (Status) and
// the options of requests. The objects themselves are decoded without one.
var scheme = runtime.NewScheme()

const protobuf = "application/vnd.kubernetes.protobuf"

// newClients returns a client for each group. They share connections.
func newClients(cfg *rest.Config, groups ...schema.GroupVersion) (map[schema.GroupVersion]rest.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.RateLimiter = -1, nil
	cfg.Timeout = 0               // it would end each watch
	cfg.DisableCompression = true // costs more time than it saves on a cluster's network
	cfg.ContentType, cfg.AcceptContentTypes = protobuf, protobuf
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	if cfg.UserAgent == "" {
		cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	clients := map[schema.GroupVersion]rest.Interface{}
	for _, gv := range groups {
		c := rest.CopyConfig(cfg)
		c.GroupVersion, c.APIPath = &gv, "/apis"
		if gv.Group == "" {
			c.APIPath = "/api"
		}
		if clients[gv], err = rest.RESTClientForConfigAndClient(c, hc); err != nil {
			return nil, err
		}
	}
	return clients, nil
}

var parameters = func() runtime.ParameterCodec {
	for _, gv := range []schema.GroupVersion{corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion, networkingv1.SchemeGroupVersion} {
		metav1.AddToGroupVersion(scheme, gv)
	}
	return runtime.NewParameterCodec(scheme)
}()
