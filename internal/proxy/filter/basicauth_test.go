package filter

import (
	"encoding/base64"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/fairwaynet/fairway/internal/model"
)

func basic(user, password string) string {
	return "authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func newBasic(t *testing.T, lines ...string) *BasicAuth {
	t.Helper()
	b, err := NewBasicAuth(&model.BasicAuth{Realm: `a "realm"`, Users: model.Secret(strings.Join(lines, "\n"))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func bcryptLine(t *testing.T, user, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + strings.Replace(string(h), "$2a$", "$2y$", 1) // as htpasswd writes it
}

func TestBasicAuth(t *testing.T) {
	// "secret" as htpasswd -s gives it.
	b := newBasic(t, "# users", bcryptLine(t, "ann", "p:w"), "", "bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")
	for _, c := range []struct {
		name   string
		fields []string
		reason string
	}{
		{"bcrypt, colon in the password", []string{basic("ann", "p:w")}, ""},
		{"again", []string{basic("ann", "p:w")}, ""},
		{"SHA", []string{basic("bob", "secret")}, ""},
		{"scheme in lower case", []string{strings.Replace(basic("bob", "secret"), "Basic", "basic", 1)}, ""},
		{"wrong password", []string{basic("ann", "p:x")}, "wrong credentials"},
		{"wrong SHA", []string{basic("bob", "Secret")}, "wrong credentials"},
		{"nobody", []string{basic("eve", "p:w")}, "wrong credentials"},
		{"empty", []string{basic("", "")}, "wrong credentials"},
		{"no field", nil, "no credentials"},
		{"another scheme", []string{"authorization: Bearer abc"}, "no credentials"},
		{"two fields", []string{basic("ann", "p:w"), basic("eve", "x")}, "no credentials"},
		{"not base64", []string{"authorization: Basic ***"}, "bad credentials"},
		{"no colon", []string{"authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("ann"))}, "bad credentials"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := b.Check(fields(c.fields...))
			if c.reason == "" {
				if d != nil {
					t.Errorf("got %+v", d)
				}
				return
			}
			if d == nil || d.Status != 401 || d.Reason != c.reason || string(d.Challenge) != `Basic realm="a \"realm\"", charset="UTF-8"` {
				t.Errorf("got %+v", d)
			}
		})
	}
	if (*BasicAuth)(nil).Check(nil) != nil {
		t.Error("no users deny")
	}
}

// TestBasicAuthRemembers: bcrypt is asked once for what is right, and each time
// for what is wrong.
func TestBasicAuthRemembers(t *testing.T) {
	b := newBasic(t, bcryptLine(t, "ann", "pw"))
	for range 50 {
		if d := b.Check(fields(basic("ann", "pw"))); d != nil {
			t.Fatal(d.Reason)
		}
	}
	if n := b.checks.Load(); n != 1 {
		t.Errorf("%d comparisons", n)
	}
	for range 3 {
		if b.Check(fields(basic("ann", "no"))) == nil {
			t.Fatal("passes")
		}
	}
	if n := b.checks.Load(); n != 4 {
		t.Errorf("%d comparisons", n)
	}
	// A name that ends where the password begins is somebody else.
	if b.Check(fields(basic("an", "n:pw"))) == nil {
		t.Error("passes")
	}
}

// TestBasicAuthFlood: whatever comes at once, no more than maxWaiting wait, and
// all get an answer.
func TestBasicAuthFlood(t *testing.T) {
	b := newBasic(t, bcryptLine(t, "ann", "pw"))
	for range cap(b.slots) {
		b.slots <- struct{}{} // all processors are taken
	}
	var wg sync.WaitGroup
	answers := make(chan int, 2*maxWaiting)
	for range 2 * maxWaiting {
		wg.Go(func() { answers <- b.Check(fields(basic("ann", "no"))).Status })
	}
	for range maxWaiting {
		if s := <-answers; s != 503 {
			t.Errorf("status %d", s)
		}
	}
	for range cap(b.slots) {
		<-b.slots
	}
	wg.Wait()
	close(answers)
	for s := range answers {
		if s != 401 {
			t.Errorf("status %d", s)
		}
	}
	if b.Check(fields(basic("ann", "pw"))) != nil {
		t.Error("the good one does not pass afterwards")
	}
}

func TestBasicAuthRefuses(t *testing.T) {
	for name, c := range map[string]struct{ users, field string }{
		"none":         {"\n# nobody\n", "users"},
		"no hash":      {"ann:" + "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nbob", "line 2"},
		"plain text":   {"ann:hunter2", "line 1"},
		"MD5":          {"ann:$apr1$hunter2$abc", "line 1"},
		"short SHA":    {"ann:{SHA}hunter2=", "line 1"},
		"broken":       {"ann:$2y$hunter2", "line 1"},
		"no name":      {":$2y$hunter2", "line 1"},
		"twice":        {"a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\na:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "line 2"},
		"endless cost": {"ann:$2y$31$hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunt", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewBasicAuth(&model.BasicAuth{Users: model.Secret(c.users)})
			wrong(t, err, c.field)
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "5en6") {
				t.Errorf("tells the secret: %v", err)
			}
		})
	}
}
