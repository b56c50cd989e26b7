package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// Client talks to one running sandbox or agent. It is safe for concurrent use.
type Client struct {
	path string
	http *http.Client
}

// Dial finds the running sandbox or agent of that name, or the only one there
// is if name is empty. Where there is none, or there are several, the error says
// what to do.
func Dial(name string) (*Client, error) {
	path, err := find(name)
	if err != nil {
		return nil, err
	}
	return DialPath(path), nil
}

// DialPath talks to what listens on the socket at path.
func DialPath(path string) *Client {
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Close frees the connections that are kept open for the next request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks how it goes.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	body, err := c.get(ctx, "status", nil)
	if err != nil {
		return s, err
	}
	defer body.Close()
	return s, json.NewDecoder(body).Decode(&s)
}

// Scale sets how many replicas a workload has.
func (c *Client) Scale(ctx context.Context, r ScaleRequest) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"scale", bytes.NewReader(data))
	if err != nil {
		return err
	}
	body, err := c.do(req)
	if err != nil {
		return err
	}
	return body.Close()
}

// Get reads objects: *corev1.Service of "services", *discoveryv1.EndpointSlice
// of "endpointslices", *corev1.Pod of "pods", *corev1.Node of "nodes", Frontend
// of "frontends".
func Get[T any](ctx context.Context, c *Client, resource string, q Query) ([]T, error) {
	body, err := c.get(ctx, resource, q.values())
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var list List[T]
	if err := json.NewDecoder(body).Decode(&list); err != nil {
		return nil, fmt.Errorf("read %s: %w", resource, err)
	}
	return list.Items, nil
}

// Watch calls f with everything Get would return, then with a Bookmark, then
// with each change, until ctx ends (then it returns nil), the other side ends, or
// f returns an error.
func Watch[T any](ctx context.Context, c *Client, resource string, q Query, f func(Event[T]) error) error {
	v := q.values()
	v.Set("watch", "1")
	body, err := c.get(ctx, resource, v)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var e Event[T]
		if err := dec.Decode(&e); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return errors.New("it has ended")
			}
			return fmt.Errorf("watch %s: %w", resource, err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
}

const base = "http://fairway/v1/"

func (q Query) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"namespace": q.Namespace, "name": q.Name, "node": q.Node, "selector": q.Selector} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return v
}

func (c *Client) get(ctx context.Context, resource string, v url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+resource+"?"+v.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return c.do(req)
}

func (c *Client) do(req *http.Request) (io.ReadCloser, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the made-up address says nothing to a user
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, readFailure(resp)
	}
	return resp.Body, nil
}

func readFailure(resp *http.Response) error {
	var f failure
	if json.NewDecoder(resp.Body).Decode(&f) != nil || f.Error == "" {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return errors.New(f.Error)
}
