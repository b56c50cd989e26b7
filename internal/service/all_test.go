package service

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

func TestAllAndGet(t *testing.T) {
	c := NewCompiler(Node{Name: "n"})
	make := func(name, ip string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 81}}}}
	}
	c.Update(make("x", "10.0.0.1"), nil)
	c.Update(make("y", "10.0.0.2"), nil)
	c.Update(make("z", "10.0.0.1"), nil) // loses both of its addresses
	c.Remove("default", "y")
	var got []string
	for s := range c.All() {
		got = append(got, s.ID.String())
		if c.Get(s.ID) != s {
			t.Errorf("Get(%s) is another one", s.ID)
		}
	}
	slices.Sort(got)
	if want := []string{"default/x:a/TCP/IPv4", "default/x:b/TCP/IPv4"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if c.Get(model.ServiceID{Namespace: "default", Name: "y", Port: "a", Protocol: model.TCP, Family: model.IPv4}) != nil {
		t.Error("y is still there")
	}
}
