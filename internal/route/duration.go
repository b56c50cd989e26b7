package route

import (
	"fmt"
	"regexp"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

var durationPattern = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// parseDuration reads a duration as GEP-2257 writes it.
func parseDuration(d gatewayv1.Duration) (time.Duration, error) {
	if !durationPattern.MatchString(string(d)) {
		return 0, fmt.Errorf("%q is not a duration: 1 to 4 numbers of up to 5 digits, each with h, m, s or ms", d)
	}
	return time.ParseDuration(string(d))
}
