package nft

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// row is all the Driver knows of one Service, its share of the shadow apart. A
// Service is looked up by its ID once for each batch; from then on by its row,
// because an ID takes long to hash and much room as the key of a map. The
// driver's lock guards it; applied is guarded as Driver.rows are.
type row struct {
	id model.ServiceID
	// desired is what the Service shall be; nil if it shall go.
	desired *model.Service
	// applied is what the data plane serves; nil if nothing.
	applied *model.Service
	// pending: it is to be applied in the next pass. Then it is in Driver.queue.
	pending bool
	taken   bool // scratch of takePending
	// batch is the last full batch that had it, done the last pass.
	batch, done uint64
}

// row gives the row of a Service, a new one if there is none.
func (d *Driver) row(id model.ServiceID) *row {
	r := d.rows[id]
	if r == nil {
		r = &row{id: id}
		d.stateMu.Lock()
		d.rows[id] = r
		d.stateMu.Unlock()
	}
	return r
}

// forget drops the row of a Service that is not wanted, and not there.
func (d *Driver) forget(r *row) {
	if r.desired == nil && r.applied == nil && !r.pending && d.errs[r.id] == nil && d.rows[r.id] == r {
		d.stateMu.Lock()
		delete(d.rows, r.id)
		d.stateMu.Unlock()
	}
}

// pend makes a Service part of the next pass; settled is the inverse.
func (d *Driver) pend(r *row) {
	if !r.pending {
		r.pending = true
		d.numPending++
		d.queue = append(d.queue, r)
	}
}

func (d *Driver) settled(r *row) {
	if r.pending {
		r.pending = false
		d.numPending--
	}
	if d.numPending == 0 {
		d.queue = nil
	}
}

// takePending gives the pending Services in the order of their names, so that a
// load is the same each time.
func (d *Driver) takePending() []*row {
	rows := make([]*row, 0, d.numPending)
	for _, r := range d.queue {
		// A row that was settled and is pending again is in the queue twice.
		if r.pending && !r.taken {
			r.taken = true
			rows = append(rows, r)
		}
	}
	for _, r := range rows {
		r.taken = false
	}
	d.queue = append(d.queue[:0], rows...)
	slices.SortFunc(rows, compareRows)
	return rows
}

func compareRows(x, y *row) int {
	a, b := &x.id, &y.id
	return cmp.Or(
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name),
		strings.Compare(a.Port, b.Port),
		cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.Family, b.Family),
	)
}
