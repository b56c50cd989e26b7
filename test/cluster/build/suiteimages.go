package build

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/test/cluster/oci"
)

// nginx is a layer of a web server that serves one page at port 80.
func (u userland) nginx(base *oci.Layer) (*oci.Layer, error) {
	l := &oci.Layer{}
	l.Dir("/var/log/nginx", 0o755)
	l.Dir("/var/lib/nginx", 0o755)
	l.Text("/etc/nginx/nginx.conf", nginxConf)
	l.Text("/usr/share/nginx/html/index.html", "<title>Welcome to nginx!</title>\n")
	return l, u.programs(l, base, map[string]string{"/usr/sbin/nginx": "/usr/sbin/nginx"})
}

const nginxConf = `user root;
worker_processes 1;
error_log /dev/stderr notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
    access_log /dev/stdout;
    server {
        listen 80;
        listen [::]:80;
        root /usr/share/nginx/html;
    }
}
`

// suitePrograms are files on this machine that go into the suite's images.
type suitePrograms struct {
	agnhost, regression, pause, coreDNS string
	porter                              string // directory of the certificate of agnhost porter
}

// suiteImages returns the images of Kubernetes' suite that can be made here. Refs
// are the names that the suite asks for.
func (u userland) suiteImages(ctx context.Context, p suitePrograms, refs map[string][]string) ([]oci.Image, error) {
	base, err := u.base(ctx)
	if err != nil {
		return nil, err
	}
	tools, err := u.tools(base)
	if err != nil {
		return nil, err
	}
	web, err := u.nginx(base)
	if err != nil {
		return nil, err
	}
	agnhost, err := agnhostImage(p, base, tools)
	if err != nil {
		return nil, err
	}
	regression, err := programImage(p.regression)
	if err != nil {
		return nil, err
	}
	const tests = "registry.k8s.io/e2e-test-images/"
	var images []oci.Image
	for _, i := range []struct {
		names []string // the first that the suite asks for
		image oci.Image
	}{
		{[]string{tests + "agnhost"}, agnhost},
		{[]string{tests + "busybox"}, oci.Image{Layers: []*oci.Layer{base}, Cmd: []string{"sh"}}},
		{[]string{tests + "glibc-dns-testing", tests + "jessie-dnsutils"}, oci.Image{Layers: []*oci.Layer{base, tools}, Cmd: []string{"sh"}}},
		{[]string{tests + "nginx"}, oci.Image{Layers: []*oci.Layer{base, web}, Entrypoint: []string{"nginx", "-g", "daemon off;"}}},
		{[]string{tests + "regression-issue-74839"}, regression},
		{[]string{"registry.k8s.io/build-image/distroless-iptables"}, oci.Image{Layers: []*oci.Layer{base, tools}}},
	} {
		at := slices.IndexFunc(i.names, func(n string) bool { return len(refs[n]) > 0 })
		if at < 0 {
			return nil, fmt.Errorf("the suite does not list an image %s: has it another name now?", strings.Join(i.names, " or "))
		}
		i.image.Refs = refs[i.names[at]]
		images = append(images, i.image)
	}
	return images, nil
}

// agnhostImage is as test/images/agnhost/Dockerfile in k8s.io/kubernetes makes
// it, but on Debian's C library.
func agnhostImage(p suitePrograms, base, tools *oci.Layer) (oci.Image, error) {
	// The layer of the cluster's own CoreDNS image, which nodes have already.
	coreDNS, err := programImage(p.coreDNS)
	if err != nil {
		return oci.Image{}, err
	}
	l := &oci.Layer{}
	if err := l.Copy("/agnhost", p.agnhost); err != nil {
		return oci.Image{}, err
	}
	l.Symlink("/agnhost-2", "agnhost")
	for _, name := range []string{"localhost.crt", "localhost.key"} {
		if err := l.Copy("/"+name, filepath.Join(p.porter, name)); err != nil {
			return oci.Image{}, err
		}
	}
	l.Dir("/uploads", 0o755)
	l.Dir("/var/log", 0o755)
	// A test runs as them.
	l.Text("/etc/passwd", passwd+"user-defined-in-image:x:1000:1000::/:/bin/sh\n")
	l.Text("/etc/group", group+"user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n")
	pause, err := pauseImage(p.pause)
	if err != nil {
		return oci.Image{}, err
	}
	if err := l.AddRegistry("/var/registry", "pause", "testing", pause); err != nil {
		return oci.Image{}, err
	}
	return oci.Image{Layers: append(slices.Clone(coreDNS.Layers), base, tools, l), Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}, nil
}
