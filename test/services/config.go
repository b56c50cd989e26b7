package services

import (
	"fmt"

	proxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
)

// Config is how the proxy of node n1 is configured.
type Config struct {
	MasqueradeAll bool
	// NodePortAddresses are kube-proxy's; empty leaves the proxy its default.
	NodePortAddresses []string
	// DetectLocal says how pods are told: "" by PodCIDRs, "interface" by
	// PodLinkPrefix, "none" not at all.
	DetectLocal string
}

// Key is equal for equal configurations.
func (c Config) Key() string { return fmt.Sprintf("%+v", c) }

// Fill sets the fields of kube-proxy's configuration, which Fairway reads too.
func (c Config) Fill(k *proxyv1alpha1.KubeProxyConfiguration) {
	k.IPTables.MasqueradeAll = c.MasqueradeAll
	k.NFTables.MasqueradeAll = c.MasqueradeAll
	k.NodePortAddresses = c.NodePortAddresses
	for _, a := range c.NodePortAddresses {
		if a == "localhost" && k.Mode == "nftables" {
			k.FeatureGates = map[string]bool{"KubeProxyNFTablesLocalhostNodePorts": true}
		}
	}
	switch c.DetectLocal {
	case "":
		k.DetectLocalMode = "ClusterCIDR"
		k.ClusterCIDR = PodCIDRs[0].String() + "," + PodCIDRs[1].String()
	case "interface":
		k.DetectLocalMode = "InterfaceNamePrefix"
		k.DetectLocal.InterfaceNamePrefix = PodLinkPrefix
	case "none":
		// A mode by ranges without a range is how kube-proxy says "not known".
		k.DetectLocalMode = "ClusterCIDR"
	}
}
