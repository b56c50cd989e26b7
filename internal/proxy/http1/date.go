package http1

import (
	"sync/atomic"
	"time"
)

// date is a Date field of one second.
type date struct {
	second int64 // of clock
	line   string
}

var lastDate atomic.Pointer[date]

// appendDate writes the field Date (RFC 9110 6.6.1). The text is made once a second.
func appendDate(b []byte) []byte {
	second := clock() / int64(time.Second)
	d := lastDate.Load()
	if d == nil || d.second != second {
		d = &date{second, "date: " + time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") + "\r\n"}
		lastDate.Store(d)
	}
	return append(b, d.line...)
}
