// Package build makes what a test cluster is made of: the binaries of
// Kubernetes, etcd, containerd, runc, the CNI plugins and CoreDNS, Kubernetes'
// own end-to-end suite, and the images that they and the Gateway API's
// conformance suite need. Nothing is pulled: Go code comes from the Go module
// proxy by small modules of their own (test/cluster/modules), so that the
// product does not depend on it, and a few programs for images come from
// Debian's packages.
//
// What was built is kept in $FAIRWAY_CACHE, or else in the user's cache
// directory below fairway/, under a key made of everything that goes into it.
// Building needs go, and for runc and the images of Kubernetes' suite apt-get,
// dpkg, gcc and pkg-config; the network is needed for what the module cache
// does not have. When all is there, no command runs but "go env".
//
// Processes that want the same thing at the same time wait for each other. What
// nobody has used for a week goes when something newer of its kind was built.
package build
