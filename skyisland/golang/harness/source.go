package harness

import (
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxNesting is how deep arrays and objects may nest. encoding/json stops at ten times as many; the island's own
// reader of requests stops earlier.
const maxNesting = 1000

// A fault is why JSON cannot become a value, and where in the JSON: "" for the whole, ".lat", "[3].name".
type fault struct{ path, reason string }

// under returns the fault as one of the value that holds this one.
func (f *fault) under(step string) *fault {
	if f != nil {
		f.path = step + f.path
	}
	return f
}

// A source is JSON (RFC 8259) that is read once, from left to right. It is a stranger's text.
type source struct {
	text  string
	at    int
	depth int
	// fields remembers fieldsOf, for arrays and many inputs.
	fields map[reflect.Type][]field
}

func (s *source) malformed(wanted string) *fault {
	return &fault{reason: "is not JSON: " + wanted + " is missing at byte " + strconv.Itoa(s.at)}
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *source) peek() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// accept reads this byte if it is the next.
func (s *source) accept(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

// end reports whether nothing is left but white space.
func (s *source) end() bool {
	return s.peek() == 0 && s.at == len(s.text)
}

// array reads an array, and calls element at the beginning of each value in it.
func (s *source) array(element func(i int) *fault) *fault {
	return s.within('[', ']', func(i int) *fault {
		return element(i).under("[" + strconv.Itoa(i) + "]")
	})
}

// object reads an object, and calls member at the beginning of each value in it. What is wrong in a member lies
// under its name.
func (s *source) object(member func(name string) *fault) *fault {
	return s.within('{', '}', func(int) *fault {
		name, wrong := s.quoted()
		if wrong != nil {
			return wrong
		}
		if !s.accept(':') {
			return s.malformed("a colon")
		}
		return member(name).under("." + shown(name))
	})
}

func (s *source) within(opening, closing byte, item func(i int) *fault) *fault {
	if !s.accept(opening) {
		return s.malformed(string(rune(opening)))
	}
	if s.depth++; s.depth > maxNesting {
		return &fault{reason: "nests deeper than " + strconv.Itoa(maxNesting)}
	}
	for i := 0; ; i++ {
		if i == 0 && s.accept(closing) {
			break
		}
		if wrong := item(i); wrong != nil {
			return wrong
		}
		if s.accept(closing) {
			break
		}
		if !s.accept(',') {
			return s.malformed("a comma or " + string(rune(closing)))
		}
	}
	s.depth--
	return nil
}

// raw reads any value, and returns its text.
func (s *source) raw() (string, *fault) {
	first := s.peek()
	start := s.at
	var wrong *fault
	switch first {
	case '[':
		wrong = s.array(func(int) *fault { return s.skip() })
	case '{':
		wrong = s.object(func(string) *fault { return s.skip() })
	case '"':
		_, wrong = s.quoted()
	default:
		_, wrong = s.word()
	}
	return s.text[start:s.at], wrong
}

func (s *source) skip() *fault {
	_, wrong := s.raw()
	return wrong
}

// word reads null, true, false or a number.
func (s *source) word() (string, *fault) {
	s.peek()
	start := s.at
	for s.at < len(s.text) && isWord(s.text[s.at]) {
		s.at++
	}
	word := s.text[start:s.at]
	if word == "null" || word == "true" || word == "false" || isNumber(word) {
		return word, nil
	}
	s.at = start
	return "", s.malformed("a value")
}

func isInt(kind reflect.Kind) bool   { return reflect.Int <= kind && kind <= reflect.Int64 }
func isUint(kind reflect.Kind) bool  { return reflect.Uint <= kind && kind <= reflect.Uintptr }
func isFloat(kind reflect.Kind) bool { return kind == reflect.Float32 || kind == reflect.Float64 }

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'E'
}

// isNumber reports whether a text is a number of JSON.
func isNumber(text string) bool {
	_, rest, ok := compactNumber(nil, text)
	return ok && rest == "" && strings.TrimSpace(text) == text
}

// quoted reads a text. As encoding/json does, it takes U+FFFD for what is not UTF-8 or half of a surrogate pair.
func (s *source) quoted() (string, *fault) {
	if !s.accept('"') {
		return "", s.malformed("a text in quotes")
	}
	rest := s.text[s.at:]
	for i := 0; i < len(rest); i++ {
		if c := rest[i]; c == '"' {
			s.at += i + 1
			return rest[:i], nil
		} else if c == '\\' || c < ' ' || c >= utf8.RuneSelf {
			return s.unquote(i)
		}
	}
	s.at = len(s.text)
	return "", s.malformed("a closing quote")
}

// unquote reads the rest of a text whose first `plain` bytes stand for themselves.
func (s *source) unquote(plain int) (string, *fault) {
	made := append(make([]byte, 0, plain+64), s.text[s.at:s.at+plain]...)
	s.at += plain
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return string(made), nil
		case c < ' ':
			return "", s.malformed("an escape for a control character")
		case c == '\\':
			r, ok := s.escape()
			if !ok {
				return "", s.malformed("a known escape")
			}
			made = utf8.AppendRune(made, r)
		default:
			r, size := utf8.DecodeRuneInString(s.text[s.at:])
			made = utf8.AppendRune(made, r)
			s.at += size
		}
	}
	return "", s.malformed("a closing quote")
}

var escapes = map[byte]rune{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

func (s *source) escape() (rune, bool) {
	if s.at+1 >= len(s.text) {
		return 0, false
	}
	if r, ok := escapes[s.text[s.at+1]]; ok {
		s.at += 2
		return r, true
	}
	r, ok := s.unit()
	if !ok {
		return 0, false
	}
	s.at += 6
	if !utf16.IsSurrogate(r) {
		return r, true
	}
	low, ok := s.unit()
	if pair := utf16.DecodeRune(r, low); ok && pair != utf8.RuneError {
		s.at += 6
		return pair, true
	}
	return utf8.RuneError, true
}

// unit returns the code unit of UTF-16 that is written here as \u and four hex digits.
func (s *source) unit() (rune, bool) {
	if s.at+6 > len(s.text) || s.text[s.at] != '\\' || s.text[s.at+1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(s.text[s.at+2:s.at+6], 16, 16)
	return rune(unit), err == nil
}

// shown is a stranger's text, fit for a message: as Go quotes it if it is no plain name, and not long.
func shown(text string) string {
	if len(text) > 40 {
		text = text[:40] + "…"
	}
	for _, c := range text {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return strconv.Quote(text)
		}
	}
	return text
}
