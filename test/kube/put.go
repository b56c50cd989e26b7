package kube

import (
	"context"
	"encoding/base64"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// Stored is an object as the API server keeps it in etcd.
type Stored struct {
	// Key is below "/registry/", such as "services/specs/default/web".
	Key     string
	Version schema.GroupVersion
	// Object must be complete: nothing is defaulted, checked or allocated. It
	// needs a UID and a creation time.
	Object runtime.Object
}

// Put writes objects into etcd in one transaction, past the API server, which
// sees them come by its watch as if another API server had written them. They
// must be of different resources: the API server takes each version of a
// resource to be of one object.
//
// It is for tests that need very many objects: the API server takes milliseconds
// to allocate a ClusterIP when there are ten thousand.
func (c *Cluster) Put(ctx context.Context, objects ...Stored) error {
	proto := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	var ops []any
	for _, o := range objects {
		value, err := runtime.Encode(scheme.Codecs.EncoderForVersion(proto, o.Version), o.Object)
		if err != nil {
			return fmt.Errorf("encode %s: %w", o.Key, err)
		}
		ops = append(ops, map[string]any{"requestPut": map[string]string{
			"key":   base64.StdEncoding.EncodeToString([]byte("/registry/" + o.Key)),
			"value": base64.StdEncoding.EncodeToString(value),
		}})
	}
	return c.etcdCall(ctx, "/v3/kv/txn", map[string]any{"success": ops}, nil)
}
