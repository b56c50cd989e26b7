// Package upstream is what a proxy keeps of each Service it sends requests to:
// its endpoints and their health, the connections to them, and its limits.
//
// All of it belongs to the Service, never to a route: twenty routes to one
// Service share its pools, see the same health, and check it once. A change of
// the Service makes a new View and keeps the Endpoints that stay, with their
// connections and counts.
//
// A View is what one request uses from its beginning to its end. Picking an
// endpoint and taking a pooled connection allocate nothing and start nothing.
package upstream
