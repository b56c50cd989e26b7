// Command e2e runs Kubernetes' own end-to-end suite on clusters of test/cluster,
// with Fairway and with its peers as the Service proxy, and compares.
//
//	go run ./test/e2e services --proxy fairway,nftables --ip-family dual
//
// What is run is all of [sig-network] but for what leftout.yaml names, each with
// its reason. Nothing is skipped silently: a spec that skips itself needs a row
// there too, and a row that is no longer true fails the run. Results go to
// test/results, and side by side to docs/conformance.
package main
