package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// FairwayListenerPolicy bounds what clients may do at listeners, and says what
// is written down.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:categories=gateway-api,shortName=flp
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Direct"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type FairwayListenerPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is what is wanted.
	//
	// +required
	Spec FairwayListenerPolicySpec `json:"spec"`
	// Status tells for each Gateway whether the policy holds there.
	//
	// +optional
	Status gatewayv1.PolicyStatus `json:"status,omitempty"`
}

// FairwayListenerPolicyList is a list of FairwayListenerPolicy.
//
// +kubebuilder:object:root=true
type FairwayListenerPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FairwayListenerPolicy `json:"items"`
}

// FairwayListenerPolicySpec is what a FairwayListenerPolicy wants. What is not
// set has its default.
type FairwayListenerPolicySpec struct {
	// TargetRefs are Gateways and ListenerSets. A policy of a Gateway holds for the
	// listeners that stand in the Gateway, not for those of its ListenerSets.
	// sectionName is the name of a listener.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:message="targets must be of kind Gateway or ListenerSet",rule="self.all(t, t.group == 'gateway.networking.k8s.io' && t.kind in ['Gateway', 'ListenerSet'])"
	// +kubebuilder:validation:XValidation:message="a target may be named once",rule="self.all(a, self.exists_one(b, a.kind == b.kind && a.name == b.name && (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))"
	TargetRefs []gatewayv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs"`
	// ProxyProtocol reads a PROXY header, version 1 or 2, from each connection of a
	// trusted proxy. Default: false.
	//
	// +optional
	ProxyProtocol *bool `json:"proxyProtocol,omitempty"`
	// TrustedProxies are whose PROXY, X-Forwarded-For and Forwarded headers are
	// believed. Default: nobody.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	TrustedProxies []CIDR `json:"trustedProxies,omitempty"`
	// HTTP2 is offered. Default: true.
	//
	// +optional
	HTTP2 *bool `json:"http2,omitempty"`
	// HTTP3 is offered by HTTPS listeners, over UDP at the same port. It is not
	// where a UDP listener has that port. Default: false.
	//
	// +optional
	HTTP3 *bool `json:"http3,omitempty"`
	// Limits bound what one listener takes.
	//
	// +optional
	Limits *ListenerLimits `json:"limits,omitempty"`
	// Timeouts bound how long clients may wait.
	//
	// +optional
	Timeouts *ListenerTimeouts `json:"timeouts,omitempty"`
	// AccessLog is what is written down of requests. Default: nothing.
	//
	// +optional
	AccessLog *AccessLog `json:"accessLog,omitempty"`
}

// ListenerLimits bound what one listener takes.
type ListenerLimits struct {
	// MaxConnections in all. Default: 65536.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxConnections *int32 `json:"maxConnections,omitempty"`
	// MaxConnectionsPerClient of one address. Default: no bound.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxConnectionsPerClient *int32 `json:"maxConnectionsPerClient,omitempty"`
	// MaxHeaderSize of a request, all fields together. Default: 64Ki.
	//
	// +optional
	MaxHeaderSize *resource.Quantity `json:"maxHeaderSize,omitempty"`
	// MaxHeaders of a request. Default: 100.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxHeaders *int32 `json:"maxHeaders,omitempty"`
	// MaxConcurrentStreams of one HTTP/2 or HTTP/3 connection. Default: 128.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxConcurrentStreams *int32 `json:"maxConcurrentStreams,omitempty"`
	// MaxRequestsPerConnection. Default: no bound.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxRequestsPerConnection *int32 `json:"maxRequestsPerConnection,omitempty"`
}

// ListenerTimeouts bound how long clients may wait. They cannot be switched off:
// 0s is not allowed.
type ListenerTimeouts struct {
	// Handshake of TLS, and the PROXY header. Default: 10s.
	//
	// +optional
	Handshake *gatewayv1.Duration `json:"handshake,omitempty"`
	// Header is from the first byte of a request to the end of its head. Default: 10s.
	//
	// +optional
	Header *gatewayv1.Duration `json:"header,omitempty"`
	// BodyIdle is between two pieces of a request's body. Default: 60s.
	//
	// +optional
	BodyIdle *gatewayv1.Duration `json:"bodyIdle,omitempty"`
	// WriteIdle is between two writes of which the client took something. Default: 60s.
	//
	// +optional
	WriteIdle *gatewayv1.Duration `json:"writeIdle,omitempty"`
	// KeepAlive is between two requests. Default: 75s.
	//
	// +optional
	KeepAlive *gatewayv1.Duration `json:"keepAlive,omitempty"`
	// TCPIdle is for TCP, TLS and upgraded connections. Default: 1h.
	//
	// +optional
	TCPIdle *gatewayv1.Duration `json:"tcpIdle,omitempty"`
	// UDPIdle is for flows of UDP. Default: 60s.
	//
	// +optional
	UDPIdle *gatewayv1.Duration `json:"udpIdle,omitempty"`
	// Drain is how long requests may take to end when the listener goes. Default: 30s.
	//
	// +optional
	Drain *gatewayv1.Duration `json:"drain,omitempty"`
}

// AccessLogFormat is how requests are written down.
//
// +kubebuilder:validation:Enum=None;Text;JSON
type AccessLogFormat string

// The formats of an access log.
const (
	AccessLogNone AccessLogFormat = "None"
	AccessLogText AccessLogFormat = "Text"
	AccessLogJSON AccessLogFormat = "JSON"
)

// AccessLog is what is written down of requests.
type AccessLog struct {
	// Format of a line.
	//
	// +required
	Format AccessLogFormat `json:"format"`
	// OnlyErrors leaves out what was answered below 500. Default: false.
	//
	// +optional
	OnlyErrors bool `json:"onlyErrors,omitempty"`
}
