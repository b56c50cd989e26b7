package route

// For tests of package route_test.
var (
	CommonHostnames = commonHostnames
	NormalHostname  = normalHostname
	ParseDuration   = parseDuration
)

// Lookups returns how many objects have been compiled.
func (c *Compiler) Lookups() int { return c.compiled }
