package build

import (
	"context"
	"path/filepath"

	"github.com/fairwaynet/fairway/test/cluster/oci"
)

// Names of images in every cluster.
const (
	// PauseImage is the sandbox of every pod.
	PauseImage = "registry.k8s.io/pause:3.10"
	// CoreDNSImage is the cluster's DNS server.
	CoreDNSImage = "registry.k8s.io/coredns/coredns:" + coreDNSVersion
)

// clusterImages writes the images that every cluster has into one file.
func (b *builder) clusterImages(ctx context.Context) (string, error) {
	pause, err := b.pause(ctx)
	if err != nil {
		return "", err
	}
	coreDNS, err := b.coreDNS(ctx)
	if err != nil {
		return "", err
	}
	return b.images(ctx, "cluster-images", "", []string{pause, coreDNS}, func(context.Context) ([]oci.Image, error) {
		p, err := pauseImage(pause)
		if err != nil {
			return nil, err
		}
		c, err := programImage(coreDNS, CoreDNSImage)
		return []oci.Image{p, c}, err
	})
}

// pause builds the program and returns its path.
func (b *builder) pause(ctx context.Context) (string, error) {
	return b.program(ctx, "test/cluster/images/pause")
}

// pauseImage has all names that containerd and the releases of Kubernetes ask for.
func pauseImage(binary string) (oci.Image, error) {
	return programImage(binary, PauseImage, PauseImage+".1", PauseImage+".2")
}

// coreDNS builds the program and returns its path.
func (b *builder) coreDNS(ctx context.Context) (string, error) {
	dir, err := b.module(ctx, coreDNSModule())
	return filepath.Join(dir, "coredns"), err
}

// programImage is an image of one static program, which is at /NAME in it.
func programImage(binary string, refs ...string) (oci.Image, error) {
	at := "/" + filepath.Base(binary)
	l := &oci.Layer{}
	err := l.Copy(at, binary)
	return oci.Image{Refs: refs, Layers: []*oci.Layer{l}, Entrypoint: []string{at}}, err
}

// images writes images into one file in the cache and returns its path. They
// are listed only if they are not there yet: the programs, which are in the
// cache as well, the system whose packages they have, if any, and this code say
// what is in them.
func (b *builder) images(ctx context.Context, name, system string, programs []string, list func(context.Context) ([]oci.Image, error)) (string, error) {
	k := b.newKey().add(system)
	for _, p := range programs {
		k.add(filepath.Base(filepath.Dir(p)), filepath.Base(p))
	}
	sum, err := k.files(filepath.Join(b.root, "test/cluster"), "build/*.go", "oci/*.go").sum()
	if err != nil {
		return "", err
	}
	file := name + ".tar"
	dir, err := b.get(ctx, entry{name: name, key: sum, fill: func(ctx context.Context, dir string) error {
		images, err := list(ctx)
		if err != nil {
			return err
		}
		return oci.WriteFile(filepath.Join(dir, file), images...)
	}})
	return filepath.Join(dir, file), err
}
