package filter

import (
	"fmt"
	"sync/atomic"

	"github.com/fairwaynet/fairway/internal/model"
)

// Weights chooses one of several by weight, smoothly and without a lock.
//
// The n-th request goes to a place that n alone decides: weights are the leaves
// of a balanced binary tree, and a node that sees its n-th request sends it left
// if ⌊(n+1)·l/w⌋ > ⌊n·l/w⌋, where l is the weight on the left and w all of it. So
// of as many requests in a row as the weights' sum (divided by what all have in
// common) each gets exactly its weight, and weights of percents or permille are
// exact over any 1,000. In any other window a choice is off its share by less
// than one a level of the tree: it cannot be exact where the share is no whole number.
type Weights struct {
	// tree has the root first; the left child of a node follows it.
	tree  []weightNode
	sum   uint64
	count atomic.Uint64
}

type weightNode struct {
	left, all uint64
	// choice is the index of a leaf.
	choice int
	leaf   bool
	// right is where the right child is.
	right int
}

// NewWeights compiles the weights of backends; those of zero are never chosen.
func NewWeights(backends []model.BackendRef) (*Weights, error) {
	w := &Weights{}
	var leaves []weightNode
	var common uint64
	for i, b := range backends {
		if b.Weight > 1_000_000 {
			return nil, fmt.Errorf("backends[%d].weight: %d is above 1,000,000", i, b.Weight)
		}
		if b.Weight > 0 {
			leaves = append(leaves, weightNode{all: uint64(b.Weight), choice: i, leaf: true})
			common = gcd(uint64(b.Weight), common)
		}
	}
	for i := range leaves {
		leaves[i].all /= common
		w.sum += leaves[i].all
	}
	if len(leaves) > 0 {
		w.build(leaves)
	}
	return w, nil
}

// build appends the tree over leaves, its root first.
func (w *Weights) build(leaves []weightNode) (all uint64) {
	if len(leaves) == 1 {
		w.tree = append(w.tree, leaves[0])
		return leaves[0].all
	}
	at := len(w.tree)
	w.tree = append(w.tree, weightNode{})
	left := w.build(leaves[:len(leaves)/2])
	right := len(w.tree)
	all = left + w.build(leaves[len(leaves)/2:])
	w.tree[at] = weightNode{left: left, all: all, right: right}
	return all
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Next returns the index of the next backend, and -1 if all weights are zero.
func (w *Weights) Next() int {
	switch len(w.tree) {
	case 0:
		return -1
	case 1:
		return w.tree[0].choice
	}
	n := (w.count.Add(1) - 1) % w.sum
	for i := 0; ; {
		node := &w.tree[i]
		if node.leaf {
			return node.choice
		}
		before := n * node.left / node.all
		if (n+1)*node.left/node.all > before {
			n, i = before, i+1
		} else {
			n, i = n-before, node.right
		}
	}
}
