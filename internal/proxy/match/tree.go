package match

import (
	"bytes"
	"slices"
	"sort"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// rules are the entries of one hostname of one listener. It is immutable.
type rules struct {
	owner *batch
	tree  *node
	// regexes are sorted as compare says.
	regexes []*Entry
}

// node is one element of paths: the root is "", "/a/b" is its child "a"'s child
// "b", and "/a/" is the child "" of "a". It is immutable.
type node struct {
	owner    *batch
	children pmap[*node]
	// exact and prefix end here; sorted as compareRest says.
	exact, prefix []*Entry
}

// own returns r if it belongs to the batch, or else a copy that does.
func (r *rules) own(b *batch) *rules {
	switch {
	case r == nil:
		return &rules{owner: b}
	case r.owner == b:
		return r
	}
	return &rules{b, r.tree, r.regexes}
}

// with returns r with an entry more; r may be nil.
func (r *rules) with(b *batch, e *Entry) *rules {
	r = r.own(b)
	if e.kind == model.PathRegex {
		r.regexes = insertSorted(r.regexes, e, compare)
	} else {
		r.tree = r.tree.with(b, elements(e.Path), e)
	}
	return r
}

// without returns r without an entry, and nil if nothing is left.
func (r *rules) without(b *batch, e *Entry) *rules {
	if r == nil {
		return nil
	}
	r = r.own(b)
	if e.kind == model.PathRegex {
		r.regexes = removed(r.regexes, e)
	} else {
		r.tree = r.tree.without(b, elements(e.Path), e)
	}
	if r.tree == nil && len(r.regexes) == 0 {
		return nil
	}
	return r
}

// own returns n if it belongs to the batch, or else a copy that does.
func (n *node) own(b *batch) *node {
	switch {
	case n == nil:
		return &node{owner: b}
	case n.owner == b:
		return n
	}
	return &node{b, n.children, n.exact, n.prefix}
}

// elements returns a path in normal form as its elements: none for "".
func elements(path string) elementList {
	return elementList{strings.TrimPrefix(path, "/"), path == ""}
}

// elementList is what is left of a path's elements.
type elementList struct {
	rest string
	done bool
}

func (l elementList) next() (string, elementList) {
	first, rest, more := strings.Cut(l.rest, "/")
	return first, elementList{rest, !more}
}

func (n *node) with(b *batch, path elementList, e *Entry) *node {
	n = n.own(b)
	switch {
	case !path.done:
		name, rest := path.next()
		child, _ := n.children.getString(name)
		n.children = n.children.with(b, name, child.with(b, rest, e))
	case e.Prefix:
		n.prefix = insertSorted(n.prefix, e, compareRest)
	default:
		n.exact = insertSorted(n.exact, e, compareRest)
	}
	return n
}

func (n *node) without(b *batch, path elementList, e *Entry) *node {
	if n == nil {
		return nil
	}
	n = n.own(b)
	switch {
	case !path.done:
		name, rest := path.next()
		child, ok := n.children.getString(name)
		if !ok {
			return n
		}
		if child = child.without(b, rest, e); child == nil {
			n.children = n.children.without(b, name)
		} else {
			n.children = n.children.with(b, name, child)
		}
	case e.Prefix:
		n.prefix = removed(n.prefix, e)
	default:
		n.exact = removed(n.exact, e)
	}
	if n.children.len() == 0 && len(n.exact) == 0 && len(n.prefix) == 0 {
		return nil
	}
	return n
}

// insertSorted and removed copy: lists of entries are shared between tables.
func insertSorted(s []*Entry, e *Entry, order func(a, b *Entry) int) []*Entry {
	i := sort.Search(len(s), func(i int) bool { return order(s[i], e) > 0 })
	out := append(make([]*Entry, 0, len(s)+1), s[:i]...)
	return append(append(out, e), s[i:]...)
}

func removed(s []*Entry, e *Entry) []*Entry {
	i := slices.Index(s, e)
	switch {
	case i < 0:
		return s
	case len(s) == 1:
		return nil
	}
	return append(append(make([]*Entry, 0, len(s)-1), s[:i]...), s[i+1:]...)
}

// search is one lookup of a path in rules. It tries entries in the order of
// compare, but those of the tree only along the path.
type search struct {
	t       *Target
	path    []byte
	regexes []*Entry // those that were not tried
}

func (r *rules) find(t *Target, path []byte) *Entry {
	s := search{t: t, path: path, regexes: r.regexes}
	if r.tree != nil {
		if e := s.exact(r.tree, path[1:]); e != nil {
			return e
		}
		if e := s.prefix(r.tree, path, 0); e != nil {
			return e
		}
	}
	return s.regex(0)
}

func firstElement(rest []byte) (first, tail []byte, more bool) {
	if i := bytes.IndexByte(rest, '/'); i >= 0 {
		return rest[:i], rest[i+1:], true
	}
	return rest, nil, false
}

func (s *search) exact(n *node, rest []byte) *Entry {
	for more := true; more; {
		var name []byte
		name, rest, more = firstElement(rest)
		child, ok := n.children.get(name)
		if !ok {
			return nil
		}
		n = child
	}
	return s.first(n.exact)
}

// prefix goes down as far as the path does, and tries the longest prefix first
// on the way back. rest is what is left of the path, from its "/", and length is
// how much is behind.
func (s *search) prefix(n *node, rest []byte, length int) *Entry {
	if len(rest) > 0 && n.children.n > 0 {
		name, _, _ := firstElement(rest[1:])
		if child, ok := n.children.get(name); ok {
			if e := s.prefix(child, rest[1+len(name):], length+1+len(name)); e != nil {
				return e
			}
		}
	}
	if len(n.prefix) == 0 {
		return nil
	}
	if e := s.regex(max(length, 1)); e != nil {
		return e
	}
	return s.first(n.prefix)
}

// regex tries the regular expressions that are longer than that.
func (s *search) regex(length int) *Entry {
	for len(s.regexes) > 0 && s.regexes[0].length() > length {
		e := s.regexes[0]
		s.regexes = s.regexes[1:]
		if e.re.Match(s.path) && e.fits(s.t) {
			return e
		}
	}
	return nil
}

func (s *search) first(entries []*Entry) *Entry {
	for _, e := range entries {
		if e.fits(s.t) {
			return e
		}
	}
	return nil
}
