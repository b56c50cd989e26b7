package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/kube-proxy/config/v1alpha1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	configKind       = "KubeProxyConfiguration"
	configAPIVersion = "kubeproxy.config.k8s.io/v1alpha1"
)

// formerFields were in v1alpha1 once; kube-proxy passes over them, so they are
// still found in clusters that were made then.
var formerFields = []string{"udpIdleTimeout", "resourceContainer"}

// Override changes fields of a configuration after it was read, as flags do.
type Override func(*v1alpha1.KubeProxyConfiguration)

// LoadConfig reads a KubeProxyConfiguration from a file. The warnings name each
// field that is set and has no effect. An error names file, line and field.
func LoadConfig(path string, o Override) (Config, []string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, nil, err
	}
	return ParseConfig(path, data, o)
}

// NewConfig is LoadConfig without a file: kube-proxy's defaults in nftables mode,
// and what o changes.
func NewConfig(o Override) (Config, []string, error) {
	k := v1alpha1.KubeProxyConfiguration{Mode: "nftables"}
	k.APIVersion, k.Kind = configAPIVersion, configKind
	if o != nil {
		o(&k)
	}
	return fromKubeProxy(&k)
}

// ParseConfig is LoadConfig for data at hand; name is for the messages. o may be
// nil.
func ParseConfig(name string, data []byte, o Override) (Config, []string, error) {
	doc, err := parseOne(data)
	if err != nil {
		return Config{}, nil, fmt.Errorf("%s: %w", name, err)
	}
	at := func(path, message string) error {
		return fmt.Errorf("%s:%d: %s: %s", name, lineOf(doc, path), path, message)
	}
	// Everything else depends on these two, so they are looked at alone first.
	switch kind, version := scalar(doc, "kind"), scalar(doc, "apiVersion"); {
	case kind == "" || version == "":
		return Config{}, nil, fmt.Errorf("%s: apiVersion and kind must be set: want apiVersion: %s and kind: %s", name, configAPIVersion, configKind)
	case kind != configKind:
		return Config{}, nil, at("kind", fmt.Sprintf("%q must be %s", kind, configKind))
	case version != configAPIVersion:
		return Config{}, nil, at("apiVersion", fmt.Sprintf("%q must be %s", version, configAPIVersion))
	}

	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return Config{}, nil, fmt.Errorf("%s: %w", name, err)
	}
	var k v1alpha1.KubeProxyConfiguration
	strict, err := kjson.UnmarshalStrict(asJSON, &k)
	var typeErr *json.UnmarshalTypeError
	if errors.As(err, &typeErr) {
		return Config{}, nil, at(typeErr.Field, fmt.Sprintf("is a %s, must be a %s", typeErr.Value, typeErr.Type))
	} else if err != nil {
		if path, err := culprit(asJSON); path != "" {
			return Config{}, nil, at(path, err.Error())
		}
		return Config{}, nil, fmt.Errorf("%s: %w", name, err)
	}

	var warnings []string
	var problems []error
	for _, s := range strict {
		path, message := splitStrict(s)
		if former(path) {
			warnings = append(warnings, path+": has no effect: later versions of kube-proxy do not have it")
			continue
		}
		problems = append(problems, at(path, message))
	}
	if o != nil {
		o(&k)
	}
	cfg, more, err := fromKubeProxy(&k)
	for _, e := range flatten(err) {
		var fe *fieldError
		if errors.As(e, &fe) {
			e = at(fe.path, fe.message)
		}
		problems = append(problems, e)
	}
	return cfg, append(warnings, more...), errors.Join(problems...)
}

// parseOne reads the one YAML (or JSON) document of data.
func parseOne(data []byte) (*yamlv3.Node, error) {
	dec := yamlv3.NewDecoder(bytes.NewReader(data))
	var doc, next yamlv3.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("is empty")
	case err != nil:
		return nil, err
	}
	if err := dec.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, errors.New("must hold one document")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yamlv3.MappingNode {
		return nil, errors.New("must hold an object")
	}
	return doc.Content[0], nil
}

// culprit finds the value that cannot be decoded, where the error does not say
// which it is (as of durations): it decodes each value alone.
func culprit(doc []byte) (path string, err error) {
	var root map[string]any
	if json.Unmarshal(doc, &root) != nil {
		return "", nil
	}
	var walk func(prefix string, value any, wrap func(any) any) (string, error)
	walk = func(prefix string, value any, wrap func(any) any) (string, error) {
		if m, ok := value.(map[string]any); ok {
			for key, v := range m {
				path, err := walk(prefix+"."+key, v, func(inner any) any { return wrap(map[string]any{key: inner}) })
				if path != "" {
					return path, err
				}
			}
			return "", nil
		}
		alone, err := json.Marshal(wrap(value))
		if err == nil {
			err = json.Unmarshal(alone, new(v1alpha1.KubeProxyConfiguration))
		}
		if err != nil {
			return strings.TrimPrefix(prefix, "."), err
		}
		return "", nil
	}
	return walk("", root, func(v any) any { return v })
}

var strictRule = regexp.MustCompile(`^(unknown|duplicate) field "(.*)"$`)

// splitStrict takes path and message from what sigs.k8s.io/json says.
func splitStrict(err error) (path, message string) {
	m := strictRule.FindStringSubmatch(err.Error())
	if m == nil {
		return "", err.Error()
	}
	if m[1] == "unknown" {
		return m[2], "is not known"
	}
	return m[2], "is there twice"
}

func former(path string) bool {
	for _, f := range formerFields {
		if path == f {
			return true
		}
	}
	return false
}

// lineOf returns the line of the deepest part of path that is there.
func lineOf(n *yamlv3.Node, path string) int {
	line := n.Line
	for part := range strings.SplitSeq(path, ".") {
		part, _, _ = strings.Cut(part, "[")
		if n.Kind != yamlv3.MappingNode {
			break
		}
		found := false
		for i := 0; i+1 < len(n.Content) && !found; i += 2 {
			if n.Content[i].Value == part {
				line, n, found = n.Content[i].Line, n.Content[i+1], true
			}
		}
		if !found {
			break
		}
	}
	return line
}

func scalar(n *yamlv3.Node, key string) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1].Value
		}
	}
	return ""
}

// flatten returns the errors that errors.Join put together.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}
