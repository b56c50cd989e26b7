package message

import "testing"

func TestValidAuthority(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "a:80": true, "a.b-c_d:65535": true, "[::1]": true, "[::1]:443": true, "127.0.0.1:1": true,
		"": false, ":": false, ":80": false, "a:": false, "a:65536": false, "a:123456": false, "a:8x": false, "a:80:81": false, "u@a": false,
		"a/b": false, "a b": false, "a?": false, "[": false, "[]": false, "[::1": false, "[::1]x": false, "[::1]:": false, "[[::1]": false,
		"a]": false, "a\x00": false, "a\r\n": false, "\xc3\xa9": false,
	} {
		if got := ValidAuthority([]byte(s)); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}

func TestValidPath(t *testing.T) {
	for s, want := range map[string]bool{
		"/": true, "/a?b=c": true, "//": true, "/\xc3": true,
		"": false, "a": false, "*": false, "/a b": false, "/a#b": false, "/\r\n": false, "/\x00": false, "/\x7f": false, "http://a/": false,
	} {
		if got := ValidPath([]byte(s)); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
