package service

import (
	"iter"

	"github.com/fairwaynet/fairway/internal/model"
)

// All returns every Service of all Results so far that was not deleted since, in
// no order. They must not be written to. The Compiler must not be changed
// meanwhile.
func (c *Compiler) All() iter.Seq[*model.Service] {
	return func(yield func(*model.Service) bool) {
		for _, e := range c.entries {
			for i := range e.out {
				if !yield(&e.out[i]) {
					return
				}
			}
		}
	}
}

// Get returns one Service of those, or nil. It must not be written to.
func (c *Compiler) Get(id model.ServiceID) *model.Service {
	if e := c.entries[objectKey{id.Namespace, id.Name}]; e != nil {
		return find(e.out, id)
	}
	return nil
}
