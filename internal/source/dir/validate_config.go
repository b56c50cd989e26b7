package dir

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The API server's limit for all values of a Secret or ConfigMap together.
const maxData = 1 << 20

const ruleConfigKey = "a key: letters, digits, '-', '_' and '.', at most 253 characters"

// validateSecret reports what an API server would not accept in a Secret. As an
// API server does, it puts stringData into data. What it reports never shows a
// value.
func validateSecret(c *checker, root place, s *corev1.Secret) {
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	for k, v := range s.StringData {
		s.Data[k] = []byte(v)
	}
	place := func(key string) place {
		if _, ok := s.StringData[key]; ok {
			return root.f("stringData").k(key)
		}
		return root.f("data").k(key)
	}
	size := 0
	for _, k := range sortedKeys(s.Data) {
		c.form(place(k), k, validation.IsConfigMapKey(k), ruleConfigKey)
		size += len(s.Data[k])
	}
	if size > maxData {
		c.bad(root.f("data"), "all values together must be at most %d bytes, are %d", maxData, size)
	}
	s.StringData = nil
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	for _, key := range map[corev1.SecretType][]string{
		corev1.SecretTypeTLS:              {corev1.TLSCertKey, corev1.TLSPrivateKeyKey},
		corev1.SecretTypeSSHAuth:          {corev1.SSHAuthPrivateKey},
		corev1.SecretTypeDockerConfigJson: {corev1.DockerConfigJsonKey},
		corev1.SecretTypeDockercfg:        {corev1.DockerConfigKey},
	}[s.Type] {
		if _, ok := s.Data[key]; !ok {
			c.bad(root.f("data"), "key %q is required where the type is %s", key, s.Type)
		}
	}
	if s.Type == corev1.SecretTypeBasicAuth {
		_, user := s.Data[corev1.BasicAuthUsernameKey]
		if _, password := s.Data[corev1.BasicAuthPasswordKey]; !user && !password {
			c.bad(root.f("data"), "key %q or %q is required where the type is %s", corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey, s.Type)
		}
	}
}

func validateConfigMap(c *checker, root place, m *corev1.ConfigMap) {
	size := 0
	for _, k := range sortedKeys(m.Data) {
		c.form(root.f("data").k(k), k, validation.IsConfigMapKey(k), ruleConfigKey)
		size += len(m.Data[k])
	}
	for _, k := range sortedKeys(m.BinaryData) {
		c.form(root.f("binaryData").k(k), k, validation.IsConfigMapKey(k), ruleConfigKey)
		if _, ok := m.Data[k]; ok {
			c.bad(root.f("binaryData").k(k), "is also in data")
		}
		size += len(m.BinaryData[k])
	}
	if size > maxData {
		c.bad(root.f("data"), "all values together must be at most %d bytes, are %d", maxData, size)
	}
}
