package filter

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// CORS answers preflight requests and marks responses (Fetch standard, 3.2;
// HTTPCORSFilter of Gateway API, GEP-1767). What backends say about CORS is
// replaced.
//
// Where all origins, methods or headers are allowed, what the request names is
// repeated instead of "*", which browsers do not take with credentials, and which
// does not stand for "authorization". The opaque origin "null" is never allowed
// credentials: any sandboxed page has it.
type CORS struct {
	any         bool
	origins     []originPattern
	credentials bool
	anyMethod   bool
	anyHeader   bool
	anyExposed  bool
	methods     message.Field // Value is nil if there are none
	headers     message.Field
	expose      message.Field
	maxAge      message.Field
}

// originPattern is scheme://before*after:port; exact has no "*".
type originPattern struct {
	scheme, port  string
	before, after string
	wildcard      bool
}

var (
	allowOrigin      = newField("access-control-allow-origin", "")
	allowCredentials = newField("access-control-allow-credentials", "true")
	allowMethods     = newField("access-control-allow-methods", "")
	allowHeaders     = newField("access-control-allow-headers", "")
	varyOrigin       = newField("vary", "Origin")
)

// defaultMaxAge is what Gateway API says of a policy that does not say.
const defaultMaxAge = 5 * time.Second

// NewCORS compiles a filter; nil gives nil.
func NewCORS(m *model.CORS) (*CORS, error) {
	if m == nil {
		return nil, nil
	}
	c := &CORS{credentials: m.AllowCredentials}
	for i, o := range m.AllowOrigins {
		if o == "*" {
			c.any = true
			continue
		}
		p, err := newOriginPattern(o)
		if err != nil {
			return nil, fmt.Errorf("allowOrigins[%d]: %w", i, err)
		}
		c.origins = append(c.origins, p)
	}
	for _, l := range []struct {
		field, name string
		in          []string
		all         *bool
		out         *message.Field
	}{
		{"allowMethods", "access-control-allow-methods", m.AllowMethods, &c.anyMethod, &c.methods},
		{"allowHeaders", "access-control-allow-headers", m.AllowHeaders, &c.anyHeader, &c.headers},
		{"exposeHeaders", "access-control-expose-headers", m.ExposeHeaders, &c.anyExposed, &c.expose},
	} {
		for i, s := range l.in {
			if !isTokens([]byte(s), "") {
				return nil, fmt.Errorf("%s[%d]: %q is no name", l.field, i, s)
			}
		}
		*l.all = slices.Contains(l.in, "*")
		if len(l.in) > 0 {
			*l.out = newField(l.name, strings.Join(l.in, ", "))
		}
	}
	if c.anyExposed {
		c.expose.Value = []byte("*")
	}
	age := m.MaxAge
	if age == 0 {
		age = defaultMaxAge
	}
	c.maxAge = newField("access-control-max-age", strconv.Itoa(int(age/time.Second)))
	return c, nil
}

func newOriginPattern(s string) (p originPattern, err error) {
	bad := fmt.Errorf("%q is no origin", s)
	scheme, rest, ok := strings.Cut(strings.ToLower(s), "://")
	if !ok || scheme != "http" && scheme != "https" || rest == "" || strings.ContainsAny(rest, "/?#@, ") {
		return p, bad
	}
	host, port := splitPort(rest)
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return p, bad
		}
	}
	p = originPattern{scheme: scheme, port: portOf(scheme, port)}
	p.before, p.after, p.wildcard = strings.Cut(host, "*")
	if host == "" || strings.Contains(p.after, "*") {
		return p, bad
	}
	return p, nil
}

func splitPort(s string) (host, port string) {
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.Contains(s[i:], "]") {
		return s[:i], s[i+1:]
	}
	return s, ""
}

func portOf(scheme, port string) string {
	switch {
	case port != "":
		return port
	case scheme == "http":
		return "80"
	}
	return "443"
}

func (c *CORS) allows(origin []byte) bool {
	if len(origin) == 0 || len(origin) > 512 {
		return false
	}
	if string(origin) == "null" {
		return c.any && !c.credentials
	}
	i := bytes.Index(origin, []byte("://"))
	if i < 0 {
		return false
	}
	for _, b := range origin {
		if b <= ' ' || b >= 0x7f || b == ',' {
			return false
		}
	}
	if c.any {
		return true
	}
	for j := range c.origins {
		if c.origins[j].fits(origin[:i], origin[i+3:]) {
			return true
		}
	}
	return false
}

func (p *originPattern) fits(scheme, host []byte) bool {
	if string(scheme) != p.scheme {
		return false
	}
	if i := bytes.LastIndexByte(host, ':'); i >= 0 && bytes.IndexByte(host[i:], ']') < 0 {
		if string(host[i+1:]) != p.port {
			return false
		}
		host = host[:i]
	} else if portOf(p.scheme, "") != p.port {
		return false
	}
	if !p.wildcard {
		return string(host) == p.before
	}
	n := len(p.before) + len(p.after)
	return len(host) > n && string(host[:len(p.before)]) == p.before && string(host[len(host)-len(p.after):]) == p.after
}

// Preflight tells whether a request asks what is allowed: then the answer is 204
// with what AppendPreflight returns, and no backend sees it.
func (c *CORS) Preflight(q *message.Request) bool {
	if c == nil || string(q.Method) != "OPTIONS" {
		return false
	}
	_, origin := message.Get(q.Fields, message.Origin)
	_, method := message.GetName(q.Fields, "access-control-request-method")
	return origin && method
}

// AppendPreflight appends the answer to a preflight request. An origin that is
// not allowed gets none of its fields, so that the browser does not go on.
func (c *CORS) AppendPreflight(fields []message.Field, q *message.Request) []message.Field {
	origin, _ := message.Get(q.Fields, message.Origin)
	fields = append(fields, varyOrigin)
	if !c.allows(origin) {
		return fields
	}
	fields = c.appendOrigin(fields, origin)
	if c.anyMethod {
		if v, ok := message.GetName(q.Fields, "access-control-request-method"); ok && isTokens(v, "") {
			f := allowMethods
			f.Value = v
			fields = append(fields, f)
		}
	} else if c.methods.Value != nil {
		fields = append(fields, c.methods)
	}
	if c.anyHeader {
		if v, ok := message.GetName(q.Fields, "access-control-request-headers"); ok && isTokens(v, ", \t") {
			f := allowHeaders
			f.Value = v
			fields = append(fields, f)
		}
	} else if c.headers.Value != nil {
		fields = append(fields, c.headers)
	}
	return append(c.appendExposed(fields), c.maxAge)
}

// Apply marks the response to a request of an origin; origin is nil without one.
// The fields may point to origin.
func (c *CORS) Apply(fields []message.Field, origin []byte) []message.Field {
	if c == nil {
		return fields
	}
	kept := fields[:0]
	for _, f := range fields {
		if !bytes.HasPrefix(f.Name, []byte("access-control-")) {
			kept = append(kept, f)
		}
	}
	fields = addVary(kept, varyOrigin, "origin")
	if !c.allows(origin) {
		return fields
	}
	return c.appendExposed(c.appendOrigin(fields, origin))
}

func (c *CORS) appendOrigin(fields []message.Field, origin []byte) []message.Field {
	f := allowOrigin
	f.Value = origin
	fields = append(fields, f)
	if c.credentials {
		fields = append(fields, allowCredentials)
	}
	return fields
}

// appendExposed says which fields scripts may read. "*" may not stand beside
// credentials, where it would be the name of a field; then the names that the
// response has are listed.
func (c *CORS) appendExposed(fields []message.Field) []message.Field {
	if c.expose.Value == nil {
		return fields
	}
	f := c.expose
	if c.anyExposed && c.credentials {
		f.Value = nil
		for i := range fields {
			if n := fields[i].Name; !bytes.HasPrefix(n, []byte("access-control-")) && string(n) != "set-cookie" {
				if len(f.Value) > 0 {
					f.Value = append(f.Value, ", "...)
				}
				f.Value = append(f.Value, n...)
			}
		}
	}
	return append(fields, f)
}

// addVary adds a name (lower) to vary, unless it is there.
func addVary(fields []message.Field, f message.Field, lower string) []message.Field {
	for i := range fields {
		if fields[i].ID != message.Vary {
			continue
		}
		for item, rest := nextItem(fields[i].Value); item != nil; item, rest = nextItem(rest) {
			if equalFold(item, lower) || string(item) == "*" {
				return fields
			}
		}
	}
	return append(fields, f)
}

// isTokens tells whether s is not empty and has only token characters and those of more.
func isTokens(s []byte, more string) bool {
	for _, b := range s {
		if !isToken(b) && strings.IndexByte(more, b) < 0 {
			return false
		}
	}
	return len(s) > 0
}
