// Package v1alpha1 has the policies of Fairway: what Gateway API has no field
// for. Both are direct policies of GEP-713: they attach to objects of their own
// namespace by targetRefs, and to nothing below those.
//
// Of two policies that target the same thing the older one holds, then the one
// whose name comes first; the other has the condition Accepted=False with reason
// Conflicted. A policy that targets a section (a rule of a route, a port of a
// Service, a listener) does not conflict with one that targets the whole: there
// each field that the section's policy sets replaces that of the whole's.
//
// The manifests in deploy/crds and the deepcopy functions are generated from
// this package by controller-gen v0.21.0.
//
// +kubebuilder:object:generate=true
// +groupName=fairway.dev
package v1alpha1
