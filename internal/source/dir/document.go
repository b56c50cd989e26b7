package dir

import (
	"bytes"
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/source/crd"
	"github.com/fairwaynet/fairway/internal/store"
)

// objectID names an object of a kind.
type objectID struct {
	kind *kind
	key  string // store.Key
}

// String returns "Service default/web", as problems and reports have it.
func (id objectID) String() string { return id.kind.name + " " + id.key }

// parsedObject is an object without problems.
type parsedObject struct {
	id   objectID
	obj  metav1.Object
	line int
}

// parsed is what one file holds.
type parsed struct {
	objects  []*parsedObject
	problems []Problem
	unknown  map[string]int
	// broken are objects that are there and have problems.
	broken []objectID
	// opaque is true where a part of the file could not be read far enough to
	// tell what object it is: any object may be in it.
	opaque bool
	// blank is true where there is nothing in the file but space and comments.
	blank bool
}

// defaultNamespace is where objects go that name no namespace.
const defaultNamespace = "default"

// parse reads one file. It never fails: what is wrong is in the problems.
func parse(file string, data []byte) *parsed {
	out := &parsed{unknown: map[string]int{}}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // a byte order mark
	docs := 0
	one := func(nodes []*yaml.Node, serr *syntaxError) {
		for _, n := range nodes {
			out.object(file, n, "", "", 0)
		}
		docs += len(nodes)
		if serr != nil {
			docs++
			out.opaque = true
			out.problems = append(out.problems, Problem{File: file, Line: serr.line, Message: serr.message})
		}
	}
	if isJSON(file, data) {
		one(parseJSON(data))
	} else {
		for _, c := range split(data) {
			one(parseYAML(c))
		}
	}
	out.blank = docs == 0
	slices.SortStableFunc(out.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Field, b.Field))
	})
	return out
}

// isJSON reports whether a file is meant as JSON: by its name or, on standard
// input, by how it begins. YAML may begin with a brace too, but then it is
// nearly always JSON.
func isJSON(file string, data []byte) bool {
	switch strings.ToLower(filepath.Ext(file)) {
	case ".json":
		return true
	case ".yaml", ".yml":
		return false
	}
	data = bytes.TrimLeft(data, " \t\r\n")
	return len(data) > 1 && data[0] == '{' && strings.IndexByte("\"} \t\r\n", data[1]) >= 0
}

// object reads one object, or the items of a list. apiVersion and kind are
// what an item of a typed list may leave out. nested counts lists of lists.
func (out *parsed) object(file string, node *yaml.Node, apiVersion, kindName string, nested int) {
	c := &checker{file: file}
	defer func() { out.problems = append(out.problems, c.problems...) }()
	root := rootPlace(node)
	if node.Kind != yaml.MappingNode {
		out.opaque = true
		c.bad(root, "is not a Kubernetes object: it is %s", describe(node))
		return
	}
	apiVersion, kindName = cmp.Or(root.f("apiVersion").str(), apiVersion), cmp.Or(root.f("kind").str(), kindName)
	switch {
	case apiVersion == "" && kindName == "":
		c.bad(root, "is not a Kubernetes object: it has no apiVersion and kind")
	case apiVersion == "":
		c.object = kindName
		c.required(root.f("apiVersion"))
	case kindName == "":
		c.required(root.f("kind"))
	}
	if len(c.problems) > 0 {
		out.opaque = true
		return
	}
	if item, ok := strings.CutSuffix(kindName, "List"); ok && root.f("items").node != nil {
		out.list(file, c, root.f("items"), apiVersion, item, nested)
		return
	}
	k := findKind(apiVersion, kindName)
	if k == nil {
		if meant := misplacedKind(apiVersion, kindName); meant != nil {
			c.object = objectName(meant, root)
			c.bad(root.f("apiVersion"), "there is no %s in %s; it is in %s", kindName, quote(apiVersion), meant.apiVersion)
			out.lost(meant, root)
			return
		}
		out.unknown[apiVersion+" "+kindName]++
		return
	}
	out.known(c, k, root)
}

func (out *parsed) list(file string, c *checker, items place, apiVersion, item string, nested int) {
	switch {
	case nested > 4:
		out.opaque = true
		c.bad(items, "lists are nested too deep")
	case items.node.Kind == yaml.ScalarNode && items.node.Tag == tagNull:
	case items.node.Kind != yaml.SequenceNode:
		out.opaque = true
		c.bad(items, "must be a list, is %s", describe(items.node))
	default:
		if item == "" {
			apiVersion = "" // a plain List says nothing of its items
		}
		for _, n := range items.node.Content {
			out.object(file, n, apiVersion, item, nested+1)
		}
	}
}

// known reads an object of a kind that the store has a table for.
func (out *parsed) known(c *checker, k *kind, root place) {
	c.object, c.secret = objectName(k, root), k.secret
	strict{c}.check(root, k.typ)
	var obj metav1.Object
	if len(c.problems) == 0 {
		obj = decode(c, k, root)
	}
	if obj == nil {
		out.lost(k, root)
		return
	}
	c.meta(root, obj, k)
	k.validate(c, root, obj)
	if len(c.problems) > 0 {
		out.lost(k, root)
		return
	}
	if k.namespaced && obj.GetNamespace() == "" {
		obj.SetNamespace(defaultNamespace)
	}
	out.objects = append(out.objects, &parsedObject{objectID{k, store.Key(obj)}, obj, root.line})
}

func decode(c *checker, k *kind, root place) metav1.Object {
	data, err := appendJSON(nil, root.node)
	if err != nil {
		c.bad(root, "%v", err)
		return nil
	}
	if apiVersion := root.f("apiVersion").str(); apiVersion != "" {
		if s := crd.Find(apiVersion, k.name); s != nil {
			if data = c.bySchema(root, s, data); data == nil {
				return nil
			}
		}
	}
	obj, err := k.decode(data)
	if err != nil {
		c.bad(root, "%v", err)
		return nil
	}
	return obj
}

// bySchema sets the defaults of a custom resource and reports what its
// definition does not allow. It returns nil if there is anything.
func (c *checker) bySchema(root place, s *crd.Schema, data []byte) []byte {
	data, errs, err := s.Apply(context.Background(), data)
	if err != nil {
		c.bad(root, "%v", err)
		return nil
	}
	for _, e := range errs {
		c.bad(root.find(e.Field), "%s", e.Message)
	}
	if len(errs) > 0 {
		return nil
	}
	return data
}

// lost notes an object that is there and cannot be used.
func (out *parsed) lost(k *kind, root place) {
	if key := nameOf(k, root); key != "" {
		out.broken = append(out.broken, objectID{k, key})
	} else {
		out.opaque = true
	}
}

// nameOf returns the key that an object would have, or "" if it has no name.
func nameOf(k *kind, root place) string {
	name := root.f("metadata").f("name").str()
	if name == "" {
		return ""
	}
	if !k.namespaced {
		return name
	}
	return store.NameKey(cmp.Or(root.f("metadata").f("namespace").str(), defaultNamespace), name)
}

func objectName(k *kind, root place) string {
	if key := nameOf(k, root); key != "" {
		return k.name + " " + key
	}
	return k.name
}
