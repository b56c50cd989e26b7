// Package deploy holds the manifests that install Fairway, for programs that
// apply them.
package deploy

import _ "embed"

// Agent is agent.yaml: the agent on every node, in place of kube-proxy. Its two
// marked values, the image and the address of the API server, are to be set.
//
//go:embed agent.yaml
var Agent []byte
