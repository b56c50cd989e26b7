package sandbox

// runAsProcess makes the test binary something else than a test if it was
// started as that.
func runAsProcess() {}
