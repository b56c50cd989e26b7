package kube

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

func fullService() *corev1.Service {
	s := service("web", 80)
	s.UID, s.ResourceVersion, s.Generation = "uid", "42", 7
	s.CreationTimestamp = metav1.NewTime(time.Unix(1700000000, 0))
	s.Labels = map[string]string{"app": "web", "": "empty key"}
	s.Annotations = map[string]string{lastApplied: "{}", "kept": "yes"}
	s.Finalizers = []string{"f"}
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1("{}")}, {Manager: "n"}}
	s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To[int32](10)}}
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
	return s
}

func marshal(t testing.TB, m interface{ Marshal() ([]byte, error) }) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSlim compares with a decoder that drops the fields afterwards.
func TestSlim(t *testing.T) {
	s := fullService()
	thin, err := slim([]byte("x"), marshal(t, s))
	if err != nil {
		t.Fatal(err)
	}
	var got corev1.Service
	if thin[0] != 'x' {
		t.Error("slim did not append")
	}
	if err := got.Unmarshal(thin[1:]); err != nil {
		t.Fatal(err)
	}
	want := s.DeepCopy()
	want.ManagedFields = nil
	delete(want.Annotations, lastApplied)
	if !equality.Semantic.DeepEqual(&got, want) {
		t.Errorf("got %+v\nwant %+v", got, *want)
	}
}

func TestTrimKeepsWhatIsRead(t *testing.T) {
	s := fullService()
	trimService(s)
	if s.UID == "" || s.ResourceVersion != "42" || s.CreationTimestamp.IsZero() || s.Annotations["kept"] != "yes" || s.Labels["app"] != "web" ||
		s.Spec.Ports[0].Port != 80 || s.Spec.SessionAffinityConfig == nil || s.Status.LoadBalancer.Ingress[0].IP != "192.0.2.1" {
		t.Errorf("trimmed too much: %+v", s)
	}
	if s.ManagedFields != nil || s.Finalizers != nil {
		t.Errorf("trimmed too little: %+v", s)
	}
	shared := make(pointers)
	a, b := slice("a", "web", "10.0.0.1"), slice("b", "web", "10.0.0.2")
	a.Endpoints[0].Conditions.Terminating = ptr.To(false)
	a.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "z"}}}
	want := a.DeepCopy()
	want.Endpoints[0].TargetRef.UID = ""
	shared.trimSlice(a)
	shared.trimSlice(b)
	if !equality.Semantic.DeepEqual(a, want) {
		t.Errorf("got %+v\nwant %+v", a, want)
	}
	if a.Endpoints[0].NodeName != b.Endpoints[0].NodeName || a.Endpoints[0].Conditions.Ready != b.Endpoints[0].Conditions.Ready ||
		a.Ports[0].Protocol != b.Ports[0].Protocol {
		t.Error("equal values are not shared")
	}
}

func TestPointersDoNotGrowWithoutEnd(t *testing.T) {
	p := make(pointers)
	for i := range 3 * maxPointers {
		s := time.Duration(i).String()
		if got := p.share(&s); *got != s {
			t.Fatalf("%q became %q", s, *got)
		}
	}
	if len(p) > maxPointers {
		t.Errorf("%d pointers", len(p))
	}
}

func frame(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }

func TestFrames(t *testing.T) {
	big := bytes.Repeat([]byte("b"), 200<<10)
	stream := append(append(frame([]byte("one")), frame(nil)...), frame(big)...)
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
	} {
		f := newFrames(r)
		for i, want := range []string{"one", "", string(big)} {
			got, err := f.next()
			if err != nil || string(got) != want {
				t.Fatalf("%s: frame %d: %d bytes, %v", name, i, len(got), err)
			}
			if ready := f.ready(); ready != (name == "at once" && i == 0) {
				t.Errorf("%s: ready after frame %d is %v", name, i, ready)
			}
		}
		if _, err := f.next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the last frame: %v", name, err)
		}
	}
	for name, in := range map[string][]byte{
		"cut in a length": {0, 0}, "cut in a frame": {0, 0, 0, 5, 'x'}, "JSON": []byte(`{"type":"ADDED"}`),
	} {
		if _, err := newFrames(bytes.NewReader(in)).next(); err == nil || err == io.EOF {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// FuzzDecode gives the decoders what no server should send: they may fail, and
// must agree with the API types' own decoder where that succeeds.
func FuzzDecode(f *testing.F) {
	obj := marshal(f, fullService())
	unknown := append(append([]byte{}, magic...), marshal(f, &runtime.Unknown{TypeMeta: runtime.TypeMeta{Kind: "Service"}, Raw: obj})...)
	f.Add(obj)
	f.Add(unknown)
	f.Add(marshal(f, &metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: unknown}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _, _ = decodeEvent(data)
		_, _ = decodeList(data, func([]byte) error { return nil })
		thin, err := slim(nil, data)
		var full, got corev1.Service
		if full.Unmarshal(data) != nil {
			return
		}
		if err != nil {
			return // protowire is stricter than the generated code
		}
		if err := got.Unmarshal(thin); err != nil {
			t.Fatalf("what was thinned does not decode: %v", err)
		}
		full.ManagedFields = nil
		delete(full.Annotations, lastApplied)
		if !equality.Semantic.DeepEqual(full, got) {
			t.Errorf("got %+v\nwant %+v", got, full)
		}
	})
}
