package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// suffix ends the name of every control socket; the name before it is the
// sandbox's or the agent's.
const suffix = ".sock"

// dirEnv is the environment variable that sets the one directory to use.
const dirEnv = "FAIRWAY_RUNTIME_DIR"

// nameRule is what a socket may be called: it becomes a file name, and the
// whole path has to fit into the 108 bytes of a unix address.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,46}[a-zA-Z0-9])?$`)

// dirs returns the directories that control sockets can be in, the preferred
// one first.
func dirs() []string {
	if d := os.Getenv(dirEnv); d != "" {
		return []string{d}
	}
	var out []string
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		out = append(out, filepath.Join(d, "fairway"))
	}
	uid := outerUID()
	if uid == 0 {
		out = append(out, "/run/fairway")
	}
	return append(out, filepath.Join(os.TempDir(), "fairway-"+strconv.Itoa(uid)))
}

// outerUID is the user's id as seen from outside a user namespace: a sandbox
// that an ordinary user started believes that it is root, and its socket must be
// where that user looks for it.
func outerUID() int {
	uid := os.Getuid()
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return uid
	}
	return mapUID(string(data), uid)
}

// mapUID translates uid by the lines of a uid_map, "inside outside count".
func mapUID(uidMap string, uid int) int {
	for line := range strings.Lines(uidMap) {
		var inside, outside, count int
		if n, _ := fmt.Sscan(line, &inside, &outside, &count); n == 3 && uid >= inside && uid-inside < count {
			return outside + uid - inside
		}
	}
	return uid
}

// Listen opens the control socket of a sandbox or agent of the given name. A
// socket that nobody listens on any more is replaced; if somebody does, the
// error says so. The socket is removed when the listener is closed.
func Listen(name string) (net.Listener, error) {
	if !nameRule.MatchString(name) {
		return nil, fmt.Errorf("name %q: must be 1 to 48 letters, digits, '-', '_' or '.', and begin and end with a letter or digit", name)
	}
	var failed []error
	for _, dir := range dirs() {
		if err := makeDir(dir); err != nil {
			failed = append(failed, err)
			continue
		}
		path := filepath.Join(dir, name+suffix)
		if alive(path) {
			return nil, fmt.Errorf("%q is running already (%s)", name, path)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
			continue
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		return l, nil
	}
	return nil, fmt.Errorf("no place for the control socket: %w", errors.Join(failed...))
}

// makeDir makes a directory that only its user can enter, or checks that an
// existing one is such: in a shared place like /tmp somebody else could have
// made it first.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return checkDir(dir)
}

func checkDir(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: must be a directory of mode 0700 that belongs to you", dir)
	}
	return nil
}

// alive tells whether somebody listens on the socket.
func alive(path string) bool {
	c, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// Running returns the names of what is running, sorted. Sockets that nobody
// listens on any more are removed on the way.
func Running() []string {
	var names []string
	for _, path := range paths() {
		names = append(names, strings.TrimSuffix(filepath.Base(path), suffix))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// paths returns the sockets that somebody listens on.
func paths() []string {
	var out []string
	for _, dir := range dirs() {
		if checkDir(dir) != nil {
			continue
		}
		found, _ := filepath.Glob(filepath.Join(dir, "*"+suffix))
		for _, path := range found {
			c, err := net.Dial("unix", path)
			switch {
			case err == nil:
				_ = c.Close()
				out = append(out, path)
			case errors.Is(err, syscall.ECONNREFUSED):
				_ = os.Remove(path) // what listened was killed
			}
		}
	}
	return out
}

// find returns the socket of that name; of the only one there is if name is empty.
func find(name string) (string, error) {
	running := paths()
	if name != "" {
		for _, path := range running {
			if filepath.Base(path) == name+suffix {
				return path, nil
			}
		}
		if len(running) == 0 {
			return "", fmt.Errorf("no sandbox or agent %q: %w", name, ErrNotRunning)
		}
		return "", fmt.Errorf("no sandbox or agent %q is running; there is: %s", name, strings.Join(Running(), ", "))
	}
	switch len(running) {
	case 0:
		return "", ErrNotRunning
	case 1:
		return running[0], nil
	}
	return "", fmt.Errorf("more than one is running, choose one with --sandbox: %s", strings.Join(Running(), ", "))
}

// ErrNotRunning says that there is nothing to talk to.
var ErrNotRunning = errors.New("nothing is running; start a sandbox with \"fairway up -f PATH\", or an agent with \"fairway agent\"")
