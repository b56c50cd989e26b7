package oci

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"time"
)

// Media types and annotations that are in the files.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
	// The name that containerd gives the image; the second is what others read.
	annotationName = "io.containerd.image.name"
	annotationRef  = "org.opencontainers.image.ref.name"
)

// Image is one image of this machine's architecture, under one name or more.
type Image struct {
	// Refs are full names: "registry.k8s.io/pause:3.10".
	Refs []string
	// Layers, the lowest first.
	Layers []*Layer
	// Entrypoint and Cmd are what runs; empty is none.
	Entrypoint, Cmd []string
	// User is empty for root, or as in a Dockerfile.
	User string
}

// searchPath is where shells of the images look for programs.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type config struct {
	platform
	Created string    `json:"created"`
	Config  runConfig `json:"config"`
	RootFS  rootFS    `json:"rootfs"`
}

type runConfig struct {
	User       string   `json:"User,omitempty"`
	Env        []string `json:"Env"`
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	WorkingDir string   `json:"WorkingDir"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

func describe(mediaType string, b blob) descriptor {
	return descriptor{MediaType: mediaType, Digest: b.digest(), Size: b.size}
}

// documents returns the image's manifest and configuration.
func (i Image) documents(layers map[*Layer]blob) (man, conf []byte, err error) {
	c := config{
		platform: platform{Architecture: runtime.GOARCH, OS: "linux"},
		Created:  time.Unix(0, 0).UTC().Format(time.RFC3339),
		Config:   runConfig{User: i.User, Env: []string{searchPath}, Entrypoint: i.Entrypoint, Cmd: i.Cmd, WorkingDir: "/"},
		RootFS:   rootFS{Type: "layers"},
	}
	m := manifest{SchemaVersion: 2, MediaType: typeManifest}
	for _, l := range i.Layers {
		// The layers are not compressed, so that this is both.
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, layers[l].digest())
		m.Layers = append(m.Layers, describe(typeLayer, layers[l]))
	}
	if conf, err = json.Marshal(c); err != nil {
		return nil, nil, err
	}
	m.Config = describe(typeConfig, blobOf(conf))
	man, err = json.Marshal(m)
	return man, conf, err
}

// WriteFile writes the images into one file. What was there stays as it is
// until the new file is complete.
func WriteFile(name string, images ...Image) (err error) {
	tmp := name + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
			err = fmt.Errorf("write images to %s: %w", name, err)
		}
	}()
	if err := errors.Join(Write(f, images...), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// Write writes the images. Files of the layers are read twice: the names of
// what is written are their digests, and come first.
func Write(w io.Writer, images ...Image) error {
	a := archive{w: tar.NewWriter(w), layers: map[*Layer]blob{}, written: map[string]bool{}}
	if err := a.put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	ix := index{SchemaVersion: 2, MediaType: typeIndex}
	for _, i := range images {
		d, err := a.image(i)
		if err != nil {
			return fmt.Errorf("image %v: %w", i.Refs, err)
		}
		for _, ref := range i.Refs {
			d.Annotations = map[string]string{annotationName: ref, annotationRef: ref}
			ix.Manifests = append(ix.Manifests, d)
		}
	}
	b, err := json.Marshal(ix)
	if err != nil {
		return err
	}
	if err := a.put("index.json", b); err != nil {
		return err
	}
	return a.w.Close()
}

// archive is the file as far as it is written.
type archive struct {
	w       *tar.Writer
	layers  map[*Layer]blob
	written map[string]bool // names
}

// image writes the blobs of an image and describes its manifest.
func (a *archive) image(i Image) (descriptor, error) {
	if len(i.Refs) == 0 || len(i.Layers) == 0 {
		return descriptor{}, errors.New("an image has a name and a layer at least")
	}
	for _, l := range i.Layers {
		if err := a.layer(l); err != nil {
			return descriptor{}, err
		}
	}
	man, conf, err := i.documents(a.layers)
	if err != nil {
		return descriptor{}, err
	}
	for _, b := range [][]byte{conf, man} {
		if err := a.put(blobPath(blobOf(b)), b); err != nil {
			return descriptor{}, err
		}
	}
	d := describe(typeManifest, blobOf(man))
	d.Platform = &platform{Architecture: runtime.GOARCH, OS: "linux"}
	return d, nil
}

func (a *archive) layer(l *Layer) error {
	if _, ok := a.layers[l]; ok {
		return nil
	}
	want, err := l.measure(io.Discard)
	if err != nil {
		return err
	}
	a.layers[l] = want
	if a.written[blobPath(want)] {
		return nil
	}
	if err := a.header(blobPath(want), want.size); err != nil {
		return err
	}
	got, err := l.measure(a.w)
	if err == nil && got != want {
		err = errors.New("a file of a layer changed while it was read; do it again")
	}
	return err
}

// put writes a small file, unless it is there already.
func (a *archive) put(name string, content []byte) error {
	if a.written[name] {
		return nil
	}
	if err := a.header(name, int64(len(content))); err != nil {
		return err
	}
	_, err := a.w.Write(content)
	return err
}

func (a *archive) header(name string, size int64) error {
	a.written[name] = true
	return a.w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

func blobPath(b blob) string { return path.Join("blobs/sha256", b.hex) }
