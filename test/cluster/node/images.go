package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// images imports archives into containerd, those of the configuration only once
// in the life of the disk.
type images struct {
	run    func(name string, args ...string) error
	marker string // file on the disk that says what was imported

	mu sync.Mutex // of the marker
}

// stamp tells whether an archive is still the one that was imported.
type stamp struct {
	Size    int64
	ModTime time.Time
}

func stampOf(tar string) (stamp, error) {
	info, err := os.Stat(tar)
	if err != nil {
		return stamp{}, fmt.Errorf("image: %w (a node does not see what is below /run)", err)
	}
	return stamp{info.Size(), info.ModTime().UTC()}, nil
}

// importMissing imports those archives that the disk does not hold, all at once.
func (i *images) importMissing(tars []string) error {
	have, err := i.imported()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(tars))
	for n, tar := range tars {
		s, err := stampOf(tar)
		if err != nil {
			return err
		}
		if have[tar] == s {
			continue
		}
		wg.Go(func() { errs[n] = i.load(tar) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// load imports one archive, whether it is there or not.
func (i *images) load(tar string) error {
	// Taken before: if the file is replaced meanwhile, it is imported again.
	s, err := stampOf(tar)
	if err != nil {
		return err
	}
	if err := i.run("ctr", "--namespace=k8s.io", "images", "import", "--local", tar); err != nil {
		return fmt.Errorf("import %s: %w", tar, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	have, err := i.imported()
	if err != nil {
		return err
	}
	have[tar] = s
	b, err := json.MarshalIndent(have, "", "  ")
	if err != nil {
		return err
	}
	// The node can die at any time; half a file would be an error at the next boot.
	if err := os.WriteFile(i.marker+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(i.marker+".new", i.marker)
}

func (i *images) imported() (map[string]stamp, error) {
	have := map[string]stamp{}
	b, err := os.ReadFile(i.marker)
	if errors.Is(err, fs.ErrNotExist) {
		return have, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &have); err != nil {
		return nil, fmt.Errorf("%s: %w", i.marker, err)
	}
	return have, nil
}
