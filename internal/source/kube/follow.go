package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cilium/statedb"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/fairwaynet/fairway/internal/store"
)

const (
	// maxBatch is how many objects one write transaction takes at most: so
	// nobody waits long for a table, and what a transaction copies stays small.
	maxBatch = 500
	// pageSize is how many objects a list answers at once, where a server does
	// not stream lists.
	pageSize = 500
	// A watch is ended by the server after this time and begun anew, so that
	// one that no longer works is not kept for good. It is drawn at random, so
	// that the nodes of a cluster do not all come back at once.
	minWatch, maxWatch = 5 * time.Minute, 10 * time.Minute
	// How long to wait after a failure: at first, and at most.
	firstWait, lastWait = 100 * time.Millisecond, 5 * time.Second
	// absentWait is how long to wait before asking again for a resource that
	// the server does not have.
	absentWait = time.Minute
)

// apiObject is a pointer to an API type that decodes from protobuf.
type apiObject[T any] interface {
	*T
	metav1.Object
	Unmarshal([]byte) error
}

// follower keeps one table equal to one resource of the API server.
//
// It lists and watches in one request where the server can (WatchList, on by
// default since Kubernetes 1.34), and else lists in pages. Events go into the
// table in the order in which they come: many in one transaction where many are
// here already, and at once where none follows.
type follower[T any, P apiObject[T]] struct {
	log      *slog.Logger
	st       *store.Store
	table    statedb.RWTable[P]
	client   rest.Interface
	resource string
	selector metav1.ListOptions // labels and fields
	optional bool               // a server may not have it
	trim     func(P)
	// done marks the table as initialized; nil once it is.
	done func(statedb.WriteTxn)

	// version is the resourceVersion up to which the table has seen every event;
	// empty if all must be read again.
	version string
	// paged is true where the server does not stream lists.
	paged bool
	// progress is true if the request under way gave anything.
	progress bool
	// failing is true from the first failure until a request is answered.
	failing bool

	batch batch[P]
	buf   []byte // for decoding
}

// run follows the resource until ctx ends.
func (f *follower[T, P]) run(ctx context.Context) {
	wait := firstWait
	for ctx.Err() == nil {
		f.progress = false
		err := f.once(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && f.progress:
			wait = firstWait
			continue // the watch came to its end, as agreed
		case isExpired(err):
			// The server no longer has the events since what was seen.
			f.log.Info("reading everything again", "resource", f.resource, "reason", err)
			again := f.version == ""
			f.version = ""
			if !again {
				continue
			}
		case f.optional && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err)):
			f.absent(err)
			sleep(ctx, absentWait)
			continue
		case err != nil && !f.failing:
			f.failing = true
			f.log.Warn("API server: trying again", "resource", f.resource, "err", err)
		}
		if f.progress {
			wait = firstWait
		}
		pause := wait/2 + rand.N(wait)
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			pause = max(pause, time.Duration(seconds)*time.Second)
		}
		sleep(ctx, pause)
		wait = min(2*wait, lastWait)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// isExpired tells errors after which only reading everything again helps: what
// was seen is too old for the server, or (etcd was restored) too new.
func isExpired(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// cannotStream tells the answers of a server without WatchList: it takes the
// options for a mistake.
func cannotStream(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) }

// answered is called when the server answered a request.
func (f *follower[T, P]) answered() {
	if f.failing {
		f.failing = false
		f.log.Info("API server: answers again", "resource", f.resource)
	}
}

// absent lets the table count as read where the server does not have the resource.
func (f *follower[T, P]) absent(err error) {
	if f.done == nil {
		return
	}
	f.log.Info("not followed", "resource", f.resource, "reason", err)
	txn := f.st.DB.WriteTxn(f.table)
	f.done(txn)
	txn.Commit()
	f.done = nil
}

// once makes one request, and a list before it where need be, and follows it to
// its end. It returns nil if the server ended it in the usual way.
func (f *follower[T, P]) once(ctx context.Context) error {
	if f.version == "" && f.paged {
		if err := f.list(ctx); err != nil {
			return err
		}
	}
	initial := f.version == ""
	opts := f.selector
	opts.Watch = true
	opts.AllowWatchBookmarks = true
	opts.TimeoutSeconds = ptr.To(int64((minWatch + rand.N(maxWatch-minWatch)).Seconds()))
	opts.ResourceVersion = f.version
	if initial {
		opts.SendInitialEvents = ptr.To(true)
		opts.ResourceVersionMatch = metav1.ResourceVersionMatchNotOlderThan
	}
	body, err := f.client.Get().Resource(f.resource).VersionedParams(&opts, parameters).Stream(ctx)
	if initial && cannotStream(err) {
		f.log.Debug("the server does not stream lists", "resource", f.resource, "reason", err)
		f.paged = true
		return f.once(ctx)
	}
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	f.answered()
	return f.follow(newFrames(body), initial)
}

// follow reads events until the stream ends. Where initial is true, it begins
// with all objects there are.
func (f *follower[T, P]) follow(events *frames, initial bool) (err error) {
	var seen keys
	if initial {
		seen = f.knownKeys()
	}
	newest := f.version
	flush := func() error {
		if err := f.apply(nil, false); err != nil {
			return err
		}
		f.version = newest
		return nil
	}
	defer func() {
		err = errors.Join(err, flush())
	}()
	for {
		if !events.ready() || f.batch.len() >= maxBatch {
			if err := flush(); err != nil {
				return err
			}
		}
		frame, err := events.next()
		if errors.Is(err, io.EOF) {
			if initial {
				return errors.New("the stream ended before the list was complete")
			}
			return nil
		}
		if err != nil {
			return err
		}
		typ, kind, raw, err := decodeEvent(frame)
		if err != nil {
			return err
		}
		if watch.EventType(typ) == watch.Error || kind == "Status" {
			var status metav1.Status
			if err := status.Unmarshal(raw); err != nil {
				return err
			}
			return apierrors.FromObject(&status)
		}
		obj, err := f.decode(raw)
		if err != nil {
			return err
		}
		f.progress = true
		version := obj.GetResourceVersion()
		switch watch.EventType(typ) {
		case watch.Bookmark:
			newest = version
			if initial && obj.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
				if err := f.apply(seen, true); err != nil {
					return err
				}
				initial, seen = false, nil
			}
			continue
		case watch.Added, watch.Modified:
			f.trim(obj)
			seen.add(obj)
			f.batch.put(obj)
		case watch.Deleted:
			seen.remove(obj)
			f.batch.remove(obj)
		default:
			return fmt.Errorf("an event of unknown type %q", typ)
		}
		if !initial { // the objects of a list come in no order of versions
			newest = version
		}
	}
}

func (f *follower[T, P]) decode(raw []byte) (P, error) {
	var err error
	if f.buf, err = slim(f.buf[:0], raw); err != nil {
		return nil, err
	}
	obj := P(new(T))
	if err := obj.Unmarshal(f.buf); err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	return obj, nil
}

// list reads everything in pages.
func (f *follower[T, P]) list(ctx context.Context) error {
	opts := f.selector
	opts.Limit = pageSize
	seen := f.knownKeys()
	for {
		data, err := f.client.Get().Resource(f.resource).VersionedParams(&opts, parameters).Do(ctx).Raw()
		if err != nil {
			return err
		}
		f.answered()
		meta, err := decodeList(data, func(raw []byte) error {
			obj, err := f.decode(raw)
			if err != nil {
				return err
			}
			f.trim(obj)
			seen.add(obj)
			f.batch.put(obj)
			return nil
		})
		if err != nil {
			return err
		}
		f.progress = true
		last := meta.Continue == ""
		if !last {
			if err := f.apply(nil, false); err != nil {
				return err
			}
			opts.Continue = meta.Continue
			continue
		}
		if err := f.apply(seen, true); err != nil {
			return err
		}
		f.version = meta.ResourceVersion
		return nil
	}
}
