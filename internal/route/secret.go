package route

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// caKey is the key of a CA bundle, in ConfigMaps and Secrets (GEP-1897).
const caKey = "ca.crt"

// certificate reads a certificate and its key from a Secret. Errors never hold
// what is in it.
func certificate(s *corev1.Secret) (model.Certificate, error) {
	c := model.Certificate{
		ID:    model.ObjectName{Namespace: s.Namespace, Name: s.Name},
		Chain: s.Data[corev1.TLSCertKey],
		Key:   s.Data[corev1.TLSPrivateKeyKey],
	}
	if len(c.Chain) == 0 || len(c.Key) == 0 {
		// Files may have stringData, which an API server moves into data.
		if v := s.StringData[corev1.TLSCertKey]; len(c.Chain) == 0 && v != "" {
			c.Chain = []byte(v)
		}
		if v := s.StringData[corev1.TLSPrivateKeyKey]; len(c.Key) == 0 && v != "" {
			c.Key = model.Secret(v)
		}
	}
	if len(c.Chain) == 0 || len(c.Key) == 0 {
		return c, fmt.Errorf("it has no %s or no %s", corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	if _, err := tls.X509KeyPair(c.Chain, c.Key); err != nil {
		return c, errors.New("its certificate and key cannot be used together, or are not in PEM")
	}
	return c, nil
}

// caBundle checks that data holds certificates in PEM and nothing else that
// counts, and returns it.
func caBundle(data []byte) ([]byte, error) {
	n := 0
	for rest := data; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("its key %s has a certificate that cannot be read", caKey)
		}
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("its key %s has no certificate in PEM", caKey)
	}
	return data, nil
}

// configMapValue returns the value of a key.
func configMapValue(m *corev1.ConfigMap, k string) ([]byte, bool) {
	if v, ok := m.Data[k]; ok {
		return []byte(v), true
	}
	v, ok := m.BinaryData[k]
	return v, ok
}

// secretValue returns the value of a key. Files may have stringData.
func secretValue(s *corev1.Secret, k string) ([]byte, bool) {
	if v, ok := s.Data[k]; ok {
		return v, true
	}
	v, ok := s.StringData[k]
	return []byte(v), ok
}

// caReasons are what the three ways to fail are called, which differs from one
// object to the next.
type caReasons struct{ kind, ref, permitted string }

// authorities reads CA bundles. from is the object that refers, for grants.
func (r *reader) authorities(from referrer, refs []gatewayv1.ObjectReference, names caReasons) (pem []byte, wrong reason) {
	var all worst
	for _, ref := range refs {
		to := model.ObjectName{Namespace: string(deref(ref.Namespace, gatewayv1.Namespace(from.namespace))), Name: string(ref.Name)}
		b, why := r.authority(from, ref.Group, Kind(ref.Kind), to, names)
		all.add(why)
		if !why.ok() {
			continue
		}
		pem = append(append(pem, bytes.TrimSpace(b)...), '\n')
	}
	return pem, all.reason()
}

func (r *reader) authority(from referrer, group gatewayv1.Group, kind Kind, to model.ObjectName, names caReasons) ([]byte, reason) {
	if group != "" || kind != KindConfigMap && kind != KindSecret {
		return nil, reason{names.kind, fmt.Sprintf("a CA certificate cannot be taken from the kind %s", groupKind(group, gatewayv1.Kind(kind)))}
	}
	if !r.permitted(from, group, kind, to) {
		return nil, reason{names.permitted, fmt.Sprintf("no ReferenceGrant in the namespace %s lets this %s refer to %s", to.Namespace, from.kind, Ref{kind, to})}
	}
	var data []byte
	var there, has bool
	if kind == KindConfigMap {
		var m *corev1.ConfigMap
		if m, there = get[*corev1.ConfigMap](r, kind, to); there {
			data, has = configMapValue(m, caKey)
		}
	} else {
		var s *corev1.Secret
		if s, there = get[*corev1.Secret](r, kind, to); there {
			data, has = secretValue(s, caKey)
		}
	}
	switch {
	case !there:
		return nil, reason{names.ref, fmt.Sprintf("there is no %s", Ref{kind, to})}
	case !has:
		return nil, reason{names.ref, fmt.Sprintf("%s cannot be used: it has no key %s", Ref{kind, to}, caKey)}
	}
	b, err := caBundle(data)
	if err != nil {
		return nil, reason{names.ref, fmt.Sprintf("%s cannot be used: %v", Ref{kind, to}, err)}
	}
	return b, reason{}
}

// groupKind writes a kind with its group.
func groupKind(group gatewayv1.Group, kind gatewayv1.Kind) string {
	if group == "" {
		return string(kind)
	}
	return string(kind) + "." + string(group)
}
