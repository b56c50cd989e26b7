package netns

import "fmt"

// Within runs f inside the namespace of an open descriptor, as Do does. Zero
// means the caller's own namespace: f runs where it is called.
func Within(fd int, f func() error) error {
	if fd == 0 {
		return f()
	}
	n, err := Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return err
	}
	defer n.Close()
	return n.Do(f)
}
