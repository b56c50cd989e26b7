// Package oci writes container images into a file, without Docker and without a
// registry: an OCI image layout in one tar file, which
//
//	ctr --namespace k8s.io images import FILE
//
// takes. An image is made of layers of files on this machine, on top of
// nothing. The same input gives the same bytes. Files are read as they are
// written, so big ones need no memory; layers that images share are in the file
// once, and a node unpacks them once if they come in the same order.
//
// The formats: https://github.com/opencontainers/image-spec, image-layout.md,
// manifest.md, config.md and layer.md.
package oci
