// Command fairway is a Kubernetes network in one binary; see "fairway --help".
package main

import (
	"os"

	"github.com/fairwaynet/fairway/internal/cli"
	"github.com/fairwaynet/fairway/internal/sandbox"
)

func main() {
	sandbox.Init()
	os.Exit(cli.Main())
}
