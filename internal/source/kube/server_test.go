package kube

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/client-go/rest"
)

// apiServer is an API server in memory that speaks as the real one does: list in
// pages, watch with bookmarks, lists in a stream, 410 for what it forgot. Its
// bytes are made by apimachinery's own encoders.
type apiServer struct {
	t      *testing.T
	codecs serializer.CodecFactory
	http   *httptest.Server

	mu        sync.Mutex
	version   int
	oldest    int // events up to this version are forgotten
	objects   map[string]map[string]runtime.Object
	events    []event
	changed   chan struct{} // closed at each change
	cut       chan struct{} // closed to cut every watch
	streams   bool          // serves WatchList
	absent    map[string]int
	requests  []string // "list services", "stream services", "watch services@5"
	failNext  int      // this many requests get failCode
	failCode  int
	cutAfter  int // cut the next stream after so many events; 0 is never
	pageLimit int // pages are no larger than this
	expire    int // this many continued lists get 410
}

type event struct {
	version  int
	resource string
	typ      string
	obj      runtime.Object
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	sch := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(sch); err != nil {
			t.Fatal(err)
		}
	}
	metav1.AddToGroupVersion(sch, schema.GroupVersion{Version: "v1"})
	s := &apiServer{
		t: t, codecs: serializer.NewCodecFactory(sch), version: 10, streams: true, absent: map[string]int{},
		objects: map[string]map[string]runtime.Object{}, changed: make(chan struct{}), cut: make(chan struct{}),
	}
	s.http = httptest.NewServer(s)
	t.Cleanup(func() {
		s.disconnect()
		s.http.Close()
	})
	return s
}

func (s *apiServer) config() *rest.Config { return &rest.Config{Host: s.http.URL} }

func (s *apiServer) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// disconnect cuts every stream.
func (s *apiServer) disconnect() {
	s.with(func() {
		close(s.cut)
		s.cut = make(chan struct{})
	})
}

// forget makes the server forget all events until now, and cuts the streams.
func (s *apiServer) forget() {
	s.with(func() { s.oldest, s.events = s.version, nil })
	s.disconnect()
}

func resourceOf(obj runtime.Object) string {
	switch obj.(type) {
	case *corev1.Service:
		return "services"
	case *discoveryv1.EndpointSlice:
		return "endpointslices"
	case *corev1.Node:
		return "nodes"
	case *networkingv1.ServiceCIDR:
		return "servicecidrs"
	}
	panic(fmt.Sprintf("no resource for %T", obj))
}

func keyOf(obj runtime.Object) string {
	m := obj.(metav1.Object)
	return m.GetNamespace() + "/" + m.GetName()
}

// put creates or updates objects.
func (s *apiServer) put(objs ...runtime.Object) {
	s.with(func() {
		for _, obj := range objs {
			obj = obj.DeepCopyObject()
			s.version++
			m := obj.(metav1.Object)
			m.SetResourceVersion(strconv.Itoa(s.version))
			if m.GetUID() == "" {
				m.SetUID("uid")
			}
			res, typ := resourceOf(obj), "ADDED"
			if s.objects[res] == nil {
				s.objects[res] = map[string]runtime.Object{}
			}
			if s.objects[res][keyOf(obj)] != nil {
				typ = "MODIFIED"
			}
			s.objects[res][keyOf(obj)] = obj
			s.events = append(s.events, event{s.version, res, typ, obj})
		}
	})
}

func (s *apiServer) remove(objs ...runtime.Object) {
	s.with(func() {
		for _, obj := range objs {
			s.version++
			obj = s.objects[resourceOf(obj)][keyOf(obj)].DeepCopyObject()
			obj.(metav1.Object).SetResourceVersion(strconv.Itoa(s.version))
			delete(s.objects[resourceOf(obj)], keyOf(obj))
			s.events = append(s.events, event{s.version, resourceOf(obj), "DELETED", obj})
		}
	})
}

func (s *apiServer) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (s *apiServer) encoder(gv schema.GroupVersion) (runtime.SerializerInfo, runtime.Encoder) {
	for _, info := range s.codecs.SupportedMediaTypes() {
		if info.MediaType == runtime.ContentTypeProtobuf {
			return info, s.codecs.EncoderForVersion(info.Serializer, gv)
		}
	}
	panic("no protobuf")
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	gv, res := schema.GroupVersion{Version: parts[1]}, parts[len(parts)-1]
	if parts[0] == "apis" {
		gv = schema.GroupVersion{Group: parts[1], Version: parts[2]}
	}
	q := r.URL.Query()
	what := "list " + res
	switch {
	case q.Get("sendInitialEvents") == "true":
		what = "stream " + res
	case q.Get("watch") == "true":
		what = "watch " + res + "@" + q.Get("resourceVersion")
	}
	s.mu.Lock()
	s.requests = append(s.requests, what)
	code, reason := 0, metav1.StatusReason("")
	switch {
	case s.failNext > 0:
		s.failNext--
		code, reason = s.failCode, metav1.StatusReasonInternalError
	case s.absent[res] != 0:
		code, reason = s.absent[res], metav1.StatusReasonNotFound
		if code == http.StatusForbidden {
			reason = metav1.StatusReasonForbidden
		}
	case r.Header.Get("Accept") != runtime.ContentTypeProtobuf:
		code = http.StatusNotAcceptable
	case strings.HasPrefix(what, "stream") && (q.Get("resourceVersionMatch") != "NotOlderThan" || q.Get("allowWatchBookmarks") != "true"):
		code, reason = http.StatusBadRequest, metav1.StatusReasonBadRequest
	case strings.HasPrefix(what, "stream") && !s.streams:
		code, reason = http.StatusUnprocessableEntity, metav1.StatusReasonInvalid
	}
	s.mu.Unlock()
	if code != 0 {
		s.status(w, code, reason)
		return
	}
	if q.Get("watch") == "true" {
		s.watch(w, r, gv, res)
		return
	}
	s.list(w, r, gv, res)
}

func (s *apiServer) status(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	_, enc := s.encoder(schema.GroupVersion{Version: "v1"})
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	w.WriteHeader(code)
	st := &metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: fmt.Sprintf("status %d", code)}
	if err := enc.Encode(st, w); err != nil {
		s.t.Error(err)
	}
}

// selected returns the objects that a request selects, in order of their keys.
func (s *apiServer) selected(r *http.Request, res string) []runtime.Object {
	var out []runtime.Object
	for _, obj := range s.objects[res] {
		if selects(r, obj) {
			out = append(out, obj)
		}
	}
	slices.SortFunc(out, func(a, b runtime.Object) int { return cmp.Compare(keyOf(a), keyOf(b)) })
	return out
}

func selects(r *http.Request, obj runtime.Object) bool {
	m := obj.(metav1.Object)
	sel, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		panic(err)
	}
	name, one := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	return sel.Matches(labels.Set(m.GetLabels())) && (!one || m.GetName() == name)
}

func (s *apiServer) list(w http.ResponseWriter, r *http.Request, gv schema.GroupVersion, res string) {
	s.mu.Lock()
	all, version := s.selected(r, res), strconv.Itoa(s.version)
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	if s.pageLimit > 0 {
		limit = min(limit, s.pageLimit)
	}
	from := 0
	if c := r.URL.Query().Get("continue"); c != "" {
		if s.expire > 0 {
			s.expire--
			s.mu.Unlock()
			s.status(w, http.StatusGone, metav1.StatusReasonExpired)
			return
		}
		var token struct{ From int }
		if err := json.Unmarshal([]byte(c), &token); err != nil {
			panic(err)
		}
		from = token.From
	}
	s.mu.Unlock()
	meta := metav1.ListMeta{ResourceVersion: version}
	page := all[min(from, len(all)):]
	if limit > 0 && len(page) > limit {
		page = page[:limit]
		meta.Continue = fmt.Sprintf(`{"From":%d}`, from+limit)
	}
	var list runtime.Object
	switch res {
	case "services":
		l := &corev1.ServiceList{ListMeta: meta}
		for _, o := range page {
			l.Items = append(l.Items, *o.(*corev1.Service))
		}
		list = l
	case "endpointslices":
		l := &discoveryv1.EndpointSliceList{ListMeta: meta}
		for _, o := range page {
			l.Items = append(l.Items, *o.(*discoveryv1.EndpointSlice))
		}
		list = l
	case "nodes":
		l := &corev1.NodeList{ListMeta: meta}
		for _, o := range page {
			l.Items = append(l.Items, *o.(*corev1.Node))
		}
		list = l
	default:
		list = &networkingv1.ServiceCIDRList{ListMeta: meta}
	}
	_, enc := s.encoder(gv)
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	if err := enc.Encode(list, w); err != nil {
		s.t.Error(err)
	}
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, gv schema.GroupVersion, res string) {
	info, enc := s.encoder(gv)
	_, status := s.encoder(schema.GroupVersion{Version: "v1"})
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	frames := streaming.NewEncoder(info.StreamSerializer.Framer.NewFrameWriter(w), s.codecs.EncoderForVersion(info.StreamSerializer.Serializer, gv))
	sent, cutAfter := 0, 0
	send := func(typ string, obj runtime.Object) bool {
		if cutAfter > 0 && sent >= cutAfter {
			return false
		}
		sent++
		e := enc
		if typ == "ERROR" {
			e = status
		}
		var buf strings.Builder
		if err := e.Encode(obj, &buf); err != nil {
			s.t.Error(err)
			return false
		}
		return frames.Encode(&metav1.WatchEvent{Type: typ, Object: runtime.RawExtension{Raw: []byte(buf.String())}}) == nil
	}
	bookmark := func(version int, end bool) runtime.Object {
		m := metav1.ObjectMeta{ResourceVersion: strconv.Itoa(version)}
		if end {
			m.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
		}
		switch res {
		case "services":
			return &corev1.Service{ObjectMeta: m}
		case "endpointslices":
			return &discoveryv1.EndpointSlice{ObjectMeta: m}
		case "nodes":
			return &corev1.Node{ObjectMeta: m}
		}
		return &networkingv1.ServiceCIDR{ObjectMeta: m}
	}
	s.mu.Lock()
	cut := s.cut
	at, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	var initial []runtime.Object
	stream := r.URL.Query().Get("sendInitialEvents") == "true"
	if stream {
		initial, at = s.selected(r, res), s.version
		if len(initial) > 0 {
			cutAfter, s.cutAfter = s.cutAfter, 0
		}
	}
	expired := !stream && at < s.oldest
	s.mu.Unlock()
	if expired {
		send("ERROR", &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "too old resource version"})
		return
	}
	for _, obj := range initial {
		if !send("ADDED", obj) {
			panic(http.ErrAbortHandler) // cuts the connection
		}
	}
	if stream && !send("BOOKMARK", bookmark(at, true)) {
		panic(http.ErrAbortHandler)
	}
	for {
		s.mu.Lock()
		changed := s.changed
		var next []event
		for _, e := range s.events {
			if e.version > at && e.resource == res && selects(r, e.obj) {
				next = append(next, e)
			}
		}
		at = s.version
		s.mu.Unlock()
		for _, e := range next {
			if !send(e.typ, e.obj) {
				return
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-cut:
			panic(http.ErrAbortHandler)
		case <-changed:
		case <-time.After(time.Minute):
			return
		}
	}
}
