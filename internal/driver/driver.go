// Package driver states the contract between what is wanted (package model)
// and what carries it out. The nftables and eBPF drivers and the in-memory Fake
// all implement it and pass the same tests (package drivertest).
package driver

import (
	"context"

	"github.com/fairwaynet/fairway/internal/model"
)

// Batch is a set of changes to the Services of one node.
type Batch struct {
	// Node, if not nil, replaces what holds for all Services.
	Node *model.NodeServices
	// Upsert are Services to add, or to replace whole. A driver applies only
	// what differs from the state it holds.
	Upsert []model.Service
	// Delete are Services to remove. One that does not exist is no error.
	Delete []model.ServiceID
	// Full says that Upsert is all there is: every other Service goes. The
	// first Batch of an agent is full. A driver then adopts what an earlier
	// process left in the kernel, and changes only what differs.
	Full bool
}

// Empty reports whether the batch changes nothing.
func (b *Batch) Empty() bool {
	return b.Node == nil && len(b.Upsert) == 0 && len(b.Delete) == 0 && !b.Full
}

// State is how far one Service got.
type State struct {
	// Applied is what the data plane serves now; nil if nothing of it.
	Applied *model.Service
	// Err is why the desired state is not applied; nil if it is.
	Err error
}

// Services is a data plane for Services: kube-proxy's work.
type Services interface {
	// Apply makes the data plane equal to the desired state after this batch.
	//
	// It is idempotent. Changes to one Service take effect at once, never in
	// part; a large batch is split into bounded transactions between Services.
	// A Service that cannot be applied is reported by State, is retried with
	// back-off by Run, and does not stop the others. An error is returned if
	// the data plane as a whole could not be reached; the batch is kept as
	// desired state all the same, and retried.
	//
	// Connections that stay with a live backend are not touched. UDP flows
	// (conntrack entries) to backends that left are deleted before Apply
	// returns or shortly after.
	Apply(ctx context.Context, b Batch) error

	// Run watches for drift and repairs it, retries what failed, and audits the
	// whole now and then, until ctx ends. It leaves the data plane as it is.
	Run(ctx context.Context) error

	// State returns how far one Service got. It is safe to call at any time.
	State(id model.ServiceID) State

	// Failures returns each Service whose desired state is not applied, and why.
	Failures() map[model.ServiceID]error

	// Cleanup removes everything the driver owns, and nothing else.
	Cleanup(ctx context.Context) error

	// Close frees what the driver holds open. The data plane goes on.
	Close() error
}
