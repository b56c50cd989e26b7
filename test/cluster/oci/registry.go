package oci

import (
	"bytes"
	"path"
)

// AddRegistry adds an image to the layer as a registry of static files has it:
// that of "agnhost fake-registry-server", which serves NAME:TAG from
// /var/registry (test/images/agnhost/fakeregistryserver in k8s.io/kubernetes).
// The image's layers are kept in memory, so it should be small.
func (l *Layer) AddRegistry(dir, name, tag string, image Image) error {
	root := path.Join(dir, name)
	sizes := map[*Layer]blob{}
	for _, x := range image.Layers {
		var b bytes.Buffer
		m, err := x.measure(&b)
		if err != nil {
			return err
		}
		sizes[x] = m
		l.addRegistryFile(path.Join(root, "blobs"), m, b.Bytes())
	}
	man, conf, err := image.documents(sizes)
	if err != nil {
		return err
	}
	l.addRegistryFile(path.Join(root, "blobs"), blobOf(conf), conf)
	l.addRegistryFile(path.Join(root, "manifests"), blobOf(man), man)
	l.Text(path.Join(root, "manifests", tag), blobOf(man).digest()+"\n")
	return nil
}

func (l *Layer) addRegistryFile(dir string, b blob, content []byte) {
	name := path.Join(dir, "sha256", b.hex[:2], b.hex, "data")
	l.Files = append(l.Files, File{Path: name, Mode: 0o644, Data: content})
}
