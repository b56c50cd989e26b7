package node

import (
	"log"
	"os"
	"time"
)

// restartDelay is how long a daemon that ended by itself stays down.
const restartDelay = time.Second

// daemon is a process that always runs.
type daemon struct {
	name     string
	argv     []string
	env      []string
	log      string // file, appended to
	children *children
	restarts chan chan error
}

// run starts the process again and again, for ever. first gets the result of the
// first start; it must have room for it.
func (d *daemon) run(first chan error) {
	for answer := first; ; {
		p, err := d.start()
		if answer != nil {
			answer <- err
			answer = nil
		}
		if err == nil {
			select {
			case answer = <-d.restarts:
				p.stop()
				continue
			case <-p.done:
				log.Printf("%s ended (%s); it starts again in %v", d.name, p.how(), restartDelay)
			}
		} else {
			log.Printf("%s: %v; trying again in %v", d.name, err, restartDelay)
		}
		select {
		case answer = <-d.restarts:
		case <-time.After(restartDelay):
		}
	}
}

func (d *daemon) start() (*child, error) {
	output, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	return d.children.start(d.argv, d.env, output)
}

// restart ends the process if it runs, starts it, and returns when it runs.
func (d *daemon) restart() error {
	answer := make(chan error, 1)
	d.restarts <- answer
	return <-answer
}
