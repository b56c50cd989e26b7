package kube

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	componentbase "k8s.io/component-base/config/v1alpha1"
)

func clientConnection(kubeconfig string) componentbase.ClientConnectionConfiguration {
	return componentbase.ClientConnectionConfiguration{Kubeconfig: kubeconfig, QPS: 1000, Burst: 1000}
}

// Healthy asks /healthz at addr from inside a network namespace. It returns nil
// if the answer is 200.
func Healthy(ctx context.Context, ns Namespace, addr string) error {
	_, err := Get(ctx, ns, "http://"+addr+"/healthz")
	return err
}

// Get fetches a URL from inside a network namespace. Any status but 200 is an
// error.
func Get(ctx context.Context, ns Namespace, url string) (body []byte, err error) {
	t := &http.Transport{DisableKeepAlives: true}
	t.DialContext = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		var d net.Dialer
		if ns == nil {
			return d.DialContext(ctx, network, addr)
		}
		err = ns.Do(func() (err error) {
			conn, err = d.DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return body, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, nil
}
