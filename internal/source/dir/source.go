// Package dir is the source that reads Kubernetes manifests from files and
// directories into the store, and follows them as they are edited.
//
// It decodes strictly: a field that the API does not have, a value of the wrong
// type, a key that comes twice and what an API server would refuse is a Problem
// with its file, line, object and field. An object with a problem keeps its last
// good state; everything else goes on.
package dir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/cilium/statedb"
	"github.com/fsnotify/fsnotify"

	"github.com/fairwaynet/fairway/internal/store"
)

// How long to wait after an event. An editor that saves makes several: it
// truncates and writes, or renames and creates. The file is read when none came
// for quiet. What then looks like half of a save (a file that is gone, empty, or
// cannot be parsed any more) is looked at again and believed only when settle has
// passed since the first event. So an edit is in the store in well under 100 ms
// and no save makes objects go for a moment. Under a stream of events that does
// not end, files are read every settle.
const (
	quiet  = 20 * time.Millisecond
	settle = 50 * time.Millisecond
	// poll is how often files are looked at where the kernel does not tell.
	poll = 50 * time.Millisecond
)

// Options say what to read and where to.
type Options struct {
	// Paths are files, directories (read recursively: files that end in .yaml,
	// .yml or .json and are not hidden) or "-" for standard input. A file that
	// is named here is read whatever its name is.
	Paths []string
	// Stdin is what "-" reads; nil means os.Stdin.
	Stdin io.Reader
	// Store is written to. Objects that others put there are left alone, unless
	// a file has an object of the same kind and name.
	Store *store.Store
	// Log may be nil.
	Log *slog.Logger
	// OnReport, if not nil, is called by Run, on its goroutine, after each
	// reading that changed an object, a problem or a count.
	OnReport func(Report)
}

// Source reads and follows manifests. Load and Run are for one goroutine.
type Source struct {
	opts    Options
	watches *watches
	files   []*file // in the order of paths, and of names in a directory
	owned   map[objectID]*parsedObject
	done    []func(statedb.WriteTxn)
	last    Report
	loaded  bool
	// dirty are real paths that must be read though they look unchanged: a write
	// may leave size and time as they were.
	dirty    map[string]bool
	allDirty bool

	// For tests: settle, and what is called after each look at the files.
	settle time.Duration
	looked func(unsettled bool)
}

// New prepares to read. Every table of the Store counts as not initialized
// until Load is done.
func New(o Options) (*Source, error) {
	if len(o.Paths) == 0 {
		return nil, errors.New("no path to read manifests from")
	}
	if o.Store == nil {
		return nil, errors.New("no store to read manifests into")
	}
	if o.Stdin == nil {
		o.Stdin = os.Stdin
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Source{opts: o, owned: map[objectID]*parsedObject{}, dirty: map[string]bool{}, settle: settle, looked: func(bool) {}}
	s.watches = newWatches(o.Log)
	txn := o.Store.DB.WriteTxn(o.Store.Tables()...)
	defer txn.Commit()
	name := fmt.Sprintf("source/dir %p", s)
	for _, k := range kinds {
		s.done = append(s.done, k.initializer(o.Store, txn, name))
	}
	return s, nil
}

// Load reads everything for the first time. It fails only if there is nothing
// to read: no path exists, or none has a manifest. Files with problems are no
// failure; see the Report.
func (s *Source) Load() (Report, error) {
	r, _, err := s.sync(true)
	if err != nil {
		return r, err
	}
	if len(s.files) == 0 {
		_ = s.watches.close()
		if len(r.Problems) > 0 {
			return r, fmt.Errorf("nothing to read: %s", r.Problems[0])
		}
		return r, fmt.Errorf("no manifest (.yaml, .yml or .json) in %q", s.opts.Paths)
	}
	s.loaded, s.last = true, r
	return r, nil
}

// Run follows the files until ctx ends, which is no error. Load must have
// succeeded before. An edit is in the store less than 100 ms after it was saved.
func (s *Source) Run(ctx context.Context) error {
	if !s.loaded {
		return errors.New("source/dir: Run before Load")
	}
	defer func() { _ = s.watches.close() }()
	var events chan fsnotify.Event
	var fails chan error
	if w := s.watches.w; w != nil {
		events, fails = w.Events, w.Errors
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	var first time.Time // of the events not yet applied; zero if there is none
	stir := func() {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		timer.Reset(min(quiet, first.Add(s.settle).Sub(now)))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-events:
			if s.watches.relevant(ev) {
				s.dirty[ev.Name] = true
				stir()
			}
		case err := <-fails:
			// Events were lost: look at everything.
			s.opts.Log.Debug("watching files", "err", err)
			s.allDirty = true
			stir()
		case <-ticker.C:
			if s.watches.blind && first.IsZero() {
				stir()
			}
		case <-timer.C:
			r, unsettled, err := s.sync(time.Since(first) >= s.settle)
			switch {
			case err != nil:
				return err
			case unsettled:
				timer.Reset(max(time.Until(first.Add(s.settle)), time.Millisecond))
			default:
				first = time.Time{}
			}
			s.report(r)
			s.looked(unsettled)
		}
	}
}

func (s *Source) report(r Report) {
	same := len(r.Changed) == 0 && len(r.Deleted) == 0 &&
		slices.Equal(r.Problems, s.last.Problems) && maps.Equal(r.Unknown, s.last.Unknown)
	s.last = r
	if !same && s.opts.OnReport != nil {
		s.opts.OnReport(r)
	}
}

// sync reads what may have changed and brings the store up to date. Unless
// sure, files that look like half of a save stay as they were, and unsettled is
// true.
func (s *Source) sync(sure bool) (r Report, unsettled bool, err error) {
	sc := &scan{watch: s.watches.add, seen: map[string]bool{}}
	s.watches.begin()
	old := map[string]*file{}
	for _, f := range s.files {
		old[f.path] = f
	}
	var files []*file
	for _, p := range s.opts.Paths {
		if p == "-" {
			f := old[stdinName]
			if f == nil {
				f = s.stdin()
			}
			if !sc.seen[stdinName] {
				sc.seen[stdinName] = true
				files = append(files, f)
				delete(old, stdinName)
			}
			continue
		}
		if f := old[p]; f != nil && f.once {
			files = append(files, f)
			delete(old, p)
			continue
		}
		begin := len(sc.files)
		sc.path(p)
		for _, fd := range sc.files[begin:] {
			f := old[fd.path]
			delete(old, fd.path)
			if f == nil {
				f = &file{path: fd.path}
			}
			f.leaving = false
			unsettled = s.read(f, fd, sure) || unsettled
			files = append(files, f)
		}
	}
	s.watches.end()
	// What is left is gone, or is being replaced right now.
	for _, f := range s.files {
		if old[f.path] == f && !sure && f.parsed != nil && !f.parsed.blank {
			f.leaving = true
			files = append(files, f)
			unsettled = true
		}
	}
	if !unsettled {
		clear(s.dirty)
		s.allDirty = false
	}
	s.files = files
	r, err = s.write(sc.problems, unsettled)
	return r, unsettled, err
}

// write merges the files into the store.
func (s *Source) write(missing []Problem, unsettled bool) (Report, error) {
	want, problems := merge(s.files, s.owned)
	changed, deleted, err := apply(s.opts.Store, s.owned, want, s.done)
	if err != nil {
		return Report{}, err
	}
	s.done = nil
	r := Report{Objects: len(s.owned), Changed: changed, Deleted: deleted, Unknown: map[string]int{}}
	if unsettled {
		// A path that is missing may be back in a moment.
		missing = slices.DeleteFunc(missing, func(p Problem) bool { return !slices.Contains(s.last.Problems, p) })
	}
	r.Problems = append(missing, problems...)
	for _, f := range s.files {
		if f.parsed != nil {
			for k, n := range f.parsed.unknown {
				r.Unknown[k] += n
			}
		}
	}
	if len(changed)+len(deleted) > 0 {
		s.opts.Log.Debug("manifests read", "changed", len(changed), "deleted", len(deleted), "problems", len(r.Problems))
	}
	return r, nil
}

// stdinName is the file name of standard input in problems.
const stdinName = "stdin"

func (s *Source) stdin() *file {
	f := &file{path: stdinName, once: true}
	data, err := io.ReadAll(s.opts.Stdin)
	if err != nil {
		f.unread = err.Error()
		return f
	}
	f.set(parse(f.path, data))
	return f
}

// read reads a file if it may have changed. Unless sure, contents that look
// like half of a save are not taken, and read returns true.
func (s *Source) read(f *file, fd found, sure bool) (unsettled bool) {
	if f.parsed != nil && f.unread == "" && !s.allDirty && !s.dirty[fd.real] && !s.dirty[fd.path] &&
		f.real == fd.real && f.stamp == fd.stamp {
		return false
	}
	data, err := os.ReadFile(fd.path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		if !sure && f.parsed != nil {
			return true
		}
		f.unread = err.Error()
		return false
	}
	sum := sha256.Sum256(data)
	if f.parsed != nil && f.sum == sum {
		f.real, f.stamp, f.unread = fd.real, fd.stamp, ""
		return false
	}
	now := parse(f.path, data)
	if !sure {
		hadObjects := f.parsed != nil && !f.parsed.blank
		if now.blank && (hadObjects || f.parsed == nil) || now.opaque && (f.parsed == nil || !f.parsed.opaque) {
			return true
		}
	}
	f.real, f.stamp, f.sum, f.once = fd.real, fd.stamp, sum, !fd.regular
	f.set(now)
	return false
}
