//go:build parity

package kube_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/testns"
	"github.com/fairwaynet/fairway/test/kube"
)

func TestMain(m *testing.M) {
	// Outside of the namespaces that the tests run in, for the network's sake.
	if _, err := kube.Build(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testns.Main(m)
}

func TestClusterServesAndKeepsItsDataOverARestart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := kube.Start(ctx, kube.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	namespaces := c.Client.CoreV1().Namespaces()
	before, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.RestartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := namespaces.Get(ctx, "kept", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if before.UID != after.UID {
		t.Errorf("the Namespace has another UID after the restart: %s, was %s", after.UID, before.UID)
	}
	if err := c.Compact(ctx); err != nil {
		t.Error(err)
	}
}
