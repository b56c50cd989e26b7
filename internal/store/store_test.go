package store

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func service(ns, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
}

func TestGetAndDelete(t *testing.T) {
	s := newStore(t)
	txn := s.DB.WriteTxn(s.Services, s.Nodes)
	for _, svc := range []*corev1.Service{service("a", "x"), service("a", "y"), service("ab", "x")} {
		if changed, err := Put(txn, s.Services, svc); err != nil || !changed {
			t.Fatalf("Put: %v %v", changed, err)
		}
	}
	if _, err := Put(txn, s.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}); err != nil {
		t.Fatal(err)
	}
	txn.Commit()

	r := s.DB.ReadTxn()
	if svc, ok := Get(r, s.Services, "a", "y"); !ok || svc.Name != "y" {
		t.Errorf("Get a/y: %v %v", svc, ok)
	}
	if _, ok := Get(r, s.Services, "a", "z"); ok {
		t.Error("Get a/z found something")
	}
	if _, ok := Get(r, s.Nodes, "", "n1"); !ok {
		t.Error("Get node n1 found nothing")
	}
	var got []string
	for svc := range s.Services.Prefix(r, InNamespace[*corev1.Service]("a")) {
		got = append(got, Key(svc))
	}
	if want := []string{"a/x", "a/y"}; !slices.Equal(got, want) {
		t.Errorf("in namespace a: %v, want %v", got, want)
	}

	txn = s.DB.WriteTxn(s.Services)
	if deleted, err := Delete(txn, s.Services, "a", "x"); err != nil || !deleted {
		t.Errorf("Delete a/x: %v %v", deleted, err)
	}
	if deleted, err := Delete(txn, s.Services, "a", "x"); err != nil || deleted {
		t.Errorf("Delete a/x again: %v %v", deleted, err)
	}
	txn.Commit()
	if n := s.Services.NumObjects(s.DB.ReadTxn()); n != 2 {
		t.Errorf("%d services left, want 2", n)
	}
}

func TestPutKeepsRevisionOfEqualObject(t *testing.T) {
	s := newStore(t)
	put := func(obj *corev1.Service) bool {
		txn := s.DB.WriteTxn(s.Services)
		defer txn.Commit()
		changed, err := Put(txn, s.Services, obj)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	put(service("a", "x"))
	rev := s.Services.Revision(s.DB.ReadTxn())
	if put(service("a", "x")) {
		t.Error("an equal object counted as changed")
	}
	if got := s.Services.Revision(s.DB.ReadTxn()); got != rev {
		t.Errorf("revision went from %d to %d", rev, got)
	}
	other := service("a", "x")
	other.Labels = map[string]string{"l": "v"}
	if !put(other) {
		t.Error("a changed object counted as equal")
	}
}

func TestSlicesOfService(t *testing.T) {
	s := newStore(t)
	slice := func(ns, name, svc string) *discoveryv1.EndpointSlice {
		e := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		if svc != "" {
			e.Labels = map[string]string{discoveryv1.LabelServiceName: svc}
		}
		return e
	}
	of := func(ns, svc string) []string {
		var names []string
		for e := range s.EndpointSlices.List(s.DB.ReadTxn(), SlicesOfService(ns, svc)) {
			names = append(names, e.Name)
		}
		return names
	}
	txn := s.DB.WriteTxn(s.EndpointSlices)
	for _, e := range []*discoveryv1.EndpointSlice{
		slice("a", "x-1", "x"), slice("a", "x-2", "x"), slice("a", "y-1", "y"), slice("b", "x-1", "x"), slice("a", "none", ""),
		slice("a", "xx-1", "xx"),
	} {
		if _, _, err := s.EndpointSlices.Insert(txn, e); err != nil {
			t.Fatal(err)
		}
	}
	txn.Commit()
	if got := of("a", "x"); !slices.Equal(got, []string{"x-1", "x-2"}) {
		t.Errorf("slices of a/x: %v", got)
	}
	if n := s.EndpointSlices.NumObjects(s.DB.ReadTxn()); n != 6 {
		t.Errorf("%d slices, want 6 (one has no service)", n)
	}
	// A slice that changes its label moves.
	txn = s.DB.WriteTxn(s.EndpointSlices)
	if _, _, err := s.EndpointSlices.Insert(txn, slice("a", "x-1", "y")); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	if got := of("a", "x"); !slices.Equal(got, []string{"x-2"}) {
		t.Errorf("slices of a/x: %v", got)
	}
	if got := of("a", "y"); !slices.Equal(got, []string{"x-1", "y-1"}) {
		t.Errorf("slices of a/y: %v", got)
	}
}

func TestTrim(t *testing.T) {
	svc := service("a", "x")
	svc.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m"}}
	svc.Annotations = map[string]string{lastApplied: "{}", "keep": "1"}
	Trim(svc)
	if svc.ManagedFields != nil || len(svc.Annotations) != 1 || svc.Annotations["keep"] != "1" {
		t.Errorf("trimmed: %+v", svc.ObjectMeta)
	}
	svc.Annotations = map[string]string{lastApplied: "{}"}
	if Trim(svc); svc.Annotations != nil {
		t.Errorf("annotations: %v", svc.Annotations)
	}
}

func TestChangesAndInitialized(t *testing.T) {
	s := newStore(t)
	txn := s.DB.WriteTxn(s.Services)
	done := s.Services.RegisterInitializer(txn, "test")
	changes, err := s.Services.Changes(txn)
	if err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	defer changes.Close()

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.WaitInitialized(ctx, s.Services); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitInitialized before the table was read: %v", err)
	}
	if err := s.WaitInitialized(ctx, s.Nodes); err != nil {
		t.Errorf("WaitInitialized of a table without a source: %v", err)
	}
	txn = s.DB.WriteTxn(s.Services)
	if _, err := Put(txn, s.Services, service("a", "x")); err != nil {
		t.Fatal(err)
	}
	done(txn)
	txn.Commit()
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.WaitInitialized(ctx); err != nil {
		t.Fatal(err)
	}
	txn = s.DB.WriteTxn(s.Services)
	if _, err := Delete(txn, s.Services, "a", "x"); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	var events []statedb.Change[*corev1.Service]
	seq, _ := changes.Next(s.DB.ReadTxn())
	for c := range seq {
		events = append(events, c)
	}
	if len(events) != 1 || !events[0].Deleted || events[0].Object.Name != "x" {
		t.Errorf("changes: %+v", events)
	}
}
