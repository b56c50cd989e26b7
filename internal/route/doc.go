// Package route compiles Gateway API, Ingress and Fairway's policies, with the
// Services, Secrets and ConfigMaps they refer to, into what a gateway must serve
// (package model) and into the status of every object. It is pure: objects in,
// model and status out; no clock, no I/O, no goroutine.
//
// The rules are those of the documentation of the API types of
// sigs.k8s.io/gateway-api v1.6.3 and of the GEPs that the comments name. Objects
// may come from files, past the validation of an API server, so nothing that the
// CRDs would refuse is taken for granted.
//
// There is one function for each kind of object. It compiles one object and
// reads others through a reader, which notes what was looked at. Compiler holds
// all objects, and calls these functions again for what a change touches: a
// route that changes costs one route, however many there are.
//
// An IngressClass of Fairway stands for a Gateway. If its parameters name one,
// its Ingresses are attached to the HTTP and HTTPS listeners of that Gateway
// that let HTTPRoutes of their namespace in. Otherwise it is a Gateway of its
// own, without a namespace and named like the class, with a listener for HTTP at
// port 80 and one for HTTPS at port 443 for each host under spec.tls. Where an
// Ingress and an HTTPRoute match the same request equally well, the HTTPRoute
// has it (model.Route). A wildcard host of an Ingress stands for one or more
// labels, as in Gateway API, not for one alone.
package route
