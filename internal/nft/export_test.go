package nft

// WaitFlows returns when stale UDP flows are removed.
func WaitFlows(d *Driver) { d.ct.Wait() }
