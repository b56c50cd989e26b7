package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fairwaynet/fairway/test/cluster/oci"
)

// FairwayImageRef is the name of the image of this tree's fairway.
const FairwayImageRef = "fairway.dev/fairway:test"

// Fairway builds the fairway command of this tree as it is released, static,
// and returns its path. The Go build cache makes it quick; the file is replaced
// when the tree changed.
func Fairway(ctx context.Context) (string, error) {
	b, unlock, err := lockTrees(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	return b.fairway(ctx)
}

// FairwayImage builds the fairway command and wraps it in an image,
// FairwayImageRef, with the entrypoint /fairway. It returns the path of the
// image's file, which is written anew only if the command changed.
func FairwayImage(ctx context.Context) (string, error) {
	b, unlock, err := lockTrees(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	binary, err := b.fairway(ctx)
	if err != nil {
		return "", err
	}
	sum, err := fileSum(binary)
	if err != nil {
		return "", err
	}
	file := binary + ".tar"
	// What the image was made of is beside it, and written after it.
	from := file + ".from"
	if had, err := os.ReadFile(from); err == nil && string(had) == sum {
		return file, nil
	}
	if err := os.Remove(from); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	image, err := programImage(binary, FairwayImageRef)
	if err != nil {
		return "", err
	}
	if err := oci.WriteFile(file, image); err != nil {
		return "", err
	}
	return file, os.WriteFile(from, []byte(sum), 0o644)
}

func lockTrees(ctx context.Context) (b *builder, unlock func(), err error) {
	if b, err = newBuilder(ctx, nil); err != nil {
		return nil, nil, err
	}
	unlock, err = b.lock(ctx, trees)
	return b, unlock, err
}

// trees is the name of the entries of what is built from a tree that is worked
// on. Each tree has one, so that none runs what another one built; they are
// not in the cache by content, which would keep each state of a tree.
const trees = "tree"

// fairway builds the command. The lock of the trees must be held.
func (b *builder) fairway(ctx context.Context) (string, error) {
	root := sha256.Sum256([]byte(b.root))
	tree := entry{name: trees, key: hex.EncodeToString(root[:])[:16]}
	dir := filepath.Join(b.dir, tree.name+"-"+tree.key)
	if !used(dir) {
		if err := errors.Join(os.MkdirAll(dir, 0o755), b.prune(tree)); err != nil {
			return "", err
		}
	}
	// Straight into its place: go build looks there whether it has anything to do.
	out := filepath.Join(dir, "fairway")
	return out, goCommand(ctx, b.root, []string{"CGO_ENABLED=0"}, "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "./cmd/fairway")
}
