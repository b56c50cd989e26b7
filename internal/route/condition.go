package route

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reason is a condition's reason and message.
type reason struct {
	name, message string
}

// ok tells that nothing is wrong.
func (r reason) ok() bool { return r.name == "" }

// conditions collects the conditions of one object. They have no
// LastTransitionTime: Status.Apply gives it.
type conditions struct {
	generation int64
	list       []metav1.Condition
}

func (c *conditions) add(typ string, status metav1.ConditionStatus, r reason) {
	c.list = append(c.list, metav1.Condition{
		Type:               typ,
		Status:             status,
		ObservedGeneration: c.generation,
		Reason:             r.name,
		Message:            r.message,
	})
}

// set adds a condition that is true unless something is wrong.
func (c *conditions) set(typ string, good, wrong reason) {
	if wrong.ok() {
		c.add(typ, metav1.ConditionTrue, good)
	} else {
		c.add(typ, metav1.ConditionFalse, wrong)
	}
}

// worst joins what is wrong: the reason is the first, the messages are all.
type worst struct {
	first    string
	messages []string
}

func (w *worst) add(r reason) {
	if r.ok() {
		return
	}
	if w.first == "" {
		w.first = r.name
	}
	for _, m := range w.messages {
		if m == r.message {
			return
		}
	}
	w.messages = append(w.messages, r.message)
}

// maxMessage is how long a message of a condition may be.
const maxMessage = 32768

func (w *worst) reason() reason {
	m := strings.Join(w.messages, "; ")
	if len(m) > maxMessage {
		m = m[:maxMessage-3] + "..."
	}
	return reason{w.first, m}
}
