package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Status asks how the cluster does. It answers even if the API server does not.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, "status", nil, &s)
	return s, err
}

// KillNode ends a node at once, with all its processes, as pulling its plug would.
// Its disk stays.
func (c *Cluster) KillNode(ctx context.Context, node string) error {
	return c.order(ctx, "kill-node", order{Node: node})
}

// RestartNode starts a node with the disk that it has, and returns when it is
// Ready and its proxy serves. A node that runs is killed first.
func (c *Cluster) RestartNode(ctx context.Context, node string) error {
	return c.order(ctx, "restart-node", order{Node: node})
}

// Partition cuts the network between two nodes, or a node and "cp", the control
// plane, until Heal. All other pairs still hear each other.
func (c *Cluster) Partition(ctx context.Context, a, b string) error {
	return c.order(ctx, "partition", order{A: a, B: b})
}

// Heal ends all partitions.
func (c *Cluster) Heal(ctx context.Context) error { return c.order(ctx, "heal", order{}) }

// Pause freezes all processes of a node, or one of the control plane: "etcd",
// "apiserver", "controller-manager", "scheduler". The kernel goes on answering for
// it: connections are accepted, and hang.
func (c *Cluster) Pause(ctx context.Context, what string) error {
	return c.order(ctx, "pause", order{What: what})
}

// Resume lets go on what Pause froze.
func (c *Cluster) Resume(ctx context.Context, what string) error {
	return c.order(ctx, "resume", order{What: what})
}

// Restart ends a process and starts it again, and returns when it is ready: one
// of the control plane, as a crash would end it, with an empty node; or "kubelet",
// "containerd" or "kube-proxy" of a node, orderly, or of all nodes that run if the
// node is empty.
func (c *Cluster) Restart(ctx context.Context, what, node string) error {
	return c.order(ctx, "restart", order{What: what, Node: node})
}

// LoadImage imports the images of a tar file into the nodes, or into all that run
// if none is named. A node that is restarted keeps them.
func (c *Cluster) LoadImage(ctx context.Context, tar string, nodes ...string) error {
	// Nodes see the cluster's directory, but not all of the machine.
	dir, err := os.MkdirTemp(c.spec.path(imagesDir), "load-")
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, filepath.Base(tar))
	if err := linkOrCopy(tar, file, 0o644); err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	return c.order(ctx, "load-image", order{Tar: file, Nodes: nodes})
}

func (c *Cluster) order(ctx context.Context, verb string, o order) error {
	return c.call(ctx, http.MethodPost, verb, o, nil)
}

// call asks the supervisor. Neither in nor out need be given.
func (c *Cluster) call(ctx context.Context, method, what string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://cluster/v1/"+what, bytes.NewReader(body))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialIn(ctx, c.spec.Dir) },
	}}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, io.EOF):
		return fmt.Errorf("cluster %q has ended: %w", c.spec.Name, err)
	case err != nil:
		return fmt.Errorf("cluster %q: %w", c.spec.Name, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("cluster %q: %w", c.spec.Name, err)
	}
	if resp.StatusCode != http.StatusOK {
		var f failure
		if err := json.Unmarshal(b, &f); err != nil || f.Error == "" {
			return fmt.Errorf("%s: %s: %s", what, resp.Status, b)
		}
		if f.Log != "" {
			return fmt.Errorf("%s: %s (see %s)", what, f.Error, c.LogFile(f.Log))
		}
		return fmt.Errorf("%s: %s", what, f.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}
