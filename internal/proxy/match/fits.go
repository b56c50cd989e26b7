package match

import "bytes"

// fits tells whether all but the path of an entry fits.
func (e *Entry) fits(t *Target) bool {
	if e.method != "" && e.method != string(t.Method) {
		return false
	}
	for i := range e.headers {
		if !e.headers[i].fitsHeader(t) {
			return false
		}
	}
	for i := range e.query {
		if !e.query[i].fitsQuery(t) {
			return false
		}
	}
	return true
}

func (c *condition) fitsHeader(t *Target) bool {
	v, ok := t.header(c.name)
	return ok && c.fitsValue(v)
}

func (c *condition) fitsQuery(t *Target) bool {
	v, ok := t.param(c.name)
	return ok && c.fitsValue(v)
}

func (c *condition) fitsValue(v []byte) bool {
	if c.re != nil {
		return c.re.Match(v)
	}
	return string(v) == c.value
}

// header returns the value of a header; several are joined with ",". It is valid
// until the next call of header or param.
func (t *Target) header(name string) ([]byte, bool) {
	if name == "host" {
		return t.Host, len(t.Host) > 0 // not among the fields
	}
	var first []byte
	n := 0
	for i := range t.Fields {
		f := &t.Fields[i]
		if string(f.Name) != name {
			continue
		}
		switch n++; n {
		case 1:
			first = f.Value
			continue
		case 2:
			t.value = append(t.value[:0], first...)
		}
		t.value = append(append(t.value, ','), f.Value...)
	}
	if n > 1 {
		return t.value, true
	}
	return first, n > 0
}

// param returns the first value of a query parameter, decoded.
func (t *Target) param(name string) ([]byte, bool) {
	for rest := t.Query; len(rest) > 0; {
		pair := rest
		if i := bytes.IndexByte(rest, '&'); i >= 0 {
			pair, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		key, value, _ := bytes.Cut(pair, []byte("="))
		if string(t.decoded(key)) == name && len(pair) > 0 {
			return t.decoded(value), true
		}
	}
	return nil, false
}

// decoded decodes "%XX" and "+" (WHATWG URL 5.1); a bad escape stands for itself.
func (t *Target) decoded(s []byte) []byte {
	if bytes.IndexByte(s, '%') < 0 && bytes.IndexByte(s, '+') < 0 {
		return s
	}
	t.value = t.value[:0]
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			c = ' '
		} else if c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		t.value = append(t.value, c)
	}
	return t.value
}
