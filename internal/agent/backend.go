package agent

import (
	"context"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/store"
)

// Backend lets an agent on a real node be asked at a control socket.
type Backend struct {
	agent *Agent
	info  control.Info
}

var _ control.Backend = (*Backend)(nil)

// NewBackend returns the control backend of a.
func NewBackend(a *Agent, info control.Info) *Backend { return &Backend{a, info} }

// Info implements control.Backend.
func (b *Backend) Info() control.Info { return b.info }

// Store implements control.Backend.
func (b *Backend) Store() *store.Store { return b.agent.opts.Store }

// Frontends implements control.Backend.
func (b *Backend) Frontends() []control.Frontend { return b.agent.Frontends() }

// Status implements control.Backend.
func (b *Backend) Status() control.Status {
	return control.Status{Info: b.info, Nodes: []control.NodeStatus{b.agent.NodeStatus()}, Problems: b.agent.Problems()}
}

// Changed implements control.Backend.
func (b *Backend) Changed() <-chan struct{} { return b.agent.Changed() }

// Scale implements control.Backend: an agent has no workloads.
func (b *Backend) Scale(context.Context, control.ScaleRequest) error { return control.ErrUnsupported }

// Exec implements control.Backend: an agent has no pods.
func (b *Backend) Exec(context.Context, control.ExecRequest) (int, error) {
	return 0, control.ErrUnsupported
}
