package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// FairwayTrafficPolicy says how requests of a route are treated (route), or how
// the endpoints of a Service are used (upstream).
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:categories=gateway-api,shortName=ftp
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Direct"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type FairwayTrafficPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is what is wanted.
	//
	// +required
	Spec FairwayTrafficPolicySpec `json:"spec"`
	// Status tells for each Gateway whether the policy holds there.
	//
	// +optional
	Status gatewayv1.PolicyStatus `json:"status,omitempty"`
}

// FairwayTrafficPolicyList is a list of FairwayTrafficPolicy.
//
// +kubebuilder:object:root=true
type FairwayTrafficPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FairwayTrafficPolicy `json:"items"`
}

// FairwayTrafficPolicySpec is what a FairwayTrafficPolicy wants.
//
// +kubebuilder:validation:XValidation:message="exactly one of route and upstream must be set",rule="has(self.route) != has(self.upstream)"
// +kubebuilder:validation:XValidation:message="route needs targets of kind HTTPRoute, GRPCRoute or Ingress",rule="!has(self.route) || self.targetRefs.all(t, t.kind in ['HTTPRoute', 'GRPCRoute', 'Ingress'])"
// +kubebuilder:validation:XValidation:message="upstream needs targets of kind Service or XBackend",rule="!has(self.upstream) || self.targetRefs.all(t, t.kind in ['Service', 'XBackend'])"
type FairwayTrafficPolicySpec struct {
	// TargetRefs are the objects it holds for. sectionName is the name of a rule of
	// a route, or of a port of a Service; Ingress and XBackend have no sections.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:message="a target may be named once",rule="self.all(a, self.exists_one(b, a.group == b.group && a.kind == b.kind && a.name == b.name && (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))"
	TargetRefs []gatewayv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs"`
	// Route is for the requests of routes.
	//
	// +optional
	Route *RouteTraffic `json:"route,omitempty"`
	// Upstream is for the endpoints of Services.
	//
	// +optional
	Upstream *UpstreamTraffic `json:"upstream,omitempty"`
}

// RouteTraffic is how requests are treated. What is not set is not done.
//
// +kubebuilder:validation:MinProperties=1
type RouteTraffic struct {
	// ClientIPs lets only some clients pass; the others get 403.
	//
	// +optional
	ClientIPs *ClientIPs `json:"clientIPs,omitempty"`
	// MaxBodySize bounds the body of a request; larger ones get 413.
	//
	// +optional
	MaxBodySize *resource.Quantity `json:"maxBodySize,omitempty"`
	// RateLimits bound how many requests pass; others get 429. Each must be met.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	RateLimits []RateLimit `json:"rateLimits,omitempty"`
	// BasicAuth lets users with a password pass; others get 401.
	//
	// +optional
	BasicAuth *BasicAuth `json:"basicAuth,omitempty"`
	// JWT lets bearer tokens pass; others get 401.
	//
	// +optional
	JWT *JWT `json:"jwt,omitempty"`
	// Compression are encodings for responses, the preferred one first.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=3
	Compression []Compression `json:"compression,omitempty"`
	// ErrorPages replace the bodies of answers.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	ErrorPages []ErrorPage `json:"errorPages,omitempty"`
	// RetryBudgetPercent is the most retries in flight, in percent of the requests
	// in flight. Default: 20.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	RetryBudgetPercent *int32 `json:"retryBudgetPercent,omitempty"`
}

// CIDR is a range of addresses, or one address.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:message="must be an address or a CIDR",rule="isCIDR(self) || isIP(self)"
type CIDR string

// ClientIPs are addresses of clients. Deny wins.
type ClientIPs struct {
	// Allow, if it has any, are the only ones that pass.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Allow []CIDR `json:"allow,omitempty"`
	// Deny do not pass.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Deny []CIDR `json:"deny,omitempty"`
}

// RateLimit lets requests pass at a rate, in each data plane by itself.
type RateLimit struct {
	// Requests that pass in each Per.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Requests int32 `json:"requests"`
	// Per is a duration: 1s, 1m, 1h.
	//
	// +required
	Per gatewayv1.Duration `json:"per"`
	// Burst is the most that pass at once. Default: requests.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Burst *int32 `json:"burst,omitempty"`
	// Header counts for each value of a header by itself. Default: for each client
	// address.
	//
	// +optional
	Header *gatewayv1.HTTPHeaderName `json:"header,omitempty"`
}

// BasicAuth is RFC 7617.
type BasicAuth struct {
	// Realm is shown to users. Default: "Restricted".
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[ !#-\[\]-~]*$`
	Realm string `json:"realm,omitempty"`
	// SecretRef names a key of a Secret with users as htpasswd writes them, by
	// bcrypt or SHA.
	//
	// +required
	SecretRef KeyReference `json:"secretRef"`
}

// JWT is RFC 7519.
type JWT struct {
	// Issuer is what the claim iss must be.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Issuer string `json:"issuer"`
	// Audiences, if it has any: the claim aud must have one of them.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Audiences []string `json:"audiences,omitempty"`
	// JWKS are the issuer's public keys.
	//
	// +required
	JWKS JWKS `json:"jwks"`
	// ClaimHeaders give claims to the backend.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	ClaimHeaders []ClaimHeader `json:"claimHeaders,omitempty"`
}

// JWKS is where keys are, as RFC 7517 writes them.
//
// +kubebuilder:validation:XValidation:message="exactly one of configMapRef and secretRef must be set",rule="has(self.configMapRef) != has(self.secretRef)"
type JWKS struct {
	// ConfigMapRef names a key of a ConfigMap.
	//
	// +optional
	ConfigMapRef *KeyReference `json:"configMapRef,omitempty"`
	// SecretRef names a key of a Secret.
	//
	// +optional
	SecretRef *KeyReference `json:"secretRef,omitempty"`
}

// ClaimHeader puts a claim of a valid token into a header of the request, in
// place of what a client sent there.
type ClaimHeader struct {
	// Claim is its name.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Claim string `json:"claim"`
	// Header gets its value.
	//
	// +required
	Header gatewayv1.HTTPHeaderName `json:"header"`
}

// Compression is an encoding of content.
//
// +kubebuilder:validation:Enum=zstd;br;gzip
type Compression string

// The encodings.
const (
	CompressionZstd   Compression = "zstd"
	CompressionBrotli Compression = "br"
	CompressionGzip   Compression = "gzip"
)

// ErrorPage replaces the body of answers.
//
// +kubebuilder:validation:XValidation:message="exactly one of body and configMapRef must be set",rule="has(self.body) != has(self.configMapRef)"
type ErrorPage struct {
	// Statuses are those of the answers.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=400
	// +kubebuilder:validation:items:Maximum=599
	Statuses []int32 `json:"statuses"`
	// ContentType of the body. Default: "text/html; charset=utf-8".
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	ContentType string `json:"contentType,omitempty"`
	// Body as it is.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	Body *string `json:"body,omitempty"`
	// ConfigMapRef names a key of a ConfigMap with the body.
	//
	// +optional
	ConfigMapRef *KeyReference `json:"configMapRef,omitempty"`
}
