package node

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	// criPatience bounds the start of containerd.
	criPatience = 30 * time.Second
	// nodePatience is how long daemons that need their Node object wait for it when
	// the API server answers that it is not there, or not complete. They start then
	// all the same, as somebody may have deleted it. As long as the API server does
	// not answer they would do nothing but wait ever longer between attempts.
	nodePatience = time.Minute
)

// waitForCRI waits until containerd answers what the kubelet asks first. The
// kubelet would end, and start again a second later.
func waitForCRI(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, criPatience)
	defer cancel()
	err := poll(ctx, 20*time.Millisecond, func() error {
		// gRPC would wait a second after a connection that failed.
		conn, err := net.Dial("unix", containerdSocket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return fmt.Errorf("containerd does not listen: %w", err)
	}
	conn, err := grpc.NewClient("unix://"+containerdSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	err = poll(ctx, 20*time.Millisecond, func() error {
		// An empty VersionRequest is an empty message, and of the response only
		// that it comes matters.
		return conn.Invoke(ctx, "/runtime.v1.RuntimeService/Version", &emptypb.Empty{}, &emptypb.Empty{})
	})
	if err != nil {
		return fmt.Errorf("containerd does not serve CRI: %w", err)
	}
	return nil
}

// waitForNode waits until this node's Node object is as it should be, or until
// nodePatience is at its end.
func (m *machine) waitForNode(ctx context.Context, ok func(*corev1.Node) bool) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubernetesDir+"/"+m.cfg.Name+".kubeconfig")
	if err != nil {
		return err
	}
	cfg.Timeout, cfg.QPS, cfg.WarningHandler = 5*time.Second, -1, rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	var answered time.Time
	return poll(ctx, 100*time.Millisecond, func() error {
		n, err := client.CoreV1().Nodes().Get(ctx, m.cfg.Name, metav1.GetOptions{})
		switch {
		case err == nil && ok(n):
			return nil
		case err == nil:
			err = errors.New("the Node object is not complete")
		case !apierrors.IsNotFound(err):
			return err
		}
		if answered.IsZero() {
			answered = time.Now()
		}
		if time.Since(answered) > nodePatience {
			log.Printf("not waiting longer: %v", err)
			return nil
		}
		return err
	})
}

func exists(*corev1.Node) bool { return true }

// hasAddresses says whether a Node has all addresses of this one.
func (m *machine) hasAddresses(n *corev1.Node) bool {
	have := map[string]bool{}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			have[strings.ToLower(a.Address)] = true
		}
	}
	for _, a := range m.cfg.Addrs {
		if !have[a.String()] {
			return false
		}
	}
	return true
}

// poll calls ok until it returns nil or ctx ends; then it returns ok's last error.
func poll(ctx context.Context, every time.Duration, ok func() error) error {
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(every):
		}
	}
}
