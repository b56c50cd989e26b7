// Command etcd is the stock etcd server. The module go.etcd.io/etcd/v3, which
// has the usual main package, cannot be required by others.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
