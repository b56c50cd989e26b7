package route

// For tests of package route_test.
var (
	CommonHostnames = commonHostnames
	NormalHostname  = normalHostname
	ParseDuration   = parseDuration
)
