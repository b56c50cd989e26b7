package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strings"
	"time"
)

// area is the part of the suite that is run: it begins the name of each spec,
// and is left out of names here.
const area = "[sig-network] "

// ginkgoReport is what is read of a report that Ginkgo writes with
// --json-report (types.Report of github.com/onsi/ginkgo/v2 v2.32).
type ginkgoReport struct {
	SuiteDescription           string
	SuiteSucceeded             bool
	SpecialSuiteFailureReasons []string
	SuiteConfig                struct{ RandomSeed int64 }
	SpecReports                []ginkgoSpec
}

// ginkgoSpec is one node of the suite. LeafNodeType is "It" for a spec; others
// are set-up and clean-up of the whole suite.
type ginkgoSpec struct {
	ContainerHierarchyTexts    []string
	LeafNodeType, LeafNodeText string
	// State is passed, skipped, pending, or a kind of failure: failed, aborted,
	// panicked, interrupted, timedout.
	State   string
	RunTime time.Duration
	Failure *struct {
		Message, ForwardedPanic string
		Location                struct {
			FileName   string
			LineNumber int
		}
	}
}

func readReport(file string) (*ginkgoReport, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var reports []*ginkgoReport
	if err := json.Unmarshal(b, &reports); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(reports) != 1 {
		return nil, fmt.Errorf("%s: has %d suites, not one", file, len(reports))
	}
	return reports[0], nil
}

// text is the whole name of a spec, as Ginkgo's filters see it.
func (s *ginkgoSpec) text() string {
	texts := make([]string, 0, len(s.ContainerHierarchyTexts)+1)
	for _, t := range append(s.ContainerHierarchyTexts[:len(s.ContainerHierarchyTexts):len(s.ContainerHierarchyTexts)], s.LeafNodeText) {
		if t != "" {
			texts = append(texts, t)
		}
	}
	return strings.Join(texts, " ")
}

// specs are those of the area, by name.
func (r *ginkgoReport) specs() (names []string, byName map[string]*ginkgoSpec, err error) {
	byName = map[string]*ginkgoSpec{}
	for i := range r.SpecReports {
		s := &r.SpecReports[i]
		name, ok := strings.CutPrefix(s.text(), area)
		if s.LeafNodeType != "It" || !ok {
			continue
		}
		if byName[name] != nil {
			return nil, nil, fmt.Errorf("the suite has two specs named %q", name)
		}
		byName[name] = s
		names = append(names, name)
	}
	return names, byName, nil
}

// failures are those of the suite's own set-up and clean-up.
func (r *ginkgoReport) failures() (all []string) {
	for i := range r.SpecReports {
		s := &r.SpecReports[i]
		if s.LeafNodeType != "It" && s.outcome() == failed {
			all = append(all, fmt.Sprintf("%s of the suite: %s", s.LeafNodeType, s.message()))
		}
	}
	return all
}

func (s *ginkgoSpec) outcome() outcome {
	switch s.State {
	case "passed":
		return passed
	case "skipped":
		// Ginkgo has no message for what it never ran.
		if s.Failure == nil || s.Failure.Message == "" {
			return notRun
		}
		return skipped
	case "pending", "":
		return notRun
	}
	return failed
}

// message is what a failed spec says, or why one skipped itself.
func (s *ginkgoSpec) message() string {
	if s.Failure == nil {
		return ""
	}
	m := strings.TrimSpace(s.Failure.Message)
	if p := strings.TrimSpace(s.Failure.ForwardedPanic); p != "" {
		m += ": " + p
	}
	if s.State != "skipped" && s.Failure.Location.FileName != "" {
		m += fmt.Sprintf("\nat %s:%d", path.Base(s.Failure.Location.FileName), s.Failure.Location.LineNumber)
	}
	if s.State != "skipped" && s.State != "failed" {
		m = s.State + ": " + m
	}
	return m
}
