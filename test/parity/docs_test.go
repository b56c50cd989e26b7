//go:build parity

package parity_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/test/services"
)

// TestDocumentedCommands runs the command blocks of the documents that need a
// node of a cluster, one file after the other, in the network of a node beside a
// real API server. A line that starts the agent is left running for the ones
// after it, until the next one starts.
func TestDocumentedCommands(t *testing.T) {
	lan, cluster := newCluster(t)
	topology, err := services.NewTopology(lan)
	if err != nil {
		t.Fatal(err)
	}
	defer topology.Close()
	for _, n := range services.Nodes() {
		if err := cluster.Apply(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	config := cluster.ProxyConfig("n1", "nftables")
	path, err := cluster.WriteConfig("documented", config)
	if err != nil {
		t.Fatal(err)
	}
	// What the documents call by the names it has on a kubeadm node.
	here := strings.NewReplacer(
		"/var/lib/kube-proxy/config.conf", path,
		"/etc/kubernetes/kubelet.conf", config.ClientConnection.Kubeconfig,
		"--hostname-override node-1", "--hostname-override n1",
	)
	fence := regexp.MustCompile("(?ms)^```sh cluster\n(.*?)^```$")
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var script strings.Builder
		for _, m := range fence.FindAllSubmatch(text, -1) {
			for line := range strings.Lines(here.Replace(string(m[1]))) {
				if regexp.MustCompile(`^fairway agent --`).MatchString(line) {
					line = "start_agent " + line
				}
				script.WriteString(line)
			}
		}
		if script.Len() == 0 {
			continue
		}
		ran++
		t.Run(filepath.Base(file), func(t *testing.T) {
			work := t.TempDir()
			if err := os.Symlink(binary, filepath.Join(work, "fairway")); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-c", agentPrelude+script.String())
			runtime := filepath.Join(work, "run")
			cmd.Env = append(os.Environ(), "WORK="+work, "FAIRWAY_RUNTIME_DIR="+runtime, "PATH="+work+":"+os.Getenv("PATH"))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := topology.Node().NS.Do(cmd.Start); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				log, _ := os.ReadFile(filepath.Join(work, "agent.log"))
				t.Fatalf("%v\n%s\n--- the agent printed:\n%s", err, out.String(), log)
			}
		})
	}
	if ran == 0 {
		t.Error("no command block was run")
	}
}

const agentPrelude = `set -euo pipefail
stop_agent() {
  [ -n "${AGENT-}" ] || return 0
  kill -TERM "$AGENT" 2>/dev/null || true
  wait "$AGENT" || true
  AGENT=
}
start_agent() {
  stop_agent
  "$@" > "$WORK/agent.log" 2>&1 < /dev/null &
  AGENT=$!
  for _ in $(seq 300); do
    curl -fs -o /dev/null http://127.0.0.1:10256/healthz && return
    kill -0 "$AGENT" 2>/dev/null || break
    sleep 0.1
  done
  echo "the agent did not get healthy"; exit 1
}
trap stop_agent EXIT
set -x
`
