package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The oldest kernel whose nftables can do what the layout needs; kube-proxy's
// nftables mode asks for the same.
const (
	minMajor = 5
	minMinor = 13
)

// ErrKernel says that the kernel is too old.
var ErrKernel = errors.New("this kernel is too old")

// CheckKernel returns an error that wraps ErrKernel if the running kernel is older
// than 5.13.
func CheckKernel() error {
	release, err := kernelRelease()
	if err != nil {
		return fmt.Errorf("find out the kernel's version: %w", err)
	}
	return checkRelease(release)
}

// kernelRelease returns what "uname -r" prints.
func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// checkRelease returns an error wrapping ErrKernel if a release, such as
// "6.1.0-13-amd64", is too old. One that cannot be read is taken for new enough.
func checkRelease(release string) error {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n < 2 {
		return nil
	}
	if major > minMajor || major == minMajor && minor >= minMinor {
		return nil
	}
	return fmt.Errorf("%w: nftables needs Linux %d.%d or newer, this is %s", ErrKernel, minMajor, minMinor, release)
}
