package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fairwaynet/fairway/internal/agent"
)

// events writes Events to the API server. They are a courtesy: what cannot be
// written is logged and forgotten.
//
// It posts JSON by itself: the generated client would link every API group
// there is, which is half of the process's memory at rest.
type events struct {
	server string // "https://host:port"
	client *http.Client
	node   string
	log    *slog.Logger
	queue  chan agent.Event
}

func newEvents(cfg *rest.Config, node string, log *slog.Logger) *events {
	e := &events{node: node, log: log, queue: make(chan agent.Event, 64)}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		log.Warn("no events can be written", "err", err)
		return e
	}
	e.client = client
	e.server = strings.TrimSuffix(cfg.Host, "/")
	if !strings.Contains(e.server, "://") {
		e.server = "https://" + e.server
	}
	return e
}

// send queues an event. If too many wait, it is dropped.
func (e *events) send(ev agent.Event) {
	select {
	case e.queue <- ev:
	default:
	}
}

// run writes what is queued until ctx ends. An event that was written lately is
// not written again.
func (e *events) run(ctx context.Context) {
	sent := map[agent.Event]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-e.queue:
			for old, at := range sent {
				if time.Since(at) > eventRepeat {
					delete(sent, old)
				}
			}
			if _, ok := sent[ev]; ok || e.client == nil {
				continue
			}
			sent[ev] = time.Now()
			if err := e.write(ctx, ev); err != nil && ctx.Err() == nil {
				e.log.Warn("cannot write an event", "reason", ev.Reason, "err", err)
			}
		}
	}
}

func (e *events) write(ctx context.Context, ev agent.Event) error {
	now := metav1.NowMicro()
	namespace := ev.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	body, err := json.Marshal(&eventsv1.Event{
		TypeMeta:            metav1.TypeMeta{APIVersion: "events.k8s.io/v1", Kind: "Event"},
		ObjectMeta:          metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", ev.Name, now.UnixNano()), Namespace: namespace},
		EventTime:           now,
		ReportingController: "fairway-agent",
		ReportingInstance:   instance(e.node),
		Action:              "Serve",
		Reason:              ev.Reason,
		Type:                corev1.EventTypeWarning,
		Note:                ev.Message[:min(len(ev.Message), 1024)],
		Regarding:           corev1.ObjectReference{APIVersion: "v1", Kind: ev.Kind, Namespace: ev.Namespace, Name: ev.Name},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.server+"/apis/events.k8s.io/v1/namespaces/"+url.PathEscape(namespace)+"/events", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		var status metav1.Status
		if json.Unmarshal(text, &status) == nil && status.Message != "" {
			return errors.New(status.Message)
		}
		return errors.New(resp.Status)
	}
	return nil
}

// instance names this process; the API allows 128 bytes.
func instance(node string) string {
	s := fmt.Sprintf("fairway-agent-%s-%d", node, os.Getpid())
	return s[:min(len(s), 128)]
}
