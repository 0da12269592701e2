package harness

import (
	"strings"
	"unicode/utf8"
)

const hexadecimal = "0123456789abcdef"

// appendText writes a JSON string, as encoding/json does without its escapes for HTML.
func appendText(to []byte, text string) []byte {
	to = append(to, '"')
	plain := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			to = append(to, text[plain:i]...)
			switch c {
			case '"', '\\':
				to = append(to, '\\', c)
			case '\b':
				to = append(to, `\b`...)
			case '\f':
				to = append(to, `\f`...)
			case '\n':
				to = append(to, `\n`...)
			case '\r':
				to = append(to, `\r`...)
			case '\t':
				to = append(to, `\t`...)
			default:
				to = append(to, `\u00`...)
				to = append(to, hexadecimal[c>>4], hexadecimal[c&15])
			}
			i++
			plain = i
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 {
			to = append(to, text[plain:i]...)
			to = append(to, `\ufffd`...)
			plain = i + size
		} else if r == '\u2028' || r == '\u2029' {
			to = append(to, text[plain:i]...)
			to = append(to, `\u202`...)
			to = append(to, hexadecimal[r&15])
			plain = i + size
		}
		i += size
	}
	to = append(to, text[plain:]...)
	return append(to, '"')
}

// compact writes JSON without the space between its tokens; ok is false if it is no JSON (RFC 8259), or nests
// deeper than `depth`.
func compact(to []byte, json string, depth int) (written []byte, ok bool) {
	to, rest, ok := compactValue(to, skipSpace(strings.ToValidUTF8(json, "\ufffd")), depth)
	return to, ok && rest == ""
}

// compactValue writes the value at the beginning of `json`, and returns what follows it and its space. The
// other functions do the same for one kind of value.
func compactValue(to []byte, json string, depth int) (written []byte, rest string, ok bool) {
	if json == "" {
		return to, json, false
	}
	switch json[0] {
	case '{', '[':
		if depth <= 0 {
			return to, json, false
		}
		return compactMany(to, json, depth-1)
	case '"':
		return compactString(to, json)
	case 't', 'f', 'n':
		for _, word := range [...]string{"true", "false", "null"} {
			if strings.HasPrefix(json, word) {
				return append(to, word...), skipSpace(json[len(word):]), true
			}
		}
		return to, json, false
	}
	return compactNumber(to, json)
}

// compactMany is for objects and arrays.
func compactMany(to []byte, json string, depth int) (written []byte, rest string, ok bool) {
	object, end := json[0] == '{', byte(']')
	if object {
		end = '}'
	}
	to, json = append(to, json[0]), skipSpace(json[1:])
	if json != "" && json[0] == end {
		return append(to, end), skipSpace(json[1:]), true
	}
	for {
		if object {
			if to, json, ok = compactString(to, json); !ok || json == "" || json[0] != ':' {
				return to, json, false
			}
			to, json = append(to, ':'), skipSpace(json[1:])
		}
		if to, json, ok = compactValue(to, json, depth); !ok || json == "" {
			return to, json, false
		}
		switch json[0] {
		case end:
			return append(to, end), skipSpace(json[1:]), true
		case ',':
			to, json = append(to, ','), skipSpace(json[1:])
		default:
			return to, json, false
		}
	}
}

func compactString(to []byte, json string) (written []byte, rest string, ok bool) {
	if json == "" || json[0] != '"' {
		return to, json, false
	}
	for i := 1; i < len(json); i++ {
		switch c := json[i]; {
		case c == '"':
			return append(to, json[:i+1]...), skipSpace(json[i+1:]), true
		case c < ' ':
			return to, json, false
		case c == '\\':
			i++
			if i == len(json) || !strings.ContainsRune(`"\/bfnrtu`, rune(json[i])) {
				return to, json, false
			}
			if json[i] == 'u' {
				if i+4 >= len(json) || strings.Trim(json[i+1:i+5], "0123456789abcdefABCDEF") != "" {
					return to, json, false
				}
				i += 4
			}
		}
	}
	return to, json, false
}

func compactNumber(to []byte, json string) (written []byte, rest string, ok bool) {
	i := 0
	digits := func() bool {
		start := i
		for i < len(json) && '0' <= json[i] && json[i] <= '9' {
			i++
		}
		return i > start
	}
	is := func(characters string) bool {
		found := i < len(json) && strings.IndexByte(characters, json[i]) >= 0
		if found {
			i++
		}
		return found
	}
	is("-")
	ok = is("0") || digits()
	if ok && is(".") {
		ok = digits()
	}
	if ok && is("eE") {
		is("+-")
		ok = digits()
	}
	return append(to, json[:i]...), skipSpace(json[i:]), ok
}

func skipSpace(json string) string {
	return strings.TrimLeft(json, " \t\r\n")
}
