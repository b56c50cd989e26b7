package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// key is made of everything that goes into something. The first error stays
// and is returned by sum.
type key struct {
	h   hash.Hash
	err error
}

func newKey() *key { return &key{h: sha256.New()} }

// add adds values as they print.
func (k *key) add(values ...any) *key {
	for _, v := range values {
		// With the length, so that no two lists of values look the same.
		s := fmt.Sprintf("%#v", v)
		fmt.Fprintf(k.h, "%d %s\n", len(s), s)
	}
	return k
}

// files adds the files below dir that match patterns of filepath.Glob: their
// names and their content. Tests are not in what is built.
func (k *key) files(dir string, patterns ...string) *key {
	for _, p := range patterns {
		names, err := filepath.Glob(filepath.Join(dir, p))
		if err == nil && len(names) == 0 {
			err = fmt.Errorf("no file matches %s in %s", p, dir)
		}
		k.fail(err)
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			rel, err := filepath.Rel(dir, name)
			k.fail(err)
			k.add(rel)
			k.content(name)
		}
	}
	return k
}

// content adds the bytes of one file.
func (k *key) content(name string) *key {
	sum, err := fileSum(name)
	k.fail(err)
	return k.add(sum)
}

func (k *key) fail(err error) {
	if k.err == nil {
		k.err = err
	}
}

// sum returns the key as 16 hexadecimal digits.
func (k *key) sum() (string, error) {
	return hex.EncodeToString(k.h.Sum(nil))[:16], k.err
}

// fileSum returns the SHA-256 of a file in hexadecimal digits.
func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
