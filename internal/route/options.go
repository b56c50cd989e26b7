package route

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Options are what a Compiler is told once.
type Options struct {
	// Controller is the controllerName of the GatewayClasses that are served, and
	// IngressController that of IngressClasses.
	Controller        gatewayv1.GatewayController
	IngressController string
	// SelfSigned serves listeners whose Secret is not there, or that name none,
	// with a certificate that the caller makes (GatewayChange.SelfSigned). A Secret
	// that cannot be used stays an error.
	SelfSigned bool
	// ClusterDomain ends the names of Services. Empty: cluster.local.
	ClusterDomain string
}

// The names that Fairway goes by.
const (
	DefaultController        gatewayv1.GatewayController = "fairway.dev/gateway"
	DefaultIngressController string                      = "fairway.dev/ingress"
)

func (o *Options) clusterDomain() string {
	if o.ClusterDomain == "" {
		return "cluster.local"
	}
	return o.ClusterDomain
}
