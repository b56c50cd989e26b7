package dir

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// patience is how long a test waits for what must come. It says nothing about
// how fast it comes.
const patience = 20 * time.Second

type follower struct {
	t       *testing.T
	st      *store.Store
	src     *Source
	reports chan Report
	changes statedb.ChangeIterator[*corev1.Service]
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// follow loads paths and runs the source until the test ends.
func follow(t *testing.T, paths ...string) (*follower, Report) {
	t.Helper()
	return followWith(t, func(*Source) {}, paths...)
}

func followWith(t *testing.T, change func(*Source), paths ...string) (*follower, Report) {
	t.Helper()
	f := &follower{t: t, st: newStore(t), reports: make(chan Report, 1000)}
	var err error
	f.src, err = New(Options{Paths: paths, Store: f.st, OnReport: func(r Report) { f.reports <- r }})
	if err != nil {
		t.Fatal(err)
	}
	change(f.src)
	first, err := f.src.Load()
	if err != nil {
		t.Fatal(err)
	}
	txn := f.st.DB.WriteTxn(f.st.Services)
	if f.changes, err = f.st.Services.Changes(txn); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	f.drain() // what is there already is no change
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.src.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return f, first
}

// drain returns the changes of Services since the last call, as "+name" and
// "-name".
func (f *follower) drain() []string {
	var out []string
	seq, _ := f.changes.Next(f.st.DB.ReadTxn())
	for c := range seq {
		sign := "+"
		if c.Deleted {
			sign = "-"
		}
		out = append(out, sign+c.Object.Name)
	}
	slices.Sort(out)
	return out
}

// next waits for reports until one satisfies ok.
func (f *follower) next(what string, ok func(Report) bool) Report {
	f.t.Helper()
	timeout := time.After(patience)
	var seen []Report
	for {
		select {
		case r := <-f.reports:
			if ok(r) {
				return r
			}
			seen = append(seen, r)
		case <-timeout:
			f.t.Fatalf("%s: no such report; there were %+v", what, seen)
		}
	}
}

func (f *follower) service(name string) *corev1.Service {
	svc, _ := store.Get(f.st.DB.ReadTxn(), f.st.Services, "default", name)
	return svc
}

func changed(object string) func(Report) bool {
	return func(r Report) bool { return slices.Contains(r.Changed, object) }
}

func deleted(object string) func(Report) bool {
	return func(r Report) bool { return slices.Contains(r.Deleted, object) }
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// svc is the manifest of a Service.
func svc(name string, port string) string {
	return "---\napiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {ports: [{port: " + port + "}]}\n"
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "sub", "deep"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, ".git"), 0o755))
	write(t, filepath.Join(dir, "a.yaml"), svc("a", "80")+svc("broken", "0"))
	write(t, filepath.Join(dir, "sub", "b.yml"), svc("b", "80")+"---\nkind: LimitRange\napiVersion: v1\n")
	write(t, filepath.Join(dir, "sub", "deep", "c.json"), `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"c"}}`)
	for _, ignored := range []string{".hidden.yaml", ".git/x.yaml", "a.yaml~", "#a.yaml#", ".a.yaml.swp", "flycheck_a.yaml", "notes.txt", "4913"} {
		write(t, filepath.Join(dir, ignored), svc("ignored", "80"))
	}
	single := filepath.Join(t.TempDir(), "manifest.txt")
	write(t, single, svc("single", "80"))

	st := newStore(t)
	src, err := New(Options{
		Paths: []string{dir, single, "-", filepath.Join(dir, "a.yaml"), filepath.Join(dir, "missing")},
		Stdin: strings.NewReader(svc("piped", "80") + svc("a", "81")), Store: st,
	})
	must(t, err)
	if ok, _ := st.Services.Initialized(st.DB.ReadTxn()); ok {
		t.Error("the table counts as initialized before Load")
	}
	r, err := src.Load()
	must(t, err)
	if ok, _ := st.Services.Initialized(st.DB.ReadTxn()); !ok {
		t.Error("the table does not count as initialized after Load")
	}
	compare(t, r.Changed, []string{"Namespace c", "Service default/a", "Service default/b", "Service default/piped", "Service default/single"})
	if r.Objects != 5 || len(r.Deleted) != 0 {
		t.Errorf("report %+v", r)
	}
	if len(r.Unknown) != 1 || r.Unknown["v1 LimitRange"] != 1 {
		t.Errorf("unknown %v", r.Unknown)
	}
	compare(t, texts(r.Problems), []string{
		filepath.Join(dir, "missing") + ": no such file or directory",
		filepath.Join(dir, "a.yaml") + ":10: Service default/broken: spec.ports[0].port: must be between 1 and 65535, is 0",
		"stdin:7: Service default/a: is also in " + filepath.Join(dir, "a.yaml") + ":2, which is used",
	})
	if s, _ := store.Get(st.DB.ReadTxn(), st.Services, "default", "a"); s.Spec.Ports[0].Port != 80 {
		t.Errorf("of two definitions the second was used")
	}
}

func TestLoadNothing(t *testing.T) {
	empty := t.TempDir()
	missing := filepath.Join(empty, "x")
	for _, tc := range []struct{ path, want string }{
		{missing, "nothing to read: " + missing + ": no such file or directory"},
		{empty, `no manifest (.yaml, .yml or .json) in ["` + empty + `"]`},
	} {
		src, err := New(Options{Paths: []string{tc.path}, Store: newStore(t)})
		must(t, err)
		if _, err := src.Load(); err == nil || err.Error() != tc.want {
			t.Errorf("Load(%s): %v, want %s", tc.path, err, tc.want)
		}
		if err := src.Run(context.Background()); err == nil {
			t.Error("Run without Load gave no error")
		}
	}
	if _, err := New(Options{Store: newStore(t)}); err == nil {
		t.Error("New without a path gave no error")
	}
	if _, err := New(Options{Paths: []string{"x"}}); err == nil {
		t.Error("New without a store gave no error")
	}
}

func TestEdits(t *testing.T) {
	dir := t.TempDir()
	web, api := filepath.Join(dir, "web.yaml"), filepath.Join(dir, "api.yaml")
	write(t, web, svc("web", "80")+svc("other", "80"))
	write(t, api, svc("api", "80"))
	f, first := follow(t, dir)
	if first.Objects != 3 {
		t.Fatalf("first report %+v", first)
	}
	_, rev, _ := f.st.Services.Get(f.st.DB.ReadTxn(), store.ByName[*corev1.Service]("default", "other"))

	// An edit changes what it changes.
	write(t, web, svc("web", "81")+svc("other", "80"))
	r := f.next("edit", changed("Service default/web"))
	compare(t, r.Changed, []string{"Service default/web"})
	if got := f.service("web").Spec.Ports[0].Port; got != 81 {
		t.Errorf("port %d, want 81", got)
	}
	if _, now, _ := f.st.Services.Get(f.st.DB.ReadTxn(), store.ByName[*corev1.Service]("default", "other")); now != rev {
		t.Errorf("an object that did not change went from revision %d to %d", rev, now)
	}
	compare(t, f.drain(), []string{"+web"})

	// A broken edit keeps the last good state of the object, not of the file.
	write(t, web, svc("web", "0")+svc("other", "82"))
	r = f.next("broken edit", changed("Service default/other"))
	compare(t, texts(r.Problems), []string{web + ":5: Service default/web: spec.ports[0].port: must be between 1 and 65535, is 0"})
	if got := f.service("web").Spec.Ports[0].Port; got != 81 {
		t.Errorf("the broken object has port %d, want the last good one, 81", got)
	}
	// A file that cannot be parsed keeps all its objects. The other files go on.
	write(t, web, svc("third", "80")+"---\n}\n")
	f.next("unparsable edit", changed("Service default/third"))
	write(t, api, svc("api", "83"))
	r = f.next("edit beside a broken file", changed("Service default/api"))
	if len(r.Problems) != 1 || r.Objects != 4 {
		t.Errorf("report %+v", r)
	}
	if f.service("web") == nil || f.service("other") == nil {
		t.Error("objects of an unparsable file are gone")
	}
	// Repaired, what is not there goes.
	write(t, web, svc("web", "84"))
	r = f.next("repair", changed("Service default/web"))
	if len(r.Problems) != 0 {
		t.Errorf("problems %q", texts(r.Problems))
	}
	compare(t, r.Deleted, []string{"Service default/other", "Service default/third"})
	// A broken object that never was good is nowhere.
	write(t, filepath.Join(dir, "new.yaml"), svc("new", "0"))
	r = f.next("new broken file", func(r Report) bool { return len(r.Problems) == 1 })
	if f.service("new") != nil || len(r.Changed) != 0 {
		t.Errorf("a broken object was stored: %+v", r)
	}
	// Deleting a file deletes its objects.
	must(t, os.Remove(api))
	f.next("delete", deleted("Service default/api"))
	// A new directory is followed.
	must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
	write(t, filepath.Join(dir, "a", "b", "deep.yaml"), svc("deep", "80"))
	f.next("new directory", changed("Service default/deep"))
	write(t, filepath.Join(dir, "a", "b", "deep.yaml"), svc("deep", "81"))
	f.next("edit in a new directory", changed("Service default/deep"))
	must(t, os.RemoveAll(filepath.Join(dir, "a")))
	f.next("directory removed", deleted("Service default/deep"))
}

func TestMoveKeepsObjects(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), svc("web", "80"))
	write(t, filepath.Join(dir, "z.yaml"), svc("marker", "80"))
	f, _ := follow(t, dir)
	must(t, os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")))
	write(t, filepath.Join(dir, "z.yaml"), svc("marker", "81"))
	r := f.next("edit after the move", changed("Service default/marker"))
	if len(r.Problems) != 0 {
		t.Errorf("problems %q", texts(r.Problems))
	}
	write(t, filepath.Join(dir, "b.yaml"), svc("web", "81"))
	f.next("edit of the moved file", changed("Service default/web"))
	compare(t, f.drain(), []string{"+marker", "+web"})
}

// TestSaves saves as editors do. A Service that is in the file before and after
// must not be gone in between.
func TestSaves(t *testing.T) {
	saves := map[string]func(t *testing.T, path, text string, looked func()){
		"truncate, then write": func(t *testing.T, path, text string, looked func()) {
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
			must(t, err)
			looked() // at the empty file
			_, err = file.WriteString(text[:len(text)/2])
			must(t, err)
			_, err = file.WriteString(text[len(text)/2:])
			must(t, err)
			must(t, file.Close())
		},
		"write beside and rename over": func(t *testing.T, path, text string, _ func()) {
			tmp := path + ".tmp"
			write(t, tmp, text)
			must(t, os.Rename(tmp, path))
		},
		"rename away, then create": func(t *testing.T, path, text string, looked func()) {
			must(t, os.Rename(path, path+"~"))
			looked() // while it is gone
			write(t, path, text)
			must(t, os.Remove(path+"~"))
		},
		"remove, then create": func(t *testing.T, path, text string, _ func()) {
			must(t, os.Remove(path))
			write(t, path, text)
		},
	}
	for name, save := range saves {
		for _, single := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "web.yaml")
				write(t, path, svc("web", "80")+svc("same", "80"))
				given := dir
				if single {
					given = path
				}
				looks := make(chan bool, 1000)
				f, _ := followWith(t, func(s *Source) {
					s.settle = time.Hour // what looks like half of a save is never believed
					s.looked = func(unsettled bool) { looks <- unsettled }
				}, given)
				looked := func() {
					for unsettled := false; !unsettled; {
						select {
						case unsettled = <-looks:
						case <-time.After(patience):
							t.Fatal("the source did not look at the half of a save")
						}
					}
				}
				for _, port := range []string{"81", "82", "83"} {
					save(t, path, svc("web", port)+svc("same", "80"), looked)
					f.next("saved", func(r Report) bool {
						s := f.service("web")
						if s == nil || f.service("same") == nil || len(r.Deleted) > 0 || len(r.Problems) > 0 {
							t.Fatalf("a Service is gone while its file is saved: %+v", r)
						}
						return s.Spec.Ports[0].Port == map[string]int32{"81": 81, "82": 82, "83": 83}[port]
					})
					compare(t, f.drain(), []string{"+web"})
				}
			})
		}
	}
}

// TestConfigMapMount follows a directory that is replaced by turning a link, as
// the kubelet mounts a ConfigMap.
func TestConfigMapMount(t *testing.T) {
	dir := t.TempDir()
	version := func(n, port string) {
		must(t, os.Mkdir(filepath.Join(dir, "..v"+n), 0o755))
		write(t, filepath.Join(dir, "..v"+n, "web.yaml"), svc("web", port))
		must(t, os.Symlink("..v"+n, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	version("1", "80")
	must(t, os.Symlink("..data/web.yaml", filepath.Join(dir, "web.yaml")))
	link := filepath.Join(t.TempDir(), "mount")
	must(t, os.Symlink(dir, link))
	f, first := follow(t, link)
	if first.Objects != 1 || len(first.Problems) > 0 {
		t.Fatalf("first report %+v", first)
	}
	for i, n := range []string{"2", "3", "4"} {
		version(n, "8"+n)
		must(t, os.RemoveAll(filepath.Join(dir, "..v"+[]string{"1", "2", "3"}[i])))
		f.next("new version", func(r Report) bool {
			s := f.service("web")
			if s == nil {
				t.Fatal("the Service is gone")
			}
			return s.Spec.Ports[0].Port == int32(82+i)
		})
	}
	compare(t, f.drain(), []string{"+web"})
	// The file that the link points to is edited in place.
	write(t, filepath.Join(dir, "..v4", "web.yaml"), svc("web", "99"))
	f.next("edit in place", changed("Service default/web"))
	// The link to the whole directory is turned.
	other := t.TempDir()
	write(t, filepath.Join(other, "web.yaml"), svc("web", "100"))
	must(t, os.Symlink(other, link+".new"))
	must(t, os.Rename(link+".new", link))
	f.next("the link to the directory turned", func(Report) bool { return f.service("web").Spec.Ports[0].Port == 100 })
}

func TestPathComesAndGoes(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "manifests")
	keep := filepath.Join(root, "keep.yaml")
	write(t, keep, svc("keep", "80"))
	f, first := follow(t, dir, keep)
	compare(t, texts(first.Problems), []string{dir + ": no such file or directory"})
	for round := range 3 {
		must(t, os.MkdirAll(dir, 0o755))
		write(t, filepath.Join(dir, "web.yaml"), svc("web", "80"))
		r := f.next("the path comes", changed("Service default/web"))
		if len(r.Problems) != 0 {
			t.Errorf("round %d: problems %q", round, texts(r.Problems))
		}
		// Moved away and replaced by another: what is watched must be the new one.
		must(t, os.Rename(filepath.Join(root, "a"), filepath.Join(root, "old")))
		must(t, os.MkdirAll(dir, 0o755))
		write(t, filepath.Join(dir, "web.yaml"), svc("web", "81"))
		f.next("another takes its place", changed("Service default/web"))
		write(t, filepath.Join(dir, "web.yaml"), svc("web", "82"))
		f.next("edit in the new one", changed("Service default/web"))
		must(t, os.RemoveAll(filepath.Join(root, "old")))
		must(t, os.RemoveAll(filepath.Join(root, "a")))
		r = f.next("the path goes", deleted("Service default/web"))
		if f.service("keep") == nil {
			t.Error("the other path's Service is gone")
		}
		compare(t, texts(r.Problems), []string{dir + ": no such file or directory"})
	}
}

func TestUnreadableFileKeepsObjects(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.yaml")
	write(t, path, svc("web", "80"))
	write(t, filepath.Join(dir, "z.yaml"), svc("z", "80"))
	f, _ := follow(t, dir)
	// A directory of that name cannot be read as a file, by root neither.
	must(t, os.Remove(path))
	must(t, os.Symlink("web.yaml", path))
	r := f.next("link to itself", func(r Report) bool { return len(r.Problems) > 0 })
	compare(t, texts(r.Problems), []string{path + ": too many levels of symbolic links"})
	must(t, os.Remove(path))
	write(t, path, svc("web", "81"))
	f.next("readable again", func(r Report) bool {
		s := f.service("web")
		return len(r.Problems) == 0 && s != nil && s.Spec.Ports[0].Port == 81
	})
}

// TestOthersWrites checks that an edit elsewhere in a file does not undo what
// others did to an object in the store.
func TestOthersWrites(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.yaml")
	write(t, path, svc("web", "80")+svc("other", "80"))
	f, _ := follow(t, dir)
	scaled := f.service("web").DeepCopy()
	scaled.Labels = map[string]string{"touched": "yes"}
	txn := f.st.DB.WriteTxn(f.st.Services)
	_, err := store.Put(txn, f.st.Services, scaled)
	must(t, err)
	txn.Commit()
	write(t, path, svc("web", "80")+svc("other", "81"))
	r := f.next("edit elsewhere", changed("Service default/other"))
	compare(t, r.Changed, []string{"Service default/other"})
	if f.service("web").Labels["touched"] != "yes" {
		t.Error("what others did was undone")
	}
	write(t, path, svc("web", "82")+svc("other", "81"))
	f.next("edit of the object", changed("Service default/web"))
	if f.service("web").Labels["touched"] == "yes" {
		t.Error("the edit of the object itself was not taken")
	}
}
