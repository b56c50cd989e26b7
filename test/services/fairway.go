package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	proxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/internal/agent"
	"github.com/fairwaynet/fairway/internal/nft"
	"github.com/fairwaynet/fairway/internal/store"
)

// Fairway is the agent with the nftables driver, in this process, fed by a
// store and no API server.
type Fairway struct{ Log *slog.Logger }

// Name returns "Fairway".
func (*Fairway) Name() string { return "Fairway" }

// Start implements Proxy.
func (p *Fairway) Start(ctx context.Context, t *Topology, cfg Config) (Instance, error) {
	k := &proxyv1alpha1.KubeProxyConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: "kubeproxy.config.k8s.io/v1alpha1", Kind: "KubeProxyConfiguration"},
		Mode:     "nftables", HostnameOverride: "n1",
		HealthzBindAddress: "127.0.0.1:10256", MetricsBindAddress: "127.0.0.1:10249",
	}
	cfg.Fill(k)
	b, err := yaml.Marshal(k)
	if err != nil {
		return nil, err
	}
	in := &fairwayInstance{topology: t, log: p.Log}
	if in.log == nil {
		in.log = slog.New(slog.DiscardHandler)
	}
	if in.config, _, err = agent.ParseConfig("test", b, nil); err != nil {
		return nil, err
	}
	if in.store, err = store.New(); err != nil {
		return nil, err
	}
	if err := in.Apply(ctx, append(Nodes(), ServiceCIDR())...); err != nil {
		return nil, err
	}
	return in, in.Resume(ctx)
}

type fairwayInstance struct {
	topology *Topology
	config   agent.Config
	store    *store.Store
	log      *slog.Logger
	created  int
	end      func()
}

// Resume starts a new agent and a new driver, as a new process would, and waits
// for its first apply.
func (in *fairwayInstance) Resume(ctx context.Context) error {
	ns := in.topology.Node().NS
	driver, err := nft.New(nft.Options{Netns: ns.Fd(), Log: in.log})
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{NodeName: "n1", Store: in.store, Driver: driver, Config: in.config, Netns: ns, Log: in.log})
	if err != nil {
		return errors.Join(err, driver.Close())
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- a.Run(run) }()
	in.end = func() {
		cancel()
		<-done
		_ = driver.Close()
	}
	select {
	case <-a.Synced():
		return nil
	case err := <-done:
		done <- err
		return fmt.Errorf("the agent ended: %w", err)
	case <-time.After(30 * time.Second):
		return errors.New("the agent has not applied anything in 30 s")
	}
}

func (in *fairwayInstance) Kill() { in.end() }

func (in *fairwayInstance) Stop() {
	in.end()
	_ = in.store.Close()
}

func (in *fairwayInstance) Apply(_ context.Context, objs ...Object) error {
	s := in.store
	for _, o := range objs {
		txn := s.DB.WriteTxn(s.Services, s.EndpointSlices, s.Nodes, s.ServiceCIDRs)
		var err error
		switch o := o.DeepCopyObject().(type) {
		case *corev1.Service:
			if old, ok := store.Get(txn, s.Services, o.Namespace, o.Name); ok {
				o.UID, o.CreationTimestamp = old.UID, old.CreationTimestamp
			} else {
				in.created++
				o.UID, o.CreationTimestamp = types.UID(fmt.Sprint(in.created)), metav1.Now()
			}
			if o.Spec.ExternalTrafficPolicy == "" && (o.Spec.Type != corev1.ServiceTypeClusterIP || len(o.Spec.ExternalIPs) > 0) {
				o.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
			}
			_, err = store.Put(txn, s.Services, o)
		case *discoveryv1.EndpointSlice:
			_, err = store.Put(txn, s.EndpointSlices, o)
		case *corev1.Node:
			_, err = store.Put(txn, s.Nodes, o)
		case *networkingv1.ServiceCIDR:
			_, err = store.Put(txn, s.ServiceCIDRs, o)
		default:
			err = fmt.Errorf("cannot apply a %T", o)
		}
		if err != nil {
			txn.Abort()
			return err
		}
		txn.Commit()
	}
	return nil
}

func (in *fairwayInstance) Delete(_ context.Context, objs ...Object) error {
	s := in.store
	for _, o := range objs {
		txn := s.DB.WriteTxn(s.Services, s.EndpointSlices)
		var err error
		switch o.(type) {
		case *corev1.Service:
			_, err = store.Delete(txn, s.Services, o.GetNamespace(), o.GetName())
		case *discoveryv1.EndpointSlice:
			_, err = store.Delete(txn, s.EndpointSlices, o.GetNamespace(), o.GetName())
		}
		if err != nil {
			txn.Abort()
			return err
		}
		txn.Commit()
	}
	return nil
}
