package kube

import (
	"context"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

// Version is the release of Kubernetes that is built.
const Version = build.Newest

// Binaries are the paths of what Build made.
type Binaries struct {
	Etcd, APIServer, Proxy string
}

// Build returns the binaries, and builds those that are not in the cache yet:
// some minutes the first time, and it needs the network or a module cache then.
// Call it before the process enters a namespace that has no network.
// Processes that build at the same time wait for each other.
func Build(ctx context.Context) (b Binaries, err error) {
	b.Etcd, b.APIServer, b.Proxy, err = build.KubeAPI(ctx)
	return b, err
}

// BuildFairway builds the fairway command of this tree and returns its path.
// The Go build cache makes it quick; the file is replaced when the tree changed.
func BuildFairway(ctx context.Context) (string, error) { return build.Fairway(ctx) }
