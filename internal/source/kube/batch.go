package kube

import (
	"github.com/cilium/statedb"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// batch holds events that are not in the table yet, in order.
type batch[P metav1.Object] struct {
	changes []change[P]
}

type change[P metav1.Object] struct {
	obj  P
	gone bool
}

func (b *batch[P]) len() int     { return len(b.changes) }
func (b *batch[P]) put(obj P)    { b.changes = append(b.changes, change[P]{obj, false}) }
func (b *batch[P]) remove(obj P) { b.changes = append(b.changes, change[P]{obj, true}) }

// keys are the keys of objects that a list has shown. It is nil where nobody
// needs to know, since there was nothing before the list.
type keys map[string]struct{}

func (k keys) add(obj metav1.Object) {
	if k != nil {
		k[store.Key(obj)] = struct{}{}
	}
}

func (k keys) remove(obj metav1.Object) {
	if k != nil {
		delete(k, store.Key(obj))
	}
}

// knownKeys returns an empty set, or nil if the table is empty.
func (f *follower[T, P]) knownKeys() keys {
	if f.table.NumObjects(f.st.DB.ReadTxn()) == 0 {
		return nil
	}
	return keys{}
}

// apply writes the batch in one transaction. If complete, a list has come to its
// end: rows that it did not show are deleted, unless seen is nil, and the table
// counts as initialized.
func (f *follower[T, P]) apply(seen keys, complete bool) error {
	if f.batch.len() == 0 && !complete {
		return nil
	}
	txn := f.st.DB.WriteTxn(f.table)
	defer txn.Abort()
	for _, c := range f.batch.changes {
		if err := f.write(txn, c); err != nil {
			return err
		}
	}
	if complete && seen != nil {
		var gone []P
		for obj := range f.table.All(txn) {
			if _, ok := seen[store.Key(obj)]; !ok {
				gone = append(gone, obj)
			}
		}
		for _, obj := range gone {
			if _, _, err := f.table.Delete(txn, obj); err != nil {
				return err
			}
		}
	}
	if complete && f.done != nil {
		f.done(txn)
	}
	txn.Commit()
	if complete {
		f.done = nil
	}
	clear(f.batch.changes)
	f.batch.changes = f.batch.changes[:0]
	return nil
}

func (f *follower[T, P]) write(txn statedb.WriteTxn, c change[P]) error {
	if c.gone {
		_, err := store.Delete(txn, f.table, c.obj.GetNamespace(), c.obj.GetName())
		return err
	}
	old, _, ok := f.table.Get(txn, store.ByKey[P](store.Key(c.obj)))
	if ok && same[T](old, c.obj) {
		return nil
	}
	_, _, err := f.table.Insert(txn, c.obj)
	return err
}

// same reports whether an object is the one that the table has: so a list after
// a restart of the API server changes only what changed.
func same[T any, P apiObject[T]](old, obj P) bool {
	if v := obj.GetResourceVersion(); v != "" {
		return v == old.GetResourceVersion() && obj.GetUID() == old.GetUID()
	}
	return equality.Semantic.DeepEqual(old, obj)
}
