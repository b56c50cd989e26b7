package dir

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/statedb"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/fairwaynet/fairway/internal/store"
)

// file is one file and what was read from it.
type file struct {
	path   string // as problems show it
	real   string // without symbolic links
	stamp  stamp
	sum    [32]byte // of the contents
	parsed *parsed
	// stale are objects of earlier contents that stay although the contents do
	// not show them now, since a part cannot be read.
	stale []*parsedObject
	// unread says why the file could not be read; its objects stay.
	unread string
	// leaving is true where the file is gone, and perhaps only for the moment
	// in which an editor replaces it.
	leaving bool
	// once is true for what can be read only one time, such as a pipe.
	once bool
}

// set replaces what the file holds.
func (f *file) set(now *parsed) {
	var stale []*parsedObject
	if now.opaque && f.parsed != nil {
		have := map[objectID]bool{}
		for _, o := range now.objects {
			have[o.id] = true
		}
		for _, o := range slices.Concat(f.parsed.objects, f.stale) {
			if !have[o.id] {
				have[o.id] = true
				stale = append(stale, o)
			}
		}
		// What was broken before may be what cannot be read now.
		for _, id := range f.parsed.broken {
			if !slices.Contains(now.broken, id) {
				now.broken = append(now.broken, id)
			}
		}
	}
	f.parsed, f.stale, f.unread = now, stale, ""
}

// merge returns the objects of all files together. Where two files have the same
// object, the first in order is used. owned is what the store has from earlier.
func merge(files []*file, owned map[objectID]*parsedObject) (map[objectID]*parsedObject, []Problem) {
	want := map[objectID]*parsedObject{}
	var problems []Problem
	from := map[objectID]*file{}
	for _, f := range files {
		if f.unread != "" {
			problems = append(problems, Problem{File: f.path, Message: f.unread})
		}
		if f.parsed == nil {
			continue
		}
		problems = append(problems, f.parsed.problems...)
		if f.leaving {
			continue
		}
		for _, o := range f.parsed.objects {
			if first, ok := from[o.id]; ok {
				problems = append(problems, Problem{
					File: f.path, Line: o.line, Object: o.id.String(),
					Message: fmt.Sprintf("is also in %s:%d, which is used", first.path, want[o.id].line),
				})
				continue
			}
			from[o.id], want[o.id] = f, o
		}
	}
	// What cannot be read keeps its last good state, unless another file has it.
	for _, f := range files {
		if f.parsed == nil {
			continue
		}
		keep := f.stale
		if f.leaving {
			keep = slices.Concat(f.parsed.objects, f.stale)
		}
		for _, o := range keep {
			if want[o.id] == nil {
				want[o.id] = o
			}
		}
		for _, id := range f.parsed.broken {
			if want[id] == nil && owned[id] != nil {
				want[id] = owned[id]
			}
		}
	}
	return want, problems
}

// apply writes the difference between owned and want to the store, in one
// transaction, and makes owned equal to want. An object that is equal to what
// the store holds is not written.
func apply(st *store.Store, owned, want map[objectID]*parsedObject, done []func(statedb.WriteTxn)) (changed, deleted []string, err error) {
	var put, del []objectID
	tables := map[string]statedb.TableMeta{}
	for id, o := range want {
		// What an object's file says is compared, not what the store holds: an
		// edit elsewhere in the file must not undo what others did to it since.
		if old := owned[id]; old == nil || old != o && !equality.Semantic.DeepEqual(old.obj, o.obj) {
			put = append(put, id)
			tables[id.kind.name] = id.kind.table(st)
		}
	}
	for id := range owned {
		if want[id] == nil {
			del = append(del, id)
			tables[id.kind.name] = id.kind.table(st)
		}
	}
	list := slices.Collect(maps.Values(tables))
	if len(done) > 0 {
		list = st.Tables()
	}
	if len(list) == 0 {
		return nil, nil, nil
	}
	txn := st.DB.WriteTxn(list...)
	defer txn.Abort()
	for _, id := range put {
		ok, err := id.kind.put(st, txn, want[id].obj)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", id, err)
		}
		if ok {
			changed = append(changed, id.String())
		}
	}
	for _, id := range del {
		namespace, name, _ := cutLast(id.key, "/")
		ok, err := id.kind.remove(st, txn, namespace, name)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", id, err)
		}
		if ok {
			deleted = append(deleted, id.String())
		}
	}
	for _, f := range done {
		f(txn)
	}
	txn.Commit()
	clear(owned)
	maps.Copy(owned, want)
	slices.Sort(changed)
	slices.Sort(deleted)
	return changed, deleted, nil
}
