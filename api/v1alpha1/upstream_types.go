package v1alpha1

import gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

// UpstreamTraffic is how the endpoints of a Service are used.
//
// +kubebuilder:validation:MinProperties=1
type UpstreamTraffic struct {
	// Balance is how an endpoint is chosen. Default: RoundRobin.
	//
	// +optional
	Balance *Balance `json:"balance,omitempty"`
	// SlowStart raises the share of a new endpoint over this time. Default: 0s.
	//
	// +optional
	SlowStart *gatewayv1.Duration `json:"slowStart,omitempty"`
	// ConnectTimeout bounds how long a connection may take to open. Default: 5s.
	//
	// +optional
	ConnectTimeout *gatewayv1.Duration `json:"connectTimeout,omitempty"`
	// IdleTimeout ends a connection without requests. Default: 60s.
	//
	// +optional
	IdleTimeout *gatewayv1.Duration `json:"idleTimeout,omitempty"`
	// MaxConnections to one endpoint. Default: 1024.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxConnections *int32 `json:"maxConnections,omitempty"`
	// MaxPending requests wait for a connection; more get 503. Default: 1024.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxPending *int32 `json:"maxPending,omitempty"`
	// MaxRequests are in flight; more get 503. Default: no bound.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxRequests *int32 `json:"maxRequests,omitempty"`
	// HealthCheck asks endpoints now and then. Default: none.
	//
	// +optional
	HealthCheck *HealthCheck `json:"healthCheck,omitempty"`
	// OutlierDetection leaves out endpoints that fail. Default: none.
	//
	// +optional
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`
	// ProxyProtocol begins each connection with a PROXY header of this version.
	// Default: none.
	//
	// +optional
	// +kubebuilder:validation:Enum=1;2
	ProxyProtocol *int32 `json:"proxyProtocol,omitempty"`
}

// BalanceType is a way to choose an endpoint.
//
// +kubebuilder:validation:Enum=RoundRobin;LeastRequest;Hash
type BalanceType string

// The ways to choose an endpoint.
const (
	// BalanceRoundRobin takes one after the other.
	BalanceRoundRobin BalanceType = "RoundRobin"
	// BalanceLeastRequest takes the one of two random ones with fewer requests.
	BalanceLeastRequest BalanceType = "LeastRequest"
	// BalanceHash keeps a client, or a value of a header, at one endpoint.
	BalanceHash BalanceType = "Hash"
)

// Balance is how an endpoint is chosen.
//
// +kubebuilder:validation:XValidation:message="hashHeader is for type Hash",rule="!has(self.hashHeader) || self.type == 'Hash'"
type Balance struct {
	// Type is the way.
	//
	// +required
	Type BalanceType `json:"type"`
	// HashHeader is what Hash hashes. Default: the address of the client.
	//
	// +optional
	HashHeader *gatewayv1.HTTPHeaderName `json:"hashHeader,omitempty"`
}

// HealthCheck asks each endpoint now and then.
type HealthCheck struct {
	// Path is requested by GET and must be answered with 200 to 399. Default: a
	// connection must open.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[!-~]*$`
	Path *string `json:"path,omitempty"`
	// Host is the Host header of the request. Default: the endpoint's address.
	//
	// +optional
	Host *gatewayv1.PreciseHostname `json:"host,omitempty"`
	// Interval between two checks. Default: 10s.
	//
	// +optional
	Interval *gatewayv1.Duration `json:"interval,omitempty"`
	// Timeout of one check. Default: 2s.
	//
	// +optional
	Timeout *gatewayv1.Duration `json:"timeout,omitempty"`
	// HealthyThreshold is how many good checks in a row bring an endpoint back.
	// Default: 2.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	HealthyThreshold *int32 `json:"healthyThreshold,omitempty"`
	// UnhealthyThreshold is how many bad checks in a row leave it out. Default: 3.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	UnhealthyThreshold *int32 `json:"unhealthyThreshold,omitempty"`
}

// OutlierDetection leaves out endpoints whose answers fail.
type OutlierDetection struct {
	// ConsecutiveErrors in a row (502, 503, 504, broken connections). Default: 5.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	ConsecutiveErrors *int32 `json:"consecutiveErrors,omitempty"`
	// EjectionTime is how long it is left out, times how often it was. Default: 30s.
	//
	// +optional
	EjectionTime *gatewayv1.Duration `json:"ejectionTime,omitempty"`
	// MaxEjectionPercent of the endpoints are left out at most. Default: 50.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxEjectionPercent *int32 `json:"maxEjectionPercent,omitempty"`
}
