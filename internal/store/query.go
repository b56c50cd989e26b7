package store

import (
	"github.com/cilium/statedb"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Key returns the primary key of an object: "namespace/name", or "name" if it
// has no namespace.
func Key(obj metav1.Object) string { return NameKey(obj.GetNamespace(), obj.GetName()) }

// NameKey returns the primary key of the object of that name. The namespace is
// empty for kinds that have none.
func NameKey(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// ByName is the query for one object by its name. The namespace is empty for
// kinds that have none.
func ByName[T metav1.Object](namespace, name string) statedb.Query[T] {
	return ByKey[T](NameKey(namespace, name))
}

// ByKey is the query for one object by its Key.
func ByKey[T metav1.Object](key string) statedb.Query[T] { return primary[T]().Query(key) }

// InNamespace is the query for all objects of one namespace. It is meant for
// Table.Prefix and Table.PrefixWatch.
func InNamespace[T metav1.Object](namespace string) statedb.Query[T] {
	return primary[T]().Query(namespace + "/")
}

// SlicesOfService is the query for the EndpointSlices of one Service, by their
// label kubernetes.io/service-name. It is meant for Table.List and ListWatch.
func SlicesOfService(namespace, name string) statedb.Query[*discoveryv1.EndpointSlice] {
	return serviceIndex.Query(NameKey(namespace, name))
}

// Get returns the object of that name. The namespace is empty for kinds that
// have none.
func Get[T metav1.Object](txn statedb.ReadTxn, table statedb.Table[T], namespace, name string) (T, bool) {
	obj, _, ok := table.Get(txn, ByName[T](namespace, name))
	return obj, ok
}

// Put inserts obj unless the table holds an equal object already, and tells
// whether it did. So an object that did not change keeps its revision, and
// nobody who follows the table is woken.
//
// obj must not be changed afterwards.
func Put[T metav1.Object](txn statedb.WriteTxn, table statedb.RWTable[T], obj T) (changed bool, err error) {
	old, _, ok := table.Get(txn, ByKey[T](Key(obj)))
	if ok && equality.Semantic.DeepEqual(old, obj) {
		return false, nil
	}
	_, _, err = table.Insert(txn, obj)
	return err == nil, err
}

// Delete removes the object of that name and tells whether there was one.
func Delete[T metav1.Object](txn statedb.WriteTxn, table statedb.RWTable[T], namespace, name string) (deleted bool, err error) {
	old, _, ok := table.Get(txn, ByName[T](namespace, name))
	if !ok {
		return false, nil
	}
	_, deleted, err = table.Delete(txn, old)
	return deleted, err
}

// lastApplied is where "kubectl apply" keeps a copy of the manifest.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Trim drops from obj what nobody reads and what can be larger than all the
// rest, managedFields and the copy of the manifest that kubectl keeps in an
// annotation, and returns obj. Sources call it on what they decoded, before they
// insert it; it must not be called on an object that is in a table.
func Trim[T metav1.Object](obj T) T {
	obj.SetManagedFields(nil)
	if a := obj.GetAnnotations(); a != nil {
		if _, ok := a[lastApplied]; ok {
			delete(a, lastApplied)
			if len(a) == 0 {
				a = nil
			}
			obj.SetAnnotations(a)
		}
	}
	return obj
}
