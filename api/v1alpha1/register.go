package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of Fairway.
const GroupName = "fairway.dev"

// GroupVersion is the group and version of this package.
var GroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// AddToScheme adds the types of this package to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&FairwayTrafficPolicy{}, &FairwayTrafficPolicyList{},
		&FairwayListenerPolicy{}, &FairwayListenerPolicyList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
