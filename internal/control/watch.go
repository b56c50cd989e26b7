package control

import (
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/cilium/statedb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// settle is how long a watch of frontends waits after a change before it looks
// again: all frontends are made anew for each look, and changes come in bursts.
const settle = 50 * time.Millisecond

// serveTable answers with the objects of a table, and with what becomes of
// them if the request says watch=1.
func serveTable[T metav1.Object](w http.ResponseWriter, r *http.Request, db *statedb.DB, table statedb.Table[T]) {
	q, sel, err := query(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	snapshot := func() (items []keyed[T], changed <-chan struct{}) {
		seq, watch := table.AllWatch(db.ReadTxn())
		for obj, rev := range seq {
			if (q.Namespace == "" || obj.GetNamespace() == q.Namespace) &&
				(q.Name == "" || obj.GetName() == q.Name) && sel.Matches(labels.Set(obj.GetLabels())) {
				items = append(items, keyed[T]{key: obj.GetNamespace() + "/" + obj.GetName(), version: rev, obj: obj})
			}
		}
		return items, watch
	}
	serve(w, r, 0, snapshot)
}

func (h *handler) frontends(w http.ResponseWriter, r *http.Request) {
	q, _, err := query(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	snapshot := func() (items []keyed[Frontend], changed <-chan struct{}) {
		watch := h.b.Changed()
		for _, f := range h.b.Frontends() {
			if (q.Namespace == "" || f.Namespace == q.Namespace) && (q.Name == "" || f.Service == q.Name) && (q.Node == "" || f.Node == q.Node) {
				items = append(items, keyed[Frontend]{key: f.Key(), obj: f})
			}
		}
		return items, watch
	}
	serve(w, r, settle, snapshot)
}

// Key names a frontend among those of all nodes.
func (f *Frontend) Key() string {
	return f.Node + "/" + f.Namespace + "/" + f.Service + "/" + f.PortName + "/" + f.Protocol + "/" + f.Kind + "/" + f.Address.String()
}

// keyed is an object with the name it has among its kind. Objects of different
// versions differ; where versions are 0, the objects themselves are compared.
type keyed[T any] struct {
	key     string
	version uint64
	obj     T
}

func (k keyed[T]) equal(o keyed[T]) bool {
	if k.version != o.version {
		return false
	}
	return k.version != 0 || reflect.DeepEqual(k.obj, o.obj)
}

// serve answers with a snapshot, or with one and then its changes.
func serve[T any](w http.ResponseWriter, r *http.Request, pause time.Duration, snapshot func() ([]keyed[T], <-chan struct{})) {
	if r.URL.Query().Get("watch") == "" {
		items, _ := snapshot()
		list := List[T]{Items: make([]T, 0, len(items))}
		for _, i := range items {
			list.Items = append(list.Items, i.obj)
		}
		writeJSON(w, list)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	seen := map[string]keyed[T]{}
	for first := true; ; first = false {
		items, changed := snapshot()
		now := make(map[string]keyed[T], len(items))
		for _, i := range items {
			now[i.key] = i
			old, ok := seen[i.key]
			var err error
			switch {
			case !ok:
				err = enc.Encode(Event[T]{Added, i.obj})
			case !old.equal(i):
				err = enc.Encode(Event[T]{Modified, i.obj})
			}
			if err != nil {
				return
			}
		}
		for key, old := range seen {
			if _, ok := now[key]; !ok {
				if enc.Encode(Event[T]{Deleted, old.obj}) != nil {
					return
				}
			}
		}
		if first {
			if enc.Encode(Event[*struct{}]{Type: Bookmark}) != nil {
				return
			}
		}
		seen = now
		if flush.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
				return
			}
		}
	}
}
