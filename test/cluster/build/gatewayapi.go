package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/fairwaynet/fairway/test/cluster/oci"
)

// GatewaySuite is what the conformance suite of the Gateway API runs in pods.
// The suite itself is a Go package, sigs.k8s.io/gateway-api/conformance.
type GatewaySuite struct {
	// Images are files of all images that the suite's manifests ask for, to be
	// imported on each node: by k8s.Options.Images or k8s.Cluster.LoadImage.
	Images []string
}

// GatewayAPI builds the images of the conformance suite, of the version in
// test/cluster/modules/gateway-api/go.mod. The first time it takes a minute or
// two.
func GatewayAPI(ctx context.Context, progress io.Writer) (*GatewaySuite, error) {
	b, err := newBuilder(ctx, progress)
	if err != nil {
		return nil, err
	}
	m := gatewayModule()
	dir, err := b.module(ctx, m)
	if err != nil {
		return nil, err
	}
	coreDNS, err := b.coreDNS(ctx)
	if err != nil {
		return nil, err
	}
	p := gatewayPrograms{
		basic:   filepath.Join(dir, "echo-basic"),
		server:  filepath.Join(dir, "server"),
		client:  filepath.Join(dir, "client"),
		coreDNS: coreDNS,
	}
	images, err := b.images(ctx, "gateway-api-images", "", []string{p.basic, p.server, p.client, coreDNS}, func(ctx context.Context) ([]oci.Image, error) {
		suite, err := b.moduleDir(ctx, m.dir, gatewayConformance)
		if err != nil {
			return nil, err
		}
		istio, err := b.moduleDir(ctx, m.dir, istioModule)
		if err != nil {
			return nil, err
		}
		p.certificates = filepath.Join(istio, "tests/testdata/certs/dns")
		refs, err := manifestRefs(os.DirFS(suite), "base", "mesh", "tests")
		if err != nil {
			return nil, fmt.Errorf("manifests of %s: %w", suite, err)
		}
		return p.images(refs)
	})
	if err != nil {
		return nil, err
	}
	return &GatewaySuite{Images: []string{images}}, nil
}

// Modules that the suite's programs are in.
const (
	gatewayConformance = "sigs.k8s.io/gateway-api/conformance"
	istioModule        = "istio.io/istio"
)

func gatewayModule() goModule {
	const echo = istioModule + "/pkg/test/echo/cmd/"
	return goModule{
		name: "gateway-api", dir: "gateway-api", ldflags: "-s -w",
		packages: []string{gatewayConformance + "/echo-basic", echo + "server", echo + "client"},
	}
}

// gatewayPrograms are files on this machine that go into the suite's images.
type gatewayPrograms struct {
	basic, server, client, coreDNS string
	certificates                   string // directory of Istio's certificate for tests
}

// images returns an image for each name in refs. It fails if one of them is
// unknown, or one that is made here is not among them.
func (p gatewayPrograms) images(refs map[string][]string) ([]oci.Image, error) {
	// docker/Dockerfile.echo-basic in sigs.k8s.io/gateway-api: distroless, as its
	// user "nonroot".
	basic, err := programImage(p.basic)
	if err != nil {
		return nil, err
	}
	basic.User = "65532:65532"
	advanced, err := p.advanced()
	if err != nil {
		return nil, err
	}
	// The cluster's own CoreDNS, which nodes have already. It has the plugins
	// that the suite configures: errors, forward, log and whoami.
	coreDNS, err := programImage(p.coreDNS)
	if err != nil {
		return nil, err
	}
	made := map[string]oci.Image{
		"registry.k8s.io/gateway-api/echo-basic":    basic,
		"registry.k8s.io/gateway-api/echo-advanced": advanced,
		"registry.k8s.io/coredns/coredns":           coreDNS,
	}
	var images []oci.Image
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		image, ok := made[name]
		if !ok {
			return nil, fmt.Errorf("the suite's manifests ask for the image %s, which is not built here", refs[name][0])
		}
		delete(made, name)
		image.Refs = refs[name]
		images = append(images, image)
	}
	if len(made) > 0 {
		return nil, fmt.Errorf("the suite's manifests do not ask for %s: has it another name now?",
			strings.Join(slices.Sorted(maps.Keys(made)), " and "))
	}
	return images, nil
}

// advanced is Istio's echo server and client, as pkg/test/echo/docker/Dockerfile.app
// in istio.io/istio makes the image that docker/Dockerfile.echo-advanced in
// sigs.k8s.io/gateway-api renames. Theirs is on Ubuntu, of which no test runs
// anything.
func (p gatewayPrograms) advanced() (oci.Image, error) {
	const server = "/usr/local/bin/server"
	l := &oci.Layer{}
	for at, from := range map[string]string{
		server:                  p.server,
		"/usr/local/bin/client": p.client,
		"/cert.crt":             filepath.Join(p.certificates, "cert-chain.pem"),
		"/cert.key":             filepath.Join(p.certificates, "key.pem"),
	} {
		if err := l.Copy(at, from); err != nil {
			return oci.Image{}, err
		}
	}
	return oci.Image{Layers: []*oci.Layer{l}, Entrypoint: []string{server}, User: "1338"}, nil
}

// manifestRefs returns the images that the YAML files below some directories
// ask for, as byName has them: the value of each field "image".
func manifestRefs(manifests fs.FS, dirs ...string) (map[string][]string, error) {
	var refs []string
	for _, dir := range dirs {
		err := fs.WalkDir(manifests, dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path.Ext(name) != ".yaml" {
				return err
			}
			f, err := manifests.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			for dec := yaml.NewDecoder(f); ; {
				var doc any
				if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				refs = appendImages(refs, doc)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if len(refs) == 0 {
		return nil, errors.New("none asks for an image")
	}
	slices.Sort(refs)
	return byName(slices.Compact(refs)), nil
}

// appendImages appends the values of all fields "image" in a YAML document.
func appendImages(refs []string, v any) []string {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			refs = appendImages(refs, e)
		}
	case map[string]any:
		for k, e := range v {
			if ref, ok := e.(string); ok && k == "image" {
				refs = append(refs, ref)
			}
			refs = appendImages(refs, e)
		}
	}
	return refs
}
