package route

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// validationInvalid checks what of a BackendTLSPolicy does not refer to others.
func validationInvalid(v *gatewayv1.BackendTLSPolicyValidation) reason {
	invalid := func(format string, args ...any) reason {
		return reason{string(gatewayv1.PolicyReasonInvalid), fmt.Sprintf(format, args...)}
	}
	wellKnown := deref(v.WellKnownCACertificates, "")
	switch {
	case len(v.CACertificateRefs) > 0 && wellKnown != "":
		return invalid("both caCertificateRefs and wellKnownCACertificates are set")
	case len(v.CACertificateRefs) == 0 && wellKnown == "":
		return invalid("neither caCertificateRefs nor wellKnownCACertificates is set")
	case wellKnown != "" && wellKnown != gatewayv1.WellKnownCACertificatesSystem:
		return invalid("the well-known CA certificates %s are not known", wellKnown)
	}
	if _, ok := normalHostname(string(v.Hostname)); !ok {
		return invalid("%q is not a hostname", v.Hostname)
	}
	for i, san := range v.SubjectAltNames {
		switch {
		case san.Type == gatewayv1.HostnameSubjectAltNameType:
			if _, ok := normalHostname(string(san.Hostname)); !ok {
				return invalid("subjectAltNames[%d]: %q is not a hostname", i, san.Hostname)
			}
		case san.Type == gatewayv1.URISubjectAltNameType && san.URI != "":
		default:
			return invalid("subjectAltNames[%d]: the type %q is not known, or has no value", i, san.Type)
		}
	}
	return reason{}
}

// validationCAs resolves the CA certificates of a BackendTLSPolicy or XBackend.
// They are in its own namespace.
func (r *reader) validationCAs(from referrer, v *gatewayv1.BackendTLSPolicyValidation) (pem []byte, wrong reason) {
	refs := make([]gatewayv1.ObjectReference, len(v.CACertificateRefs))
	for i, ref := range v.CACertificateRefs {
		refs[i] = gatewayv1.ObjectReference{Group: ref.Group, Kind: ref.Kind, Name: ref.Name}
	}
	return r.authorities(from, refs, caReasons{
		kind: string(gatewayv1.BackendTLSPolicyReasonInvalidKind),
		ref:  string(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef),
	})
}

// validation compiles what an upstream's certificate must be. Where no CA
// certificate can be used the result is Invalid: connections must fail.
func (r *reader) validation(from referrer, v *gatewayv1.BackendTLSPolicyValidation) *model.UpstreamTLS {
	t := &model.UpstreamTLS{}
	if why := validationInvalid(v); !why.ok() {
		t.Invalid = why.message
		return t
	}
	t.ServerName, _ = normalHostname(string(v.Hostname))
	for _, san := range v.SubjectAltNames {
		h, _ := normalHostname(string(san.Hostname))
		t.SubjectAltNames = append(t.SubjectAltNames, model.SubjectAltName{Hostname: h, URI: string(san.URI)})
	}
	if len(v.CACertificateRefs) > 0 {
		pem, why := r.validationCAs(from, v)
		if len(pem) == 0 {
			t.Invalid = "no CA certificate can be used: " + why.message
		}
		t.CAs = pem
	}
	return t
}

// backendTLS returns how TLS is spoken with a port of a Service; nil if it is
// not. The policy of the port comes before that of the Service. A policy that is
// not valid counts as well: it was meant to protect.
func (r *reader) backendTLS(service model.ObjectName, port string) *model.UpstreamTLS {
	p := r.backendTLSPolicy(Ref{KindService, service}, port)
	if p == nil {
		return nil
	}
	return r.validation(referrer{gatewayv1.GroupName, KindBackendTLSPolicy, p.Namespace}, &p.Spec.Validation)
}

// backendTLSPolicy returns the policy for a port of a Service, or nil.
func (r *reader) backendTLSPolicy(target Ref, port string) *gatewayv1.BackendTLSPolicy {
	all := policies[*gatewayv1.BackendTLSPolicy](r, KindBackendTLSPolicy, target)
	for _, section := range []string{port, ""} {
		for _, p := range all {
			if targets(p, target, section) {
				return p
			}
		}
	}
	return nil
}
